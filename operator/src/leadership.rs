//! Which replica writes: the holder of a Lease.
//!
//! Losing the Lease ends the process: a fresh start is simpler to be sure of than stopping half-done work.

use std::future::Future;
use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::OperatorError;

/// Name of the Lease, in the operator's namespace.
const LEASE: &str = "lictor-operator";
/// How long a Lease lasts that is not renewed, in seconds.
const LEASE_SECONDS: u64 = 30;
/// How long before its end it is renewed, in seconds: room for five failed tries.
const GRACE_SECONDS: u64 = 15;
/// Pause after a failed try.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// A leader that has failed to renew for this long gives up; `RETRY_PAUSE` and a slow request before the Lease ends.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// Waits for the Lease, then does `duty` for as long as it is held. Gives the Lease back at shutdown.
pub(crate) async fn while_leading(
    client: Client,
    namespace: &str,
    identity: &str,
    shutdown: CancellationToken,
    duty: impl Future<Output = ()>,
) -> Result<(), OperatorError> {
    let lost = || OperatorError::LeadershipLost { lease: LEASE.to_owned() };
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await
        .map_err(|source| OperatorError::Lease { lease: LEASE.to_owned(), source })?;
    let mut duty = std::pin::pin!(duty);
    let mut leading = false;
    let mut failures: Option<(Instant, Instant)> = None; // The first and the last of an unbroken row.
    let ended = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            changed = manager.changed() => match changed {
                Ok(true) => {
                    tracing::info!(identity, "this replica leads");
                    leading = true;
                    failures = None;
                }
                Ok(false) if leading => break Err(lost()),
                Ok(false) => failures = None,
                Err(error) => {
                    tracing::warn!(%error, leading, "the Lease could not be read or renewed");
                    let now = Instant::now();
                    // A renewal between two failures is not reported; silence as long as the limit means there was one.
                    let unbroken = failures.filter(|(_, last)| now - *last < GIVE_UP_AFTER);
                    let first = unbroken.map_or(now, |(first, _)| first);
                    failures = Some((first, now));
                    if leading && now - first >= GIVE_UP_AFTER {
                        break Err(lost());
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            },
            () = &mut duty, if leading => break Ok(()),
        }
    };
    if leading && let Err(error) = manager.release().await {
        tracing::debug!(%error, "the Lease was not given back; it ends by itself");
    }
    ended
}
