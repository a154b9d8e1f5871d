//! Tells what was done and what the servers say, in the resource's status. Only [`report`] needs a client.
//!
//! A status that says nothing new is not written: a write would wake the next pass, which would write again.

use std::time::SystemTime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use lictor_crds::{ConsulDatacenter, ConsulDatacenterStatus, Member, Quorum};
use serde_json::json;

use super::apply::Applied;
use super::fetch::Found;
use super::keys::{self, Keys};
use super::validate::Refusal;
use crate::names::Names;
use crate::servers::{Access, Observation};

/// Owns the status, apart from the manager of everything else.
const STATUS_MANAGER: &str = "lictor-operator-status";

/// What a pass came to before it reports.
pub(crate) enum Outcome {
    /// Everything was written.
    Applied { applied: Box<Applied>, keys: Box<Keys> },
    /// Nothing was written, and why.
    Untouched { refusal: Refusal, found: Box<Found> },
}

impl Outcome {
    /// What it takes to ask the servers, if the keys are there.
    pub(crate) fn access(&self) -> Option<Access> {
        let (ca_pem, token) = match self {
            Self::Applied { keys, .. } => (keys.ca_pem(), keys.token()),
            Self::Untouched { found, .. } => (
                found.keys.server_ca.as_ref().and_then(|data| keys::text(data, "ca.crt")),
                found.keys.bootstrap_token.as_ref().and_then(|data| keys::text(data, "token")),
            ),
        };
        Some(Access { ca_pem: ca_pem?, token: token? })
    }
}

/// The status after a pass.
pub(crate) fn status(
    datacenter: &ConsulDatacenter,
    outcome: &Outcome,
    observation: &Observation,
    now: SystemTime,
) -> ConsulDatacenterStatus {
    let names = Names::of(datacenter);
    let previous = datacenter.status.clone().unwrap_or_default();
    let stateful_set = match outcome {
        Outcome::Applied { applied, .. } => Some(&applied.stateful_set),
        Outcome::Untouched { found, .. } => found.stateful_set.as_ref(),
    };
    let pods = stateful_set.and_then(|set| set.status.as_ref());
    let leader = leader(observation);
    let quorum = quorum(datacenter, observation);
    let members: Vec<Member> = observation
        .servers
        .iter()
        .map(|server| Member {
            name: server.name.clone(),
            healthy: server.answered && server.leader.is_some(),
            leader: leader.as_ref() == Some(&server.name),
            voter: observation.voters.contains(&server.name),
            address: server.address.clone(),
        })
        .collect();
    let mut status = ConsulDatacenterStatus {
        observed_generation: datacenter.metadata.generation,
        replicas: pods.map_or(0, |pods| pods.replicas),
        ready_replicas: pods.and_then(|pods| pods.ready_replicas).unwrap_or_default(),
        selector: Some(
            names.selector().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
        ),
        bootstrapped: previous.bootstrapped || leader.is_some(),
        leader,
        quorum: Some(quorum),
        members,
        server_ca: outcome.access().map(|access| access.ca_pem).or(previous.server_ca),
        conditions: Vec::new(),
    };
    let settled = stateful_set.is_some_and(is_settled);
    status.conditions = conditions(datacenter, &status, outcome, settled)
        .into_iter()
        .map(|(type_, state, reason, message)| {
            let before = previous.conditions.iter().find(|condition| condition.type_ == type_);
            Condition {
                last_transition_time: before
                    .filter(|before| before.status == state.as_str())
                    .map_or_else(|| at_second(now), |before| before.last_transition_time.clone()),
                message,
                observed_generation: datacenter.metadata.generation,
                reason: reason.to_owned(),
                status: state.as_str().to_owned(),
                type_: type_.to_owned(),
            }
        })
        .collect();
    status
}

/// Whether the status says that all is well.
pub(crate) fn is_ready(status: &ConsulDatacenterStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Writes the status if it says anything new.
pub(crate) async fn report(
    client: &Client,
    datacenter: &ConsulDatacenter,
    status: ConsulDatacenterStatus,
) -> Result<(), kube::Error> {
    if datacenter.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": ConsulDatacenter::api_version(&()),
        "kind": ConsulDatacenter::kind(&()),
        "metadata": { "name": datacenter.name_any() },
        "status": status,
    });
    let datacenters = Api::<ConsulDatacenter>::namespaced(client.clone(), &Names::of(datacenter).namespace);
    let params = PatchParams::apply(STATUS_MANAGER).force();
    datacenters.patch_status(&datacenter.name_any(), &params, &Patch::Apply(&patch)).await.map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    True,
    False,
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The leader that most servers know.
fn leader(observation: &Observation) -> Option<String> {
    let known: Vec<&String> = observation.servers.iter().filter_map(|server| server.leader.as_ref()).collect();
    let count = |name: &String| known.iter().filter(|other| **other == name).count();
    known.iter().max_by_key(|name| (count(name), std::cmp::Reverse(name.as_str()))).map(|name| (*name).clone())
}

fn quorum(datacenter: &ConsulDatacenter, observation: &Observation) -> Quorum {
    // Before there are voters, the servers asked for are the ones that will vote.
    let voters = match observation.voters.len() {
        0 => datacenter.spec.servers.replicas,
        count => i32::try_from(count).unwrap_or(i32::MAX),
    };
    let healthy = observation
        .servers
        .iter()
        .filter(|server| server.answered && server.leader.is_some())
        .filter(|server| observation.voters.contains(&server.name))
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    Quorum { voters, healthy, needed: voters / 2 + 1, summary: format!("{healthy}/{voters}") }
}

/// Whether the StatefulSet has done all that its spec asks for.
fn is_settled(set: &k8s_openapi::api::apps::v1::StatefulSet) -> bool {
    let (Some(spec), Some(status)) = (&set.spec, &set.status) else { return false };
    status.observed_generation == set.metadata.generation
        && status.ready_replicas == spec.replicas
        && status.current_revision == status.update_revision
}

type Row = (&'static str, State, &'static str, String);

fn conditions(
    datacenter: &ConsulDatacenter,
    status: &ConsulDatacenterStatus,
    outcome: &Outcome,
    settled: bool,
) -> Vec<Row> {
    let asked = datacenter.spec.servers.replicas;
    let quorum = status.quorum.clone().unwrap_or_default();
    let refusal = match outcome {
        Outcome::Untouched { refusal, .. } => Some(refusal),
        Outcome::Applied { .. } => None,
    };
    let growth_refused = match outcome {
        Outcome::Applied { applied, .. } => applied.growth_refused.clone(),
        Outcome::Untouched { .. } => None,
    };
    let counted = format!("{} of {asked} servers are ready", status.ready_replicas);
    let all_vote = quorum.voters == asked && quorum.healthy == asked;
    let ready = settled && all_vote && status.leader.is_some();
    let lost = refusal.filter(|refusal| **refusal != Refusal::Paused);

    let ready_row = match (&lost, ready) {
        (Some(refusal), _) => ("Ready", State::False, refusal.reason(), refusal.to_string()),
        (None, true) => ("Ready", State::True, "AllServersVote", format!("{counted} and vote")),
        (None, false) if status.leader.is_none() => {
            ("Ready", State::False, "NoLeader", format!("{counted}; no leader yet"))
        }
        (None, false) => (
            "Ready",
            State::False,
            "ServersMissing",
            format!("{counted}; {} of {asked} vote and answer", quorum.healthy),
        ),
    };
    let reconciling = match refusal {
        Some(Refusal::Paused) => ("Reconciling", State::False, "Paused", Refusal::Paused.to_string()),
        Some(refusal) => ("Reconciling", State::False, refusal.reason(), refusal.to_string()),
        None if ready => ("Reconciling", State::False, "Settled", "all is as the spec asks".to_owned()),
        None => ("Reconciling", State::True, "Progressing", counted),
    };
    let stalled = match lost {
        Some(refusal) => ("Stalled", State::True, refusal.reason(), refusal.to_string()),
        None => ("Stalled", State::False, "NotStalled", String::new()),
    };
    let summary = format!("{} of {} voters answer, {} are needed", quorum.healthy, quorum.voters, quorum.needed);
    let quorum_row = match quorum.healthy {
        healthy if healthy == quorum.voters => ("QuorumHealthy", State::True, "Healthy", summary),
        healthy if healthy >= quorum.needed => ("QuorumHealthy", State::True, "Degraded", summary),
        0 if !status.bootstrapped => ("QuorumHealthy", State::Unknown, "Starting", summary),
        _ => ("QuorumHealthy", State::False, "Lost", summary),
    };
    let leader = match &status.leader {
        Some(leader) => ("LeaderElected", State::True, "Elected", format!("{leader} leads")),
        None => ("LeaderElected", State::False, "NoLeader", "no server names a leader".to_owned()),
    };
    let storage = match growth_refused {
        Some(reason) => ("StorageReady", State::False, "GrowthRefused", reason),
        None => ("StorageReady", State::True, "AsAsked", String::new()),
    };
    let paused = datacenter.spec.paused;
    let paused_row = ("Paused", State::from(paused), if paused { "Asked" } else { "NotAsked" }, String::new());
    vec![ready_row, reconciling, stalled, quorum_row, leader, storage, paused_row]
}

/// Kubernetes keeps whole seconds; so do we, that a status read back equals the one written.
fn at_second(now: SystemTime) -> Time {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Time(Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX))
}
