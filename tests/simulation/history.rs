//! What clients did and what they were told, in the order in which the one thread saw it.

use std::sync::Arc;

use lictor_types::Index;
use parking_lot::Mutex;
use tokio::sync::Notify;

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
    /// When it began, and when it ended: counted in events.
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    pub(crate) answer: Answer,
    /// It was a stale read, which may be old, at this life of a server.
    pub(crate) stale_at: Option<(usize, u64)>,
}

#[derive(Default)]
struct Inner {
    operations: Vec<Operation>,
    clock: u64,
    values: Value,
    nodes: Vec<String>,
    acknowledged: u64,
    known: Index,
    broken: Vec<String>,
}

/// A history. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Inner>>, Arc<Notify>);

impl History {
    /// A value that nobody has used.
    pub(crate) fn fresh(&self) -> Value {
        let mut inner = self.0.lock();
        inner.values += 1;
        inner.values
    }

    pub(crate) fn begin(&self, key: &str, action: Action, stale_at: Option<(usize, u64)>) -> usize {
        let mut inner = self.0.lock();
        inner.clock += 1;
        let began = inner.clock;
        let key = key.to_owned();
        inner.operations.push(Operation { key, action, began, ended: None, answer: Answer::Unknown, stale_at });
        inner.operations.len() - 1
    }

    pub(crate) fn end(&self, operation: usize, answer: Answer) {
        let mut inner = self.0.lock();
        inner.clock += 1;
        let clock = inner.clock;
        inner.operations[operation].answer = answer;
        if let Answer::Written(index) = answer
            && inner.operations[operation].key.starts_with(crate::watchers::PREFIX)
            && inner.operations[operation].action != Action::Delete
        {
            inner.known = inner.known.max(index);
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

    /// The greatest index of an acknowledged change that watchers look at.
    pub(crate) fn known_index(&self) -> Index {
        self.0.lock().known
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

    /// Operations, registered nodes, and what clients saw that must not be.
    pub(crate) fn take(&self) -> (Vec<Operation>, Vec<String>, Vec<String>) {
        let inner = self.0.lock();
        (inner.operations.clone(), inner.nodes.clone(), inner.broken.clone())
    }
}
