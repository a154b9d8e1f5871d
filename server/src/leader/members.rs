//! Who is alive: heard by the leader through keepalives and told by gossip, written into the catalog.
//!
//! Invariants
//! - A new leader gives every member it finds in the catalog a full [`FAILED_AFTER`] to be heard of, so that a change of
//!   leader alone never declares anybody dead.
//! - Who keeps an RPC session is alive, whatever gossip tells: the holder of a gossip key declares nobody dead.
//! - Gossip tells of the member with the same node id; of another one under the name it tells nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_agent::agent::tagged_addresses;
use lictor_agent::local::{Expiries, Verdict};
use lictor_state::Store;
use lictor_state::access::Duty;
use lictor_types::check::SERF_HEALTH;
use lictor_types::command::{Effect, NameRight};
use lictor_types::member::reconnect_timeout;
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
/// A member that gossip calls failed or gone has no RPC session any more after this long: two keepalives.
pub const SESSION_OVER_AFTER: Duration = Duration::from_secs(10);
/// A failed node that is a pod is forgotten after this long.
pub const POD_FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);
/// Between two looks when nobody is newly heard of.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause before a member that could not be written is tried again.
const TROUBLE_PAUSE_LONGEST: Duration = Duration::from_secs(8);
/// Node meta that marks a pod.
const META_POD: &str = "pod-uid";

/// Who was heard of, and when.
#[derive(Default)]
pub struct MemberTable {
    members: Mutex<BTreeMap<NodeName, Heard>>,
    /// Everybody whom gossip knows.
    told: Mutex<BTreeMap<NodeName, Member>>,
    /// Members that failed of late: many at once are more likely our own trouble than theirs.
    expiries: Mutex<Expiries>,
    changed: Notify,
}

#[derive(Clone)]
struct Heard {
    member: Member,
    at: Instant,
    /// The node that had the name before, by its id, and when it was last heard of: nobody else remembers, and its row in
    /// the catalog holds the name until it has failed.
    before: Option<(String, Instant)>,
    /// How much longer it may be silent, where many are: see [`Expiries`].
    grace: Duration,
}

impl Heard {
    fn of(member: Member, at: Instant) -> Self {
        Self { member, at, before: None, grace: Duration::ZERO }
    }
}

/// A member that could not be written.
struct Trouble {
    text: String,
    failures: u32,
    next: Instant,
}

impl MemberTable {
    /// A lead begins: adds the members that the catalog knows, as heard of just now. Who spoke up already is kept.
    pub(crate) fn start(&self, store: &Store) {
        let now = Instant::now();
        let mut members = self.members.lock();
        for member in catalog::members(store) {
            members.entry(member.name.clone()).or_insert_with(|| Heard::of(member, now));
        }
    }

    /// A lead is over: what was heard is of no use to a later one.
    pub(crate) fn end(&self) {
        self.members.lock().clear();
    }

    /// A member says that it is there.
    pub(crate) fn heard_of(&self, member: Member) {
        let mut members = self.members.lock();
        let known = members.get(&member.name);
        let is_news = known.is_none_or(|known| known.member != member);
        let before = known.and_then(|known| match known.member.id == member.id {
            true => known.before.clone(),
            false => Some((known.member.id.clone(), known.at)),
        });
        members.insert(member.name.clone(), Heard { before, ..Heard::of(member, Instant::now()) });
        drop(members);
        if is_news {
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

    /// Gossip knows these members and nobody else.
    pub(crate) fn told_all(&self, members: Vec<Member>) {
        *self.told.lock() = members.into_iter().map(|member| (member.name.clone(), member)).collect();
        self.changed.notify_one();
    }

    /// Gossip tells of a member; whether it knows it at all from now on.
    pub(crate) fn told(&self, member: Member, known: bool) {
        let mut told = self.told.lock();
        if known {
            told.insert(member.name.clone(), member);
        } else {
            told.remove(&member.name);
        }
        drop(told);
        self.changed.notify_one();
    }

    /// A member leaves on purpose.
    pub(crate) fn left(&self, node: &NodeName) {
        if let Some(heard) = self.members.lock().get_mut(node) {
            heard.member.status = MemberStatus::Left;
            heard.at = Instant::now();
        }
        self.changed.notify_one();
    }

    /// Counts a member that has failed as left; whether it is known at all, if by gossip alone. One that is alive would say
    /// so again at once, so it stays as it is.
    pub(crate) fn force_left(&self, node: &str) -> bool {
        let mut members = self.members.lock();
        let found = members.values_mut().find(|heard| heard.member.name.as_str().eq_ignore_ascii_case(node));
        let Some(heard) = found else {
            return self.told.lock().keys().any(|name| name.as_str().eq_ignore_ascii_case(node));
        };
        if heard.member.status == MemberStatus::Failed {
            heard.member.status = MemberStatus::Left;
            self.changed.notify_one();
        }
        true
    }

    /// Everybody, by name: who was heard of, and whom only gossip knows.
    pub(crate) fn list(&self) -> Vec<Member> {
        let mut all = self.told.lock().clone();
        all.extend(self.members.lock().values().map(|heard| (heard.member.name.clone(), heard.member.clone())));
        all.into_values().collect()
    }

    /// Takes in whom gossip calls alive and `takes` accepts; marks as failed or gone who was not heard of in time; returns
    /// everybody with the time since the last word. Of many that would fail at once, most are given as long again, once.
    fn review(&self, now: Instant, takes: impl Fn(&Member) -> bool) -> Vec<(Member, Duration)> {
        let mut members = self.members.lock();
        let told = self.told.lock();
        for (name, member) in told.iter().filter(|(_, it)| it.status == MemberStatus::Alive && takes(it)) {
            members.entry(name.clone()).or_insert_with(|| Heard::of(member.clone(), now));
        }
        let mut expiries = self.expiries.lock();
        let all = members.values().filter(|heard| heard.member.status != MemberStatus::Left).count();
        for (name, heard) in members.iter_mut() {
            let silent = now.duration_since(heard.at);
            let told = told.get(name).filter(|it| it.id.eq_ignore_ascii_case(&heard.member.id)).map(|it| it.status);
            let limit = match told {
                // It answers others; its calls to us may be what is slow.
                Some(MemberStatus::Alive | MemberStatus::Leaving) if heard.member.status != MemberStatus::Left => {
                    (heard.member.status, heard.grace) = (MemberStatus::Alive, Duration::ZERO);
                    continue;
                }
                Some(MemberStatus::Left) if silent > SESSION_OVER_AFTER => {
                    heard.member.status = MemberStatus::Left;
                    continue;
                }
                Some(MemberStatus::Failed) => SESSION_OVER_AFTER,
                _ => FAILED_AFTER,
            };
            if heard.member.status != MemberStatus::Alive || silent <= limit + heard.grace {
                continue;
            }
            match expiries.judge("", all, FAILED_AFTER * 2, !heard.grace.is_zero(), now) {
                Verdict::Expired => {
                    tracing::warn!(node = %heard.member.name, seconds = silent.as_secs(), "member has failed");
                    heard.member.status = MemberStatus::Failed;
                }
                Verdict::Held { grace, first } => {
                    heard.grace = grace;
                    if first {
                        tracing::warn!(
                            members = all,
                            held_back_seconds = grace.as_secs(),
                            "many members are silent at once; most are given longer before they count as failed"
                        );
                    }
                }
            }
        }
        members.values().map(|heard| (heard.member.clone(), now.duration_since(heard.at))).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.members.lock().len()
    }

    /// Whether the node with this id, which had the name before, was not heard of in time.
    fn has_failed_before(&self, node: &NodeName, id: &str) -> bool {
        let members = self.members.lock();
        let before = members.get(node).and_then(|heard| heard.before.as_ref());
        before.is_some_and(|(before, at)| before.eq_ignore_ascii_case(id) && at.elapsed() > FAILED_AFTER)
    }

    fn forget(&self, node: &NodeName) {
        self.members.lock().remove(node);
    }
}

/// Keeps the catalog's nodes equal to the members, for as long as this server leads.
pub(crate) async fn reconcile(datacenter: &ServerDatacenter) {
    let mut troubled: BTreeMap<NodeName, Trouble> = BTreeMap::new();
    loop {
        let members = datacenter.members.review(Instant::now(), |member| is_taken_on_gossips_word(datacenter, member));
        troubled.retain(|node, _| members.iter().any(|(member, _)| member.name == *node));
        for (member, silent) in members {
            if troubled.get(&member.name).is_some_and(|trouble| Instant::now() < trouble.next) {
                continue;
            }
            match reconcile_one(datacenter, &member, silent).await {
                Ok(()) => {
                    if let Some(trouble) = troubled.remove(&member.name) {
                        tracing::info!(node = %member.name, attempts = trouble.failures + 1, "wrote the member at last");
                    }
                }
                Err(refusal) => note_trouble(&mut troubled, &member.name, refusal),
            }
        }
        let _either = tokio::time::timeout(RECONCILE_INTERVAL, datacenter.members.changed.notified()).await;
    }
}

/// Whether a member that never had an RPC session gets a node in the catalog: a client of this datacenter, where nobody needs
/// a token for that. A server is one because raft says so.
fn is_taken_on_gossips_word(datacenter: &ServerDatacenter, member: &Member) -> bool {
    let tag = |key: &str| member.tags.get(key).map(String::as_str);
    !datacenter.authorizer.acl_enabled
        && tag("role") == Some("node")
        && tag("dc") == Some(&datacenter.settings.datacenter)
        && !member.id.is_empty()
}

/// Says once what is wrong with a member, again when it is something else, and lets it rest for a growing while.
fn note_trouble(troubled: &mut BTreeMap<NodeName, Trouble>, node: &NodeName, refusal: Refusal) {
    let known = troubled.get(node);
    let failures = known.map_or(0, |trouble| trouble.failures);
    if known.is_none_or(|trouble| trouble.text != refusal.text) {
        tracing::warn!(%node, %refusal, "could not write a member into the catalog; trying again, but silently");
    }
    let pause = RECONCILE_INTERVAL.saturating_mul(1 << failures.min(8)).min(TROUBLE_PAUSE_LONGEST);
    let trouble = Trouble { text: refusal.text, failures: failures + 1, next: Instant::now() + pause };
    troubled.insert(node.clone(), trouble);
}

async fn reconcile_one(datacenter: &ServerDatacenter, member: &Member, silent: Duration) -> Result<(), Refusal> {
    let is_pod = member.meta.contains_key(META_POD);
    let of_its_own = || reconnect_timeout(&member.tags).unwrap_or(datacenter.settings.reconnect_timeout);
    let forgotten_after = if is_pod { POD_FORGOTTEN_AFTER } else { of_its_own() };
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
        declare_predecessor_failed(datacenter, &member.name, &member.id).await?;
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

/// The name belongs to the node that had it until that one has failed. When another node speaks under the name now, only
/// this says so of the old one.
async fn declare_predecessor_failed(datacenter: &ServerDatacenter, name: &NodeName, id: &str) -> Result<(), Refusal> {
    let store = datacenter.published.load();
    let Some((row, _)) = catalog::of_node(&store, name) else { return Ok(()) };
    let is_done = row.id.eq_ignore_ascii_case(id)
        || catalog::serf_health(&store, name).is_none_or(|status| status == CheckStatus::Critical);
    if is_done || !datacenter.members.has_failed_before(name, &row.id) {
        return Ok(());
    }
    let registration = Registration {
        id: String::new(),
        node: row.name,
        address: row.address,
        datacenter: row.datacenter,
        tagged_addresses: BTreeMap::new(),
        node_meta: BTreeMap::new(),
        service: None,
        check: Some(serf_health(MemberStatus::Failed)),
        checks: Vec::new(),
        skip_node_update: true,
        locality: None,
    };
    match datacenter.write_as(Duty::Reconcile, Command::Register(Box::new(registration))).await?.effect {
        Effect::Refused(refusal) => Err(refusal),
        Effect::Applied | Effect::NotApplied | Effect::Transaction(_) | Effect::Unassigned(_) => Ok(()),
    }
}

/// What must be written about `member`; nothing when the catalog says it already.
fn registration(datacenter: &ServerDatacenter, member: &Member) -> Option<Registration> {
    let store = datacenter.published.load();
    let check = serf_health(member.status);
    let service = member.is_server().then(|| consul_service(member));
    let known = catalog::of_node(&store, &member.name);
    let is_right = known.as_ref().is_some_and(|(node, services)| {
        let same_node = node.address == member.address && node.id == member.id;
        let same_service =
            service.as_ref().is_none_or(|it| services.get(it.id_text()).is_some_and(|row| row.port == it.port));
        same_node && same_service && catalog::serf_health(&store, &member.name) == Some(check.status)
    });
    if is_right {
        return None;
    }
    // What is told of a node is the agent's own to keep in step; of a new one it is what the member brought.
    let own = known.map(|(node, _)| node).filter(|node| node.id.eq_ignore_ascii_case(&member.id));
    let (node_meta, locality) =
        own.map_or_else(|| (member.meta.clone(), None), |node| (node.meta.clone(), node.locality.clone()));
    Some(Registration {
        id: member.id.clone(),
        node: member.name.clone(),
        address: member.address.clone(),
        datacenter: datacenter.settings.datacenter.clone(),
        tagged_addresses: tagged_addresses(&member.address),
        node_meta,
        service,
        check: Some(check),
        checks: Vec::new(),
        skip_node_update: false,
        locality,
    })
}

fn serf_health(status: MemberStatus) -> HealthCheck {
    let (status, output) = match status {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, id: &str, role: &str) -> Member {
        Member {
            name: name.parse().unwrap(),
            id: id.into(),
            address: "127.0.0.1".into(),
            port: 8301,
            tags: BTreeMap::from([("role".to_owned(), role.to_owned())]),
            meta: BTreeMap::new(),
            status: MemberStatus::Alive,
            protocols: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_logs_in_takes_no_name_and_no_id_of_a_live_member() {
        let table = MemberTable::default();
        table.heard_of(member("web-1", "a", "node"));
        table.heard_of(member("server-1", "s", "consul"));
        let may = |name: &str, id: &str, right| table.may_log_in(&name.parse().unwrap(), id, right).is_ok();
        for right in [NameRight::FirstCome, NameRight::Named] {
            assert!(!may("web-1", "b", right) && !may("WEB-1", "", right), "{right:?}");
        }
        assert!(may("web-1", "a", NameRight::FirstCome), "the same node comes back");
        assert!(may("web-1", "b", NameRight::Proven), "the pod before it is gone");
        assert!(!may("server-1", "s", NameRight::Proven), "a server's name is never given");
        assert!(!may("web-2", "a", NameRight::Named), "an id is one node's");
        tokio::time::advance(FAILED_AFTER + Duration::from_secs(1)).await;
        table.review(Instant::now(), |_| false);
        assert!(may("web-1", "b", NameRight::FirstCome), "its owner has failed");
    }

    fn status(table: &MemberTable, name: &str) -> Option<MemberStatus> {
        table.review(Instant::now(), |_| true);
        table.list().into_iter().find(|it| it.name.as_str() == name).map(|it| it.status)
    }

    #[tokio::test(start_paused = true)]
    async fn gossip_declares_nobody_dead_who_keeps_a_session_and_nobody_else_under_the_name() {
        let table = MemberTable::default();
        table.heard_of(member("web-1", "a", "node"));
        let told = |id: &str, status| table.told(Member { status, ..member("web-1", id, "node") }, true);
        for wrong in [MemberStatus::Failed, MemberStatus::Left] {
            told("a", wrong);
            assert_eq!(status(&table, "web-1"), Some(MemberStatus::Alive), "{wrong:?} against a session");
        }
        tokio::time::advance(SESSION_OVER_AFTER + Duration::from_secs(1)).await;
        told("b", MemberStatus::Failed);
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Alive), "another one under the name");
        told("a", MemberStatus::Failed);
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Failed), "gossip and silence together");
        told("a", MemberStatus::Alive);
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Alive), "it answers others again");
        tokio::time::advance(FAILED_AFTER * 2).await;
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Alive), "only its calls are silent");
        told("a", MemberStatus::Left);
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Left));
    }

    #[tokio::test(start_paused = true)]
    async fn whom_only_gossip_knows_is_a_member_and_in_the_catalog_where_that_is_allowed() {
        let table = MemberTable::default();
        table.told_all(vec![member("serf-1", "", "node"), member("web-1", "a", "node")]);
        let taken = table.review(Instant::now(), |it| it.id == "a");
        assert_eq!(taken.iter().map(|(it, _)| it.name.as_str()).collect::<Vec<_>>(), ["web-1"]);
        assert_eq!(table.list().len(), 2);
        table.told_all(Vec::new());
        tokio::time::advance(FAILED_AFTER + Duration::from_secs(1)).await;
        assert_eq!(status(&table, "web-1"), Some(MemberStatus::Failed));
        assert_eq!(status(&table, "serf-1"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_members_that_fall_silent_at_once_most_are_given_longer() {
        let table = MemberTable::default();
        for number in 0..100 {
            table.heard_of(member(&format!("web-{number}"), &format!("id-{number}"), "node"));
        }
        let failed = || {
            let members = table.review(Instant::now(), |_| false);
            members.iter().filter(|(member, _)| member.status == MemberStatus::Failed).count()
        };
        tokio::time::advance(FAILED_AFTER + Duration::from_secs(1)).await;
        assert_eq!(failed(), 15);
        table.heard_of(member("web-99", "id-99", "node"));
        tokio::time::advance(FAILED_AFTER - Duration::from_secs(1)).await;
        assert_eq!(failed(), 15);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(failed(), 99, "the silent ones have failed in the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_predecessor_has_failed_when_it_was_not_heard_of_in_time_under_the_name_of_another() {
        let (table, name) = (MemberTable::default(), "web-1".parse().unwrap());
        table.heard_of(member("web-1", "a", "node"));
        tokio::time::advance(FAILED_AFTER / 2).await;
        table.heard_of(member("web-1", "b", "node"));
        assert!(!table.has_failed_before(&name, "a"));
        tokio::time::advance(FAILED_AFTER).await;
        table.heard_of(member("web-1", "b", "node"));
        assert!(table.has_failed_before(&name, "A") && !table.has_failed_before(&name, "b"));
        table.heard_of(member("web-1", "a", "node"));
        assert!(!table.has_failed_before(&name, "a"), "it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_of_a_member_that_cannot_be_written_grows() {
        let (mut troubled, node) = (BTreeMap::new(), "web-1".parse().unwrap());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            note_trouble(&mut troubled, &node, Refusal::failed("no"));
            pauses.push(troubled[&node].next.duration_since(Instant::now()));
        }
        assert_eq!(pauses[0], RECONCILE_INTERVAL);
        assert!(pauses.is_sorted() && pauses[7] == TROUBLE_PAUSE_LONGEST, "{pauses:?}");
    }
}
