//! How clients reach the servers, and what they do when they get no answer.

use std::sync::Arc;
use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_agent::forward::{Forwarder, RpcPool};
use lictor_runtime::{PeerIdentity, Rng, SeededRng};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report, Request, RequestBody, Response, WriteRequest};
use lictor_types::{Command, Consistency, Credential, Freshness, Outcome, Query, Read};
use tokio::time::{Instant, sleep, timeout};

use crate::clients::World;
use crate::history::History;
use crate::network::Host;
use crate::servers::{HOLD, SERVERS, Servers, Waist, address};

/// An operation that takes longer is left open.
const OPERATION_LIMIT: Duration = Duration::from_secs(12);
/// One try of the client that tries everywhere.
const TRY_LIMIT: Duration = Duration::from_millis(1500);

/// How a client reaches the servers.
enum Way {
    /// As the doors of a server do: through the waist of any.
    Waist,
    /// As a client agent does, over RPC.
    Agent(Arc<Forwarder>),
    /// Over RPC, itself trying one server after the other with the same request id, and again after success.
    Repeating(RpcPool),
}

/// One client's way to the servers.
pub(crate) struct Reach {
    way: Way,
    servers: Servers,
    history: History,
    rng: SeededRng,
    _host: Host,
}

impl Reach {
    /// That of the client with this number: they have different ones.
    pub(crate) fn new(world: &World, number: usize, rng: SeededRng) -> Self {
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
        Self { way, servers: world.servers.clone(), history: world.history.clone(), rng, _host: host }
    }

    /// Whether it speaks to servers directly, so that it knows which one it asks.
    pub(crate) fn knows_its_server(&self) -> bool {
        matches!(self.way, Way::Waist)
    }

    /// A server that runs; only a client at a waist needs it.
    pub(crate) async fn waist(&self) -> Option<Waist> {
        let begun = Instant::now();
        while begun.elapsed() < OPERATION_LIMIT {
            if let Some(waist) = self.servers.waist(self.rng.below(SERVERS as u64) as usize) {
                return Some(waist);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    pub(crate) async fn ask(&self, waist: &Waist, query: Query, consistency: Consistency) -> Option<Read> {
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

    pub(crate) async fn send(&self, waist: &Waist, command: Command) -> Option<Outcome> {
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

    pub(crate) async fn operate(&self, waist: &Waist, operation: Operation) -> Option<Report> {
        let nobody = Credential::anonymous();
        match &self.way {
            Way::Waist => at(waist, waist.datacenter.operate(&nobody, operation)).await,
            Way::Agent(forwarder) => within(forwarder.operate(&nobody, operation)).await,
            Way::Repeating(pool) => {
                let request = Request { credential: nobody, body: RequestBody::Operate(operation), forwarded: false };
                let server = address(self.rng.below(SERVERS as u64) as usize);
                match pool.call(&server, request, OPERATION_LIMIT).await {
                    Ok(Response::Report(report)) => Some(report),
                    _ => None,
                }
            }
        }
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
