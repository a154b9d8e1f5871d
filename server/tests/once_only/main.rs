//! A write whose reply was lost is applied once, and its author sees the true first answer.
//!
//! Three servers of the shipped code and a client agent's forwarder run over a network of this test. The connection that
//! a write went over is held: the request passes, the reply does not. Once the leader has applied the write, the connection
//! is cut, before a byte of the reply passed, and the client is left to find out.

mod network;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_agent::Datacenter;
use lictor_agent::forward::Forwarder;
use lictor_identity::seal::SealKey;
use lictor_runtime::clock::SimulatedClock;
use lictor_runtime::fs::MemoryFs;
use lictor_runtime::{PeerIdentity, SeededRng, Tasks};
use lictor_server::core::{Core, CoreDeps, CoreSettings};
use lictor_server::datacenter::ServerSettings;
use lictor_server::leader::Founding;
use lictor_server::login::LoginMethods;
use lictor_server::raft::{DataDirectory, Drive, Role, Settings};
use lictor_state::access::Authorizer;
use lictor_types::command::{Effect, KvCommand};
use lictor_types::rpc::ServerAddress;
use lictor_types::{
    Answer, Command, Consistency, Credential, Freshness, Index, KvVerb, Member, MemberStatus, NodeService, Outcome,
    Query, Registration,
};
use network::Network;
use tokio::time::{Instant, sleep};

const SERVERS: usize = 3;
const CLIENT: &str = "client";
/// How long a request waits for a leader.
const HOLD: Duration = Duration::from_secs(7);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Virtual time; nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, in virtual time.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// When the index has not moved for so long, the servers have nothing left to write.
const SETTLED: Duration = Duration::from_secs(12);

fn address(server: usize) -> String {
    format!("server-{server}:8300")
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(LOOK_INTERVAL).await;
    }
}

struct Cluster {
    network: Network,
    servers: Vec<Core>,
    tasks: Tasks,
}

impl Cluster {
    async fn start() -> Self {
        let network = Network::default();
        let rng = SeededRng::new(7);
        let seal = Arc::new(SealKey::generate(&rng).expect("any bytes are a key"));
        let mut servers = Vec::new();
        for server in 0..SERVERS {
            let directory = DataDirectory::open(Arc::new(MemoryFs::new()), Path::new("/data"), &rng);
            let directory = directory.expect("an empty disk");
            let deps = CoreDeps {
                clock: Arc::new(SimulatedClock::starting_at(SystemTime::UNIX_EPOCH + DAY * 20_000)),
                rng: Arc::new(rng.clone()),
                transport: network.host(&address(server), PeerIdentity::Server),
                seal: Arc::clone(&seal),
                logins: LoginMethods::default(),
                pools: lictor_agent::pools::Pools::none(),
                trust: None,
                directory: Arc::new(directory),
            };
            let settings = settings(server, deps.directory.server_id().to_string());
            servers.push(Core::start(settings, deps).await.expect("a server starts"));
        }
        let cluster = Self { network, servers, tasks: Tasks::new() };
        cluster.settle().await;
        cluster
    }

    /// Waits until there is a leader and nothing is left to write, and all servers have all.
    async fn settle(&self) {
        let mut last = (Index(0), Instant::now());
        until("the index to rest", || {
            let Some(leader) = self.leader() else { return false };
            let index = self.index(leader);
            if index != last.0 {
                last = (index, Instant::now());
            }
            index > Index(0) && last.1.elapsed() > SETTLED
        })
        .await;
    }

    fn leader(&self) -> Option<usize> {
        let terms = |server: usize| {
            let status = self.servers[server].status();
            (status.role == Role::Leader).then_some((status.term, server))
        };
        (0..SERVERS).filter_map(terms).max().map(|(_, server)| server)
    }

    fn index(&self, server: usize) -> Index {
        self.servers[server].state().index()
    }

    /// A client agent that asks these servers, the first one first.
    fn client(&self, servers: &[usize]) -> Arc<Forwarder> {
        let addresses: Vec<String> = servers.iter().map(|&server| address(server)).collect();
        // The order is random: a seed is sought that gives this one.
        for seed in 0..1000 {
            let transport = self.network.host(CLIENT, PeerIdentity::Client { node: CLIENT.into() });
            let rng = Arc::new(SeededRng::new(seed));
            let client = Forwarder::new(transport, addresses.clone(), HOLD, rng, &self.tasks);
            if client.servers() == addresses {
                return client;
            }
        }
        panic!("no seed gives the order {addresses:?}");
    }

    /// The index that the change of `key` or of the service was stored with, by this server's own state.
    async fn stored(&self, server: usize, write: &Write) -> Option<Index> {
        let freshness = Freshness { consistency: Consistency::Stale, block: None };
        let query = match write {
            Write::Cas { .. } => Query::KvGet(KEY.into()),
            Write::Registration => Query::NodeServices(NODE.parse().expect("a legal name")),
        };
        let read = self.servers[server].datacenter.read(&Credential::anonymous(), query, freshness).await;
        let read = read.expect("a stale read is always answered");
        match read.answer {
            Answer::KvEntry(entry) => entry.filter(|it| it.value == b"after").map(|it| it.modify_index),
            Answer::NodeServices(node) => {
                node.and_then(|it| it.services.values().next().map(|service| service.modify_index))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn settings(server: usize, id: String) -> CoreSettings {
    let name: lictor_types::NodeName = format!("server-{server}").parse().expect("a legal name");
    let tags = [("role", "consul"), ("dc", "dc1"), ("port", "8300")];
    CoreSettings {
        own: ServerAddress { id: id.clone(), name: name.clone(), address: address(server) },
        member: Member {
            name,
            id,
            address: format!("10.0.0.{}", server + 1),
            port: 8301,
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            meta: Default::default(),
            status: MemberStatus::Alive,
            protocols: None,
        },
        bootstrap_expect: SERVERS as u32,
        join: (0..SERVERS).map(address).collect(),
        raft: Settings { drive: Drive::Tasks, ..Settings::default() },
        server: ServerSettings {
            datacenter: "dc1".into(),
            hold: HOLD,
            leaf_lifetime: DAY,
            agent_lifetime: DAY,
            autopilot: lictor_types::autopilot::AutopilotConfig::default(),
            default_intention_allow: true,
            equality: lictor_server::equality::EqualitySettings::default(),
            session_ttl_min: lictor_types::session::TTL_MIN,
            reconnect_timeout: DAY,
        },
        authorizer: Authorizer { acl_enabled: false, default_allow: true },
        founding: Founding::default(),
    }
}

const KEY: &str = "once";
const NODE: &str = "registered";

#[derive(Clone, Copy)]
enum Write {
    /// Of the key that was stored at this index.
    Cas {
        expected: Index,
    },
    Registration,
}

impl Write {
    fn command(&self) -> Command {
        match self {
            Self::Cas { expected } => kv(KvVerb::Cas(*expected), b"after"),
            Self::Registration => Command::Register(Box::new(Registration {
                id: String::new(),
                node: NODE.parse().expect("a legal name"),
                address: "10.1.0.1".into(),
                datacenter: "dc1".into(),
                tagged_addresses: Default::default(),
                node_meta: Default::default(),
                service: Some(NodeService::new("web".parse().expect("a legal name"))),
                check: None,
                checks: Vec::new(),
                skip_node_update: false,
                locality: None,
            })),
        }
    }
}

fn kv(verb: KvVerb, value: &[u8]) -> Command {
    Command::Kv(KvCommand { verb, key: KEY.into(), value: value.to_vec(), flags: 0 })
}

/// What is cut between commit and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    ClientAndLeader,
    ClientAndFollower,
    FollowerAndLeader,
    /// All of the leader's connections: it is dead to everybody.
    Leader,
}

async fn write_through(cut: Cut) {
    // A compare-and-set that is applied twice says no the second time; a registration takes a second index.
    for with_cas in [true, false] {
        let cluster = Cluster::start().await;
        let leader = cluster.leader().expect("a leader");
        let follower = (leader + 1) % SERVERS;
        let (asked, line) = match cut {
            Cut::ClientAndLeader | Cut::Leader => (leader, (CLIENT.to_owned(), address(leader))),
            Cut::ClientAndFollower => (follower, (CLIENT.to_owned(), address(follower))),
            Cut::FollowerAndLeader => (follower, (address(follower), address(leader))),
        };
        let client = cluster.client(&[asked, (leader + 2) % SERVERS]);
        let nobody = Credential::anonymous();
        let first = client.write(&nobody, kv(KvVerb::Set, b"before")).await.expect("a write");
        let write = if with_cas { Write::Cas { expected: first.index } } else { Write::Registration };
        assert_eq!(cluster.stored(leader, &write).await, None);
        let before = cluster.index(leader);
        let dials = cluster.network.dialled(&line.0, &line.1);

        let held = cluster.network.hold(&line.0, &line.1);
        assert_eq!(held.count(), 1, "the write goes over a connection that is held");
        let (writer, asking) = (Arc::clone(&client), write);
        let mut answer = Box::pin(async move { writer.write(&Credential::anonymous(), asking.command()).await });
        let applied = async {
            until("the leader to apply and to answer", || cluster.index(leader) > before && held.swallowed() > 0).await;
        };
        tokio::select! {
            biased;
            answer = &mut answer => panic!("answered over a connection that carries no answer: {answer:?}"),
            () = applied => {}
        }
        let index = cluster.stored(leader, &write).await.expect("the leader has applied the write");
        assert_eq!(index, Index(before.0 + 1));
        held.cut();
        if cut == Cut::Leader {
            cluster.network.remove(&address(leader));
        }

        let first_answer = Outcome { index, effect: Effect::Applied };
        assert_eq!(answer.await.expect("the write is not lost"), first_answer, "{cut:?}");
        if cut == Cut::Leader {
            until("another leader", || cluster.leader().is_some_and(|it| it != leader)).await;
        } else {
            if cut == Cut::FollowerAndLeader {
                assert!(cluster.network.dialled(&line.0, &line.1) > dials, "the follower asked again");
            }
            assert_eq!(cluster.leader(), Some(leader), "nothing but a connection broke");
            assert_eq!(cluster.index(leader), index, "applied once");
        }
        let leader = cluster.leader().expect("a leader");
        assert_eq!(cluster.stored(leader, &write).await, Some(index), "nothing touched it again");

        // The same command under a new id is another write, and shows it: the above could have failed.
        let again = client.write(&nobody, write.command()).await.expect("a write");
        assert!(again.index > index);
        assert_eq!(again.effect, if with_cas { Effect::NotApplied } else { Effect::Applied });
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_applied_once_when_the_client_loses_the_leader_before_the_reply() {
    write_through(Cut::ClientAndLeader).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_applied_once_when_the_client_loses_the_follower_that_passed_it_on() {
    write_through(Cut::ClientAndFollower).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_applied_once_when_the_follower_that_passed_it_on_loses_the_leader() {
    write_through(Cut::FollowerAndLeader).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_applied_once_when_the_leader_dies_before_the_reply() {
    write_through(Cut::Leader).await;
}
