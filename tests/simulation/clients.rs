//! Clients: each does one thing after the other and writes down what it asked and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_runtime::{Rng, SeededRng, Tasks};
use lictor_types::command::{Effect, KvCommand};
use lictor_types::{
    Answer as StateAnswer, Command, Consistency, Index, KvVerb, NodeService, Outcome, Query, Read, Registration,
};
use tokio::time::sleep;

use crate::checks::Checks;
use crate::groups::Groups;
use crate::history::{Action, Answer, History, Value};
use crate::locks::Locker;
use crate::network::Network;
use crate::reach::Reach;
use crate::servers::Servers;
use crate::trace::Trace;

/// Keys that everybody writes.
const REGISTERS: u64 = 8;
/// Keys that are only counted up.
const COUNTERS: u64 = 2;

/// One client.
pub(crate) struct Client {
    number: usize,
    reach: Arc<Reach>,
    history: History,
    rng: SeededRng,
    trace: Trace,
    stop: Arc<AtomicBool>,
    /// What this client saw last of each key, for cas.
    seen: parking_lot::Mutex<BTreeMap<String, (Value, Index, u64)>>,
    pause_micros: u64,
    locker: Locker,
    groups: Groups,
    checks: Checks,
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) servers: Servers,
    pub(crate) history: History,
    pub(crate) trace: Trace,
    pub(crate) tasks: Tasks,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Client {
    pub(crate) fn new(world: &World, number: usize, rng: SeededRng, pause_micros: u64) -> Self {
        let reach = Arc::new(Reach::new(world, number, rng.clone()));
        Self {
            number,
            history: world.history.clone(),
            trace: world.trace.clone(),
            stop: Arc::clone(&world.stop),
            seen: Default::default(),
            pause_micros,
            locker: Locker::new(world, number, Arc::clone(&reach), rng.clone()),
            groups: Groups::new(world, number, Arc::clone(&reach), rng.clone()),
            checks: Checks::new(world, Arc::clone(&reach), rng.clone()),
            rng,
            reach,
        }
    }

    /// Works until told to stop.
    pub(crate) async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.one().await;
            sleep(Duration::from_micros(self.rng.below(self.pause_micros * 2))).await;
        }
        self.locker.leave();
    }

    async fn one(&self) {
        match self.rng.below(100) {
            0..62 => self.one_of_a_key().await,
            62..76 => self.groups.one().await,
            76..96 => self.locker.one().await,
            _ => self.checks.one().await,
        }
    }

    async fn one_of_a_key(&self) {
        let register = format!("register/{}", self.rng.below(REGISTERS));
        match self.rng.below(100) {
            0..20 => {
                let value = self.history.fresh();
                self.write(&format!("unique/{value}"), Action::Set(value), Index(0), 0).await;
            }
            20..38 => self.write(&register, Action::Set(self.history.fresh()), Index(0), 0).await,
            38..41 => self.write(&register, Action::Delete, Index(0), 0).await,
            41..56 => self.swap(&register).await,
            56..70 => drop(self.get(&register, Consistency::Consistent).await),
            70..80 => drop(self.get(&register, Consistency::Default).await),
            80..85 => drop(self.get(&register, Consistency::Stale).await),
            85..95 => {
                let counter = format!("counter/{}", self.rng.below(COUNTERS));
                if self.get(&counter, Consistency::Consistent).await {
                    self.swap(&counter).await;
                }
            }
            _ => self.register().await,
        }
    }

    /// Cas on what this client saw last.
    async fn swap(&self, key: &str) {
        let seen = self.seen.lock().get(key).copied();
        let Some((expected, index, flags)) = seen else {
            self.get(key, Consistency::Default).await;
            return;
        };
        let new = self.history.fresh();
        self.write(key, Action::Cas { expected, new }, index, flags + 1).await;
    }

    async fn write(&self, key: &str, action: Action, index: Index, flags: u64) {
        let (verb, value) = match action {
            Action::Set(value) => (KvVerb::Set, value),
            Action::Cas { new, .. } => (KvVerb::Cas(index), new),
            Action::Delete | Action::Get => (KvVerb::Delete, 0),
        };
        let value = value.to_string().into_bytes();
        let command = Command::Kv(KvCommand { verb, key: key.to_owned(), value, flags });
        let Some(waist) = self.reach.waist().await else { return };
        let operation = self.history.begin(key, action, None);
        self.trace.note(|| format!("client {} {key} {action:?}", self.number));
        let answer = match self.reach.send(&waist, command).await {
            Some(Outcome { effect: Effect::Applied, index }) => Answer::Written(index),
            Some(Outcome { effect: Effect::NotApplied, .. }) => Answer::NotApplied,
            Some(Outcome { effect: Effect::Transaction(_) | Effect::Unassigned(_), .. }) => {
                self.history.broken(format!("{key} {action:?} was answered as something else"));
                Answer::Unknown
            }
            Some(Outcome { effect: Effect::Refused(refusal), .. }) => {
                self.history.broken(format!("{key} {action:?} was refused by the state: {refusal}"));
                Answer::Unknown
            }
            None => Answer::Unknown,
        };
        self.trace.note(|| format!("client {} {key} {action:?} = {answer:?}", self.number));
        self.history.end(operation, answer);
    }

    async fn register(&self) {
        let node = format!("node-{}-{}", self.number, self.history.acknowledged());
        let service = format!("service-{}", self.rng.below(3)).parse().expect("a legal name");
        let registration = Registration { service: Some(NodeService::new(service)), ..registration(&node) };
        let Some(waist) = self.reach.waist().await else { return };
        match self.reach.send(&waist, Command::Register(Box::new(registration))).await {
            Some(Outcome { effect: Effect::Applied, .. }) => self.history.registered(node),
            Some(other) => self.history.broken(format!("the registration of {node} ended with {other:?}")),
            None => {}
        }
    }

    /// Reads a key; whether there was an answer.
    async fn get(&self, key: &str, consistency: Consistency) -> bool {
        let Some(waist) = self.reach.waist().await else { return false };
        let stale = consistency == Consistency::Stale;
        if stale && !self.reach.knows_its_server() {
            return false;
        }
        let operation = self.history.begin(key, Action::Get, stale.then_some(waist.life));
        self.trace.note(|| format!("client {} {key} get {consistency:?}", self.number));
        let read = self.reach.ask(&waist, Query::KvGet(key.to_owned()), consistency).await;
        let found = read.and_then(|read| parse(&read));
        let answer = found.map_or(Answer::Unknown, |it| Answer::Read { value: it.value, index: it.index });
        self.trace.note(|| format!("client {} {key} get {consistency:?} = {answer:?}", self.number));
        self.history.end(operation, answer);
        if let Some(found) = found {
            self.seen.lock().insert(key.to_owned(), (found.value, found.modify_index, found.flags));
        }
        found.is_some()
    }
}

/// An entry as the history knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) index: Index,
    pub(crate) modify_index: Index,
    pub(crate) flags: u64,
}

/// The answer to a get.
pub(crate) fn parse(read: &Read) -> Option<Found> {
    let StateAnswer::KvEntry(entry) = &read.answer else { return None };
    let index = read.index;
    Some(match entry {
        None => Found { value: 0, index, modify_index: Index(0), flags: 0 },
        Some(entry) => Found {
            value: std::str::from_utf8(&entry.value).ok()?.parse().ok()?,
            index,
            modify_index: entry.modify_index,
            flags: entry.flags,
        },
    })
}

/// A registration of a node alone.
pub(crate) fn registration(node: &str) -> Registration {
    Registration {
        id: String::new(),
        node: node.parse().expect("a legal name"),
        address: "10.1.0.1".into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        node_meta: BTreeMap::new(),
        service: None,
        check: None,
        checks: Vec::new(),
        skip_node_update: false,
        locality: None,
    }
}
