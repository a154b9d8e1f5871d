//! Clients of locks: they make sessions, renew them, end them or leave them to die, and take locks with them.
//!
//! A session belongs to one client and one lock. When its TTL can be over, it may have ended; before that it may not, and when
//! its client ends it or makes its check critical, it has. The model of a lock says what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::{Rng, SeededRng};
use lictor_tests::linearizability::{
    self, BUDGET, DelayedLockAnswer, DelayedLockInput, SessionEnd, SessionNumber, Verdict,
};
use lictor_types::command::{Effect, KvCommand};
use lictor_types::rpc::{Operation, Report};
use lictor_types::session::{SessionBehavior, SessionDestroy};
use lictor_types::transaction::{KvOperation, TransactionKvVerb, TransactionOperation};
use lictor_types::{
    Answer, CheckStatus, Command, Consistency, HealthCheck, Index, KvEntry, KvVerb, Outcome, Query, Session,
    Transaction,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::clients::{World, registration};
use crate::history::{History, Locks};
use crate::invariants::Findings;
use crate::reach::Reach;
use crate::servers::Servers;
use crate::trace::Trace;

/// Where the locks are.
pub(crate) const PREFIX: &str = "locks/";
/// States that the search for an order of one lock looks at: these histories are narrow, and one that has no order should not
/// take all memory to say so.
const SEARCH: usize = BUDGET / 10;
/// Locks that everybody wants.
const LOCKS: u64 = 2;
/// The shortest and the longest TTL of a session.
const TTL_LEAST: Duration = Duration::from_secs(2);
/// See [`TTL_LEAST`].
pub(crate) const TTL_MOST: Duration = Duration::from_secs(5);
/// The lock-delay of the sessions that have one.
const DELAY: Duration = Duration::from_secs(4);
/// Servers count delays in whole milliseconds.
const DELAY_STEP: Duration = Duration::from_millis(1);

/// Only for a session with a TTL of at most that does a client wait until it dies.
const LINGER_MOST: Duration = Duration::from_secs(3);
/// A session dies within so long after its leader began to end it.
const DYING: Duration = Duration::from_millis(12);

/// A session that its client counts on.
#[derive(Clone, Debug)]
struct Live {
    number: SessionNumber,
    ttl: Duration,
    deletes: bool,
    delay: bool,
    /// It hangs on a check.
    checked: bool,
    /// It has not ended before this.
    earliest: u64,
}

impl Live {
    fn id(&self) -> String {
        id(self.number)
    }

    /// Its end, not before a moment.
    fn end(&self, earliest: u64) -> DelayedLockInput {
        let delay = if self.delay { (DELAY - DELAY_STEP).as_nanos() as u64 } else { 0 };
        DelayedLockInput::End(SessionEnd { session: self.number, earliest, delay, deletes: self.deletes })
    }
}

fn id(number: SessionNumber) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn number(id: &str) -> Option<SessionNumber> {
    id.rsplit('-').next()?.parse().ok()
}

/// What came of a change of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Refused,
    /// There is no such session any more.
    Gone,
    Unknown,
}

/// A client of locks.
pub(crate) struct Locker {
    number: usize,
    reach: Arc<Reach>,
    servers: Servers,
    history: History,
    rng: SeededRng,
    trace: Trace,
    mine: Mutex<Mine>,
}

#[derive(Default)]
struct Mine {
    sessions: BTreeMap<String, Live>,
    /// Sessions that hang on the check, and that this client counts on no more.
    forgotten: Vec<(String, Live)>,
    /// The node that sessions live on; another one after the fate of its check became unknown.
    node: u64,
    is_registered: bool,
}

impl Mine {
    /// All sessions that may be there.
    fn take(&mut self) -> Vec<(String, Live)> {
        let mut all = std::mem::take(&mut self.forgotten);
        all.extend(std::mem::take(&mut self.sessions));
        all
    }
}

impl Locker {
    pub(crate) fn new(world: &World, number: usize, reach: Arc<Reach>, rng: SeededRng) -> Self {
        Self {
            number,
            reach,
            servers: world.servers.clone(),
            history: world.history.clone(),
            rng,
            trace: world.trace.clone(),
            mine: Mutex::default(),
        }
    }

    /// Does one thing with one lock.
    pub(crate) async fn one(&self) {
        let lock = format!("{PREFIX}{}", self.rng.below(LOCKS));
        let live = self.mine.lock().sessions.get(&lock).cloned();
        let Some(live) = live else { return self.make(&lock).await };
        match self.rng.below(100) {
            0..36 => self.acquire(&lock, &live).await,
            36..50 => self.release(&lock, &live).await,
            50..60 => self.holder(&lock, Consistency::Consistent).await,
            60..68 => self.holder(&lock, Consistency::Default).await,
            68..88 => self.renew(&lock, &live).await,
            88..94 => self.end(&lock, &live).await,
            94..97 if live.ttl <= LINGER_MOST => self.linger(&lock, &live).await,
            _ => self.forget(&lock, &live),
        }
    }

    fn node(&self) -> String {
        format!("locker-{}-{}", self.number, self.mine.lock().node)
    }

    async fn make(&self, lock: &str) {
        let checked = self.rng.below(4) == 0;
        let is_registered = self.mine.lock().is_registered;
        if (checked || !is_registered) && !self.register(CheckStatus::Passing).await {
            return;
        }
        self.mine.lock().is_registered = true;
        let least = TTL_LEAST.as_millis() as u64;
        let ttl = Duration::from_millis(least + self.rng.below(TTL_MOST.as_millis() as u64 - least));
        let (deletes, delay) = (self.rng.below(4) == 0, self.rng.below(2) == 0);
        let number = self.history.fresh();
        let session = Session {
            id: id(number),
            name: String::new(),
            node: self.node().parse().expect("a legal name"),
            lock_delay: if delay { DELAY.as_nanos() as u64 } else { 0 },
            behavior: if deletes { SessionBehavior::Delete } else { SessionBehavior::Release },
            ttl: format!("{}ms", ttl.as_millis()),
            node_checks: if checked { vec!["mood".into()] } else { Vec::new() },
            service_checks: Vec::new(),
            create_index: Index(0),
            modify_index: Index(0),
        };
        let began = self.history.now();
        match self.change(&format!("session {number}"), Command::SessionCreate(session)).await {
            Told::Done => {}
            Told::Unknown => return,
            told => return self.history.broken(format!("the session {number} was made with {told:?}")),
        }
        let live = Live { number, ttl, deletes, delay, checked, earliest: began + ttl.as_nanos() as u64 };
        self.mine.lock().sessions.insert(lock.to_owned(), live);
    }

    /// Registers this client's node with its check.
    async fn register(&self, status: CheckStatus) -> bool {
        let node = self.node();
        let output = self.history.fresh().to_string();
        let mut registration = registration(&node);
        registration.check = Some(HealthCheck::new("mood".parse().expect("a legal id"), "mood", status, &output));
        let told = self.change(&format!("{node} {status}"), Command::Register(Box::new(registration))).await;
        if !matches!(told, Told::Done | Told::Unknown) {
            self.history.broken(format!("the registration of {node} ended with {told:?}"));
        }
        told == Told::Done
    }

    async fn acquire(&self, lock: &str, live: &Live) {
        let began = self.history.now();
        let value = self.history.fresh().to_string().into_bytes();
        let command = if self.rng.below(3) == 0 {
            let key = KvOperation {
                verb: TransactionKvVerb::Lock,
                key: lock.to_owned(),
                value,
                flags: 0,
                index: Index(0),
                session: live.id(),
            };
            Command::Transaction(Transaction::new(vec![TransactionOperation::Kv(key)]))
        } else {
            Command::Kv(KvCommand { verb: KvVerb::Lock(live.id()), key: lock.to_owned(), value, flags: 0 })
        };
        let told = self.change(&format!("{lock} for {}", live.number), command).await;
        let answer = match told {
            Told::Done => Some(DelayedLockAnswer::Granted),
            Told::Refused => Some(DelayedLockAnswer::Refused),
            Told::Gone => return self.is_gone(lock, live, true),
            Told::Unknown => None,
        };
        // Where a clock is wrong, delays are shorter or longer than they seem.
        let answered = if self.servers.clocks_are_right() { self.history.now() } else { u64::MAX };
        self.history.lock(lock, DelayedLockInput::Acquire(live.number, answered), began, answer);
    }

    async fn release(&self, lock: &str, live: &Live) {
        let began = self.history.now();
        let value = self.history.fresh().to_string().into_bytes();
        let command = KvCommand { verb: KvVerb::Unlock(live.id()), key: lock.to_owned(), value, flags: 0 };
        let answer = match self.change(&format!("{lock} from {}", live.number), Command::Kv(command)).await {
            Told::Done => Some(DelayedLockAnswer::Done),
            Told::Refused | Told::Gone => Some(DelayedLockAnswer::Refused),
            Told::Unknown => None,
        };
        self.history.lock(lock, DelayedLockInput::Release(live.number), began, answer);
    }

    async fn holder(&self, lock: &str, consistency: Consistency) {
        let Some(waist) = self.reach.waist().await else { return };
        let began = self.history.now();
        let Some(read) = self.reach.ask(&waist, Query::KvGet(lock.to_owned()), consistency).await else { return };
        let Answer::KvEntry(entry) = read.answer else { return };
        let held = held(entry.as_ref());
        self.trace.note(|| format!("client {} {lock} {held:?}", self.number));
        self.history.lock(lock, DelayedLockInput::Holder, began, Some(held));
    }

    async fn renew(&self, lock: &str, live: &Live) {
        let Some(waist) = self.reach.waist().await else { return };
        let began = self.history.now();
        let report = self.reach.operate(&waist, Operation::RenewSession(live.id())).await;
        self.trace.note(|| format!("client {} renews {}: {report:?}", self.number, live.number));
        match report {
            Some(Report::Session(Some(_))) => {
                let earliest = began + live.ttl.as_nanos() as u64;
                let mut mine = self.mine.lock();
                mine.sessions.insert(lock.to_owned(), Live { earliest: earliest.max(live.earliest), ..live.clone() });
            }
            // It is being ended, or has ended.
            Some(Report::Session(None)) => self.is_gone(lock, live, false),
            Some(other) => self.history.broken(format!("a renewal was answered with {other:?}")),
            None => {}
        }
    }

    /// Renews a session when it dies: whoever is told that it lives on may count on that.
    async fn linger(&self, lock: &str, live: &Live) {
        let renewed = live.earliest - live.ttl.as_nanos() as u64;
        let dies = renewed + (live.ttl * 19 / 10).as_nanos() as u64;
        let around = self.rng.below(DYING.as_nanos() as u64);
        let now = self.history.now();
        sleep(Duration::from_nanos((dies + around).saturating_sub(now))).await;
        self.renew(lock, live).await;
    }

    /// Ends a session: by its id, or by its check.
    async fn end(&self, lock: &str, live: &Live) {
        self.mine.lock().sessions.remove(lock);
        let began = self.history.now();
        let is_over = if live.checked && self.rng.below(2) == 0 {
            let is_over = self.register(CheckStatus::Critical).await;
            let mut mine = self.mine.lock();
            // All that hang on it end, those that were forgotten too.
            let (hang, free): (Vec<_>, Vec<_>) = mine.take().into_iter().partition(|(_, its)| its.checked);
            mine.sessions.extend(free);
            for (other, its) in hang {
                let began = began.min(its.earliest);
                self.history.lock(&other, its.end(began), began, None);
            }
            if !is_over {
                mine.node += 1;
                mine.is_registered = false;
            }
            is_over
        } else {
            let destroy = SessionDestroy { id: live.id(), authorized_node: None };
            self.change(&format!("the end of {}", live.number), Command::SessionDestroy(destroy)).await == Told::Done
        };
        let answer = is_over.then_some(DelayedLockAnswer::Done);
        self.history.lock(lock, live.end(began.min(live.earliest)), began.min(live.earliest), answer);
    }

    /// Counts on a session no more: it dies when its TTL is over.
    fn forget(&self, lock: &str, live: &Live) {
        let mut mine = self.mine.lock();
        mine.sessions.remove(lock);
        if live.checked {
            // Its check may still end it sooner.
            mine.forgotten.push((lock.to_owned(), live.clone()));
        } else {
            self.history.lock(lock, live.end(live.earliest), live.earliest, None);
        }
    }

    /// Counts on nothing any more.
    pub(crate) fn leave(&self) {
        for (lock, live) in self.mine.lock().take() {
            self.history.lock(&lock, live.end(live.earliest), live.earliest, None);
        }
    }

    /// A client was told that its session has ended, or will have in a moment.
    fn is_gone(&self, lock: &str, live: &Live, for_certain: bool) {
        self.mine.lock().sessions.remove(lock);
        let now = self.history.now();
        if now < live.earliest {
            let by = Duration::from_nanos(live.earliest - now);
            self.history
                .broken(format!("the session {} with a TTL of {:?} ended {by:?} too early", live.number, live.ttl));
        }
        let began = live.earliest.min(now);
        self.history.lock(lock, live.end(began), began, for_certain.then_some(DelayedLockAnswer::Done));
    }

    async fn change(&self, what: &str, command: Command) -> Told {
        let Some(waist) = self.reach.waist().await else { return Told::Unknown };
        self.trace.note(|| format!("client {} {what}", self.number));
        let outcome = self.reach.send(&waist, command).await;
        let told = told(outcome.as_ref());
        self.trace.note(|| format!("client {} {what} = {told:?}", self.number));
        if let (Told::Unknown, Some(outcome)) = (told, outcome) {
            self.history.broken(format!("{what} was answered with {outcome:?}"));
        }
        told
    }
}

fn told(outcome: Option<&Outcome>) -> Told {
    let is_gone = |text: &str| text.starts_with("invalid session");
    match outcome.map(|outcome| &outcome.effect) {
        Some(Effect::Applied) => Told::Done,
        Some(Effect::NotApplied) => Told::Refused,
        Some(Effect::Refused(refusal)) if is_gone(&refusal.text) => Told::Gone,
        Some(Effect::Transaction(it)) => match it.errors.first() {
            None => Told::Done,
            Some(error) if is_gone(&error.what) => Told::Gone,
            Some(error) if error.what.starts_with("failed to lock key") => Told::Refused,
            Some(_) => Told::Unknown,
        },
        Some(Effect::Refused(_) | Effect::Unassigned(_)) | None => Told::Unknown,
    }
}

fn held(entry: Option<&KvEntry>) -> DelayedLockAnswer {
    let holder = entry.and_then(|entry| entry.session.as_deref());
    DelayedLockAnswer::Held(holder.map(|id| number(id).unwrap_or_default()), entry.map_or(0, |entry| entry.lock_index))
}

/// Judges the locks with what is there at the end.
pub(crate) fn judge(locks: Locks, entries: &[KvEntry], findings: &mut Findings) {
    for (lock, mut operations) in locks {
        let answer = Some(held(entries.iter().find(|entry| entry.key == lock)));
        let last = linearizability::Operation {
            input: DelayedLockInput::Holder,
            answer,
            began: u64::MAX - 1,
            ended: Some(u64::MAX),
        };
        operations.push(last);
        match linearizability::check(&operations, SEARCH) {
            Verdict::Linearizable => {}
            Verdict::Unknown => findings.undecided += 1,
            Verdict::Broken(_) => {
                let parts = BTreeMap::from([(lock, operations)]);
                findings.broken.extend(linearizability::check_parts(&parts, SEARCH));
            }
        }
    }
}
