//! The TTLs of sessions: counted by the leader, in memory alone.
//!
//! A renewal reaches the leader and sets a timer anew; it writes nothing, so its cost is a message. It survives a change
//! of leader because a new leader gives every session a whole life from its first moment: a session may live longer
//! through an election, never shorter. The end of a session is a command like any other.
//!
//! Invariants
//! - No session ends before its TTL is over since its making or its last renewal that was answered, by this leader's clock.
//! - A session that is being ended cannot be renewed any more: nobody is told that it lives on and then loses it.
//! - Timers follow the state, never the other way round. Those of sessions that ended otherwise go at the next full look,
//!   within [`FULL_LOOK_INTERVAL`]; new sessions are seen at once, at a cost that does not grow with the old ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_types::rpc::Report;
use lictor_types::session::LOCK_DELAY_MAX;
use lictor_types::{Command, Credential, Index, Query, Refusal, Requirement, Resource, Session};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::datacenter::{ServerDatacenter, refuse_read};
use crate::raft::{Bug, Faults};

/// Sessions that one command ends.
const EXPIRED_AT_ONCE: usize = 256;
/// After sessions could not be ended.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at all sessions, not only at the new ones: a restored snapshot may bring old ones.
const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A timer for every session with a TTL.
#[derive(Default)]
pub struct SessionTimers {
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    deadlines: BTreeMap<String, Instant>,
    by_deadline: BTreeSet<(Instant, String)>,
    /// Taken from the timers, and not ended yet.
    ending: BTreeSet<String>,
    /// The making of the youngest session that has a timer.
    seen: Index,
    /// The last look at all sessions.
    looked: Option<Instant>,
}

/// How long a session lives that nobody renews: its TTL is the least it is promised, twice that the most. A tenth is left
/// for the command that ends it.
fn life(ttl: Duration) -> Duration {
    ttl.saturating_mul(2) - ttl / 10
}

impl Timers {
    fn set(&mut self, id: &str, deadline: Instant) {
        if let Some(old) = self.deadlines.insert(id.to_owned(), deadline) {
            self.by_deadline.remove(&(old, id.to_owned()));
        }
        self.by_deadline.insert((deadline, id.to_owned()));
    }

    fn stop(&mut self, id: &str) {
        if let Some(old) = self.deadlines.remove(id) {
            self.by_deadline.remove(&(old, id.to_owned()));
        }
    }

    /// Gives every session a timer that has none.
    fn follow(&mut self, store: &Store, now: Instant) {
        let is_full = self.looked.is_none_or(|looked| now.duration_since(looked) >= FULL_LOOK_INTERVAL);
        if is_full {
            self.looked = Some(now);
            self.seen = Index(0);
            let over: Vec<String> = self.deadlines.keys().filter(|id| store.session(id).is_none()).cloned().collect();
            over.iter().for_each(|id| self.stop(id));
        }
        for session in store.sessions_with_ttl_after(self.seen) {
            self.seen = session.create_index;
            let has_timer = self.deadlines.contains_key(&session.id) || self.ending.contains(&session.id);
            if let Some(ttl) = session.time_to_live().filter(|_| !has_timer) {
                self.set(&session.id, now + life(ttl));
            }
        }
        self.ending.retain(|id| store.session(id).is_some());
    }

    /// Takes the sessions whose time is over, at most [`EXPIRED_AT_ONCE`].
    fn take_due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        while let Some((deadline, _)) = self.by_deadline.first()
            && *deadline <= now
            && due.len() < EXPIRED_AT_ONCE
            && let Some((_, id)) = self.by_deadline.pop_first()
        {
            self.deadlines.remove(&id);
            self.ending.insert(id.clone());
            due.push(id);
        }
        due
    }

    /// When to look again although nothing changed.
    fn next_look(&self) -> Option<Instant> {
        let (deadline, _) = self.by_deadline.first()?;
        Some(self.looked.map_or(*deadline, |looked| (*deadline).min(looked + FULL_LOOK_INTERVAL)))
    }
}

impl SessionTimers {
    /// A lead begins: every session has its whole life before it.
    pub(crate) fn start(&self, store: &Store, faults: Faults) {
        let mut timers = self.timers.lock();
        if !faults.has(Bug::TimersNotReset) {
            *timers = Timers::default();
        }
        if faults.has(Bug::TimersNotStarted) {
            (timers.seen, timers.looked) = (store.index(), Some(Instant::now() + Duration::from_secs(3600)));
        }
        timers.follow(store, Instant::now());
    }

    /// A lead is over: what was counted is of no use to a later one.
    pub(crate) fn end(&self, faults: Faults) {
        if !faults.has(Bug::TimersNotReset) {
            *self.timers.lock() = Timers::default();
        }
    }

    /// Gives a session another life; whether it still has one.
    fn renew(&self, session: &Session, faults: Faults) -> bool {
        let mut timers = self.timers.lock();
        if timers.ending.contains(&session.id) {
            return faults.has(Bug::RenewalOfTheEnding);
        }
        if let Some(ttl) = session.time_to_live()
            && !faults.has(Bug::RenewalForgotten)
        {
            timers.set(&session.id, Instant::now() + life(ttl));
        }
        true
    }

    /// How many timers run.
    pub fn count(&self) -> usize {
        self.timers.lock().deadlines.len()
    }
}

/// Ends sessions that nobody renewed in time, for as long as this server leads.
pub(crate) async fn expire(datacenter: &ServerDatacenter) {
    let timers = &datacenter.sessions;
    let mut watch = datacenter.published.watches().register(&Query::Sessions);
    loop {
        let due = {
            let mut timers = timers.timers.lock();
            timers.follow(&datacenter.published.load(), Instant::now());
            timers.take_due(Instant::now())
        };
        if !due.is_empty() {
            end(datacenter, due).await;
            continue;
        }
        let next = timers.timers.lock().next_look();
        match next {
            Some(next) => drop(timeout_at(next, watch.changed()).await),
            None => watch.changed().await,
        }
    }
}

/// What a test plants: a lead begins as if no lock was shut.
pub(crate) async fn forget_lock_delays(datacenter: &ServerDatacenter) {
    if datacenter.consensus.faults().has(Bug::LockDelaysLostOnFailover) {
        let nothing = Authorized::system(Duty::ExpireSessions, Command::SessionsExpire(Vec::new()));
        let beyond = datacenter.published.load().leader_time().after(LOCK_DELAY_MAX);
        let id = datacenter.new_request_id();
        let _either = datacenter.propose_at(id, nothing, beyond).await;
    }
}

async fn end(datacenter: &ServerDatacenter, ids: Vec<String>) {
    tracing::info!(sessions = ids.len(), first = ids.first(), "ending sessions that nobody renewed");
    if let Err(refusal) = datacenter.write_as(Duty::ExpireSessions, Command::SessionsExpire(ids.clone())).await {
        tracing::warn!(%refusal, "could not end sessions whose time is over");
        let mut timers = datacenter.sessions.timers.lock();
        // They stay marked as ending, so that nobody renews what may end any moment.
        for id in &ids {
            timers.set(id, Instant::now() + RETRY_PAUSE);
        }
    }
}

impl ServerDatacenter {
    /// Gives a session another TTL of life; none when there is no such session.
    pub(crate) async fn renew_session(&self, credential: &Credential, id: &str) -> Result<Report, Refusal> {
        // A server that leads no more would tell of sessions that have ended.
        self.consensus.lease_read().await.map_err(refuse_read)?;
        let store = self.published.load();
        let Some(session) = store.session(id) else { return Ok(Report::Session(None)) };
        self.rules(credential)?.require(&Requirement::write(Resource::Session, session.node.as_str()))?;
        let renewed = self.sessions.renew(session, self.consensus.faults()).then(|| Box::new(session.clone()));
        Ok(Report::Session(renewed))
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::command::Effect;
    use lictor_types::session::{SessionBehavior, SessionDestroy};
    use lictor_types::{Envelope, Timestamp};

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    struct World {
        store: Store,
        timers: Timers,
        start: Instant,
        requests: u64,
    }

    impl World {
        fn new() -> Self {
            let world = Self { store: Store::new(), timers: Timers::default(), start: Instant::now(), requests: 0 };
            let registration = serde_json::from_str(r#"{"Node":"n1","Address":"10.0.0.1"}"#).unwrap();
            world.then(Command::Register(Box::new(registration)))
        }

        fn then(mut self, command: Command) -> Self {
            self.apply(command);
            self
        }

        fn apply(&mut self, command: Command) {
            self.requests += 1;
            let mut request_id = [0; 16];
            request_id[..8].copy_from_slice(&self.requests.to_be_bytes());
            let applied = self.store.apply(&Envelope { request_id, leader_time: Timestamp(0), command });
            assert_eq!(applied.outcome.effect, Effect::Applied);
        }

        fn make(&mut self, id: &str) {
            self.apply(Command::SessionCreate(Session {
                id: id.into(),
                name: String::new(),
                node: "n1".parse().unwrap(),
                lock_delay: 0,
                behavior: SessionBehavior::Release,
                ttl: "10s".into(),
                node_checks: Vec::new(),
                service_checks: Vec::new(),
                create_index: Index(0),
                modify_index: Index(0),
            }));
        }

        /// The sessions that are due this many seconds after the start.
        fn due(&mut self, seconds: f64) -> Vec<String> {
            let now = self.start + Duration::from_secs_f64(seconds);
            self.timers.follow(&self.store, now);
            self.timers.take_due(now)
        }
    }

    #[test]
    fn a_session_ends_between_one_and_two_ttls_after_its_last_renewal() {
        let mut world = World::new();
        world.make("a");
        world.make("b");
        assert!(world.due(0.0).is_empty());
        let renewal = world.start + TTL;
        world.timers.set("b", renewal + life(TTL));
        assert!(world.due(10.0).is_empty());
        assert_eq!(world.due(20.0), ["a"]);
        assert!(world.due(20.0 + 0.5).is_empty());
        assert_eq!(world.due(30.0), ["b"]);
        assert!(life(TTL) > TTL && life(TTL) < TTL * 2);
    }

    #[test]
    fn a_new_leader_gives_every_session_a_whole_life() {
        let mut world = World::new();
        world.make("a");
        assert!(world.due(0.0).is_empty());
        world.timers = Timers::default();
        assert!(world.due(15.0).is_empty());
        assert!(world.due(25.0).is_empty());
        assert_eq!(world.due(35.0), ["a"]);
    }

    #[test]
    fn a_session_that_is_being_ended_cannot_be_renewed() {
        let mut world = World::new();
        world.make("a");
        let timers = SessionTimers::default();
        timers.start(&world.store, Faults::default());
        let session = world.store.session("a").unwrap().clone();
        assert!(timers.renew(&session, Faults::default()));
        let later = Instant::now() + TTL * 2;
        assert_eq!(timers.timers.lock().take_due(later), ["a"]);
        assert!(!timers.renew(&session, Faults::default()));
        assert_eq!(timers.count(), 0);
    }

    #[test]
    fn timers_of_sessions_that_ended_otherwise_go() {
        let mut world = World::new();
        world.make("a");
        world.make("b");
        assert!(world.due(0.0).is_empty());
        world.apply(Command::SessionDestroy(SessionDestroy { id: "a".into(), authorized_node: None }));
        assert!(world.due(11.0).is_empty());
        assert_eq!(world.timers.deadlines.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(world.timers.by_deadline.len(), 1);
    }
}
