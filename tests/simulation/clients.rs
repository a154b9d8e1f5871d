//! Clients: each does one thing after the other and writes down what it asked and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_agent::forward::{Forwarder, RpcPool};
use lictor_runtime::{PeerIdentity, Rng, SeededRng, Tasks};
use lictor_types::command::{Effect, KvCommand};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Request, RequestBody, Response, WriteRequest};
use lictor_types::{
    Answer as StateAnswer, Command, Consistency, Credential, Freshness, Index, KvVerb, NodeService, Outcome, Query,
    Read, Registration,
};
use tokio::time::{Instant, sleep, timeout};

use crate::history::{Action, Answer, History, Value};
use crate::network::{Host, Network};
use crate::servers::{HOLD, SERVERS, Servers, Waist, address};
use crate::trace::Trace;

/// An operation that takes longer is left open.
const OPERATION_LIMIT: Duration = Duration::from_secs(12);
/// One try of the client that tries everywhere.
const TRY_LIMIT: Duration = Duration::from_millis(1500);
/// Keys that everybody writes.
const REGISTERS: u64 = 8;
/// Keys that are only counted up.
const COUNTERS: u64 = 2;

/// How a client reaches the servers.
enum Way {
    /// As the doors of a server do: through the waist of any.
    Waist,
    /// As a client agent does, over RPC.
    Agent(Arc<Forwarder>),
    /// Over RPC, itself trying one server after the other with the same request id, and again after success.
    Repeating(RpcPool),
}

/// One client.
pub(crate) struct Client {
    number: usize,
    way: Way,
    servers: Servers,
    history: History,
    rng: SeededRng,
    trace: Trace,
    stop: Arc<AtomicBool>,
    /// What this client saw last of each key, for cas.
    seen: parking_lot::Mutex<BTreeMap<String, (Value, Index, u64)>>,
    pause_micros: u64,
    _host: Host,
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
        let name = format!("client-{number}");
        let host = world.network.host(&name, PeerIdentity::Client { node: name.clone() });
        let transport = Arc::clone(&host.transport);
        let way = match number % 3 {
            0 => Way::Waist,
            1 => {
                let addresses = (0..SERVERS).map(address).collect();
                Way::Agent(Forwarder::new(transport, addresses, HOLD, Arc::new(rng.clone()), &world.tasks))
            }
            _ => Way::Repeating(RpcPool::new(transport, &world.tasks)),
        };
        Self {
            number,
            way,
            servers: world.servers.clone(),
            history: world.history.clone(),
            rng,
            trace: world.trace.clone(),
            stop: Arc::clone(&world.stop),
            seen: Default::default(),
            pause_micros,
            _host: host,
        }
    }

    /// Works until told to stop.
    pub(crate) async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.one().await;
            sleep(Duration::from_micros(self.rng.below(self.pause_micros * 2))).await;
        }
    }

    async fn one(&self) {
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
        let Some(waist) = self.waist().await else { return };
        let operation = self.history.begin(key, action, None);
        self.trace.note(|| format!("client {} {key} {action:?}", self.number));
        let answer = match self.send(&waist, command).await {
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
        let registration = Registration {
            id: String::new(),
            node: node.parse().expect("a legal name"),
            address: "10.1.0.1".into(),
            datacenter: "dc1".into(),
            tagged_addresses: BTreeMap::new(),
            node_meta: BTreeMap::new(),
            service: Some(NodeService::new(service)),
            check: None,
            checks: Vec::new(),
            skip_node_update: false,
            locality: None,
        };
        let Some(waist) = self.waist().await else { return };
        match self.send(&waist, Command::Register(Box::new(registration))).await {
            Some(Outcome { effect: Effect::Applied, .. }) => self.history.registered(node),
            Some(other) => self.history.broken(format!("the registration of {node} ended with {other:?}")),
            None => {}
        }
    }

    /// Reads a key; whether there was an answer.
    async fn get(&self, key: &str, consistency: Consistency) -> bool {
        let Some(waist) = self.waist().await else { return false };
        let stale = consistency == Consistency::Stale;
        if stale && !matches!(self.way, Way::Waist) {
            return false;
        }
        let operation = self.history.begin(key, Action::Get, stale.then_some(waist.life));
        self.trace.note(|| format!("client {} {key} get {consistency:?}", self.number));
        let read = self.ask(&waist, Query::KvGet(key.to_owned()), consistency).await;
        let found = read.and_then(|read| parse(&read));
        let answer = found.map_or(Answer::Unknown, |it| Answer::Read { value: it.value, index: it.index });
        self.trace.note(|| format!("client {} {key} get {consistency:?} = {answer:?}", self.number));
        self.history.end(operation, answer);
        if let Some(found) = found {
            self.seen.lock().insert(key.to_owned(), (found.value, found.modify_index, found.flags));
        }
        found.is_some()
    }

    /// A server that runs; only a client at a waist needs it.
    async fn waist(&self) -> Option<Waist> {
        let begun = Instant::now();
        while begun.elapsed() < OPERATION_LIMIT {
            if let Some(waist) = self.servers.waist(self.rng.below(SERVERS as u64) as usize) {
                return Some(waist);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    async fn ask(&self, waist: &Waist, query: Query, consistency: Consistency) -> Option<Read> {
        let nobody = Credential::anonymous();
        let freshness = Freshness { consistency, block: None };
        match &self.way {
            Way::Waist => at(waist, waist.datacenter.read(&nobody, query, freshness)).await,
            Way::Agent(forwarder) => within(forwarder.read(&nobody, query, freshness)).await,
            Way::Repeating(pool) => {
                let body = RequestBody::Read(lictor_types::rpc::ReadRequest { query, freshness });
                let request = Request { credential: nobody, body, forwarded: false };
                let server = address(self.rng.below(SERVERS as u64) as usize);
                match pool.call(&server, request, OPERATION_LIMIT).await {
                    Ok(Response::Read(read)) => Some(read),
                    _ => None,
                }
            }
        }
    }

    async fn send(&self, waist: &Waist, command: Command) -> Option<Outcome> {
        let nobody = Credential::anonymous();
        match &self.way {
            Way::Waist => at(waist, waist.datacenter.write(&nobody, command)).await,
            Way::Agent(forwarder) => within(forwarder.write(&nobody, command)).await,
            Way::Repeating(pool) => self.repeat(pool, command).await,
        }
    }

    /// Asks until there is an outcome, always with the same request id; now and then once more after it.
    async fn repeat(&self, pool: &RpcPool, command: Command) -> Option<Outcome> {
        let mut request_id = [0; 16];
        self.rng.fill(&mut request_id);
        let begun = Instant::now();
        let mut first: Option<Outcome> = None;
        while begun.elapsed() < OPERATION_LIMIT {
            let server = address(self.rng.below(SERVERS as u64) as usize);
            let body = RequestBody::Write(Box::new(WriteRequest { request_id, command: command.clone() }));
            let request = Request { credential: Credential::anonymous(), body, forwarded: false };
            match (pool.call(&server, request, TRY_LIMIT).await, &first) {
                (Ok(Response::Written(outcome)), Some(first)) => {
                    if outcome != *first {
                        self.history.broken(format!("{command:?} had the outcome {first:?}, and repeated {outcome:?}"));
                    }
                    break;
                }
                (Ok(Response::Written(outcome)), None) => {
                    let again = self.rng.below(3) == 0;
                    first = Some(outcome);
                    if !again {
                        break;
                    }
                }
                // A full or broken disk refuses; it is another server's turn.
                (Ok(Response::Refused(refusal)), _) if refusal.kind != RefusalKind::Failed && !refusal.may_retry() => {
                    self.history.broken(format!("{command:?} was refused: {refusal}"));
                    break;
                }
                _ => sleep(Duration::from_millis(1 + self.rng.below(50))).await,
            }
        }
        first
    }
}

async fn within<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    timeout(OPERATION_LIMIT, asked).await.ok()?.ok()
}

/// A call through a waist ends when its server does.
pub(crate) async fn at<T, E>(waist: &Waist, asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    let mut over = waist.over.clone();
    tokio::select! {
        biased;
        _ = over.wait_for(|over| *over) => None,
        answer = within(asked) => answer,
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
