//! The log as its readers see it: where each entry is, and the recent ones in memory.
//!
//! Invariants
//! - Indexes are without a hole.
//! - An entry that is not yet written is in memory.

use std::collections::VecDeque;

use bytes::Bytes;

/// Where an entry is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub segment: u64,
    pub offset: u64,
    pub size: u32,
}

struct Slot {
    /// Tells this entry from another one that had the same index before a truncation.
    serial: u64,
    location: Option<Location>,
    cached: Option<Bytes>,
}

/// An entry as far as the table knows it.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// In memory.
    Cached(Bytes),
    /// On disk.
    At(Location),
}

/// See the module.
pub(super) struct Table {
    first: u64,
    slots: VecDeque<Slot>,
    purged: Option<u64>,
    next_serial: u64,
    cached_bytes: usize,
    cache_limit: usize,
    /// The lowest index that may be in memory.
    evict_next: u64,
}

impl Table {
    pub(super) fn new(cache_limit: usize) -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            purged: None,
            next_serial: 0,
            cached_bytes: 0,
            cache_limit,
            evict_next: 0,
        }
    }

    /// The index after the last entry; `None` in a log that never held one.
    pub(super) fn next(&self) -> Option<u64> {
        if self.slots.is_empty() { self.purged.map(|purged| purged + 1) } else { Some(self.end()) }
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The index of the last entry that is held.
    pub(super) fn last(&self) -> Option<u64> {
        (!self.slots.is_empty()).then(|| self.end() - 1)
    }

    /// The index of the first entry that is held.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// Whether an entry of this index would leave no hole.
    pub(super) fn accepts(&self, index: u64) -> bool {
        self.next().is_none_or(|next| next == index)
    }

    /// Adds an entry and returns its serial.
    pub(super) fn push(&mut self, index: u64, body: Bytes, location: Option<Location>) -> u64 {
        if self.slots.is_empty() {
            self.first = index;
            self.evict_next = index;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.cached_bytes += body.len();
        self.slots.push_back(Slot { serial, location, cached: Some(body) });
        self.evict();
        serial
    }

    /// Notes where an entry was written, unless it was truncated meanwhile.
    pub(super) fn written(&mut self, index: u64, serial: u64, location: Location) {
        if let Some(slot) = self.slot(index)
            && self.slots[slot].serial == serial
        {
            self.slots[slot].location = Some(location);
        }
    }

    /// Drops from memory what is on disk and beyond the limit, oldest first.
    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit {
            let Some(at) = self.slot(self.evict_next) else { return };
            let slot = &mut self.slots[at];
            if slot.location.is_none() {
                return;
            }
            if let Some(body) = slot.cached.take() {
                self.cached_bytes -= body.len();
            }
            self.evict_next += 1;
        }
    }

    fn slot(&self, index: u64) -> Option<usize> {
        let at = index.checked_sub(self.first)? as usize;
        (at < self.slots.len()).then_some(at)
    }

    /// Removes the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        while self.slots.back().is_some() && self.end() > from {
            if let Some(body) = self.slots.pop_back().and_then(|slot| slot.cached) {
                self.cached_bytes -= body.len();
            }
        }
        self.evict_next = self.evict_next.min(self.end());
    }

    /// Removes the entries up to and with `through`.
    pub(super) fn purge(&mut self, through: u64) {
        while !self.slots.is_empty() && self.first <= through {
            if let Some(body) = self.slots.pop_front().and_then(|slot| slot.cached) {
                self.cached_bytes -= body.len();
            }
            self.first += 1;
        }
        self.evict_next = self.evict_next.max(self.first);
        self.purged = self.purged.max(Some(through));
    }

    /// The entries of `range` that are held, in order, up to about `byte_limit` bytes but at least one.
    pub(super) fn read(&self, from: u64, to: u64, byte_limit: usize) -> Vec<(u64, Found)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        if self.slots.is_empty() {
            return found;
        }
        for index in from.max(self.first)..to.min(self.end()) {
            let slot = &self.slots[(index - self.first) as usize];
            let (entry, size) = match (&slot.cached, slot.location) {
                (Some(body), _) => (Found::Cached(body.clone()), body.len()),
                (None, Some(location)) => (Found::At(location), location.size as usize),
                // Cannot be: an entry leaves memory only when it is on disk.
                (None, None) => break,
            };
            if !found.is_empty() && bytes + size > byte_limit {
                break;
            }
            bytes += size;
            found.push((index, entry));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Location = Location { segment: 1, offset: 4096, size: 10 };

    fn table(limit: usize, entries: std::ops::Range<u64>) -> Table {
        let mut table = Table::new(limit);
        for index in entries {
            assert!(table.accepts(index));
            table.push(index, Bytes::from(vec![0; 10]), None);
        }
        table
    }

    fn cached(table: &Table, index: u64) -> bool {
        matches!(table.read(index, index + 1, usize::MAX)[0].1, Found::Cached(_))
    }

    #[test]
    fn only_what_is_on_disk_leaves_memory() {
        let mut table = table(20, 1..5);
        assert!((1..5).all(|index| cached(&table, index)));
        table.written(1, 0, PLACE);
        table.evict();
        assert!(!cached(&table, 1));
        assert!(cached(&table, 2), "it was not written");
        table.written(2, 1, PLACE);
        table.evict();
        assert!(!cached(&table, 2));
    }

    #[test]
    fn a_location_of_a_truncated_entry_is_not_given_to_its_successor() {
        let mut table = table(0, 1..3);
        table.truncate(2);
        table.push(2, Bytes::from_static(b"second"), None);
        table.written(2, 1, PLACE);
        table.evict();
        assert!(cached(&table, 2));
    }

    #[test]
    fn purging_beyond_the_end_moves_the_next_index() {
        let mut table = table(100, 1..3);
        table.purge(9);
        assert_eq!(table.last(), None);
        assert!(table.accepts(10) && !table.accepts(3));
    }

    #[test]
    fn a_read_is_bounded_but_never_empty() {
        let table = table(100, 1..9);
        assert_eq!(table.read(2, 9, 1).len(), 1);
        assert_eq!(table.read(2, 9, 30).len(), 3);
        assert_eq!(table.read(0, 99, usize::MAX).len(), 8);
    }
}
