//! The addresses that stand for services in the mesh.
//!
//! Invariants
//! - No two services have the same place; a place is given again only after it was given back.
//! - Places are given in ascending order: the lowest that was given back, else the next that nobody had.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use lictor_types::gateway::{VIRTUAL_LAST, VirtualAddress};

use super::Key;

#[derive(Clone, Default)]
pub(crate) struct VirtualAddresses {
    /// By service, in lower case.
    rows: OrdMap<Key, Arc<VirtualAddress>>,
    /// Places that were given back.
    free: OrdSet<u32>,
    /// The highest place that was ever given; 0 before the first.
    highest: u32,
}

impl VirtualAddresses {
    pub(crate) fn get(&self, service: &str) -> Option<&Arc<VirtualAddress>> {
        self.rows.get(service)
    }

    /// Whether there are so many places left.
    pub(crate) fn has_room(&self, for_services: usize) -> bool {
        let never_given = (VIRTUAL_LAST - self.highest) as usize;
        self.free.len() + never_given >= for_services
    }

    /// Takes a place; none when all are taken.
    pub(crate) fn take_place(&mut self) -> Option<u32> {
        if let Some(place) = self.free.get_min().copied() {
            self.free.remove(&place);
            return Some(place);
        }
        if self.highest == VIRTUAL_LAST {
            return None;
        }
        self.highest += 1;
        Some(self.highest)
    }

    pub(crate) fn insert(&mut self, service: Key, row: VirtualAddress) {
        self.rows.insert(service, Arc::new(row));
    }

    /// Gives the place of a service back.
    pub(crate) fn remove(&mut self, service: &str) -> bool {
        let Some(row) = self.rows.remove(service) else { return false };
        self.free.insert(row.place);
        true
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &VirtualAddress> {
        self.rows.values().map(|row| &**row)
    }

    pub(crate) fn free(&self) -> impl ExactSizeIterator<Item = &u32> {
        self.free.iter()
    }

    pub(crate) fn highest(&self) -> u32 {
        self.highest
    }

    pub(crate) fn restore_free(&mut self, place: u32) {
        self.free.insert(place);
    }

    pub(crate) fn restore_highest(&mut self, highest: u32) {
        self.highest = highest.min(VIRTUAL_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_and_none_after_it_until_one_comes_back() {
        let mut addresses = VirtualAddresses::default();
        addresses.restore_highest(VIRTUAL_LAST - 2);
        assert!(addresses.has_room(2) && !addresses.has_room(3));
        assert_eq!(addresses.take_place(), Some(VIRTUAL_LAST - 1));
        assert_eq!(addresses.take_place(), Some(VIRTUAL_LAST));
        assert_eq!(addresses.take_place(), None);
        assert!(!addresses.has_room(1));
        addresses.restore_free(7);
        assert!(addresses.has_room(1));
        assert_eq!((addresses.take_place(), addresses.take_place()), (Some(7), None));
    }
}
