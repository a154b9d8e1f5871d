//! Key/value entries.
//!
//! Invariants
//! - Storing what is there already changes nothing: no new index, nobody wakes.
//! - A delete leaves a tombstone, so the index that a blocked reader waits on never goes backwards. Tombstones go after
//!   a while, oldest first; from then on every index under a prefix is at least that of the last one that went.
//! - `lock_index` counts how often the lock was taken, and only grows for as long as the key is there: no store, release
//!   or end of a session sets it back.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};
use lictor_types::command::Effect;
use lictor_types::command::{KvCommand, KvVerb};
use lictor_types::{Index, KvEntry, Refusal, Timestamp};
use minicbor::{Decode, Encode};

use super::lock_delays::LockDelays;
use super::sessions::Sessions;
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
    /// Session and key, of every lock that is held.
    held: OrdSet<(Key, Key)>,
    tombstones: OrdMap<Key, Tombstone>,
    tombstones_by_index: OrdSet<(Index, Key)>,
    /// The index of the last tombstone that was reaped.
    reaped: Index,
}

/// What is to be stored.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) flags: u64,
}

/// What came of an attempt to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locking {
    /// It is held now.
    Taken,
    /// Another session holds it.
    HeldByOther,
    /// Its last holder ended a moment ago.
    Delayed,
}

/// Who may take locks.
#[derive(Clone, Copy)]
pub(crate) struct Holders<'a> {
    pub(crate) sessions: &'a Sessions,
    pub(crate) delays: &'a LockDelays,
}

/// Who holds an entry once it is stored.
enum Holder<'a> {
    /// Whoever holds it now.
    AsBefore,
    Session(&'a str),
    Nobody,
}

impl Kv {
    pub(crate) fn apply(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        holders: Holders<'_>,
        command: &KvCommand,
    ) -> Result<Effect, Refusal> {
        let key = command.key.as_str();
        if key.is_empty() && command.verb != KvVerb::DeleteTree {
            return Err(Refusal::bad_request("Missing key name"));
        }
        let content = Content { key, value: &command.value, flags: command.flags };
        let applied = match &command.verb {
            KvVerb::Set => {
                self.set(commit, indexes, content);
                true
            }
            KvVerb::Cas(expected) => self.set_if(commit, indexes, content, *expected),
            KvVerb::Lock(session) => self.lock(commit, indexes, holders, content, session)? == Locking::Taken,
            KvVerb::Unlock(session) => self.unlock(commit, indexes, content, session)?,
            KvVerb::Delete => {
                self.remove(commit, indexes, key);
                true
            }
            KvVerb::DeleteCas(expected) => self.remove_if(commit, indexes, key, *expected),
            KvVerb::DeleteTree => {
                self.remove_under(commit, indexes, key);
                true
            }
        };
        Ok(if applied { Effect::Applied } else { Effect::NotApplied })
    }

    pub(crate) fn set(&mut self, commit: &mut Commit, indexes: &mut Indexes, content: Content<'_>) {
        // A plain store keeps the lock: its index is the fencing token of whoever holds it.
        self.store(commit, indexes, content, &Holder::AsBefore);
    }

    /// Stores if the entry is at this index, 0 for none; whether it did.
    pub(crate) fn set_if(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        content: Content<'_>,
        expected: Index,
    ) -> bool {
        let fits = self.rows.get(content.key).map(|entry| entry.modify_index).unwrap_or_default() == expected;
        if fits {
            self.set(commit, indexes, content);
        }
        fits
    }

    /// Takes the lock for a session and stores; to take it again is to store under it.
    pub(crate) fn lock(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        holders: Holders<'_>,
        content: Content<'_>,
        session: &str,
    ) -> Result<Locking, Refusal> {
        if session.is_empty() {
            return Err(missing_session());
        }
        if holders.delays.is_shut(content.key, commit.now) {
            return Ok(Locking::Delayed);
        }
        if holders.sessions.get(session).is_none() {
            return Err(Refusal::failed(format!("invalid session {session:?}")));
        }
        let holder = self.rows.get(content.key).and_then(|entry| entry.session.as_deref());
        if holder.is_some_and(|holder| holder != session) {
            return Ok(Locking::HeldByOther);
        }
        self.store(commit, indexes, content, &Holder::Session(session));
        Ok(Locking::Taken)
    }

    /// Gives the lock of a session back and stores; whether it held it.
    pub(crate) fn unlock(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        content: Content<'_>,
        session: &str,
    ) -> Result<bool, Refusal> {
        if session.is_empty() {
            return Err(missing_session());
        }
        let holds = self.rows.get(content.key).is_some_and(|entry| entry.session.as_deref() == Some(session));
        if holds {
            self.store(commit, indexes, content, &Holder::Nobody);
        }
        Ok(holds)
    }

    fn store(&mut self, commit: &mut Commit, indexes: &mut Indexes, content: Content<'_>, holder: &Holder<'_>) {
        let old = self.rows.get(content.key);
        let held_before = old.and_then(|old| old.session.clone());
        let session = match holder {
            Holder::AsBefore => held_before.clone(),
            Holder::Session(session) => Some((*session).to_owned()),
            Holder::Nobody => None,
        };
        let is_taken = session.is_some() && session != held_before;
        if old.is_some_and(|old| old.value == content.value && old.flags == content.flags) && session == held_before {
            return;
        }
        let entry = KvEntry {
            lock_index: old.map_or(0, |old| old.lock_index) + u64::from(is_taken),
            key: content.key.to_owned(),
            flags: content.flags,
            value: content.value.to_vec(),
            session,
            create_index: old.map_or(commit.at, |old| old.create_index),
            modify_index: commit.at,
        };
        self.put(entry);
        indexes.changed(commit, Table::Kv, Key::from(content.key));
    }

    /// Puts a row in its place, and knows who holds it.
    fn put(&mut self, entry: KvEntry) {
        let key = Key::from(&*entry.key);
        self.bury(&key, None);
        let session = entry.session.as_deref().map(Key::from);
        let old = self.rows.insert(key.clone(), Arc::new(entry));
        if let Some(before) = old.as_ref().and_then(|old| old.session.as_deref())
            && session.as_deref() != Some(before)
        {
            self.held.remove(&(Key::from(before), key.clone()));
        }
        if let Some(session) = session {
            self.held.insert((session, key));
        }
    }

    /// The keys that a session holds, in order.
    pub(crate) fn held_by(&self, session: &str) -> Vec<Key> {
        let session = Key::from(session);
        let start = (session.clone(), Key::from(""));
        self.held.range(start..).take_while(|(of, _)| *of == session).map(|(_, key)| key.clone()).collect()
    }

    /// Takes the lock of a key from its holder, whose session has ended.
    pub(crate) fn let_go(&mut self, commit: &mut Commit, indexes: &mut Indexes, key: &Key) {
        if let Some(entry) = self.rows.get(key) {
            let entry = KvEntry { session: None, modify_index: commit.at, ..(**entry).clone() };
            self.put(entry);
            indexes.changed(commit, Table::Kv, key.clone());
        }
    }

    pub(crate) fn remove(&mut self, commit: &mut Commit, indexes: &mut Indexes, key: &str) {
        if let Some(entry) = self.rows.remove(key) {
            let key = Key::from(key);
            if let Some(session) = &entry.session {
                self.held.remove(&(Key::from(&**session), key.clone()));
            }
            self.bury(&key, Some(Tombstone { index: commit.at, time: commit.now }));
            indexes.changed(commit, Table::Kv, key);
        }
    }

    /// Removes an entry at this index; whether there is none now.
    pub(crate) fn remove_if(&mut self, commit: &mut Commit, indexes: &mut Indexes, key: &str, expected: Index) -> bool {
        let fits = self.rows.get(key).is_none_or(|entry| entry.modify_index == expected);
        if fits {
            self.remove(commit, indexes, key);
        }
        fits
    }

    /// Removes everything that starts with `prefix`.
    pub(crate) fn remove_under(&mut self, commit: &mut Commit, indexes: &mut Indexes, prefix: &str) {
        let keys: Vec<Key> = under(&self.rows, prefix).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(commit, indexes, &key);
        }
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
        self.put(entry);
    }

    pub(crate) fn restore_tombstone(&mut self, key: &str, tombstone: Tombstone) {
        self.bury(&Key::from(key), Some(tombstone));
    }

    pub(crate) fn restore_reaped(&mut self, reaped: Index) {
        self.reaped = reaped;
    }
}

fn missing_session() -> Refusal {
    Refusal::failed("missing session")
}
