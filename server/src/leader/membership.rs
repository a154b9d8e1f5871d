//! Which servers vote. This duty is the only owner of raft's membership.
//!
//! A learner that has caught up becomes a voter. A voter whose name came back under a new id is replaced: the old id is
//! removed for ever. Nobody is removed for being silent.

use std::collections::BTreeSet;
use std::time::Duration;

use lictor_state::access::Duty;
use lictor_types::{Command, Refusal};

use crate::datacenter::ServerDatacenter;
use crate::membership;
use crate::raft::Member;

/// Between two looks.
const REVIEW_INTERVAL: Duration = Duration::from_millis(100);
/// A learner this close to the leader's log has caught up.
const CAUGHT_UP_WITHIN: u64 = 64;

/// Reviews the membership for as long as this server leads.
pub(crate) async fn keep(datacenter: &ServerDatacenter) {
    loop {
        if let Err(refusal) = review(datacenter).await {
            tracing::warn!(%refusal, "could not change which servers vote");
        }
        tokio::time::sleep(REVIEW_INTERVAL).await;
    }
}

/// Takes at most one step, so that each is seen before the next is decided.
async fn review(datacenter: &ServerDatacenter) -> Result<(), Refusal> {
    let members = datacenter.consensus.membership();
    let status = datacenter.consensus.status();
    let caught_up = |learner: &&Member| {
        status
            .matched
            .get(&learner.id)
            .is_some_and(|matched| status.last_log.saturating_sub(*matched) <= CAUGHT_UP_WITHIN)
    };
    if members.changing {
        return Ok(());
    }
    let Some(learner) = members.learners.iter().find(caught_up) else { return Ok(()) };
    let Some(old) = members.voters.iter().find(|it| it.server.name == learner.server.name) else {
        tracing::info!(name = learner.server.name, id = %learner.id, "a learner has caught up and becomes a voter");
        return datacenter.consensus.promote(BTreeSet::from([learner.id])).await.map_err(membership::refuse);
    };
    tracing::info!(name = learner.server.name, old = %old.id, new = %learner.id, "replacing a voter whose data directory is new");
    let voters = members.voters.iter().map(|it| it.id).filter(|id| *id != old.id).chain([learner.id]).collect();
    datacenter.consensus.change_voters(voters).await.map_err(membership::refuse)?;
    datacenter.write_as(Duty::Membership, Command::ServerRemoved(old.id.to_string())).await?;
    Ok(())
}
