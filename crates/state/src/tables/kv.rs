//! Key/value entries.
//!
//! Invariants
//! - Storing what is there already changes nothing: no new index, nobody wakes.
//! - A delete leaves a tombstone, so the index that a blocked reader waits on never goes backwards. Tombstones go after
//!   a while, oldest first; from then on every index under a prefix is at least that of the last one that went.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};
use lictor_types::command::Effect;
use lictor_types::command::{KvCommand, KvVerb};
use lictor_types::{Index, KvEntry, Refusal, Timestamp};
use minicbor::{Decode, Encode};

use super::{Key, under};
use crate::changes::{Commit, Table};
use crate::indexes::Indexes;

/// How long a tombstone stays: longer than the longest blocking query.
pub(crate) const TOMBSTONE_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Tombstones kept at most; the oldest go first.
pub(crate) const TOMBSTONES_MAX: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Tombstone {
    #[n(0)]
    pub(crate) index: Index,
    #[n(1)]
    pub(crate) time: Timestamp,
}

#[derive(Clone, Default)]
pub(crate) struct Kv {
    rows: OrdMap<Key, Arc<KvEntry>>,
    tombstones: OrdMap<Key, Tombstone>,
    tombstones_by_index: OrdSet<(Index, Key)>,
    /// The index of the last tombstone that was reaped.
    reaped: Index,
}

impl Kv {
    pub(crate) fn apply(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &KvCommand,
    ) -> Result<Effect, Refusal> {
        let key = command.key.as_str();
        if key.is_empty() && command.verb != KvVerb::DeleteTree {
            return Err(Refusal::bad_request("Missing key name"));
        }
        let found = self.rows.get(key).map(|entry| entry.modify_index);
        let effect = match command.verb {
            KvVerb::Set => self.set(commit, indexes, command),
            KvVerb::Cas(expected) if found.unwrap_or_default() == expected => self.set(commit, indexes, command),
            KvVerb::Delete => self.delete(commit, indexes, key),
            KvVerb::DeleteCas(expected) if found.is_none_or(|index| index == expected) => {
                self.delete(commit, indexes, key)
            }
            KvVerb::DeleteTree => {
                let keys: Vec<Key> = under(&self.rows, key).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.delete(commit, indexes, &key);
                }
                Effect::Applied
            }
            KvVerb::Cas(_) | KvVerb::DeleteCas(_) => Effect::NotApplied,
        };
        Ok(effect)
    }

    fn set(&mut self, commit: &mut Commit, indexes: &mut Indexes, command: &KvCommand) -> Effect {
        let old = self.rows.get(&*command.key);
        if old.is_some_and(|old| old.value == command.value && old.flags == command.flags) {
            return Effect::Applied;
        }
        let entry = KvEntry {
            // A plain store keeps the lock: its index is the fencing token of whoever holds it.
            lock_index: old.map_or(0, |old| old.lock_index),
            key: command.key.clone(),
            flags: command.flags,
            value: command.value.clone(),
            session: old.and_then(|old| old.session.clone()),
            create_index: old.map_or(commit.at, |old| old.create_index),
            modify_index: commit.at,
        };
        let key = Key::from(&*command.key);
        self.bury(&key, None);
        self.rows.insert(key.clone(), Arc::new(entry));
        indexes.changed(commit, Table::Kv, key);
        Effect::Applied
    }

    fn delete(&mut self, commit: &mut Commit, indexes: &mut Indexes, key: &str) -> Effect {
        if self.rows.remove(key).is_some() {
            let key = Key::from(key);
            self.bury(&key, Some(Tombstone { index: commit.at, time: commit.now }));
            indexes.changed(commit, Table::Kv, key);
        }
        Effect::Applied
    }

    /// Sets or lifts the tombstone of a key.
    fn bury(&mut self, key: &Key, tombstone: Option<Tombstone>) {
        if let Some(old) = self.tombstones.remove(key) {
            self.tombstones_by_index.remove(&(old.index, key.clone()));
        }
        if let Some(tombstone) = tombstone {
            self.tombstones.insert(key.clone(), tombstone);
            self.tombstones_by_index.insert((tombstone.index, key.clone()));
        }
    }

    /// Removes the tombstones that nobody can be waiting on any more.
    pub(crate) fn reap(&mut self, now: Timestamp) {
        while let Some((index, key)) = self.tombstones_by_index.get_min().cloned() {
            let is_old = self.tombstones.get(&key).is_none_or(|it| now.since(it.time) > TOMBSTONE_AGE_MAX);
            if !is_old && self.tombstones.len() <= TOMBSTONES_MAX {
                break;
            }
            self.bury(&key, None);
            self.reaped = self.reaped.max(index);
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<KvEntry>> {
        self.rows.get(key)
    }

    /// The entries whose key starts with `prefix`, in order.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<KvEntry>> {
        under(&self.rows, prefix).map(|(_, entry)| entry)
    }

    /// The last change under a prefix, deletions included; that of the table when there never was any.
    pub(crate) fn index_under(&self, prefix: &str, indexes: &Indexes) -> Index {
        if prefix.is_empty() {
            return indexes.of_table(Table::Kv);
        }
        let entries = self.under(prefix).map(|entry| entry.modify_index).max();
        let tombstones = under(&self.tombstones, prefix).map(|(_, tombstone)| tombstone.index).max();
        match entries.max(tombstones) {
            Some(index) => index.max(self.reaped),
            None => indexes.of_table(Table::Kv),
        }
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &KvEntry> {
        self.rows.values().map(|entry| &**entry)
    }

    pub(crate) fn tombstones(&self) -> impl ExactSizeIterator<Item = (&Key, &Tombstone)> {
        self.tombstones.iter()
    }

    pub(crate) fn reaped(&self) -> Index {
        self.reaped
    }

    pub(crate) fn restore_entry(&mut self, entry: KvEntry) {
        self.rows.insert(Key::from(&*entry.key), Arc::new(entry));
    }

    pub(crate) fn restore_tombstone(&mut self, key: &str, tombstone: Tombstone) {
        self.bury(&Key::from(key), Some(tombstone));
    }

    pub(crate) fn restore_reaped(&mut self, reaped: Index) {
        self.reaped = reaped;
    }
}
