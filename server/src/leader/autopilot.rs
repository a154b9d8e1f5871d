//! How the servers of raft are, as the leader sees them.
//!
//! A server is healthy when it is alive as a member, answers the leader in time, is not far behind, and holds the same state
//! as most others. It stops being so
//! at the second look in a row that finds it otherwise: one slow answer of a busy machine is not an illness.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_types::autopilot::{AutopilotConfig, AutopilotState, RaftPeer, RaftPeers, ServerHealth};
use lictor_types::{Member, MemberStatus, Timestamp};
use parking_lot::Mutex;

use crate::datacenter::ServerDatacenter;
use crate::membership;
use crate::raft::{self, Membership, ServerId, Status};

/// A server that was found ill this many times in a row is ill.
const LOOKS: u32 = 2;

/// What one look after the other found. It begins anew with every lead.
#[derive(Default)]
pub(crate) struct HealthTable(Mutex<BTreeMap<ServerId, Record>>);

#[derive(Clone, Copy)]
struct Record {
    healthy: bool,
    since: Timestamp,
    ill_looks: u32,
}

impl HealthTable {
    /// A lead is over.
    pub(crate) fn end(&self) {
        self.0.lock().clear();
    }

    /// Notes what a look found; servers that are gone are forgotten.
    fn note(&self, now: Timestamp, found: &[(ServerId, bool)]) {
        let mut records = self.0.lock();
        records.retain(|id, _| found.iter().any(|(known, _)| known == id));
        for (id, healthy) in found {
            let record = records.entry(*id).or_insert(Record { healthy: *healthy, since: now, ill_looks: 0 });
            record.ill_looks = if *healthy { 0 } else { record.ill_looks + 1 };
            let next = *healthy || (record.healthy && record.ill_looks < LOOKS);
            if next != record.healthy {
                *record = Record { healthy: next, since: now, ill_looks: record.ill_looks };
            }
        }
    }

    fn of(&self, id: ServerId) -> Option<(bool, Timestamp)> {
        self.0.lock().get(&id).map(|record| (record.healthy, record.since))
    }

    /// Whether a server has been healthy for `needed`.
    pub(crate) fn is_stable(&self, id: ServerId, now: Timestamp, needed: Duration) -> bool {
        self.of(id).is_some_and(|(healthy, since)| healthy && since.after(needed) <= now)
    }
}

/// The configuration in force.
pub(crate) fn config(datacenter: &ServerDatacenter) -> AutopilotConfig {
    datacenter.published.load().autopilot().cloned().unwrap_or_default()
}

/// Looks at every server once and notes it.
pub(crate) fn look(datacenter: &ServerDatacenter) {
    let config = config(datacenter);
    let (members, status) = (datacenter.consensus.membership(), datacenter.consensus.status());
    let known = datacenter.members.list();
    let found: Vec<(ServerId, bool)> = all(&members)
        .map(|(server, _)| {
            let is_equal = datacenter.equality.differs_at(server.id).is_none();
            (server.id, is_equal && is_healthy(datacenter.consensus.id(), &config, &status, server, &known))
        })
        .collect();
    datacenter.health.note(Timestamp::from(datacenter.clock.now()), &found);
    datacenter.figures.heard(&status);
}

fn all(members: &Membership) -> impl Iterator<Item = (&raft::Member, bool)> {
    members.voters.iter().map(|it| (it, true)).chain(members.learners.iter().map(|it| (it, false)))
}

fn is_healthy(
    own: ServerId,
    config: &AutopilotConfig,
    status: &Status,
    server: &raft::Member,
    known: &[Member],
) -> bool {
    if server.id == own {
        return true;
    }
    let alive = member_of(server, known).is_some_and(|member| member.status == MemberStatus::Alive);
    let in_time = status
        .progress
        .get(&server.id)
        .and_then(|progress| progress.contact)
        .is_some_and(|age| age.as_millis() <= u128::from(config.last_contact_threshold_millis));
    let behind = status.last_log.saturating_sub(status.matched.get(&server.id).copied().unwrap_or(0));
    alive && in_time && behind <= config.max_trailing_logs
}

/// The member that runs this server; a member of the same name with another id is another.
pub(crate) fn member_of<'a>(server: &raft::Member, known: &'a [Member]) -> Option<&'a Member> {
    known.iter().find(|member| member.id == server.id.to_string())
}

/// What the leader tells of all servers.
pub(crate) fn state(datacenter: &ServerDatacenter) -> AutopilotState {
    let (members, status) = (datacenter.consensus.membership(), datacenter.consensus.status());
    let known = datacenter.members.list();
    let own = datacenter.consensus.id();
    let now = Timestamp::from(datacenter.clock.now());
    let servers: Vec<ServerHealth> = all(&members)
        .filter_map(|(server, voter)| {
            let address = membership::address(server)?;
            let member = member_of(server, &known);
            let (healthy, stable_since) = datacenter.health.of(server.id).unwrap_or((server.id == own, now));
            let progress = status.progress.get(&server.id);
            let leader = server.id == own;
            Some(ServerHealth {
                server: address,
                member_status: member.map_or("none", |member| member.status.as_str()).to_owned(),
                version: member.and_then(|member| member.tags.get("build").cloned()).unwrap_or_default(),
                leader,
                voter,
                last_contact_millis: if leader {
                    Some(0)
                } else {
                    progress.and_then(|it| it.contact).map(|age| age.as_millis() as u64)
                },
                last_term: if leader { status.last_term } else { progress.map_or(0, |it| it.term) },
                last_index: if leader { status.last_log } else { status.matched.get(&server.id).copied().unwrap_or(0) },
                healthy,
                stable_since,
                differs_at: datacenter.equality.differs_at(server.id),
            })
        })
        .collect();
    let voters = servers.iter().filter(|it| it.voter).count();
    let healthy_voters = servers.iter().filter(|it| it.voter && it.healthy).count();
    AutopilotState {
        healthy: servers.iter().all(|it| it.healthy),
        failure_tolerance: healthy_voters.saturating_sub(voters / 2 + 1) as u32,
        servers,
    }
}

/// Who is in raft, as this server knows it; how far others are is known only to the leader.
pub(crate) fn peers(datacenter: &ServerDatacenter) -> RaftPeers {
    let (members, status) = (datacenter.consensus.membership(), datacenter.consensus.status());
    let own = datacenter.consensus.id();
    let leader = datacenter.consensus.leader().borrow().as_ref().map(|leader| leader.id);
    let servers = all(&members)
        .filter_map(|(server, voter)| {
            let last_index =
                if server.id == own { status.last_log } else { status.matched.get(&server.id).copied().unwrap_or(0) };
            Some(RaftPeer {
                server: membership::address(server)?,
                leader: leader == Some(server.id),
                voter,
                last_index,
            })
        })
        .collect();
    RaftPeers { servers, index: status.committed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_far_behind_or_no_living_member_is_not_healthy() {
        let (own, id) = (ServerId([1; 16]), ServerId([2; 16]));
        let server = raft::Member { id, server: raft::Server { name: "s2".into(), address: "10.0.0.2:8300".into() } };
        let config =
            AutopilotConfig { last_contact_threshold_millis: 200, max_trailing_logs: 250, ..Default::default() };
        let member = |status| Member {
            name: "s2".parse().unwrap(),
            id: id.to_string(),
            address: String::new(),
            port: 0,
            tags: BTreeMap::new(),
            meta: BTreeMap::new(),
            status,
            protocols: None,
        };
        let healthy = |status, contact: Option<u64>, matched: u64| {
            let progress = raft::ServerProgress { term: 1, contact: contact.map(Duration::from_millis) };
            let status_of_raft = Status {
                role: raft::Role::Leader,
                term: 1,
                last_log: 1000,
                committed: 1000,
                applied: 1000,
                snapshot: 0,
                matched: BTreeMap::from([(id, matched)]),
                last_term: 1,
                progress: BTreeMap::from([(id, progress)]),
            };
            is_healthy(own, &config, &status_of_raft, &server, &[member(status)])
        };
        assert!(healthy(MemberStatus::Alive, Some(200), 750));
        assert!(!healthy(MemberStatus::Alive, Some(201), 750), "it was silent for too long");
        assert!(!healthy(MemberStatus::Alive, None, 750), "it never answered");
        assert!(!healthy(MemberStatus::Alive, Some(200), 749), "it is too far behind");
        assert!(!healthy(MemberStatus::Failed, Some(200), 1000) && !healthy(MemberStatus::Left, Some(200), 1000));
    }

    #[test]
    fn one_slow_answer_is_no_illness_and_two_are() {
        let table = HealthTable::default();
        let id = ServerId([1; 16]);
        let needed = Duration::from_secs(2);
        table.note(Timestamp(0), &[(id, true)]);
        table.note(Timestamp(1_000), &[(id, false)]);
        table.note(Timestamp(2_000), &[(id, true)]);
        assert!(table.is_stable(id, Timestamp(2_000), needed));
        table.note(Timestamp(3_000), &[(id, false)]);
        table.note(Timestamp(3_500), &[(id, false)]);
        assert_eq!(table.of(id), Some((false, Timestamp(3_500))));
        table.note(Timestamp(4_000), &[(id, true)]);
        assert!(!table.is_stable(id, Timestamp(5_999), needed));
        assert!(table.is_stable(id, Timestamp(6_000), needed));
        table.note(Timestamp(7_000), &[]);
        assert_eq!(table.of(id), None);
    }
}
