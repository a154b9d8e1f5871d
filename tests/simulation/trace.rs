//! What happened, in order, as one number: two runs of a seed must have the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

struct Inner {
    hasher: DefaultHasher,
    events: u64,
    lines: Option<Vec<String>>,
    origin: Instant,
}

/// A trace. Clones share it.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

impl Trace {
    /// Keeps the words too if `keep`, so that two traces can be compared line by line.
    pub(crate) fn new(keep: bool) -> Self {
        let inner =
            Inner { hasher: DefaultHasher::new(), events: 0, lines: keep.then(Vec::new), origin: Instant::now() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Something happened now.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let mut inner = self.0.lock();
        let line = format!("{:>10} {}", inner.origin.elapsed().as_micros(), what());
        line.hash(&mut inner.hasher);
        inner.events += 1;
        if let Some(lines) = &mut inner.lines {
            lines.push(line);
        }
    }

    pub(crate) fn finish(&self) -> (u64, u64, Vec<String>) {
        let mut inner = self.0.lock();
        (inner.hasher.finish(), inner.events, inner.lines.take().unwrap_or_default())
    }
}
