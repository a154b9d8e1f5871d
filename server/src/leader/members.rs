//! Who is alive: heard by the leader through keepalives, written into the catalog.
//!
//! A new leader gives every member it finds in the catalog a full [`FAILED_AFTER`] to be heard of, so that a change of
//! leader alone never declares anybody dead.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_state::Store;
use lictor_state::access::Duty;
use lictor_types::check::SERF_HEALTH;
use lictor_types::command::{Effect, NameRight};
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

    /// Whether a node that logs in may have this name and this id, by who is alive.
    ///
    /// # Errors
    /// 403: another member has one of them.
    pub(crate) fn may_log_in(&self, node: &NodeName, id: &str, right: NameRight) -> Result<(), Refusal> {
        let members = self.members.lock();
        let others = members.values().map(|heard| &heard.member).filter(|it| it.status == MemberStatus::Alive);
        for other in others {
            let (same_name, same_id) = (other.name.key() == node.key(), other.id.eq_ignore_ascii_case(id));
            if same_name && (other.is_server() || !same_id && right != NameRight::Proven) {
                return Err(Refusal::permission_denied(format!(
                    "the node name {:?} belongs to the member {} ({}), which is alive: give this agent another name with \
                     -node, or stop that one",
                    node.as_str(),
                    other.id,
                    other.address
                )));
            }
            if same_id && !same_name && !id.is_empty() {
                return Err(Refusal::permission_denied(format!(
                    "the node id {id} is that of the member {}, which is alive: every agent needs a data directory of its \
                     own",
                    other.name
                )));
            }
        }
        Ok(())
    }

    /// A member leaves on purpose.
    pub(crate) fn left(&self, node: &NodeName) {
        if let Some(heard) = self.members.lock().get_mut(node) {
            heard.member.status = MemberStatus::Left;
            heard.at = Instant::now();
        }
        self.changed.notify_one();
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
