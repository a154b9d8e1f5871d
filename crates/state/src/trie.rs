//! A compressed trie of registered watches: which of them a changed key wakes.
//!
//! Invariants
//! - Only registered watches are in it: memory follows watches, never data.
//! - A walk costs the length of the key plus the watches it wakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

/// Who waits at one place, by registration.
type Waiters = BTreeMap<u64, Arc<Notify>>;

#[derive(Default)]
pub(crate) struct Trie {
    /// The bytes that lead here from the parent.
    label: Box<[u8]>,
    exact: Waiters,
    prefix: Waiters,
    children: BTreeMap<u8, Trie>,
}

impl Trie {
    pub(crate) fn insert(&mut self, key: &[u8], is_prefix: bool, id: u64, waiter: Arc<Notify>) {
        let Some(first) = key.first() else {
            let waiters = if is_prefix { &mut self.prefix } else { &mut self.exact };
            waiters.insert(id, waiter);
            return;
        };
        let child = self.children.entry(*first).or_insert_with(|| Self { label: key.into(), ..Self::default() });
        let common = common_length(&child.label, key);
        if common < child.label.len() {
            child.split(common);
        }
        child.insert(&key[common..], is_prefix, id, waiter);
    }

    /// Puts a new place `at` bytes into the label, with what was here as its only child.
    fn split(&mut self, at: usize) {
        let mut lower = std::mem::take(self);
        self.label = lower.label[..at].into();
        lower.label = lower.label[at..].into();
        self.children.insert(lower.label[0], lower);
    }

    pub(crate) fn remove(&mut self, key: &[u8], is_prefix: bool, id: u64) {
        let Some(first) = key.first() else {
            let waiters = if is_prefix { &mut self.prefix } else { &mut self.exact };
            waiters.remove(&id);
            return;
        };
        let Some(child) = self.children.get_mut(first) else { return };
        let Some(rest) = key.strip_prefix(&*child.label) else { return };
        child.remove(rest, is_prefix, id);
        if child.exact.is_empty() && child.prefix.is_empty() {
            match child.children.len() {
                0 => drop(self.children.remove(first)),
                1 => child.join(),
                _ => {}
            }
        }
    }

    /// Undoes a split that nobody needs any more.
    fn join(&mut self) {
        if let Some((_, lower)) = self.children.pop_first() {
            let label = [&*self.label, &*lower.label].concat();
            *self = lower;
            self.label = label.into();
        }
    }

    /// Collects the watches on `key` itself and on every prefix of it.
    pub(crate) fn collect(&self, key: &[u8], into: &mut Vec<Arc<Notify>>) {
        let mut place = self;
        let mut rest = key;
        loop {
            into.extend(place.prefix.values().cloned());
            let Some(first) = rest.first() else {
                into.extend(place.exact.values().cloned());
                return;
            };
            let Some(child) = place.children.get(first) else { return };
            let Some(below) = rest.strip_prefix(&*child.label) else { return };
            (place, rest) = (child, below);
        }
    }

    /// Collects every watch.
    pub(crate) fn collect_all(&self, into: &mut Vec<Arc<Notify>>) {
        into.extend(self.prefix.values().chain(self.exact.values()).cloned());
        for child in self.children.values() {
            child.collect_all(into);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.children.is_empty()
    }
}

fn common_length(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(trie: &Trie, key: &str, waiters: &[(&str, bool, Arc<Notify>)]) -> Vec<usize> {
        let mut found = Vec::new();
        trie.collect(key.as_bytes(), &mut found);
        let is_found = |waiter: &Arc<Notify>| found.iter().any(|it| Arc::ptr_eq(it, waiter));
        (0..waiters.len()).filter(|at| is_found(&waiters[*at].2)).collect()
    }

    #[test]
    fn a_key_wakes_its_own_watches_and_those_of_its_prefixes() {
        let mut trie = Trie::default();
        let places =
            [("a/b", false), ("a/", true), ("a/bc", false), ("a/bcd", true), ("", true), ("b", false), ("a/b", true)];
        let waiters: Vec<_> = places.map(|(key, is_prefix)| (key, is_prefix, Arc::new(Notify::new()))).into();
        for (id, (key, is_prefix, waiter)) in waiters.iter().enumerate() {
            trie.insert(key.as_bytes(), *is_prefix, id as u64, waiter.clone());
        }
        for key in ["a/b", "a/bc", "a/bcd", "a/bcde", "a", "a/", "b", "bb", "", "c"] {
            let expected: Vec<usize> = (0..places.len())
                .filter(|at| if places[*at].1 { key.starts_with(places[*at].0) } else { key == places[*at].0 })
                .collect();
            assert_eq!(woken(&trie, key, &waiters), expected, "{key}");
        }
        for (id, (key, is_prefix, _)) in waiters.iter().enumerate() {
            assert!(!trie.is_empty());
            trie.remove(key.as_bytes(), *is_prefix, id as u64);
            for probe in ["a/b", "a/bcde", "b"] {
                assert!(woken(&trie, probe, &waiters).iter().all(|at| *at > id), "{probe} wakes a removed watch");
            }
        }
        assert!(trie.is_empty());
    }
}
