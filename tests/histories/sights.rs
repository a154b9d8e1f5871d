//! What watchers were told, and what they are promised: nothing lost, in order, no half of a transaction, the same to
//! everybody, nothing goes backwards, and soon.
//!
//! A stale watcher may be told old things, and at an agent that asks now this server and now that, older ones than before;
//! what it is told at an index is what everybody is told at it.

use std::collections::BTreeMap;

use lictor_tests::linearizability::{KeyValue, KvInput, KvStep, Operation};

use crate::journal::Seen;

/// The subject of those who watch the keys of a history.
pub(crate) const ALL_KEYS: &str = "keys";
/// While nothing goes wrong a watcher hears of a change within so many microseconds of whoever heard of it first.
const SOON_MICROS: u64 = 5_000_000;
/// So many things that are wrong with watchers are told of one history.
const WRONG_MAX: usize = 20;

/// One answer to a watcher.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) watcher: usize,
    /// [`ALL_KEYS`], or the service whose instances are watched.
    pub(crate) subject: String,
    pub(crate) stale: bool,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) after: u64,
    pub(crate) index: u64,
    pub(crate) entries: BTreeMap<String, Seen>,
}

/// All that watchers of one history were told, and what is known beside it.
#[derive(Default)]
pub(crate) struct Watches {
    pub(crate) sights: Vec<Sight>,
    /// When watchers were told that there is nothing.
    pub(crate) nothing: Vec<(usize, u64)>,
    /// By subject: the greatest ModifyIndex that somebody was told, by when.
    told: BTreeMap<String, Vec<(u64, u64)>>,
    /// By key: the indexes at which it was written or removed for certain.
    changed: BTreeMap<String, Vec<u64>>,
    pub(crate) calm_from: Option<u64>,
    pub(crate) calm_until: Option<u64>,
}

impl Watches {
    /// Somebody was told of a change of a subject.
    pub(crate) fn told(&mut self, subject: &str, when: u64, index: u64) {
        self.told.entry(subject.to_owned()).or_default().push((when, index));
    }

    /// Takes up what is known of the writes of keys. All that one transaction writes has one index, and what it removes has
    /// that too.
    pub(crate) fn writes<'a>(&mut self, operations: impl Iterator<Item = &'a Operation<KeyValue>>) {
        for operation in operations {
            match &operation.input {
                KvInput::Put(key, entry) | KvInput::Cas(key, _, entry) => {
                    self.changed.entry(key.clone()).or_default().extend(entry.index);
                }
                KvInput::Transaction(steps) => {
                    let index = steps.iter().find_map(|step| match step {
                        KvStep::Set(_, entry) | KvStep::Cas(_, _, entry) => entry.index,
                        KvStep::Delete(_) | KvStep::Is(..) | KvStep::List => None,
                    });
                    for step in steps {
                        if let KvStep::Set(key, _) | KvStep::Cas(key, _, _) | KvStep::Delete(key) = step {
                            self.changed.entry(key.clone()).or_default().extend(index);
                        }
                    }
                }
                KvInput::Delete(_) | KvInput::DeleteCas(..) | KvInput::Get(_) | KvInput::List => {}
            }
        }
    }

    /// Everything that watchers must not have been told.
    pub(crate) fn judge(&mut self) -> Vec<String> {
        for (key, (_, index)) in self.sights.iter().flat_map(|sight| &sight.entries) {
            self.changed.entry(key.clone()).or_default().push(*index);
        }
        for indexes in self.changed.values_mut() {
            indexes.sort_unstable();
            indexes.dedup();
        }
        let mut wrong = Vec::new();
        let mut last: BTreeMap<usize, &Sight> = BTreeMap::new();
        let mut same: BTreeMap<(&str, u64), &Sight> = BTreeMap::new();
        for sight in &self.sights {
            self.alone(sight, &mut wrong);
            let Sight { watcher, subject, index, entries, .. } = sight;
            let first = same.entry((subject, *index)).or_insert(sight);
            if first.entries != *entries {
                wrong.push(format!(
                    "at index {index} of {subject} watcher {} was told {:?} and watcher {watcher} {entries:?}",
                    first.watcher, first.entries
                ));
            }
            if let Some(before) = last.insert(*watcher, sight)
                && !sight.stale
            {
                later(before, sight, &mut wrong);
            }
        }
        self.soon(&mut wrong);
        wrong.truncate(WRONG_MAX);
        wrong
    }

    /// What is wrong with one sight, whatever the others are.
    fn alone(&self, sight: &Sight, wrong: &mut Vec<String>) {
        let Sight { watcher, subject, began, after, index, entries, .. } = sight;
        if *index == 0 || (index < after && !sight.stale) {
            wrong.push(format!("watcher {watcher} asked after index {after} and got index {index}"));
        }
        for (key, (_, its)) in entries {
            if its > index {
                wrong.push(format!("watcher {watcher} got index {index} with {key} of index {its}"));
            }
            // At this index a later change of the key was there already, so what was told is older: half of something.
            let changed = self.changed.get(key).map_or(&[][..], Vec::as_slice);
            if let Some(missed) = changed.iter().find(|changed| *changed > its && *changed <= index) {
                wrong.push(format!(
                    "watcher {watcher} got index {index} with {key} as it was at {its}, before its change at {missed}: half \
                     of a transaction, or a lost change"
                ));
            }
        }
        // A change that anybody was told of before the question belongs into the answer.
        let told = self.told.get(subject).map_or(&[][..], Vec::as_slice);
        let known = told.iter().filter(|(when, _)| when < began).map(|(_, index)| *index).max().unwrap_or(0);
        if *index < known && !sight.stale {
            wrong.push(format!("watcher {watcher} got index {index} though {known} was known before it asked"));
        }
    }

    /// While nothing goes wrong, every watcher hears of every change soon.
    fn soon(&self, wrong: &mut Vec<String>) {
        let (Some(from), Some(until)) = (self.calm_from, self.calm_until) else { return };
        let mut watchers: BTreeMap<usize, &str> = BTreeMap::new();
        for sight in &self.sights {
            watchers.insert(sight.watcher, &sight.subject);
        }
        for (watcher, subject) in watchers {
            let heard = self.sights.iter().filter(|it| it.watcher == watcher).map(|it| (it.ended, it.index));
            let nothing = self.nothing.iter().filter(|it| it.0 == watcher).map(|(_, when)| (*when, u64::MAX));
            let heard: Vec<(u64, u64)> = heard.chain(nothing).collect();
            let told = self.told.get(subject).map_or(&[][..], Vec::as_slice);
            let mut greatest = 0;
            for (when, index) in told.iter().filter(|(when, _)| *when >= from && when + SOON_MICROS <= until) {
                // The first to be told of it count, not those who are told again.
                if *index <= greatest {
                    continue;
                }
                greatest = *index;
                let is_soon = heard.iter().any(|(heard, its)| its >= index && *heard <= when + SOON_MICROS);
                if !is_soon {
                    wrong.push(format!(
                        "watcher {watcher} did not hear of index {index} of {subject} within {} s of others",
                        SOON_MICROS / 1_000_000
                    ));
                    break;
                }
            }
        }
    }
}

/// What is wrong with a sight after the one before of the same watcher.
fn later(before: &Sight, sight: &Sight, wrong: &mut Vec<String>) {
    let Sight { watcher, index, entries, .. } = sight;
    if index < &before.index {
        wrong.push(format!("watcher {watcher} went from index {} back to {index}", before.index));
    }
    for (key, (value, its)) in entries {
        if before.entries.get(key).is_some_and(|(_, earlier)| its < earlier) {
            wrong.push(format!("watcher {watcher} saw {key} go back to {value} of index {its}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_tests::linearizability::history_of_keys;

    use super::*;

    fn sight(began: u64, after: u64, index: u64, entries: &[(&str, &str, u64)]) -> Sight {
        let entries = entries.iter().map(|(key, value, its)| ((*key).into(), ((*value).into(), *its))).collect();
        let subject = ALL_KEYS.to_owned();
        Sight { watcher: 0, subject, stale: false, began, ended: began + 1, after, index, entries }
    }

    fn of(watcher: usize, stale: bool, sight: Sight) -> Sight {
        Sight { watcher, stale, ..sight }
    }

    fn judge(sights: &[Sight], told: &[(u64, u64)], writes: &str) -> usize {
        let mut watches = Watches { sights: sights.to_vec(), ..Watches::default() };
        told.iter().for_each(|(when, index)| watches.told(ALL_KEYS, *when, *index));
        watches.writes(history_of_keys(writes).iter());
        watches.judge().len()
    }

    #[test]
    fn the_validators_of_watches_find_what_must_not_be() {
        let judge = |sights: &[Sight], told: &[(u64, u64)]| judge(sights, told, "");
        assert_eq!(judge(&[sight(1, 0, 5, &[("a", "1", 5)]), sight(3, 5, 6, &[("a", "2", 6)])], &[(2, 5)]), 0);
        assert_eq!(judge(&[sight(1, 0, 6, &[]), sight(3, 0, 5, &[])], &[]), 1, "an index that goes back");
        assert_eq!(judge(&[sight(3, 0, 5, &[])], &[(2, 6)]), 1, "a lost update");
        assert_eq!(judge(&[sight(1, 0, 5, &[("a", "1", 6)])], &[]), 1, "an entry from the future");
        let back = [sight(1, 0, 5, &[("a", "2", 5)]), sight(3, 5, 6, &[("a", "1", 4)])];
        assert_eq!(judge(&back, &[]), 2, "a key that goes back, and is older than it may be");
        let two = [sight(1, 0, 5, &[("a", "1", 5)]), sight(3, 0, 5, &[])];
        assert_eq!(judge(&two, &[]), 1, "two contents of one index");
        assert_eq!(judge(&[sight(1, 0, 0, &[])], &[]), 1, "index 0");
        assert_eq!(judge(&[sight(1, 9, 8, &[])], &[]), 1, "less than was asked after");
    }

    #[test]
    fn half_of_a_transaction_is_found() {
        let writes = "put b 0#4 @1-2; [ set a 1#7 , set b 2#7 , del c ] yes @3-4";
        let whole = [("a", "1", 7), ("b", "2", 7)];
        assert_eq!(judge(&[sight(1, 0, 4, &[("b", "0", 4)]), sight(2, 4, 7, &whole)], &[], writes), 0);
        let later = [("a", "1", 7), ("b", "3", 8)];
        assert_eq!(judge(&[sight(1, 0, 8, &later)], &[], writes), 0, "one of its keys was written again");
        assert_eq!(judge(&[sight(1, 0, 7, &[("a", "1", 7), ("b", "0", 4)])], &[], writes), 1, "one of two writes");
        let kept = [("a", "1", 7), ("b", "2", 7), ("c", "9", 3)];
        assert_eq!(judge(&[sight(1, 0, 7, &kept)], &[], writes), 1, "its writes without its removal");
    }

    #[test]
    fn watchers_who_are_told_different_things_at_one_index_are_found() {
        let one = sight(1, 0, 5, &[("a", "1", 5)]);
        let other = sight(2, 0, 5, &[("a", "1", 5), ("b", "1", 4)]);
        assert_eq!(judge(&[one.clone(), of(1, false, one.clone())], &[], ""), 0);
        assert_eq!(judge(&[one.clone(), of(1, false, other.clone())], &[], ""), 1);
        assert_eq!(judge(&[one.clone(), of(1, true, other)], &[], ""), 1, "a stale one too");
        let elsewhere = Sight { subject: "web".into(), ..of(1, false, sight(2, 0, 5, &[])) };
        assert_eq!(judge(&[one, elsewhere], &[], ""), 0, "indexes of other subjects are others");
    }

    #[test]
    fn a_stale_watcher_may_be_told_old_things_but_no_half_of_them() {
        let stale = |sight: Sight| of(0, true, sight);
        let old = [stale(sight(1, 0, 6, &[("a", "2", 6)])), stale(sight(3, 6, 5, &[("a", "1", 5)]))];
        assert_eq!(judge(&old, &[(2, 9)], ""), 0);
        let writes = "[ set a 1#7 , set b 2#7 ] yes @3-4";
        assert_eq!(judge(&[stale(sight(1, 0, 7, &[("a", "1", 7), ("b", "0", 4)]))], &[], writes), 1);
        assert_eq!(judge(&[stale(sight(1, 0, 0, &[]))], &[], ""), 1, "index 0");
    }

    #[test]
    fn a_watcher_that_hears_late_is_found_while_nothing_goes_wrong() {
        let late = |heard: u64| {
            let mut watches =
                Watches { calm_from: Some(10), calm_until: Some(10 + 3 * SOON_MICROS), ..Watches::default() };
            watches.told(ALL_KEYS, 20, 5);
            watches.sights = vec![sight(1, 0, 4, &[]), sight(heard - 1, 4, 5, &[])];
            watches
        };
        assert_eq!(late(20 + SOON_MICROS).judge().len(), 0);
        let lateness: Vec<String> = late(21 + SOON_MICROS).judge();
        assert!(lateness.iter().any(|it| it.contains("did not hear")), "{lateness:?}");
        let mut told_nothing = late(21 + SOON_MICROS);
        told_nothing.sights.truncate(1);
        told_nothing.nothing.push((0, 30));
        assert_eq!(told_nothing.judge().len(), 0, "there was nothing any more");
    }
}
