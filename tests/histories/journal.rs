//! What clients asked and were told, and what of it must not be.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use lictor_tests::linearizability::{
    BUDGET, Catalog, Entry, KeyValue, KvAnswer, KvInput, KvStep, Lock, Model, Operation, check_parts,
};
use serde_json::Value;

/// What a key was seen to hold: the value and its ModifyIndex.
pub(crate) type Seen = (String, u64);

/// One answer to a watcher.
pub(crate) struct Sight {
    pub(crate) watcher: usize,
    pub(crate) began: u64,
    pub(crate) after: u64,
    pub(crate) index: u64,
    pub(crate) entries: BTreeMap<String, Seen>,
}

/// Operations by the object they are on.
type Parts<M> = BTreeMap<String, Vec<Operation<M>>>;

/// What is asked, beside keys one by one. A history must have some of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Transaction,
    Lock,
    Catalog,
}

/// All of them.
pub(crate) const KINDS: [Kind; 3] = [Kind::Transaction, Kind::Lock, Kind::Catalog];

/// One history. Times are microseconds since its beginning.
pub(crate) struct Journal {
    origin: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    parts: Parts<KeyValue>,
    locks: Parts<Lock>,
    catalog: Parts<Catalog>,
    /// The greatest ModifyIndex that somebody was told, by when.
    told: Vec<(u64, u64)>,
    indexes: BTreeMap<String, u64>,
    sights: Vec<Sight>,
    wrong: Vec<String>,
    answered: u64,
    answered_of: BTreeMap<Kind, u64>,
    values: u64,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panicked")
    }

    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// A value that nobody has written.
    pub(crate) fn fresh(&self) -> String {
        let mut inner = self.inner();
        inner.values += 1;
        format!("v{}", inner.values)
    }

    /// How many operations were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.inner().answered
    }

    /// How many operations of a kind were answered.
    pub(crate) fn answered_of(&self, kind: Kind) -> u64 {
        self.inner().answered_of.get(&kind).copied().unwrap_or_default()
    }

    /// An operation on `group` ended, or nobody knows.
    pub(crate) fn note(&self, group: &str, input: KvInput, began: u64, answer: Option<KvAnswer>) {
        let kind = matches!(input, KvInput::Transaction(_)).then_some(Kind::Transaction);
        self.ended(kind, group, input, began, answer, |inner| &mut inner.parts);
    }

    /// The same of a lock.
    pub(crate) fn note_lock(
        &self,
        key: &str,
        input: <Lock as Model>::Input,
        began: u64,
        answer: Option<<Lock as Model>::Answer>,
    ) {
        self.ended(Some(Kind::Lock), key, input, began, answer, |inner| &mut inner.locks);
    }

    /// The same of a service in the catalog.
    pub(crate) fn note_catalog(
        &self,
        service: &str,
        input: <Catalog as Model>::Input,
        began: u64,
        answer: Option<<Catalog as Model>::Answer>,
    ) {
        self.ended(Some(Kind::Catalog), service, input, began, answer, |inner| &mut inner.catalog);
    }

    fn ended<M: Model>(
        &self,
        kind: Option<Kind>,
        object: &str,
        input: M::Input,
        began: u64,
        answer: Option<M::Answer>,
        of: impl Fn(&mut Inner) -> &mut Parts<M>,
    ) {
        let ended = answer.is_some().then(|| self.now());
        let mut inner = self.inner();
        inner.answered += u64::from(ended.is_some());
        if let Some(kind) = kind {
            *inner.answered_of.entry(kind).or_default() += u64::from(ended.is_some());
        }
        of(&mut inner).entry(object.to_owned()).or_default().push(Operation { input, answer, began, ended });
    }

    /// Somebody saw these entries: each value has one index for ever.
    pub(crate) fn saw<'a>(&self, entries: impl Iterator<Item = &'a Seen>) {
        let now = self.now();
        let mut inner = self.inner();
        let mut greatest = 0;
        for (value, index) in entries {
            greatest = greatest.max(*index);
            let known = *inner.indexes.entry(value.clone()).or_insert(*index);
            if known != *index {
                inner.wrong.push(format!("{value} was seen with ModifyIndex {known} and with {index}"));
            }
        }
        inner.told.push((now, greatest));
    }

    pub(crate) fn sight(&self, sight: Sight) {
        self.saw(sight.entries.values());
        self.inner().sights.push(sight);
    }

    /// What the last sight of a watcher was.
    pub(crate) fn last_sight(&self, watcher: usize) -> Option<BTreeMap<String, Seen>> {
        self.inner().sights.iter().rev().find(|it| it.watcher == watcher).map(|it| it.entries.clone())
    }

    /// Everything that must not be.
    pub(crate) fn judge(&self) -> Vec<String> {
        let inner = &mut *self.inner();
        for operation in inner.parts.values_mut().flatten() {
            let entries: Vec<&mut Entry> = match &mut operation.input {
                KvInput::Put(_, entry) | KvInput::Cas(_, _, entry) => vec![entry],
                KvInput::Transaction(steps) => steps
                    .iter_mut()
                    .filter_map(|step| match step {
                        KvStep::Set(_, entry) | KvStep::Cas(_, _, entry) => Some(entry),
                        KvStep::Delete(_) | KvStep::Is(..) | KvStep::List => None,
                    })
                    .collect(),
                KvInput::Delete(_) | KvInput::DeleteCas(..) | KvInput::Get(_) | KvInput::List => Vec::new(),
            };
            for entry in entries {
                entry.index = inner.indexes.get(&entry.value).copied();
            }
        }
        let mut wrong = std::mem::take(&mut inner.wrong);
        wrong.extend(check_parts(&inner.parts, BUDGET));
        wrong.extend(check_parts(&inner.locks, BUDGET));
        wrong.extend(check_parts(&inner.catalog, BUDGET));
        watches(&inner.sights, &inner.told, &mut wrong);
        wrong
    }
}

/// What watchers are promised: nothing lost, in order, nothing goes backwards.
fn watches(sights: &[Sight], told: &[(u64, u64)], wrong: &mut Vec<String>) {
    let mut last: BTreeMap<usize, &Sight> = BTreeMap::new();
    for sight in sights {
        let Sight { watcher, began, after, index, entries, .. } = sight;
        if *index == 0 || index < after {
            wrong.push(format!("watcher {watcher} asked after index {after} and got index {index}"));
        }
        if let Some((key, (_, its))) = entries.iter().find(|(_, (_, its))| its > index) {
            wrong.push(format!("watcher {watcher} got index {index} with {key} of index {its}"));
        }
        // A change that anybody was told of before the question belongs into the answer.
        let known = told.iter().filter(|(when, _)| when < began).map(|(_, index)| *index).max().unwrap_or(0);
        if *index < known {
            wrong.push(format!("watcher {watcher} got index {index} though {known} was known before it asked"));
        }
        if let Some(before) = last.insert(*watcher, sight) {
            if index < &before.index {
                wrong.push(format!("watcher {watcher} went from index {} back to {index}", before.index));
            }
            for (key, (value, its)) in entries {
                if before.entries.get(key).is_some_and(|(_, earlier)| its < earlier) {
                    wrong.push(format!("watcher {watcher} saw {key} go back to {value} of index {its}"));
                }
            }
            if index == &before.index && *entries != before.entries {
                wrong.push(format!("watcher {watcher} got two contents at index {index}"));
            }
        }
    }
}

/// The rows of Consul's KV as key and what it holds.
pub(crate) fn entries(rows: &[Value]) -> BTreeMap<String, Seen> {
    rows.iter()
        .map(|row| {
            use base64::Engine;
            let text = row["Value"].as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
            let value = String::from_utf8(bytes).expect("text");
            (row["Key"].as_str().unwrap_or_default().to_owned(), (value, row["ModifyIndex"].as_u64().unwrap_or(0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(began: u64, after: u64, index: u64, entries: &[(&str, &str, u64)]) -> Sight {
        let entries = entries.iter().map(|(key, value, its)| ((*key).into(), ((*value).into(), *its))).collect();
        Sight { watcher: 0, began, after, index, entries }
    }

    #[test]
    fn the_validators_of_watches_find_what_must_not_be() {
        let judge = |sights: &[Sight], told: &[(u64, u64)]| {
            let mut wrong = Vec::new();
            watches(sights, told, &mut wrong);
            wrong.len()
        };
        assert_eq!(judge(&[sight(1, 0, 5, &[("a", "1", 5)]), sight(3, 5, 6, &[("a", "2", 6)])], &[(2, 5)]), 0);
        assert_eq!(judge(&[sight(1, 0, 6, &[]), sight(3, 0, 5, &[])], &[]), 1, "an index that goes back");
        assert_eq!(judge(&[sight(3, 0, 5, &[])], &[(2, 6)]), 1, "a lost update");
        assert_eq!(judge(&[sight(1, 0, 5, &[("a", "1", 6)])], &[]), 1, "an entry from the future");
        assert_eq!(
            judge(&[sight(1, 0, 5, &[("a", "2", 5)]), sight(3, 5, 6, &[("a", "1", 4)])], &[]),
            1,
            "a key that goes back"
        );
        assert_eq!(
            judge(&[sight(1, 0, 5, &[("a", "1", 5)]), sight(3, 0, 5, &[])], &[]),
            1,
            "two contents of one index"
        );
        assert_eq!(judge(&[sight(1, 0, 0, &[])], &[]), 1, "index 0");
        assert_eq!(judge(&[sight(1, 9, 8, &[])], &[]), 1, "less than was asked after");
    }
}
