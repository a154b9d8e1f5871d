//! What is known of a member and changes rarely, kept once however many look at it.
//!
//! Invariants
//! - A record is immutable: a member with new tags has a new record.
//! - In one pool two equal records are one allocation, as long as somebody holds it: ten thousand simulated members in one
//!   process that know each other hold ten thousand records, not a hundred million.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::wire::Versions;
use crate::wire::swim::{Alive, encode_fixed};
use crate::wire::tags::{self, Tags};

/// Who a member is, where, with which tags, and what it speaks.
pub struct Record {
    /// The name, then the meta data, then the fixed part of a push/pull's state.
    bytes: Box<[u8]>,
    name_ends: u16,
    meta_ends: u16,
    versions: Versions,
    address: SocketAddr,
    name_hash: u64,
    whole_hash: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.name(), self.address)
    }
}

impl Record {
    /// The member's name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.name_ends)]).unwrap_or_default()
    }

    /// Its tags, encoded.
    pub fn meta(&self) -> &[u8] {
        &self.bytes[usize::from(self.name_ends)..usize::from(self.meta_ends)]
    }

    /// Its tags.
    pub fn tags(&self) -> Tags {
        tags::decode(self.meta())
    }

    /// Where it is reached, by packets and streams.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it speaks.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    pub(crate) fn name_hash(&self) -> u64 {
        self.name_hash
    }

    /// The part of a push/pull's state that only changes with the record.
    pub(crate) fn fixed(&self) -> &[u8] {
        &self.bytes[usize::from(self.meta_ends)..]
    }

    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.bytes[..usize::from(self.name_ends)] == *name.as_bytes()
    }

    /// Whether this is what `alive` tells.
    pub(crate) fn tells(&self, alive: &Alive<'_>) -> bool {
        self.address == alive.address
            && self.versions == alive.versions
            && self.is_named(alive.node)
            && self.meta() == alive.meta
    }
}

/// Keeps equal records once. Cloning shares it.
#[derive(Clone, Default)]
pub struct RecordPool {
    hasher: RandomState,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    records: HashTable<(u64, Weak<Record>)>,
    /// When so many are held, those that nobody holds any longer are dropped.
    sweep_at: usize,
}

/// The fewest records at which a pool looks for dropped ones.
const SMALLEST_SWEEP: usize = 256;

impl fmt::Debug for RecordPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecordPool").finish_non_exhaustive()
    }
}

impl RecordPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn hash_name(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The record that tells what `alive` tells.
    pub(crate) fn record(&self, alive: &Alive<'_>) -> Arc<Record> {
        let versions = alive.versions.bytes();
        let whole_hash = self.hasher.hash_one((alive.node, alive.address, alive.meta, versions));
        let mut known = self.known.lock();
        let found = known.records.find(whole_hash, |(hash, record)| {
            *hash == whole_hash && record.upgrade().is_some_and(|it| it.tells(alive))
        });
        if let Some(record) = found.and_then(|(_, record)| record.upgrade()) {
            return record;
        }
        let mut bytes = Vec::with_capacity(2 * (alive.node.len() + alive.meta.len()) + 64);
        bytes.extend_from_slice(alive.node.as_bytes());
        bytes.extend_from_slice(alive.meta);
        encode_fixed(alive, &mut bytes);
        let record = Arc::new(Record {
            bytes: bytes.into_boxed_slice(),
            name_ends: alive.node.len() as u16,
            meta_ends: (alive.node.len() + alive.meta.len()) as u16,
            versions: alive.versions,
            address: alive.address,
            name_hash: self.hash_name(alive.node),
            whole_hash,
        });
        if known.records.len() >= known.sweep_at.max(SMALLEST_SWEEP) {
            known.records.retain(|(_, record)| record.strong_count() > 0);
            known.sweep_at = 2 * known.records.len();
        }
        let entry = (record.whole_hash, Arc::downgrade(&record));
        known.records.insert_unique(whole_hash, entry, |(hash, _)| *hash);
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_are_one_and_others_are_not() {
        let pool = RecordPool::new();
        let address = "10.0.0.1:8301".parse().unwrap();
        let alive = Alive { incarnation: 1, node: "a", address, meta: b"web", versions: Versions::default() };
        let first = pool.record(&alive);
        assert!(Arc::ptr_eq(&first, &pool.record(&Alive { incarnation: 9, ..alive.clone() })));
        assert!(!Arc::ptr_eq(&first, &pool.record(&Alive { meta: b"db", ..alive.clone() })));
        assert_eq!((first.name(), first.meta(), first.address()), ("a", &b"web"[..], address));
        assert!(first.tells(&alive));
    }

    #[test]
    fn records_that_nobody_holds_do_not_pile_up() {
        let pool = RecordPool::new();
        let address = "10.0.0.1:8301".parse().unwrap();
        for number in 0..10_000 {
            let node = format!("node-{number}");
            let versions = Versions::default();
            pool.record(&Alive { incarnation: 1, node: &node, address, meta: b"", versions });
        }
        assert!(pool.known.lock().records.len() <= 2 * SMALLEST_SWEEP);
    }
}
