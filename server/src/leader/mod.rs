//! What only the leader does, for as long as it leads.
//!
//! - [`establish`]: what a cluster must have before anything else: its name, the mesh CA, the management token.
//! - [`coordinates`]: where nodes are, written in batches.
//! - [`equality`]: whether all servers hold the same state.
//! - [`members`]: who is alive, written into the catalog.
//! - [`membership`]: which servers vote.
//! - [`sessions`]: which sessions nobody renewed in time.
//! - [`autopilot`]: how the servers of raft are.
//!
//! A duty never waits for another and holds nothing that a new leader would miss: it looks at the state again.

pub(crate) mod autopilot;
mod catalog;
pub mod coordinates;
pub mod equality;
pub mod establish;
pub mod members;
pub mod membership;
pub mod sessions;

use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::Tasks;

use crate::datacenter::ServerDatacenter;
pub use establish::Founding;

/// After a duty failed; most failures are a lost lead, which ends the duties anyway.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Runs the duties whenever this server leads, until the tasks are stopped.
pub async fn run(datacenter: Arc<ServerDatacenter>, founding: Arc<Founding>, tasks: Tasks) {
    let mut leader = datacenter.consensus.leader();
    loop {
        if datacenter.consensus.is_leader() {
            tracing::info!("cluster leadership acquired");
            let duties = tasks.child();
            start_duties(&datacenter, &founding, &duties);
            while datacenter.consensus.is_leader() {
                if leader.changed().await.is_err() {
                    break;
                }
            }
            duties.stop(Duration::from_secs(5)).await;
            datacenter.members.end();
            datacenter.sessions.end(datacenter.consensus.faults());
            datacenter.health.end();
            datacenter.coordinates.end();
            datacenter.equality.end();
            tracing::info!("cluster leadership lost");
        }
        if leader.changed().await.is_err() {
            return;
        }
    }
}

fn start_duties(datacenter: &Arc<ServerDatacenter>, founding: &Arc<Founding>, duties: &Tasks) {
    datacenter.members.start(&datacenter.published.load());
    datacenter.sessions.start(&datacenter.published.load(), datacenter.consensus.faults());
    let (here, founding) = (Arc::clone(datacenter), Arc::clone(founding));
    duties.spawn(async move { establish::until_done(&here, &founding).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { members::reconcile(&here).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { membership::keep(&here).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { sessions::forget_lock_delays(&here).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { sessions::expire(&here).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { coordinates::write(&here).await });
    let here = Arc::clone(datacenter);
    duties.spawn(async move { equality::compare(&here).await });
}
