//! What clients asked and were told, and what of it must not be.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use lictor_tests::linearizability::{
    BUDGET, Catalog, Entry, KeyValue, KvAnswer, KvInput, KvStep, Lock, Model, Operation, check_parts,
};
use serde_json::Value;

use crate::sights::{ALL_KEYS, Sight, Watches};

/// What a key was seen to hold: the value and its ModifyIndex.
pub(crate) type Seen = (String, u64);

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
    indexes: BTreeMap<String, u64>,
    watches: Watches,
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
        inner.watches.told(ALL_KEYS, now, greatest);
    }

    /// A watcher was answered.
    pub(crate) fn sight(&self, sight: Sight) {
        if sight.subject == ALL_KEYS {
            self.saw(sight.entries.values());
        } else {
            let greatest = sight.entries.values().map(|(_, index)| *index).max().unwrap_or_default();
            self.inner().watches.told(&sight.subject, sight.ended, greatest);
        }
        self.inner().watches.sights.push(sight);
    }

    /// A watcher was answered that there is nothing, which is said without an index.
    pub(crate) fn saw_nothing(&self, watcher: usize) {
        let now = self.now();
        self.inner().watches.nothing.push((watcher, now));
    }

    /// From now on nothing goes wrong any more, until the clients stop.
    pub(crate) fn calm(&self, is_calm: bool) {
        let now = self.now();
        let watches = &mut self.inner().watches;
        if is_calm { watches.calm_from = Some(now) } else { watches.calm_until = Some(now) }
    }

    /// What the last sight of a watcher was.
    pub(crate) fn last_sight(&self, watcher: usize) -> Option<BTreeMap<String, Seen>> {
        let inner = self.inner();
        inner.watches.sights.iter().rev().find(|it| it.watcher == watcher).map(|it| it.entries.clone())
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
        inner.watches.writes(inner.parts.values().flatten());
        wrong.extend(inner.watches.judge());
        wrong
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
