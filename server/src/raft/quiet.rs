//! A leader that has lost its quorum falls silent, so that those who still hear it elect one that has a quorum.
//!
//! Where links are open in one direction only, followers may hear a leader whom their answers never reach. As long as they
//! hear it they vote for nobody else. The library holds back its heartbeats then (`quorum_loss_probe_interval`), but not the
//! entries that it tries to send again and again; this holds those back in the same rhythm.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, RaftMetrics, ServerState};
use tokio::time::Instant;

use super::network::Links;
use super::types::Types;

/// So many leases a quorum may take to answer before its leader falls silent: disks are slow at times, and a leader that is
/// silent without need loses the lead. The library is in the same phase of its rhythm then.
const PATIENCE_LEASES: u32 = 5;

/// Whether a leader whose quorum last answered so long ago is silent: after its patience for one period, and then in every
/// other one, so that a quorum that is there again is found.
fn is_silent(since_quorum: Duration, lease: Duration, period: Duration) -> bool {
    let Some(over) = since_quorum.checked_sub(lease * PATIENCE_LEASES) else { return false };
    (over.as_millis() / period.as_millis().max(1)).is_multiple_of(2)
}

/// Keeps `links` silent while this server leads without a quorum, until dropped.
pub(super) async fn keep(
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    links: Arc<Links>,
    lease: Duration,
    period: Duration,
) {
    let mut leads_since = None;
    loop {
        let silent = {
            let metrics = metrics.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
            leads_since = leads.then(|| leads_since.unwrap_or_else(Instant::now));
            // Before the first answer of a quorum the lead itself counts.
            let since_lead = leads_since.map(|since: Instant| since.elapsed());
            let since_answer = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
            let since = since_lead.map(|lead| since_answer.map_or(lead, |answer| answer.min(lead)));
            !alone && since.is_some_and(|since| is_silent(since, lease, period))
        };
        links.set_silent(silent);
        tokio::time::sleep(lease / 4).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_silent_in_every_other_period_after_its_patience() {
        let millis = Duration::from_millis;
        let silent = |since| is_silent(millis(since), millis(400), millis(800));
        assert!(!silent(0) && !silent(400) && !silent(1_999));
        assert!(silent(2_000) && silent(2_799));
        assert!(!silent(2_800) && !silent(3_599));
        assert!(silent(3_600) && silent(4_399) && !silent(4_400));
    }
}
