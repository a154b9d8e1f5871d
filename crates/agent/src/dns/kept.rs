//! The prepared answers that are kept: under the state that they were made of, or under the time when a server gave them.
//!
//! Invariants
//! - An answer is given only while the state that it was made of is the newest, under the configuration and the token that it was
//!   made under: see [`crate::Datacenter::standing`].
//! - At most [`BYTES_MAX`] are kept, twice over, and of answers that there is nothing [`NOTHING_BYTES_MAX`]: a flood of names that
//!   are not there drives out no name that is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lictor_types::{CheckServiceNode, Credential, RowsMark};
use parking_lot::RwLock;

use super::prepared::Prepared;
use crate::config::Config;

/// Bytes of answers after which the older ones are given up.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same of answers that there is nothing.
const NOTHING_BYTES_MAX: usize = 512 * 1024;
/// What an answer takes beside its own bytes and its question, about.
const PLACE_BYTES: usize = 128;

/// What an answer was made under.
#[derive(Clone)]
pub(super) struct Terms {
    /// The configuration in force.
    pub(super) config: Arc<Config>,
    /// What was asked with.
    pub(super) token: Credential,
    /// The state.
    pub(super) version: u64,
}

impl Terms {
    fn are_of(&self, kept: &Kept) -> bool {
        kept.config.as_ref().is_some_and(|config| Arc::ptr_eq(config, &self.config)) && kept.token == self.token
    }
}

/// An answer, and what it was made of.
pub(super) struct KeptAnswer {
    pub(super) prepared: Prepared,
    /// The rows that it was made of, if it was made of rows.
    pub(super) rows: Option<RowsMark<CheckServiceNode>>,
    /// The state that it is known to be right for.
    version: AtomicU64,
}

impl KeptAnswer {
    pub(super) fn new(prepared: Prepared, rows: Option<RowsMark<CheckServiceNode>>, version: u64) -> Self {
        Self { prepared, rows, version: version.into() }
    }

    /// The state, or the time, that it was kept under.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

/// The answers that are kept.
#[derive(Default)]
pub(super) struct KeptAnswers {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    config: Option<Arc<Config>>,
    token: Credential,
    something: Generations,
    nothing: Generations,
}

impl KeptAnswers {
    /// What `with` makes of the answer to `key` if there is one that is right under `terms`.
    pub(super) fn get<T>(&self, key: &[u8], terms: &Terms, with: impl FnOnce(&Prepared) -> T) -> Option<T> {
        let kept = self.kept.read();
        if !terms.are_of(&kept) {
            return None;
        }
        let answer = kept.something.get(key).or_else(|| kept.nothing.get(key))?;
        (answer.version() == terms.version).then(|| with(&answer.prepared))
    }

    /// The answer to `key` that was right for another state, to be looked at again.
    pub(super) fn older(&self, key: &[u8], terms: &Terms) -> Option<Arc<KeptAnswer>> {
        let kept = self.kept.read();
        terms.are_of(&kept).then(|| kept.something.get(key).cloned())?
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let kept = self.kept.read();
        let all = [&kept.something.young, &kept.something.old, &kept.nothing.young, &kept.nothing.old];
        let size = |generation: &HashMap<Box<[u8]>, Arc<KeptAnswer>>| -> usize {
            generation.iter().map(|(key, answer)| PLACE_BYTES + key.len() + answer.prepared.size()).sum()
        };
        all.into_iter().map(size).sum()
    }

    /// Keeps the answer to `key`, made under `terms`.
    pub(super) fn keep(&self, key: &[u8], terms: &Terms, answer: Arc<KeptAnswer>) {
        let mut kept = self.kept.write();
        if !terms.are_of(&kept) {
            *kept = Kept { config: Some(terms.config.clone()), token: terms.token.clone(), ..Kept::default() };
        }
        answer.version.store(terms.version, Ordering::Release);
        if answer.prepared.is_empty() {
            kept.something.remove(key);
            kept.nothing.insert(key, answer, NOTHING_BYTES_MAX);
        } else {
            kept.nothing.remove(key);
            kept.something.insert(key, answer, BYTES_MAX);
        }
    }
}

/// What was kept lately, and before that. What is used is made again when the state changes and so is always young; the old is
/// given up whole, without a list of uses that every reader would have to write into.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<[u8]>, Arc<KeptAnswer>>,
    old: HashMap<Box<[u8]>, Arc<KeptAnswer>>,
    young_bytes: usize,
}

impl Generations {
    fn get(&self, key: &[u8]) -> Option<&Arc<KeptAnswer>> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn insert(&mut self, key: &[u8], answer: Arc<KeptAnswer>, bytes_max: usize) {
        let size = |answer: &KeptAnswer| PLACE_BYTES + key.len() + answer.prepared.size();
        let bytes = size(&answer);
        if bytes > bytes_max {
            return;
        }
        if self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.old.remove(key);
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(key.into(), answer) {
            self.young_bytes -= size(&before);
        }
    }

    fn remove(&mut self, key: &[u8]) {
        self.old.remove(key);
        if let Some(before) = self.young.remove(key) {
            self.young_bytes -= PLACE_BYTES + key.len() + before.prepared.size();
        }
    }
}
