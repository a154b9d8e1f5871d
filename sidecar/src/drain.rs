//! Leaving without breaking a call.
//!
//! ```text
//! Serving ── begin ──> Leaving ── withdrawn + GRACE ──> Refusing ── all ended, or limit ──> Drained
//!            catalog: instance goes     listeners close             what is still open is cut
//! ```
//!
//! Invariants
//! - The catalog comes first: nobody is refused before the others had time to learn that we go.
//! - Every phase has a limit; [`Phase::Drained`] is reached whatever servers and peers do.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connections::Connections;

/// How long the withdrawal from the catalog may take: servers that are away must not hold up the pod's end.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(3);
/// How long new connections are still taken after the withdrawal. Callers learn of it by a blocking query, within tens of
/// milliseconds; half a second covers one lost packet and a busy machine, and who is later is refused and tries another.
const GRACE: Duration = Duration::from_millis(500);

/// How far the leave has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not leaving.
    Serving,
    /// The catalog is being told; everything is still served.
    Leaving,
    /// New inbound connections are refused; open ones go on.
    Refusing,
    /// No inbound connection is left, or those that are will be cut.
    Drained,
}

/// The leave of this sidecar. Clones are the same leave.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Sender<Phase>);

impl Drain {
    /// Not leaving.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    /// Begins to leave; nothing more than a reminder when it has begun already.
    pub(crate) fn begin(&self) {
        self.advance(Phase::Leaving);
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until it has come as far as `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so the wait can only end well.
        let _ = self.0.subscribe().wait_for(|reached| *reached >= phase).await;
    }

    /// Waits for the beginning, then carries the leave out within `limit`, which counts from the beginning.
    pub(crate) async fn run(self, withdraw: impl Future<Output = ()>, inbound: Connections, limit: Duration) {
        self.reached(Phase::Leaving).await;
        let deadline = Instant::now() + limit;
        tracing::info!(open = inbound.open(), limit_seconds = limit.as_secs(), "leaving: withdrawing from the catalog");
        if timeout(WITHDRAW_LIMIT.min(limit), withdraw).await.is_err() {
            tracing::warn!("the servers did not confirm the withdrawal in time; leaving all the same");
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + GRACE)).await;
        self.advance(Phase::Refusing);
        if timeout_at(deadline, inbound.all_closed()).await.is_err() {
            tracing::warn!(open = inbound.open(), "closing inbound connections that did not end in time");
        }
        self.advance(Phase::Drained);
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let forward = *phase < to;
            *phase = to.max(*phase);
            forward
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn nothing_is_refused_before_the_catalog_knows_and_open_connections_are_waited_for() {
        let (drain, connections) = (Drain::new(), Connections::limited_to(10));
        let place = connections.enter();
        let (withdrawn, confirm) = tokio::sync::oneshot::channel::<()>();
        let withdraw = async { drop(confirm.await) };
        let tasks = lictor_runtime::Tasks::new();
        assert_eq!(drain.phase(), Phase::Serving);
        let confirmed = Arc::new(AtomicUsize::new(0));
        let watcher = {
            let (drain, confirmed) = (drain.clone(), Arc::clone(&confirmed));
            async move {
                drain.reached(Phase::Refusing).await;
                assert_eq!(confirmed.load(Ordering::SeqCst), 1);
            }
        };
        tasks.spawn(drain.clone().run(withdraw, connections.clone(), Duration::from_secs(60)));
        drain.begin();
        drain.begin();
        assert_eq!(drain.phase(), Phase::Leaving);
        confirmed.store(1, Ordering::SeqCst);
        withdrawn.send(()).unwrap();
        watcher.await;
        assert!(drain.reached(Phase::Drained).now_or_never().is_none());
        drop(place);
        drain.reached(Phase::Drained).await;
        assert!(tasks.stop(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_leave_ends_within_its_limit_whatever_servers_and_peers_do() {
        let (drain, connections) = (Drain::new(), Connections::limited_to(10));
        let _place = connections.enter();
        drain.begin();
        let limit = Duration::from_millis(50);
        timeout(Duration::from_secs(5), drain.clone().run(std::future::pending(), connections, limit)).await.unwrap();
        assert_eq!(drain.phase(), Phase::Drained);
    }
}
