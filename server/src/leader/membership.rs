//! Which servers vote. This duty is the only owner of raft's membership.
//!
//! - A learner that has caught up and was healthy for the stabilisation time becomes a voter. If it has the name of a
//!   voter, it takes that one's place, and the old id is removed for ever.
//! - A server that was removed for ever and is still in raft goes: whoever began the removal may have been cut off.
//! - A voter or learner that has failed or left as a member goes if autopilot's configuration says so and enough remain.
//!   It may come back with its log: it lost nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use lictor_state::access::Duty;
use lictor_types::autopilot::{AutopilotConfig, AutopilotSet};
use lictor_types::{Command, Index, Member as Agent, MemberStatus, Refusal, Timestamp};

use crate::datacenter::ServerDatacenter;
use crate::leader::autopilot;
use crate::membership;
use crate::raft::{Member, Membership, ServerId};

/// Between two looks.
const REVIEW_INTERVAL: Duration = Duration::from_millis(100);
/// Health is looked at in every so manieth review.
const HEALTH_EVERY: u32 = 5;
/// A learner this close to the leader's log has caught up.
const CAUGHT_UP_WITHIN: u64 = 64;

/// Reviews the membership for as long as this server leads.
pub(crate) async fn keep(datacenter: &ServerDatacenter) {
    let mut round = 0u32;
    loop {
        if round.is_multiple_of(HEALTH_EVERY) {
            autopilot::look(datacenter);
        }
        round = round.wrapping_add(1);
        if let Err(refusal) = review(datacenter).await {
            tracing::warn!(%refusal, "could not change which servers vote");
        }
        tokio::time::sleep(REVIEW_INTERVAL).await;
    }
}

/// Writes the configuration that this server was told, if there is none yet.
pub(crate) async fn establish(datacenter: &ServerDatacenter) -> Result<(), Refusal> {
    if datacenter.published.load().autopilot().is_none() {
        let set = AutopilotSet { config: datacenter.settings.autopilot.clone(), cas: Some(Index(0)) };
        datacenter.write_as(Duty::Initialize, Command::AutopilotSet(set)).await?;
    }
    Ok(())
}

/// Takes at most one step, so that each is seen before the next is decided.
async fn review(datacenter: &ServerDatacenter) -> Result<(), Refusal> {
    let members = datacenter.consensus.membership();
    if members.changing {
        return Ok(());
    }
    let store = datacenter.published.load();
    let own = datacenter.consensus.id();
    let removed = members.voters.iter().chain(&members.learners).find(|it| store.is_removed_server(&it.id.to_string()));
    if let Some(member) = removed.filter(|it| it.id != own) {
        tracing::info!(name = member.server.name, id = %member.id, "taking a removed server out of raft");
        return datacenter.consensus.remove(member.id).await.map_err(membership::refuse);
    }
    let config = autopilot::config(datacenter);
    let now = Timestamp::from(datacenter.clock.now());
    let stabilization = Duration::from_millis(config.server_stabilization_millis);
    let status = datacenter.consensus.status();
    let ready = |learner: &&Member| {
        let matched = status.matched.get(&learner.id);
        matched.is_some_and(|matched| status.last_log.saturating_sub(*matched) <= CAUGHT_UP_WITHIN)
            && datacenter.health.is_stable(learner.id, now, stabilization)
    };
    if let Some(learner) = members.learners.iter().find(ready) {
        return promote(datacenter, &members, learner).await;
    }
    let known = datacenter.members.list();
    if let Some(dead) = to_clean_up(&config, own, &members, &known) {
        tracing::warn!(name = dead.server.name, id = %dead.id, "taking a failed server out of raft");
        return datacenter.consensus.remove(dead.id).await.map_err(membership::refuse);
    }
    Ok(())
}

async fn promote(datacenter: &ServerDatacenter, members: &Membership, learner: &Member) -> Result<(), Refusal> {
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

/// The failed server to take out next, if any may go: most voters must be well, and after it enough must remain.
fn to_clean_up<'a>(
    config: &AutopilotConfig,
    own: ServerId,
    members: &'a Membership,
    known: &[Agent],
) -> Option<&'a Member> {
    if !config.cleanup_dead_servers {
        return None;
    }
    let dead = |server: &&Member| {
        let member = autopilot::member_of(server, known);
        // Another agent under its name: it is being replaced, which is another matter.
        let renewed = known.iter().any(|it| it.name.as_str() == server.server.name && it.id != server.id.to_string());
        server.id != own
            && !renewed
            && member.is_some_and(|it| matches!(it.status, MemberStatus::Failed | MemberStatus::Left))
    };
    if let Some(learner) = members.learners.iter().find(dead) {
        return Some(learner);
    }
    let voters = members.voters.len();
    let dead_voters = members.voters.iter().filter(dead).count();
    let most_are_well = dead_voters <= voters.saturating_sub(1) / 2;
    let enough_remain = voters as u64 > config.min_quorum;
    members.voters.iter().find(dead).filter(|_| most_are_well && enough_remain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::Server;

    fn member(number: u8) -> Member {
        let server = Server { name: format!("s{number}"), address: format!("10.0.0.{number}:8300") };
        Member { id: ServerId([number; 16]), server }
    }

    fn agent(number: u8, status: MemberStatus) -> Agent {
        Agent {
            name: format!("s{number}").parse().unwrap(),
            id: ServerId([number; 16]).to_string(),
            address: String::new(),
            port: 0,
            tags: BTreeMap::new(),
            meta: BTreeMap::new(),
            status,
            protocols: None,
        }
    }

    fn cleaned(config: &AutopilotConfig, voters: u8, failed: &[u8]) -> Option<ServerId> {
        let members = Membership { voters: (1..=voters).map(member).collect(), ..Membership::default() };
        let status = |number: &u8| if failed.contains(number) { MemberStatus::Failed } else { MemberStatus::Alive };
        let known: Vec<Agent> = (1..=voters).map(|number| agent(number, status(&number))).collect();
        to_clean_up(config, ServerId([1; 16]), &members, &known).map(|it| it.id)
    }

    #[test]
    fn a_failed_server_goes_only_while_most_are_well_and_enough_remain() {
        let config = AutopilotConfig::default();
        assert_eq!(cleaned(&config, 5, &[]), None);
        assert_eq!(cleaned(&config, 5, &[4, 5]), Some(ServerId([4; 16])));
        assert_eq!(cleaned(&config, 5, &[3, 4, 5]), None);
        assert_eq!(cleaned(&config, 2, &[2]), None);
        let three = AutopilotConfig { min_quorum: 3, ..AutopilotConfig::default() };
        assert_eq!(cleaned(&three, 3, &[3]), None);
        assert_eq!(cleaned(&three, 4, &[3]), Some(ServerId([3; 16])));
        let never = AutopilotConfig { cleanup_dead_servers: false, ..AutopilotConfig::default() };
        assert_eq!(cleaned(&never, 5, &[5]), None);
    }

    #[test]
    fn a_server_that_was_not_heard_of_yet_is_not_dead() {
        let members = Membership { voters: vec![member(1), member(2), member(3)], ..Membership::default() };
        assert!(to_clean_up(&AutopilotConfig::default(), ServerId([1; 16]), &members, &[]).is_none());
    }
}
