//! A client agent's datacenter: it holds no state and asks a server.
//!
//! Invariants
//! - One connection to one server at a time; the next server takes over when a call there fails, or when the server says nothing
//!   at all: within a second, unless the call waits on purpose.
//! - A request keeps its id over every retry, so that a write is applied once whatever breaks in between.
//! - A request that no server can serve fails after the hold time, with what the last one said.

mod pool;
mod rate;
mod servers;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_runtime::metrics::{Counter, Metrics};
use lictor_runtime::transport::{Boxed, SharedTransport};
use lictor_runtime::{Rng, Tasks};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, ReadRequest, Report, Request, RequestBody, Response, WriteRequest};
use lictor_types::{Block, Command, Credential, Freshness, Member, NodeName, Outcome, Query, Read, Refusal};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::datacenter::Datacenter;
use crate::rpc::RpcError;
use rate::Rate;
use servers::Servers;

pub use pool::RpcPool;
pub use servers::FoundServer;

/// Between two signs of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Between a sign of life that did not arrive and the next.
const KEEPALIVE_RETRY: Duration = Duration::from_millis(500);
/// A sign of life that takes longer did not arrive.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(4);
/// A server holds a request for its hold time; the answer may take this much longer.
const CALL_SLACK: Duration = Duration::from_secs(3);
/// A call that has no answer for so long is a reason to ask whether the server is there at all.
const SILENCE: Duration = Duration::from_millis(300);
/// How long it may take to say so.
const PRESENCE_LIMIT: Duration = Duration::from_millis(400);
/// How long the farewell may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// What begins the text of every error that a server made.
const PREFIX: &str = "rpc error making call: ";

/// Asks servers.
pub struct Forwarder {
    pool: RpcPool,
    servers: Mutex<Servers>,
    rng: Arc<dyn Rng>,
    hold: Duration,
    tasks: Tasks,
    reconnections: watch::Sender<u64>,
    members: watch::Sender<usize>,
    leaving: AtomicBool,
    /// The server that was asked last whether it is there, when, and what came of it. Locked while it is asked.
    presence: tokio::sync::Mutex<Option<(String, Instant, bool)>>,
    metrics: Arc<Metrics>,
    calls: Counter,
    failed: Counter,
    exceeded: Counter,
    rate: Rate,
}

impl Forwarder {
    /// Asks the servers at `addresses` (`host:port`), and those that they tell of. A request waits for a server `hold`.
    pub fn new(
        transport: SharedTransport,
        addresses: Vec<String>,
        hold: Duration,
        rng: Arc<dyn Rng>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let tasks = tasks.child();
        let metrics = Arc::new(Metrics::default());
        Arc::new(Self {
            calls: metrics.counter("client.rpc", &[]),
            failed: metrics.counter("client.rpc.failed", &[]),
            exceeded: metrics.counter("client.rpc.exceeded", &[]),
            rate: Rate::default(),
            metrics,
            pool: RpcPool::new(transport, &tasks),
            servers: Mutex::new(Servers::new(addresses, &*rng)),
            rng,
            hold,
            tasks,
            reconnections: watch::channel(0).0,
            members: watch::channel(0).0,
            leaving: AtomicBool::new(false),
            presence: tokio::sync::Mutex::default(),
        })
    }

    /// The agent's figures, with those of its calls.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Asks at most `per_second` times a second and `burst` times at once; with none as often as it is asked. Signs of life are
    /// not counted.
    pub fn limit_rate(&self, per_second: Option<f64>, burst: u32) {
        self.rate.set(per_second, burst);
    }

    /// Grows whenever a server was reached after it, or another one, was not.
    pub fn reconnections(&self) -> watch::Receiver<u64> {
        self.reconnections.subscribe()
    }

    /// How many members the cluster has, as the servers told last; 0 before they did.
    pub fn members(&self) -> watch::Receiver<usize> {
        self.members.subscribe()
    }

    /// The servers that are known, the one that is asked first.
    pub fn servers(&self) -> Vec<String> {
        self.servers.lock().all()
    }

    /// Gossip knows these servers; with `rebalance`, chooses anew which one is asked first.
    pub fn found(&self, found: &[FoundServer], rebalance: bool) {
        self.servers.lock().found(found, rebalance, &*self.rng);
    }

    /// Tells the servers every few seconds that `member` is alive, until it leaves.
    pub fn keep_alive(self: &Arc<Self>, credential: Credential, member: Member) {
        let forwarder = Arc::clone(self);
        self.tasks.spawn(async move { forwarder.run_keepalive(credential, member).await });
    }

    /// Says farewell: the member has left on purpose, and no sign of life follows.
    ///
    /// # Errors
    /// No server heard it; the member will count as failed.
    pub async fn leave(&self, credential: &Credential, node: NodeName) -> Result<(), Refusal> {
        self.leaving.store(true, Ordering::Release);
        let farewell = self.operate(credential, Operation::Leave(node));
        match tokio::time::timeout(LEAVE_LIMIT, farewell).await {
            Ok(answered) => answered.map(|_| ()),
            Err(_) => Err(Refusal::new(RefusalKind::Uncertain, "no server heard the farewell in time")),
        }
    }

    async fn run_keepalive(&self, credential: Credential, member: Member) {
        let mut last: Option<String> = None;
        while !self.leaving.load(Ordering::Acquire) {
            let address = self.servers.lock().first();
            let reached = match &address {
                Some(address) => self.send_keepalive(address, &credential, &member).await,
                None => false,
            };
            if !reached {
                last = None;
                tokio::time::sleep(KEEPALIVE_RETRY + self.jitter(KEEPALIVE_RETRY)).await;
                continue;
            }
            if last != address {
                tracing::info!(server = address.as_deref(), "reached a server");
                self.reconnections.send_modify(|count| *count += 1);
                last = address;
            }
            tokio::time::sleep(KEEPALIVE_INTERVAL).await;
        }
    }

    async fn send_keepalive(&self, address: &str, credential: &Credential, member: &Member) -> bool {
        let body = RequestBody::Operate(Operation::Keepalive(member.clone()));
        let request = Request { credential: credential.clone(), body, forwarded: false };
        let call = self.pool.call(address, request, KEEPALIVE_LIMIT);
        let problem = match self.watched(address, call).await {
            Ok(Response::Report(Report::Servers(servers, members))) => {
                if let Some(members) = members {
                    let members = members as usize;
                    self.members.send_if_modified(|known| std::mem::replace(known, members) != members);
                }
                self.servers.lock().learn(servers.into_iter().map(|server| server.address).collect(), &*self.rng);
                return true;
            }
            Ok(Response::Refused(refusal)) if !refusal.may_retry() => {
                // The server is there and will not have us as a member; another one would say the same.
                tracing::warn!(server = address, %refusal, "the servers refuse this member");
                return true;
            }
            Ok(Response::Refused(refusal)) => refusal.text,
            Ok(_) => return true,
            Err(error) => error.to_string(),
        };
        tracing::warn!(server = address, problem, "a server does not hear us, trying the next");
        self.servers.lock().failed(address);
        false
    }

    fn jitter(&self, around: Duration) -> Duration {
        Duration::from_millis(self.rng.below(around.as_millis() as u64))
    }

    /// The answer to `call`, as long as the server is there: one that was cut off or stopped says nothing for ever, and one that
    /// is slow for a good reason says at once that it is there.
    async fn watched(
        &self,
        address: &str,
        call: impl Future<Output = Result<Response, RpcError>>,
    ) -> Result<Response, RpcError> {
        let mut call = std::pin::pin!(call);
        loop {
            if let Ok(answered) = tokio::time::timeout(SILENCE, &mut call).await {
                return answered;
            }
            tokio::select! {
                biased;
                answered = &mut call => return answered,
                is_there = self.is_there(address) => if !is_there {
                    return Err(RpcError::Silent { address: address.to_owned() });
                },
            }
        }
    }

    /// Asks the server at `address` whether it is there; many callers at once ask once.
    async fn is_there(&self, address: &str) -> bool {
        let mut presence = self.presence.lock().await;
        let is_new = |at: Instant| at.elapsed() < SILENCE;
        match &*presence {
            Some((of, at, is_there)) if of == address && is_new(*at) => *is_there,
            _ => {
                let is_there = self.pool.is_there(address, PRESENCE_LIMIT).await;
                *presence = Some((address.to_owned(), Instant::now(), is_there));
                is_there
            }
        }
    }

    /// Asks one server after the other until one answers, or the hold time is over. `wait` is the time that the answer may
    /// take on purpose; `body` makes the request, given how much of that is over.
    async fn ask(
        &self,
        credential: &Credential,
        wait: Duration,
        body: impl Fn(Duration) -> RequestBody,
    ) -> Result<Response, Refusal> {
        if let Err(refusal) = self.rate.take() {
            self.exceeded.increment();
            return Err(refusal);
        }
        let start = Instant::now();
        let mut give_up = wait.is_zero().then_some(start + self.hold);
        let mut tried = 0;
        loop {
            let Some(address) = self.servers.lock().first() else { return Err(no_servers()) };
            let elapsed = start.elapsed();
            let request = Request { credential: credential.clone(), body: body(elapsed), forwarded: false };
            let limit = wait.saturating_sub(elapsed) + self.hold + CALL_SLACK;
            self.calls.increment();
            let call = self.pool.call(&address, request, limit);
            let answered = if wait.is_zero() { self.watched(&address, call).await } else { call.await };
            let (refusal, from_server) = match answered {
                Ok(Response::Refused(refusal)) if refusal.may_retry() => (prefixed(refusal), true),
                Ok(Response::Refused(refusal)) => return Err(prefixed(refusal)),
                Ok(response) => return Ok(response),
                Err(error) => match error.into_refusal() {
                    refusal if refusal.may_retry() => (refusal, false),
                    refusal => return Err(refusal),
                },
            };
            self.failed.increment();
            tried += 1;
            let known = {
                let mut servers = self.servers.lock();
                servers.failed(&address);
                servers.len()
            };
            let all_tried = tried >= known;
            let now = Instant::now();
            let over = now >= *give_up.get_or_insert(now + self.hold);
            // A connection that broke late says nothing of the other servers: each gets its chance.
            if over && (from_server || all_tried) {
                return Err(refusal);
            }
            tracing::debug!(server = address, %refusal, "asking the next server");
            if all_tried {
                tokio::time::sleep(self.jitter(self.hold / 16)).await;
            }
        }
    }
}

impl Datacenter for Forwarder {
    fn write<'a>(&'a self, credential: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>> {
        Box::pin(async move {
            let mut request_id = [0; 16];
            self.rng.fill(&mut request_id);
            let body = |_| RequestBody::Write(Box::new(WriteRequest { request_id, command: command.clone() }));
            match self.ask(credential, Duration::ZERO, body).await? {
                Response::Written(outcome) => Ok(outcome),
                other => Err(prefixed(other.unexpected())),
            }
        })
    }

    fn read<'a>(
        &'a self,
        credential: &'a Credential,
        query: Query,
        freshness: Freshness,
    ) -> Boxed<'a, Result<Read, Refusal>> {
        Box::pin(async move {
            let wait = freshness.block.map(|block| block.wait()).unwrap_or_default();
            let body = |elapsed: Duration| {
                let block = freshness.block.map(|block| Block {
                    wait_millis: block.wait().saturating_sub(elapsed).as_millis() as u64,
                    ..block
                });
                RequestBody::Read(ReadRequest { query: query.clone(), freshness: Freshness { block, ..freshness } })
            };
            match self.ask(credential, wait, body).await? {
                Response::Read(read) => Ok(read),
                other => Err(prefixed(other.unexpected())),
            }
        })
    }

    fn operate<'a>(&'a self, credential: &'a Credential, operation: Operation) -> Boxed<'a, Result<Report, Refusal>> {
        Box::pin(async move {
            let wait = operation.wait();
            let body = |_| RequestBody::Operate(operation.clone());
            match self.ask(credential, wait, body).await? {
                Response::Report(report) => Ok(report),
                other => Err(prefixed(other.unexpected())),
            }
        })
    }
}

fn no_servers() -> Refusal {
    Refusal::new(RefusalKind::NoLeader, "No known Consul servers")
}

/// A server's refusal as the asker of a client agent gets it: with Consul's prefix, once.
fn prefixed(refusal: Refusal) -> Refusal {
    if refusal.text.starts_with(PREFIX) {
        return refusal;
    }
    Refusal { text: format!("{PREFIX}{}", refusal.text), ..refusal }
}
