//! Who is alive: heard by the leader through keepalives, written into the catalog.
//!
//! A new leader gives every member it finds in the catalog a full [`FAILED_AFTER`] to be heard of, so that a change of
//! leader alone never declares anybody dead.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_state::Store;
use lictor_state::access::Duty;
use lictor_types::check::SERF_HEALTH;
use lictor_types::command::Effect;
use lictor_types::{
    CheckStatus, Command, Deregistration, HealthCheck, Member, MemberStatus, NodeName, NodeService, Refusal,
    Registration,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;
use crate::leader::catalog;

/// Without a keepalive for this long a member has failed: three keepalives and room for one slow one.
pub const FAILED_AFTER: Duration = Duration::from_secs(15);
/// A failed node that is a pod is forgotten after this long.
pub const POD_FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);
/// Any other failed node is forgotten after this long (Consul's `reconnect_timeout`).
pub const NODE_FORGOTTEN_AFTER: Duration = Duration::from_secs(72 * 3600);
/// Between two looks when nobody is newly heard of.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// Node meta that marks a pod.
const META_POD: &str = "pod-uid";

/// Who was heard of, and when.
#[derive(Default)]
pub struct MemberTable {
    members: Mutex<BTreeMap<NodeName, Heard>>,
    changed: Notify,
}

#[derive(Clone)]
struct Heard {
    member: Member,
    at: Instant,
}

impl MemberTable {
    /// A lead begins: adds the members that the catalog knows, as heard of just now. Who spoke up already is kept.
    pub(crate) fn start(&self, store: &Store) {
        let now = Instant::now();
        let mut members = self.members.lock();
        for member in catalog::members(store) {
            members.entry(member.name.clone()).or_insert(Heard { member, at: now });
        }
    }

    /// A lead is over: what was heard is of no use to a later one.
    pub(crate) fn end(&self) {
        self.members.lock().clear();
    }

    /// A member says that it is there.
    pub(crate) fn heard_of(&self, member: Member) {
        let heard = Heard { member, at: Instant::now() };
        let before = self.members.lock().insert(heard.member.name.clone(), heard.clone());
        if before.is_none_or(|before| before.member != heard.member) {
            self.changed.notify_one();
        }
    }

    /// A member leaves on purpose.
    pub(crate) fn left(&self, node: &NodeName) {
        if let Some(heard) = self.members.lock().get_mut(node) {
            heard.member.status = MemberStatus::Left;
            heard.at = Instant::now();
        }
        self.changed.notify_one();
    }

    /// Counts a member that has failed as left; whether it is known at all. One that is alive would say so again at once, so
    /// it stays as it is.
    pub(crate) fn force_left(&self, node: &str) -> bool {
        let mut members = self.members.lock();
        let found = members.values_mut().find(|heard| heard.member.name.as_str().eq_ignore_ascii_case(node));
        let Some(heard) = found else { return false };
        if heard.member.status == MemberStatus::Failed {
            heard.member.status = MemberStatus::Left;
            self.changed.notify_one();
        }
        true
    }

    /// Everybody, by name.
    pub(crate) fn list(&self) -> Vec<Member> {
        self.members.lock().values().map(|heard| heard.member.clone()).collect()
    }

    /// Marks as failed who was not heard of in time; returns everybody with the time since the last word.
    fn review(&self, now: Instant) -> Vec<(Member, Duration)> {
        let mut members = self.members.lock();
        for heard in members.values_mut() {
            let silent = now.duration_since(heard.at);
            if heard.member.status == MemberStatus::Alive && silent > FAILED_AFTER {
                tracing::warn!(node = %heard.member.name, seconds = silent.as_secs(), "member has failed");
                heard.member.status = MemberStatus::Failed;
            }
        }
        members.values().map(|heard| (heard.member.clone(), now.duration_since(heard.at))).collect()
    }

    fn forget(&self, node: &NodeName) {
        self.members.lock().remove(node);
    }
}

/// Keeps the catalog's nodes equal to the members, for as long as this server leads.
pub(crate) async fn reconcile(datacenter: &ServerDatacenter) {
    loop {
        for (member, silent) in datacenter.members.review(Instant::now()) {
            if let Err(refusal) = reconcile_one(datacenter, &member, silent).await {
                tracing::warn!(node = %member.name, %refusal, "could not write a member into the catalog");
            }
        }
        let _either = tokio::time::timeout(RECONCILE_INTERVAL, datacenter.members.changed.notified()).await;
    }
}

async fn reconcile_one(datacenter: &ServerDatacenter, member: &Member, silent: Duration) -> Result<(), Refusal> {
    let forgotten_after = if member.meta.contains_key(META_POD) { POD_FORGOTTEN_AFTER } else { NODE_FORGOTTEN_AFTER };
    let gone = match member.status {
        MemberStatus::Left => true,
        MemberStatus::Failed => silent > forgotten_after,
        MemberStatus::Alive | MemberStatus::Leaving => false,
    };
    let command = if gone {
        let known = catalog::of_node(&datacenter.published.load(), &member.name).is_some();
        known.then(|| {
            Command::Deregister(Deregistration {
                node: member.name.clone(),
                service_id: None,
                check_id: None,
                authorized_service: None,
            })
        })
    } else {
        registration(datacenter, member).map(|it| Command::Register(Box::new(it)))
    };
    if let Some(command) = command
        && let Effect::Refused(refusal) = datacenter.write_as(Duty::Reconcile, command).await?.effect
    {
        return Err(refusal);
    }
    if gone {
        datacenter.members.forget(&member.name);
    }
    Ok(())
}

/// What must be written about `member`; nothing when the catalog says it already.
fn registration(datacenter: &ServerDatacenter, member: &Member) -> Option<Registration> {
    let store = datacenter.published.load();
    let check = serf_health(member);
    let service = member.is_server().then(|| consul_service(member));
    let known = catalog::of_node(&store, &member.name);
    let is_right = known.is_some_and(|(node, services)| {
        let same_node = node.address == member.address && node.id == member.id && node.meta == member.meta;
        let same_service =
            service.as_ref().is_none_or(|it| services.get(it.id_text()).is_some_and(|row| row.port == it.port));
        same_node && same_service && catalog::serf_health(&store, &member.name) == Some(check.status)
    });
    (!is_right).then(|| Registration {
        id: member.id.clone(),
        node: member.name.clone(),
        address: member.address.clone(),
        datacenter: datacenter.settings.datacenter.clone(),
        tagged_addresses: lan_addresses(&member.address),
        node_meta: member.meta.clone(),
        service,
        check: Some(check),
        checks: Vec::new(),
        skip_node_update: false,
    })
}

fn lan_addresses(address: &str) -> BTreeMap<String, String> {
    let family = if address.contains(':') { "ipv6" } else { "ipv4" };
    ["lan".to_owned(), "wan".to_owned(), format!("lan_{family}"), format!("wan_{family}")]
        .into_iter()
        .map(|tag| (tag, address.to_owned()))
        .collect()
}

fn serf_health(member: &Member) -> HealthCheck {
    let (status, output) = match member.status {
        MemberStatus::Alive | MemberStatus::Leaving => (CheckStatus::Passing, "Agent alive and reachable"),
        MemberStatus::Left | MemberStatus::Failed => (CheckStatus::Critical, "Agent not live or unreachable"),
    };
    let id = SERF_HEALTH.parse().expect("a constant that is a legal check id");
    HealthCheck::new(id, "Serf Health Status", status, output)
}

/// What Consul's servers tell of themselves in the catalog.
const CONSUL_SERVICE_META: [(&str, &str); 6] = [
    ("non_voter", "false"),
    ("raft_version", "3"),
    ("read_replica", "false"),
    ("serf_protocol_current", "2"),
    ("serf_protocol_max", "5"),
    ("serf_protocol_min", "1"),
];

fn consul_service(member: &Member) -> NodeService {
    let port = member.tags.get("port").and_then(|port| port.parse().ok()).unwrap_or_default();
    NodeService {
        port,
        meta: CONSUL_SERVICE_META
            .into_iter()
            .chain(member.tags.get("build").map(|build| ("version", build.as_str())))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        ..NodeService::new("consul".parse().expect("a constant that is a legal service name"))
    }
}
