//! Open connections of one kind: counted, limited, and waited for.

use std::sync::Arc;

use tokio::sync::watch;

/// A count of open connections with a limit. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    open: Arc<watch::Sender<usize>>,
    limit: usize,
}

/// One open connection; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Place(Arc<watch::Sender<usize>>);

impl Connections {
    /// None open, and never more than `limit`.
    pub(crate) fn limited_to(limit: usize) -> Self {
        Self { open: Arc::new(watch::Sender::new(0)), limit }
    }

    /// Counts one in; `None` when there are as many as there may be.
    pub(crate) fn enter(&self) -> Option<Place> {
        let entered = self.open.send_if_modified(|open| {
            let room = *open < self.limit;
            *open += usize::from(room);
            room
        });
        entered.then(|| Place(Arc::clone(&self.open)))
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Becomes ready when none is open.
    pub(crate) async fn all_closed(&self) {
        // The sender lives in `self`, so the wait can only end well.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn places_are_limited_come_back_and_are_waited_for() {
        let connections = Connections::limited_to(2);
        let first = connections.enter().unwrap();
        let second = connections.enter().unwrap();
        assert!(connections.enter().is_none());
        assert_eq!(connections.open(), 2);
        drop(first);
        assert!(connections.all_closed().now_or_never().is_none());
        let third = connections.enter().unwrap();
        drop((second, third));
        assert!(connections.all_closed().now_or_never().is_some());
    }
}
