//! Servers of the shipped code on simulated machines: started, killed, and started again from what disks kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use lictor_identity::seal::SealKey;
use lictor_runtime::Clock;
use lictor_runtime::clock::SimulatedClock;
use lictor_runtime::fs::{Crash, Fault, Fs, MemoryFs};
use lictor_runtime::{PeerIdentity, Rng, SeededRng, Tasks};
use lictor_server::core::{Core, CoreDeps, CoreSettings};
use lictor_server::datacenter::{ServerDatacenter, ServerSettings};
use lictor_server::equality::EqualitySettings;
use lictor_server::leader::Founding;
use lictor_server::leader::equality::Comparisons;
use lictor_server::login::LoginMethods;
use lictor_server::raft::{DataDirectory, Drive, Faults, LogOptions, Membership, Role, Settings, Status};
use lictor_state::Store;
use lictor_state::access::Authorizer;
use lictor_types::autopilot::AutopilotConfig;
use lictor_types::rpc::ServerAddress;
use lictor_types::{AuthorityRecord, CaRoot, Index, Member, MemberStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::network::{Host, Network};
use crate::trace::Trace;

/// Servers of a cluster where nobody says otherwise. One machine more stands by, which joins and is removed again.
pub(crate) const SERVERS: usize = 3;
/// The machine that stands by.
pub(crate) const SPARE: usize = SERVERS;
/// How long a request waits for a leader.
pub(crate) const HOLD: Duration = Duration::from_secs(3);
/// What is left of a killed server is cleared away within this.
const CLEARED_WITHIN: Duration = Duration::from_secs(1);
const LEAF_LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// A new server is healthy for so long before it votes: less than in life, since a run is short.
const STABILIZATION_MILLIS: u64 = 500;
/// The servers compare their states this often, which is more often than in life.
const EQUALITY: EqualitySettings = EqualitySettings { entries: 100, interval: Duration::from_secs(2) };
/// Sessions may be as short as that: less than in life, since a run is short.
const SESSION_TTL_MIN: Duration = Duration::from_secs(1);
/// 2026-01-01.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// What a kill leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// The power went: nothing.
    All,
    /// The process died: everything is left.
    None,
    /// The power went while the disk was busy: any part.
    Some,
}

pub(crate) fn address(server: usize) -> String {
    format!("server-{server}:8300")
}

/// What seeds and planted bugs vary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How many servers begin the cluster.
    pub(crate) servers: usize,
    pub(crate) snapshot_entries: u64,
    pub(crate) kept_entries: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) faults: Faults,
    /// The only server that has them; all for none.
    pub(crate) faulty: Option<usize>,
    /// A bug of the operator: who loses power loses the log too, and comes back under the same id.
    pub(crate) id_reused: bool,
}

struct Running {
    core: Core,
    id: String,
    host: Host,
    over: watch::Sender<bool>,
}

/// The clock of one machine, wrong by so many milliseconds.
#[derive(Clone)]
struct WrongClock {
    right: SimulatedClock,
    offset: Arc<AtomicI64>,
}

impl Clock for WrongClock {
    fn now(&self) -> SystemTime {
        let offset = self.offset.load(Ordering::Relaxed);
        let by = Duration::from_millis(offset.unsigned_abs());
        if offset < 0 { self.right.now() - by } else { self.right.now() + by }
    }
}

struct Machine {
    clock: WrongClock,
    disk: MemoryFs,
    running: Option<Running>,
    life: u64,
}

/// The waist of a server for as long as it lives.
#[derive(Clone)]
pub(crate) struct Waist {
    pub(crate) datacenter: Arc<ServerDatacenter>,
    pub(crate) over: watch::Receiver<bool>,
    /// Which life of which server.
    pub(crate) life: (usize, u64),
}

/// The servers. Clones share them.
#[derive(Clone)]
pub(crate) struct Servers {
    machines: Arc<Mutex<Vec<Machine>>>,
    network: Network,
    shape: Shape,
    rng: SeededRng,
    seal: Arc<SealKey>,
    tasks: Tasks,
    trace: Trace,
    /// No clock was wrong so far.
    clocks_are_right: Arc<AtomicBool>,
}

impl Servers {
    pub(crate) fn new(network: Network, shape: Shape, rng: SeededRng, tasks: Tasks, trace: Trace) -> Self {
        let right = SimulatedClock::starting_at(SystemTime::UNIX_EPOCH + BEGINNING);
        let machine = || {
            let clock = WrongClock { right, offset: Arc::default() };
            Machine { clock, disk: MemoryFs::new(), running: None, life: 0 }
        };
        let machines = (0..=shape.servers).map(|_| machine()).collect();
        Self {
            machines: Arc::new(Mutex::new(machines)),
            network,
            shape,
            seal: Arc::new(SealKey::generate(&rng).expect("any bytes are a key")),
            rng,
            tasks,
            trace,
            clocks_are_right: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Starts a server that does not run, from its disk.
    pub(crate) async fn start(&self, server: usize) -> Result<(), String> {
        let (disk, life, clock) = {
            let mut machines = self.machines.lock();
            let machine = &mut machines[server];
            if machine.running.is_some() {
                return Ok(());
            }
            machine.life += 1;
            (machine.disk.clone(), machine.life, machine.clock.clone())
        };
        let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(self.rng.next_u64()));
        let directory = DataDirectory::open(Arc::new(disk), Path::new("/data"), &*rng);
        let directory = directory.map_err(|error| format!("server {server} does not start again: {error}"))?;
        let host = self.network.host(&address(server), PeerIdentity::Server);
        let deps = CoreDeps {
            clock: Arc::new(clock),
            rng,
            transport: Arc::clone(&host.transport),
            seal: Arc::clone(&self.seal),
            logins: LoginMethods::default(),
            pools: lictor_agent::pools::Pools::none(),
            trust: None,
            directory: Arc::new(directory),
        };
        let id = deps.directory.server_id().to_string();
        let settings = self.settings(server, id.clone());
        let core = Core::start(settings, deps).await;
        let core = core.map_err(|error| format!("server {server} does not start again: {error}"))?;
        self.trace.note(|| format!("server {server} starts its life {life}"));
        self.machines.lock()[server].running = Some(Running { core, id, host, over: watch::Sender::new(false) });
        Ok(())
    }

    fn settings(&self, server: usize, id: String) -> CoreSettings {
        let name: lictor_types::NodeName = format!("server-{server}").parse().expect("a legal name");
        CoreSettings {
            own: ServerAddress { id: id.clone(), name: name.clone(), address: address(server) },
            member: Member {
                name,
                id,
                address: format!("10.0.0.{}", server + 1),
                port: 8301,
                tags: [("role", "consul"), ("dc", "dc1"), ("port", "8300")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                meta: Default::default(),
                status: MemberStatus::Alive,
                protocols: None,
            },
            bootstrap_expect: self.shape.servers as u32,
            join: (0..self.shape.servers).map(address).collect(),
            raft: Settings {
                drive: Drive::Tasks,
                faults: if self.shape.faulty.is_none_or(|it| it == server) {
                    self.shape.faults
                } else {
                    Faults::default()
                },
                snapshot_entries: self.shape.snapshot_entries,
                kept_entries: self.shape.kept_entries,
                log: LogOptions {
                    segment_bytes: self.shape.segment_bytes,
                    cache_bytes: 16 << 10,
                    ..LogOptions::default()
                },
                ..Settings::default()
            },
            server: ServerSettings {
                datacenter: "dc1".into(),
                hold: HOLD,
                leaf_lifetime: LEAF_LIFETIME,
                agent_lifetime: LEAF_LIFETIME,
                autopilot: AutopilotConfig {
                    server_stabilization_millis: STABILIZATION_MILLIS,
                    ..AutopilotConfig::default()
                },
                default_intention_allow: true,
                equality: EQUALITY,
                session_ttl_min: SESSION_TTL_MIN,
                reconnect_timeout: Duration::from_secs(72 * 3600),
            },
            authorizer: Authorizer { acl_enabled: false, default_allow: true },
            founding: Founding { mesh_authority: Some(authority()), ..Founding::default() },
        }
    }

    /// kill -9, or worse: from this moment the server does nothing to the world any more.
    pub(crate) fn kill(&self, server: usize, loss: Loss, silent: bool) {
        let mut machines = self.machines.lock();
        let machine = &mut machines[server];
        let Some(running) = machine.running.take() else { return };
        self.trace.note(|| format!("server {server} is killed, lost: {loss:?}, silent: {silent}"));
        running.host.kill(silent);
        running.over.send_replace(true);
        machine.disk.crash(match loss {
            Loss::All => Crash::DropUnsynced,
            Loss::None => Crash::KeepUnsynced,
            Loss::Some => Crash::Random(&self.rng),
        });
        // What is left of the dead server keeps the old disk.
        machine.disk = machine.disk.copy();
        if self.shape.id_reused && matches!(loss, Loss::All) {
            wipe(&machine.disk);
        }
        let core = running.core;
        self.tasks.spawn_to_end(async move { core.stop(CLEARED_WITHIN).await });
    }

    /// The disk of a server fails at one of the next changes.
    pub(crate) fn break_disk(&self, server: usize, after: u64) {
        self.trace.note(|| format!("the disk of server {server} fails"));
        self.machines.lock()[server].disk.fail_from(after, Fault::Device);
    }

    /// The disk of a server takes no more, or takes all again.
    pub(crate) fn fill_disk(&self, server: usize, is_full: bool) {
        self.trace.note(|| format!("the disk of server {server} is full: {is_full}"));
        self.machines.lock()[server].disk.set_capacity(is_full.then_some(1));
    }

    /// The wall clock of a server jumps to so far from the truth.
    pub(crate) fn set_clock(&self, server: usize, millis: i64) {
        self.trace.note(|| format!("the clock of server {server} is wrong by {millis} ms"));
        self.machines.lock()[server].clock.offset.store(millis, Ordering::Relaxed);
        self.clocks_are_right.store(false, Ordering::Relaxed);
    }

    /// Whether the clock of every server was right all the time.
    pub(crate) fn clocks_are_right(&self) -> bool {
        self.clocks_are_right.load(Ordering::Relaxed)
    }

    pub(crate) fn waist(&self, server: usize) -> Option<Waist> {
        let machines = self.machines.lock();
        let machine = &machines[server];
        machine.running.as_ref().map(|running| Waist {
            datacenter: Arc::clone(&running.core.datacenter),
            over: running.over.subscribe(),
            life: (server, machine.life),
        })
    }

    pub(crate) fn is_running(&self, server: usize) -> bool {
        self.machines.lock()[server].running.is_some()
    }

    pub(crate) fn statuses(&self) -> Vec<Option<Status>> {
        self.machines.lock().iter().map(|it| it.running.as_ref().map(|it| it.core.status())).collect()
    }

    /// The leader of the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let statuses = self.statuses();
        let leads = |status: &Option<Status>| status.as_ref().filter(|it| it.role == Role::Leader).map(|it| it.term);
        let leaders = statuses.iter().enumerate().filter_map(|(server, status)| Some((leads(status)?, server)));
        leaders.max().map(|(_, server)| server)
    }

    /// A machine that does not run loses its disk, and with it its id: the next start is that of a new server.
    pub(crate) fn renew(&self, server: usize) {
        self.trace.note(|| format!("server {server} has a new disk"));
        let machine = &mut self.machines.lock()[server];
        assert!(machine.running.is_none(), "a disk is taken out of a machine that is off");
        machine.disk = MemoryFs::new();
    }

    /// Who is in raft, as a server knows it.
    pub(crate) fn membership(&self, server: usize) -> Option<Membership> {
        self.machines.lock()[server].running.as_ref().map(|it| it.core.membership())
    }

    /// The raft id of a server that runs.
    pub(crate) fn id(&self, server: usize) -> Option<String> {
        self.machines.lock()[server].running.as_ref().map(|it| it.id.clone())
    }

    /// What the servers have found by comparing their states, those that run.
    pub(crate) fn comparisons(&self) -> Vec<((usize, u64), Comparisons)> {
        let machines = self.machines.lock();
        let running =
            machines.iter().enumerate().filter_map(|(server, it)| Some((server, it.life, it.running.as_ref()?)));
        running.map(|(server, life, it)| ((server, life), it.core.datacenter.comparisons())).collect()
    }

    pub(crate) fn states(&self) -> Vec<Option<Arc<Store>>> {
        self.machines.lock().iter().map(|it| it.running.as_ref().map(|it| it.core.state())).collect()
    }

    /// Why a server said that it cannot go on.
    pub(crate) fn fatal(&self) -> Option<String> {
        let machines = self.machines.lock();
        machines.iter().filter_map(|it| it.running.as_ref()).find_map(|it| it.core.fatal.borrow().clone())
    }
}

/// What nobody may do to a voter that keeps its id.
fn wipe(disk: &MemoryFs) {
    for directory in ["/data/log", "/data/snapshots"].map(Path::new) {
        for name in disk.list(directory).unwrap_or_default() {
            disk.remove(&directory.join(name)).expect("it was listed");
        }
        disk.sync_dir(directory).expect("a disk without faults");
    }
}

/// A mesh CA in name only: real keys come from the operating system, and nobody asks for a certificate here.
fn authority() -> AuthorityRecord {
    AuthorityRecord {
        trust_domain: "11111111-2222-3333-4444-555555555555.consul".into(),
        root: CaRoot {
            id: "00:11".into(),
            name: "simulated".into(),
            serial_number: 1,
            signing_key_id: "22:33".into(),
            external_trust_domain: String::new(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2036-01-01T00:00:00Z".into(),
            root_cert: "simulated".into(),
            intermediate_certs: None,
            active: true,
            private_key_type: "ec".into(),
            private_key_bits: 256,
            create_index: Index(0),
            modify_index: Index(0),
        },
        intermediate_pem: "simulated".into(),
        sealed_root_key: vec![0; 64],
        sealed_intermediate_key: vec![0; 64],
        settings: None,
    }
}
