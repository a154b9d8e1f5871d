//! What a server counts.

use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::metrics::{Counter, Gauge, Metrics, Sample};
use lictor_types::Command;

use crate::datacenter::ServerDatacenter;
use crate::raft::Role;

/// The figures of one server. Names are Consul's.
pub struct ServerFigures {
    /// All of the agent's.
    pub(crate) metrics: Arc<Metrics>,
    /// Commands that went through raft.
    applied: Counter,
    /// From the proposal to the outcome.
    commit_time: Sample,
    kv: Sample,
    registered: Sample,
    deregistered: Sample,
    intentions: Sample,
    /// Requests of other agents.
    pub(crate) requests: Counter,
    /// Those that were refused.
    pub(crate) request_errors: Counter,
    /// Reads.
    pub(crate) queries: Counter,
    /// Times that the states of the servers were compared.
    pub(crate) states_compared: Counter,
    /// Servers that were found to differ.
    pub(crate) states_differed: Counter,
    /// Times that it was said that there is no leader.
    pub(crate) leaderless: Counter,
}

impl Default for ServerFigures {
    fn default() -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            applied: metrics.counter("raft.apply", &[]),
            commit_time: metrics.sample("raft.commitTime", &[]),
            kv: metrics.sample("kvs.apply", &[]),
            registered: metrics.sample("catalog.register", &[]),
            deregistered: metrics.sample("catalog.deregister", &[]),
            intentions: metrics.sample("intention.apply", &[]),
            requests: metrics.counter("rpc.request", &[]),
            request_errors: metrics.counter("rpc.request_error", &[]),
            queries: metrics.counter("rpc.query", &[]),
            states_compared: metrics.counter("state.compared", &[]),
            leaderless: metrics.counter("raft.leaderless", &[]),
            states_differed: metrics.counter("state.differed", &[]),
            metrics,
        }
    }
}

impl ServerFigures {
    /// Where the time of this command belongs, besides raft's own.
    pub(crate) fn sample_of(&self, command: &Command) -> Option<&Sample> {
        match command {
            Command::Kv(_) => Some(&self.kv),
            Command::Register(_) | Command::RegisterWithin(_) => Some(&self.registered),
            Command::Deregister(_) => Some(&self.deregistered),
            Command::IntentionsSet(_)
            | Command::IntentionsDelete(_)
            | Command::IntentionUpsert(_)
            | Command::IntentionDelete(_) => Some(&self.intentions),
            _ => None,
        }
    }

    pub(crate) fn committed(&self, of_command: Option<&Sample>, took: Duration) {
        self.applied.increment();
        self.commit_time.took(took);
        if let Some(sample) = of_command {
            sample.took(took);
        }
    }
}

impl ServerDatacenter {
    /// The agent's figures, the server's among them.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.figures.metrics)
    }
}

/// Shows what raft and the state are whenever somebody looks.
pub(crate) fn show_gauges(datacenter: &Arc<ServerDatacenter>) {
    // Not the datacenter itself: it holds the figures, and neither would ever end.
    let weak = Arc::downgrade(datacenter);
    datacenter.figures.metrics.collect(move |gauges| {
        if let Some(datacenter) = weak.upgrade() {
            gauges.extend(gauges_of(&datacenter));
        }
    });
}

fn gauges_of(datacenter: &ServerDatacenter) -> Vec<Gauge> {
    let raft = datacenter.consensus.status();
    let membership = datacenter.consensus.membership();
    let store = datacenter.published.load();
    let usage = store.usage();
    let is = |role: Role| if raft.role == role { 1.0 } else { 0.0 };
    let mut gauges = vec![
        ("raft.state.leader", is(Role::Leader)),
        ("raft.state.candidate", is(Role::Candidate)),
        ("raft.state.follower", is(Role::Follower)),
        ("raft.leader.lastContact", datacenter.consensus.last_contact().as_secs_f64() * 1000.0),
        ("raft.commitIndex", raft.committed as f64),
        ("raft.appliedIndex", raft.applied as f64),
        ("raft.lastIndex", raft.last_log as f64),
        ("raft.term", raft.term as f64),
        ("raft.peers", membership.voters.len() as f64),
        ("server.isLeader", is(Role::Leader)),
        ("members.servers", (membership.voters.len() + membership.learners.len()) as f64),
        ("state.index", usage.index.0 as f64),
        ("state.nodes", usage.nodes as f64),
        ("state.services", usage.services as f64),
        ("state.service_instances", usage.service_instances as f64),
        ("state.billable_service_instances", usage.billable_instances as f64),
        ("state.kv_entries", usage.keys as f64),
    ];
    // Only the leader hears of clients, and only it compares.
    if raft.role == Role::Leader {
        let members = datacenter.members.list();
        let clients = members.iter().filter(|member| !member.is_server()).count();
        gauges.push(("members.clients", clients as f64));
        gauges.push(("state.differing_servers", datacenter.equality.count() as f64));
    }
    gauges.into_iter().map(|(name, value)| Gauge { name, value }).collect()
}
