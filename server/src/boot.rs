//! A whole agent. A server: certificates, data directory, core, local services, doors. Started in this order, stopped in reverse.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::agent::{Agent, AgentIdentity};
use lictor_agent::client::{self, ClientAgent, ClientDeps, ClientError, ClientIdentity};
use lictor_agent::config::Config;
use lictor_agent::doors::{self, Doors};
use lictor_agent::events::Ring;
use lictor_agent::figures::Figures;
use lictor_agent::local::{Local, LocalSettings};
use lictor_agent::orders::Orders;
use lictor_agent::pools::{KeysError, Pools};
use lictor_agent::renewal::{self, LOOK_INTERVAL};
use lictor_agent::session::Proof;
use lictor_identity::{RenewableChain, RpcMaterial, RpcTrust, SpiffeError, Tls, TlsTransport};
use lictor_runtime::fs::{Fs, MemoryFs, RealFs};
use lictor_runtime::{Clock, Resolver, Rng, Tasks};
use lictor_state::access::Authorizer;
use lictor_types::autopilot::AutopilotConfig;
use lictor_types::rpc::ServerAddress;
use tokio::sync::watch;

use crate::core::{Core, CoreDeps, CoreSettings};
use crate::damage;
use crate::datacenter::ServerSettings;
use crate::equality::EqualitySettings;
use crate::expiry::{self, Expiries};
use crate::leader::Founding;
use crate::login::{KubernetesLogin, LoginMethods};
use crate::material::{self, MaterialError, ServerMaterial};
use crate::raft::{self, DataDirectory, DataDirectoryError, LogOptions, ServerId};
use crate::recover::{self, RecoveryError};

/// How long a leaf certificate is valid (Consul's `LeafCertTTL`).
const LEAF_LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// How long a client agent's certificate is valid.
const AGENT_LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// Where the data of `-dev` is, in memory.
const MEMORY_DIRECTORY: &str = "/memory";

/// What a server is given of the world.
#[derive(Clone)]
pub struct ServerDeps {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Names.
    pub resolver: Resolver,
    /// `$XDG_STATE_HOME` or `~/.local/state`: where agents on loopback share certificates.
    pub state_base: Option<PathBuf>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no identity.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Its datacenter or domain cannot be part of a certificate.
    #[error("the datacenter's name cannot stand in a certificate: {0}")]
    Name(#[from] SpiffeError),
    /// Its data directory cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// Consensus did not start.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
    /// What `peers.json` says cannot be done.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// Gossip did not start.
    #[error(transparent)]
    Gossip(#[from] lictor_gossip::StartError),
    /// The keys of gossip cannot be used.
    #[error(transparent)]
    GossipKeys(#[from] KeysError),
    /// A client did not start.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address, a file or a definition cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A running agent in the mode that its configuration names.
pub struct RunningAgent {
    /// What its doors share.
    pub agent: Arc<Agent>,
    /// Its doors.
    pub doors: Doors,
    mode: Mode,
}

enum Mode {
    Server(Box<Server>),
    Client(ClientAgent),
}

impl RunningAgent {
    /// Becomes some text when the agent must stop, and why.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        match &self.mode {
            Mode::Server(server) => server.fatal(),
            Mode::Client(client) => client.fatal(),
        }
    }

    /// Puts into force what a reload changed beside what the agent looks up each time.
    pub fn reconfigure(&self) {
        if let Mode::Client(client) = &self.mode {
            client.reconfigure();
        }
    }

    /// Leaves the cluster on purpose within `limit`, for a server and the time that it goes on serving after that. It
    /// comes back when it is started again.
    pub async fn leave(&self, limit: Duration) {
        // What runs here would put the node back into the catalog.
        self.agent.local.stop(limit / 4).await;
        match &self.mode {
            Mode::Server(server) => {
                self.agent.pools.leave().await;
                if server.core.leave(limit).await {
                    tokio::time::sleep(self.agent.config.load().performance.leave_drain_time).await;
                }
            }
            Mode::Client(client) => client.leave().await,
        }
    }

    /// Stops everything within `limit`. It has not left: the others expect it back.
    pub async fn stop(self, limit: Duration) {
        match self.mode {
            Mode::Server(server) => server.stop(limit).await,
            Mode::Client(client) => client.stop(limit).await,
        }
    }

    /// The same when the whole cluster ends: a server does not look for another to take the lead.
    pub async fn stop_with_the_cluster(self, limit: Duration) {
        match self.mode {
            Mode::Server(server) => server.end(limit).await,
            Mode::Client(_) => self.stop(limit).await,
        }
    }
}

/// Starts an agent in the mode that its configuration names.
///
/// # Errors
/// Says what cannot be used and what would be right. Nothing is left running.
pub async fn run_agent(config: Config, deps: ServerDeps) -> Result<RunningAgent, StartError> {
    if config.server {
        let server = Server::start(config, deps).await?;
        let (agent, doors) = (Arc::clone(&server.agent), server.doors.clone());
        return Ok(RunningAgent { agent, doors, mode: Mode::Server(Box::new(server)) });
    }
    let client = start_client(config, deps).await?;
    let (agent, doors) = (Arc::clone(&client.agent), client.doors.clone());
    Ok(RunningAgent { agent, doors, mode: Mode::Client(client) })
}

/// Starts a client; on loopback with what the agents of one user share.
async fn start_client(config: Config, deps: ServerDeps) -> Result<ClientAgent, StartError> {
    let ServerDeps { clock, rng, resolver, state_base } = deps;
    let (roots, identity) = client::configured_identity(&config, &*clock)?;
    let shared = if config.on_loopback() && (roots.is_none() || identity.is_none()) {
        Some(material::loopback(&config, state_base.as_deref(), clock.now(), &*rng)?)
    } else {
        None
    };
    let join_token = shared.as_ref().map(|it| ClientIdentity::Login(Proof::Secret(it.join_token.to_string())));
    let roots = roots.or(shared.map(|it| it.server_roots)).ok_or(ClientError::NoAuthority)?;
    let identity = identity.or(join_token).ok_or(ClientError::NoProof)?;
    Ok(ClientAgent::start(config, roots, identity, ClientDeps { clock, rng, resolver }).await?)
}

/// A running server.
pub struct Server {
    /// What its doors share.
    pub agent: Arc<Agent>,
    /// Its doors.
    pub doors: Doors,
    /// Where it takes RPC.
    pub rpc: SocketAddr,
    core: Core,
    tasks: Tasks,
}

impl Server {
    /// Starts a server of this configuration.
    ///
    /// # Errors
    /// Says what cannot be used and what would be right. Nothing is left running.
    pub async fn start(config: Config, deps: ServerDeps) -> Result<Self, StartError> {
        match Self::attempt(config.clone(), deps.clone()).await {
            Err(error) if damage::put_aside(&config, &error) => Self::attempt(config, deps).await,
            attempted => attempted,
        }
    }

    async fn attempt(config: Config, deps: ServerDeps) -> Result<Self, StartError> {
        let tasks = Tasks::new();
        let started = start(config, deps, &tasks).await;
        if started.is_err() {
            tasks.stop(Duration::from_secs(1)).await;
        }
        started
    }

    /// Becomes some text when the server must stop, and why.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.core.fatal.subscribe()
    }

    /// Hands the lead on, closes the doors, and stops everything within `limit`.
    pub async fn stop(self, limit: Duration) {
        // The lead first, so that requests under way end at the new leader and not in an error.
        self.core.hand_on_the_lead(limit / 2).await;
        self.end(limit).await;
    }

    /// Closes the doors and stops everything, whoever leads.
    async fn end(self, limit: Duration) {
        self.tasks.stop(limit / 4).await;
        self.core.stop(limit).await;
    }
}

async fn start(config: Config, deps: ServerDeps, tasks: &Tasks) -> Result<Server, StartError> {
    let ServerDeps { clock, rng, resolver, state_base } = deps;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let material = ServerMaterial::load(&config, state_base.as_deref(), clock.now(), &*rng)?;
    let (fs, data): (Arc<dyn Fs>, PathBuf) = match &config.data_dir {
        Some(directory) => (Arc::new(RealFs), directory.clone()),
        None => (Arc::new(MemoryFs::new()), MEMORY_DIRECTORY.into()),
    };
    let directory = Arc::new(DataDirectory::open_as(Arc::clone(&fs), &data.join("raft"), server_id(&config)?, &*rng)?);
    recover::by_peers_file(&directory, &*fs, &data.join("raft"), &*clock, &*rng)?;
    let domain = config.dns.domain.trim_end_matches('.');
    let trust = Arc::new(RpcTrust::new(material.roots, &config.datacenter, domain)?);
    let tls = Tls::new(Arc::clone(&clock));
    let expiries = Expiries::default();
    expiries.in_force(expiry::RPC, &material.own);
    expiries.in_force(expiry::HTTPS, &material.https);
    let https_chain = RenewableChain::new(material.https);
    let https = &config.https_tls;
    let clients = renewal::https_clients(https, tasks).map_err(|error| StartError::Tls(error.to_string()))?;
    let https = tls.https_server(&https_chain, clients).map_err(|error| StartError::Tls(error.to_string()))?;
    let rpc_material = RpcMaterial::new(tls, Arc::clone(&trust), Some(material.own));
    if let Some(file) = material.roots_file {
        let trust = Arc::clone(&trust);
        tasks.spawn(file.follow(expiry::RPC, LOOK_INTERVAL, move |roots| trust.set_server_roots(roots)));
    }
    if let Some(files) = material.own_files {
        let (rpc_material, expiries) = (Arc::clone(&rpc_material), expiries.clone());
        let put_in_force = move |chain| {
            expiries.in_force(expiry::RPC, &chain);
            rpc_material.set_own(chain);
        };
        tasks.spawn(files.follow(expiry::RPC, Arc::clone(&clock), LOOK_INTERVAL, put_in_force));
    }
    if let Some(files) = material.https_files {
        let expiries = expiries.clone();
        let put_in_force = move |chain| {
            expiries.in_force(expiry::HTTPS, &chain);
            https_chain.set(chain);
        };
        tasks.spawn(files.follow(expiry::HTTPS, Arc::clone(&clock), LOOK_INTERVAL, put_in_force));
    }
    let listen = SocketAddr::new(config.addresses.bind, config.ports.server);
    let transport = TlsTransport::listening(listen, rpc_material, resolver.clone(), tasks).await?;
    let rpc = transport.local_address().unwrap_or(listen);
    let identity =
        AgentIdentity { server_port: rpc.port(), ..AgentIdentity::new(&config, directory.server_id().to_string()) };
    let settings = core_settings(&config, &identity, rpc, material.loopback_join_token);
    let logins = LoginMethods {
        kubernetes: config.kubernetes_login_file.clone().map(|file| KubernetesLogin::new(file, resolver.clone())),
    };
    let pools = Pools::new(&config, &identity, resolver.clone(), Arc::clone(&rng), tasks);
    // Consensus needs no gossip: the others are found by their addresses.
    let keys = pools.own_keys(Some(&material.seal.gossip_key()))?;
    pools.start(&keys.unwrap_or_default()).await?;
    let core = Core::start(
        settings,
        CoreDeps {
            clock: Arc::clone(&clock),
            rng: Arc::clone(&rng),
            directory,
            transport: Arc::new(transport),
            seal: material.seal,
            logins,
            pools: Arc::clone(&pools),
            trust: Some(trust),
        },
    )
    .await?;
    let (shown, shown_clock) = (expiries.clone(), Arc::clone(&clock));
    core.datacenter.metrics().collect(move |gauges| gauges.extend(shown.gauges(shown_clock.now())));
    tasks.spawn(expiry::watch(core.datacenter.clone(), expiries, Arc::clone(&clock)));
    let local =
        Local::start(LocalSettings::new(identity.clone(), &config, fs, resolver, Arc::clone(&rng), tasks.clone()))?;
    let agent = Arc::new(Agent {
        identity,
        datacenter: core.datacenter.clone(),
        local: Arc::clone(&local),
        tokens: local.tokens(),
        events: Arc::new(Ring::new(rng.uuid())),
        clock,
        rng,
        figures: Figures::new(core.datacenter.metrics(), &config),
        config: Arc::new(config).into(),
        orders: Orders::default(),
        pools: Arc::clone(&pools),
    });
    pools.follow(&agent, None, &core.fatal);
    // Servers are few: theirs is the shortest interval, however large the cluster.
    local.keep_in_sync(agent.datacenter.clone(), core.elections(tasks), tokio::sync::watch::channel(0).1);
    let doors = doors::open(&agent, Some(https), tasks).await?;
    Ok(Server { agent, doors, rpc, core, tasks: tasks.clone() })
}

/// The server id that the configuration gives, if it gives one. Else one is made with the data directory and kept there.
fn server_id(config: &Config) -> Result<Option<ServerId>, StartError> {
    let Some(text) = &config.node_id else { return Ok(None) };
    if config.data_dir.is_some() {
        tracing::warn!(
            node_id = text,
            "a server's node_id is its id in raft: should this data directory be lost, give the server that takes its \
             place another one, or none"
        );
    }
    let id = text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("node_id: {error}")))?;
    Ok(Some(id))
}

fn core_settings(
    config: &Config,
    identity: &AgentIdentity,
    rpc: SocketAddr,
    join_token: Option<String>,
) -> CoreSettings {
    let was_damaged = config.data_dir.as_deref().is_some_and(damage::was_damaged);
    let address = config
        .addresses
        .advertise_server
        .clone()
        .unwrap_or_else(|| SocketAddr::new(config.addresses.advertise, rpc.port()).to_string());
    let defaults = raft::Settings::default();
    CoreSettings {
        own: ServerAddress { id: identity.node_id.clone(), name: identity.node_name.clone(), address },
        member: identity.member(),
        bootstrap_expect: if was_damaged { 0 } else { config.bootstrap_expect },
        join: config.join.servers.clone(),
        raft: raft::Settings {
            datacenter: config.datacenter.clone(),
            raft_multiplier: config.performance.raft_multiplier,
            snapshot_entries: config.raft.snapshot_threshold.map_or(defaults.snapshot_entries, u64::from),
            kept_entries: config.raft.trailing_logs.map_or(defaults.kept_entries, u64::from),
            log: if config.data_dir.is_some() { LogOptions::default() } else { LogOptions::in_memory() },
            ..defaults
        },
        server: ServerSettings {
            datacenter: config.datacenter.clone(),
            hold: config.performance.rpc_hold_timeout,
            leaf_lifetime: LEAF_LIFETIME,
            agent_lifetime: AGENT_LIFETIME,
            autopilot: autopilot(config),
            default_intention_allow: config.default_intention_allow,
            equality: EqualitySettings::default(),
            session_ttl_min: config.session_ttl_min,
            reconnect_timeout: config.gossip.reconnect_timeout,
        },
        authorizer: Authorizer { acl_enabled: config.acl.enabled, default_allow: config.acl.default_allow },
        founding: Founding {
            initial_management: config.acl.initial_management.as_ref().map(|token| token.secret.clone()),
            loopback_join_token: join_token,
            mesh_authority: None,
        },
    }
}

/// What the first leader writes, of which an operator changes the written later.
fn autopilot(config: &Config) -> AutopilotConfig {
    let told = &config.autopilot;
    AutopilotConfig {
        cleanup_dead_servers: told.cleanup_dead_servers,
        last_contact_threshold_millis: told.last_contact_threshold.as_millis() as u64,
        max_trailing_logs: told.max_trailing_logs,
        min_quorum: told.min_quorum,
        server_stabilization_millis: told.server_stabilization_time.as_millis() as u64,
        ..AutopilotConfig::default()
    }
}

/// Where agents on loopback share certificates, by the environment of this process.
pub fn state_base() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var(name).ok();
    lictor_identity::loopback::state_base(variable("XDG_STATE_HOME").as_deref(), variable("HOME").as_deref())
        .map(|base| Path::new(&base).to_owned())
}
