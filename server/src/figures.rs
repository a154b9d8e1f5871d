//! What a server counts. Names are Consul's.
//!
//! Of those that dashboards of Consul use, `acl.token_cache.hit` and `miss` are not here: nothing caches tokens.

use std::sync::Arc;
use std::time::Duration;

use lictor_identity::certificate_facts;
use lictor_runtime::metrics::{Counter, Gauge, Metrics, Sample};
use lictor_types::{Command, Envelope, encoding};
use parking_lot::Mutex;

use crate::datacenter::ServerDatacenter;
use crate::leader::autopilot;
use crate::raft::{Role, RoleCounters, Status};

/// The figures of one server.
pub struct ServerFigures {
    /// All of the agent's.
    pub(crate) metrics: Arc<Metrics>,
    /// Commands that went through raft.
    applied: Counter,
    /// From the proposal to the outcome.
    commit_time: Sample,
    kv: Sample,
    transactions: Sample,
    registered: Sample,
    deregistered: Sample,
    intentions: Sample,
    /// Requests of other agents.
    pub(crate) requests: Counter,
    /// Those that were refused.
    pub(crate) request_errors: Counter,
    /// Reads.
    pub(crate) queries: Counter,
    /// Connections to the server port.
    pub(crate) connections: Counter,
    /// The roles that it took in raft.
    pub(crate) roles: RoleCounters,
    /// At the leader: how long ago each other voter was heard of.
    contact: Sample,
    /// When the oldest entry of the log was proposed, by the index where the log began at the last look.
    oldest: Mutex<Option<(u64, u64)>>,
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
            transactions: metrics.sample("txn.apply", &[]),
            registered: metrics.sample("catalog.register", &[]),
            deregistered: metrics.sample("catalog.deregister", &[]),
            intentions: metrics.sample("intention.apply", &[]),
            requests: metrics.counter("rpc.request", &[]),
            request_errors: metrics.counter("rpc.request_error", &[]),
            queries: metrics.counter("rpc.query", &[]),
            connections: metrics.counter("rpc.accept_conn", &[]),
            roles: RoleCounters {
                leader: metrics.counter("raft.state.leader", &[]),
                candidate: metrics.counter("raft.state.candidate", &[]),
                follower: metrics.counter("raft.state.follower", &[]),
            },
            contact: metrics.sample("raft.leader.lastContact", &[]),
            oldest: Mutex::default(),
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
            Command::Transaction(_) => Some(&self.transactions),
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

    /// The leader has looked at its followers.
    pub(crate) fn heard(&self, status: &Status) {
        status.progress.values().filter_map(|progress| progress.contact).for_each(|age| self.contact.took(age));
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
        ("raft.commitIndex", raft.committed as f64),
        ("raft.appliedIndex", raft.applied as f64),
        ("raft.lastIndex", raft.last_log as f64),
        ("raft.term", raft.term as f64),
        ("raft.peers", membership.voters.len() as f64),
        ("server.isLeader", is(Role::Leader)),
        ("members.servers", (membership.voters.len() + membership.learners.len()) as f64),
        ("session_ttl.active", datacenter.sessions.count() as f64),
        ("state.index", usage.index.0 as f64),
        ("state.nodes", usage.nodes as f64),
        ("state.services", usage.services as f64),
        ("state.service_instances", usage.service_instances as f64),
        ("state.billable_service_instances", usage.billable_instances as f64),
        ("state.kv_entries", usage.keys as f64),
    ];
    gauges.extend(ends_of_authorities(datacenter));
    // Only the leader hears of clients, knows how the others are, and compares.
    if raft.role == Role::Leader {
        let members = datacenter.members.list();
        let clients = members.iter().filter(|member| !member.is_server()).count();
        gauges.push(("members.clients", clients as f64));
        let autopilot = autopilot::state(datacenter);
        gauges.push(("autopilot.healthy", f64::from(u8::from(autopilot.healthy))));
        gauges.push(("autopilot.failure_tolerance", f64::from(autopilot.failure_tolerance)));
        gauges.extend(oldest_log_age(datacenter).map(|millis| ("raft.leader.oldestLogAge", millis)));
        gauges.push(("state.differing_servers", datacenter.equality.count() as f64));
    }
    gauges.into_iter().map(|(name, value)| Gauge { name, value }).collect()
}

/// Milliseconds since the oldest entry was proposed that the log still holds. The log is read only when it begins elsewhere
/// than at the last look.
fn oldest_log_age(datacenter: &ServerDatacenter) -> Option<f64> {
    let first = datacenter.consensus.first_index()?;
    let mut known = datacenter.figures.oldest.lock();
    if known.is_none_or(|(at, _)| at != first) {
        let envelope = datacenter.consensus.oldest_envelope()?;
        let envelope: Envelope = encoding::decode(&envelope).ok()?;
        *known = Some((first, envelope.leader_time.0));
    }
    let (_, proposed) = (*known)?;
    Some(datacenter.clock.unix_millis().saturating_sub(proposed) as f64)
}

/// Seconds until the certificates of the mesh CA end.
fn ends_of_authorities(datacenter: &ServerDatacenter) -> Vec<(&'static str, f64)> {
    let store = datacenter.published.load();
    let Some(authority) = store.authority() else { return Vec::new() };
    let now = datacenter.clock.now();
    let seconds = |pem: &str| {
        let end = certificate_facts(pem).ok()?.not_after;
        Some(end.duration_since(now).map_or(0.0, |left| left.as_secs_f64()))
    };
    let root = seconds(&authority.root.root_cert).map(|left| ("mesh.active-root-ca.expiry", left));
    let signing = seconds(&authority.intermediate_pem).map(|left| ("mesh.active-signing-ca.expiry", left));
    root.into_iter().chain(signing).collect()
}
