//! What clients did and what they were told, in the order in which the one thread saw it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_tests::linearizability::{self, DelayedLock, DelayedLockAnswer, DelayedLockInput};
use lictor_types::Index;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A value: no two operations write the same. 0 is a key that is not there.
pub(crate) type Value = u64;

/// What was asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Set(Value),
    /// Set if the value is the expected one.
    Cas {
        expected: Value,
        new: Value,
    },
    Delete,
    Get,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Written(Index),
    /// The condition of a cas did not hold.
    NotApplied,
    Read {
        value: Value,
        index: Index,
    },
    /// It may or may not have been done, and may still be.
    Unknown,
}

/// An operation on one key.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) key: String,
    pub(crate) action: Action,
    /// When it began, and when it ended, as [`History::now`] tells the time.
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    pub(crate) answer: Answer,
    /// It was a stale read, which may be old, at this life of a server.
    pub(crate) stale_at: Option<(usize, u64)>,
}

/// The operations on each lock.
pub(crate) type Locks = BTreeMap<String, Vec<linearizability::Operation<DelayedLock>>>;

struct Inner {
    operations: Vec<Operation>,
    locks: Locks,
    begun: Instant,
    clock: u64,
    values: Value,
    nodes: Vec<String>,
    acknowledged: u64,
    /// By prefix: the greatest index of an acknowledged change that watchers look at.
    known: BTreeMap<&'static str, Index>,
    broken: Vec<String>,
}

impl Inner {
    /// Nanoseconds since the beginning; and every moment is later than the one before.
    fn tick(&mut self) -> u64 {
        self.clock = (self.clock + 1).max(self.begun.elapsed().as_nanos() as u64);
        self.clock
    }
}

/// A history. Clones share it.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<Inner>>, Arc<Notify>);

impl History {
    /// One that begins now.
    pub(crate) fn new() -> Self {
        let inner = Inner {
            operations: Vec::new(),
            locks: Locks::new(),
            begun: Instant::now(),
            clock: 0,
            values: 0,
            nodes: Vec::new(),
            acknowledged: 0,
            known: BTreeMap::new(),
            broken: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)), Arc::default())
    }

    /// A moment of this history.
    pub(crate) fn now(&self) -> u64 {
        self.0.lock().tick()
    }

    /// An operation on a lock is over, or nobody knows what becomes of it.
    pub(crate) fn lock(&self, lock: &str, input: DelayedLockInput, began: u64, answer: Option<DelayedLockAnswer>) {
        let mut inner = self.0.lock();
        let ended = answer.is_some().then(|| inner.tick());
        inner.acknowledged += u64::from(answer.is_some());
        let operation = linearizability::Operation { input, answer, began, ended };
        inner.locks.entry(lock.to_owned()).or_default().push(operation);
    }

    /// A value that nobody has used.
    pub(crate) fn fresh(&self) -> Value {
        let mut inner = self.0.lock();
        inner.values += 1;
        inner.values
    }

    pub(crate) fn begin(&self, key: &str, action: Action, stale_at: Option<(usize, u64)>) -> usize {
        let mut inner = self.0.lock();
        let began = inner.tick();
        let key = key.to_owned();
        inner.operations.push(Operation { key, action, began, ended: None, answer: Answer::Unknown, stale_at });
        inner.operations.len() - 1
    }

    pub(crate) fn end(&self, operation: usize, answer: Answer) {
        let mut inner = self.0.lock();
        let clock = inner.tick();
        inner.operations[operation].answer = answer;
        let is_removal = inner.operations[operation].action == Action::Delete;
        let key = &inner.operations[operation].key;
        let prefix = crate::watchers::PREFIXES.into_iter().find(|prefix| key.starts_with(prefix));
        // To remove what is not there takes an index that no row tells of.
        if let (Answer::Written(index), Some(prefix), false) = (answer, prefix, is_removal) {
            let known = inner.known.entry(prefix).or_default();
            *known = index.max(*known);
        }
        if answer != Answer::Unknown {
            inner.operations[operation].ended = Some(clock);
            inner.acknowledged += 1;
        }
        drop(inner);
        if matches!(answer, Answer::Written(_)) {
            self.1.notify_waiters();
        }
    }

    /// The greatest index of an acknowledged change under a prefix that watchers look at.
    pub(crate) fn known_index(&self, prefix: &str) -> Index {
        self.0.lock().known.get(prefix).copied().unwrap_or_default()
    }

    /// Waits for the moment at which the next write is acknowledged.
    pub(crate) async fn next_write(&self) {
        self.1.notified().await;
    }

    /// A registration of this node was acknowledged.
    pub(crate) fn registered(&self, node: String) {
        let mut inner = self.0.lock();
        inner.nodes.push(node);
        inner.acknowledged += 1;
    }

    /// A client saw what must not be.
    pub(crate) fn broken(&self, what: String) {
        self.0.lock().broken.push(what);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.lock().acknowledged
    }

    /// How often a lock was granted.
    pub(crate) fn grants(&self) -> u64 {
        let inner = self.0.lock();
        let operations = inner.locks.values().flatten();
        operations.filter(|it| it.answer == Some(DelayedLockAnswer::Granted)).count() as u64
    }

    /// How often something under a prefix was written for certain.
    pub(crate) fn written(&self, prefix: &str) -> u64 {
        let inner = self.0.lock();
        let operations = inner.operations.iter().filter(|it| it.key.starts_with(prefix));
        operations.filter(|it| matches!(it.answer, Answer::Written(_))).count() as u64
    }

    /// Operations, those on locks, registered nodes, and what clients saw that must not be.
    pub(crate) fn take(&self) -> (Vec<Operation>, Locks, Vec<String>, Vec<String>) {
        let inner = self.0.lock();
        (inner.operations.clone(), inner.locks.clone(), inner.nodes.clone(), inner.broken.clone())
    }
}
