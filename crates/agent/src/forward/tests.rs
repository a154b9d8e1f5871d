//! A forwarder against servers in memory.

use lictor_runtime::PeerIdentity;
use lictor_runtime::SeededRng;
use lictor_types::command::{Effect, KvCommand};
use lictor_types::rpc::ServerAddress;
use lictor_types::{Answer, Consistency, Index, KvVerb, RequestId};

use super::*;
use crate::rpc::Handler;
use crate::testing::Network;

const HOLD: Duration = Duration::from_secs(7);

/// What a server does with every request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serves,
    HasNoLeader,
    Denies,
    /// Says that it is there, and nothing else.
    Ponders,
    Hangs,
}

struct Server {
    mood: Mutex<Mood>,
    writes: Mutex<Vec<RequestId>>,
    waits: Mutex<Vec<u64>>,
    keepalives: Mutex<usize>,
    others: Vec<String>,
}

impl Server {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            writes: Mutex::default(),
            waits: Mutex::default(),
            keepalives: Mutex::default(),
            others: vec!["a:1".into(), "b:1".into()],
        })
    }
}

impl Handler for Server {
    fn handle(&self, _: PeerIdentity, request: Request) -> Boxed<'_, Response> {
        Box::pin(async move {
            if let RequestBody::Write(write) = &request.body {
                self.writes.lock().push(write.request_id);
            }
            if let RequestBody::Read(read) = &request.body {
                self.waits.lock().extend(read.freshness.block.map(|block| block.wait_millis));
            }
            let mood = *self.mood.lock();
            match mood {
                Mood::Hangs => std::future::pending().await,
                Mood::Ponders if !matches!(request.body, RequestBody::Operate(Operation::Status)) => {
                    std::future::pending().await
                }
                Mood::HasNoLeader => return Response::Refused(Refusal::no_leader()),
                Mood::Denies => return Response::Refused(Refusal::permission_denied("no")),
                Mood::Serves | Mood::Ponders => {}
            }
            match request.body {
                RequestBody::Write(_) => Response::Written(Outcome { index: Index(5), effect: Effect::Applied }),
                RequestBody::Read(_) => Response::Read(Read {
                    index: Index(5),
                    answer: Answer::KvEntry(None),
                    filtered_by_acls: false,
                    last_contact_millis: 0,
                    known_leader: true,
                }),
                RequestBody::Relay(_) => Response::Refused(Refusal::bad_request("an agent passes nothing on")),
                RequestBody::Operate(Operation::Keepalive(_)) => {
                    *self.keepalives.lock() += 1;
                    let server = |address: &String| ServerAddress {
                        id: address.clone(),
                        name: "s".parse().unwrap(),
                        address: address.clone(),
                    };
                    Response::Report(Report::Servers(self.others.iter().map(server).collect(), Some(7)))
                }
                RequestBody::Operate(_) => Response::Report(Report::Done),
            }
        })
    }
}

struct World {
    network: Network,
    tasks: Tasks,
    servers: Vec<Arc<Server>>,
    forwarder: Arc<Forwarder>,
}

/// Servers `a:1` and `b:1`; the forwarder asks the one with `first` first.
fn world(first: Mood, second: Mood) -> World {
    let (network, tasks) = (Network::default(), Tasks::new());
    let addresses = vec!["a:1".to_owned(), "b:1".to_owned()];
    let forwarder = Forwarder::new(network.transport(), addresses, HOLD, Arc::new(SeededRng::new(1)), &tasks);
    let servers: Vec<Arc<Server>> = [first, second].map(Server::new).into();
    for (address, server) in forwarder.servers().iter().zip(&servers) {
        network.serve(address, PeerIdentity::Client { node: "n1".into() }, Arc::clone(server), &tasks);
    }
    World { network, tasks, servers, forwarder }
}

fn put() -> Command {
    Command::Kv(KvCommand { verb: KvVerb::Set, key: "k".into(), value: Vec::new(), flags: 0 })
}

fn member() -> Member {
    Member {
        name: "n1".parse().unwrap(),
        id: "id".into(),
        address: "127.0.0.1".into(),
        port: 8301,
        tags: std::collections::BTreeMap::new(),
        meta: std::collections::BTreeMap::new(),
        status: lictor_types::MemberStatus::Alive,
        protocols: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_moves_to_the_next_server_under_the_same_id() {
    let world = world(Mood::HasNoLeader, Mood::Serves);
    let outcome = world.forwarder.write(&Credential::anonymous(), put()).await.unwrap();
    assert_eq!(outcome.index, Index(5));
    let (first, second) = (world.servers[0].writes.lock().clone(), world.servers[1].writes.lock().clone());
    assert_eq!(first, second);
    assert_eq!(first.len(), 1);
    world.forwarder.write(&Credential::anonymous(), put()).await.unwrap();
    assert_ne!(world.servers[1].writes.lock()[1], first[0], "another write has another id");
    assert_eq!(world.servers[0].writes.lock().len(), 1, "the server that served is asked first from then on");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_lost_without_a_word_costs_less_than_a_second_and_no_write() {
    let world = world(Mood::Hangs, Mood::Serves);
    let start = Instant::now();
    let nobody = Credential::anonymous();
    let puts = (0..64).map(|_| world.forwarder.write(&nobody, put()));
    for answered in futures_util::future::join_all(puts).await {
        answered.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let (mut first, mut second) = (world.servers[0].writes.lock().clone(), world.servers[1].writes.lock().clone());
    first.sort();
    second.sort();
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_there_is_given_its_time() {
    let world = world(Mood::Ponders, Mood::Serves);
    let start = Instant::now();
    world.forwarder.write(&Credential::anonymous(), put()).await.unwrap();
    assert!(start.elapsed() >= HOLD, "{:?}", start.elapsed());
    assert_eq!(*world.servers[0].writes.lock(), *world.servers[1].writes.lock());
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_final_and_has_the_prefix_of_a_client_agent() {
    let world = world(Mood::Denies, Mood::Serves);
    let refusal = world.forwarder.write(&Credential::anonymous(), put()).await.unwrap_err();
    assert_eq!(refusal.status(), 403);
    assert_eq!(refusal.text, "rpc error making call: Permission denied: no");
    assert!(world.servers[1].writes.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_request_fails_after_the_hold_time() {
    let world = world(Mood::HasNoLeader, Mood::HasNoLeader);
    let start = Instant::now();
    let refusal = world.forwarder.write(&Credential::anonymous(), put()).await.unwrap_err();
    assert_eq!(refusal.text, "rpc error making call: No cluster leader");
    let waited = start.elapsed();
    assert!(waited >= HOLD && waited < HOLD + Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn without_servers_the_request_fails_at_once() {
    let (network, tasks) = (Network::default(), Tasks::new());
    let rng = Arc::new(SeededRng::new(1));
    let forwarder = Forwarder::new(network.transport(), Vec::new(), HOLD, rng, &tasks);
    let refusal = forwarder.operate(&Credential::anonymous(), Operation::Members).await.unwrap_err();
    assert_eq!((refusal.status(), refusal.text.as_str()), (500, "No known Consul servers"));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_read_that_moves_waits_only_for_the_rest() {
    let world = world(Mood::Hangs, Mood::Serves);
    let block = Some(Block { after: Index(5), wait_millis: 60_000 });
    let freshness = Freshness { consistency: Consistency::Default, block };
    world.forwarder.read(&Credential::anonymous(), Query::KvGet("k".into()), freshness).await.unwrap();
    assert_eq!(*world.servers[0].waits.lock(), [60_000]);
    assert_eq!(*world.servers[1].waits.lock(), [0]);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_reach_the_next_server_when_one_is_cut_off_and_end_with_the_farewell() {
    let world = world(Mood::Serves, Mood::Serves);
    let mut reconnections = world.forwarder.reconnections();
    world.forwarder.keep_alive(Credential::anonymous(), member());
    reconnections.changed().await.unwrap();
    assert_eq!(*world.servers[0].keepalives.lock(), 1);
    *world.servers[0].mood.lock() = Mood::Hangs;
    reconnections.changed().await.unwrap();
    assert_eq!(*world.servers[1].keepalives.lock(), 1);
    world.forwarder.leave(&Credential::anonymous(), "n1".parse().unwrap()).await.unwrap();
    let so_far = *world.servers[1].keepalives.lock();
    tokio::time::sleep(KEEPALIVE_INTERVAL * 3).await;
    assert_eq!(*world.servers[1].keepalives.lock(), so_far);
    assert!(world.tasks.stop(Duration::from_secs(1)).await);
    drop(world.network);
}
