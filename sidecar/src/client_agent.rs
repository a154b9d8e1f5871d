//! The agent half of the sidecar: a client agent as `lictor agent` runs it, configured by the sidecar's settings.

use std::io;
use std::sync::Arc;

use lictor_agent::config::{Config, ConfigErrors, Flags, Host};
use lictor_agent::doors::{self, Doors};
use lictor_agent::events::Ring;
use lictor_agent::forward::Forwarder;
use lictor_agent::local::{Local, LocalSettings};
use lictor_agent::tokens::AgentTokens;
use lictor_agent::{Agent, AgentIdentity, SharedDatacenter};
use lictor_runtime::fs::RealFs;
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, Resolver, Rng, Tasks};
use lictor_types::Credential;

use crate::settings::SidecarSettings;

/// The node meta that a pod's uid is in.
const POD_UID: &str = "pod-uid";

/// What a client agent runs on.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) resolver: Resolver,
}

/// A running client agent.
#[derive(Clone)]
pub(crate) struct ClientAgent {
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) local: Arc<Local>,
    agent: Arc<Agent>,
}

impl ClientAgent {
    /// Starts it: signs of life, checks and anti-entropy. Its doors are still closed.
    pub(crate) fn start(
        settings: &SidecarSettings,
        node_id: String,
        token: Credential,
        transport: SharedTransport,
        world: &World,
        tasks: &Tasks,
    ) -> Result<Self, AgentError> {
        let config = configure(settings, token)?;
        let identity = AgentIdentity::new(&config, node_id);
        let forwarder = Forwarder::new(
            transport,
            config.join.servers.clone(),
            config.performance.rpc_hold_timeout,
            Arc::clone(&world.rng),
            tasks,
        );
        let datacenter: SharedDatacenter = Arc::clone(&forwarder) as SharedDatacenter;
        let local = Local::start(LocalSettings::new(
            identity.clone(),
            &config,
            Arc::new(RealFs),
            world.resolver.clone(),
            Arc::clone(&world.rng),
            tasks.clone(),
        ))
        .map_err(AgentError::Local)?;
        forwarder.keep_alive(config.acl.agent_token.clone(), identity.member());
        local.keep_in_sync(Arc::clone(&datacenter), forwarder.reconnections(), forwarder.members());
        let agent = Arc::new(Agent {
            identity,
            datacenter,
            local: Arc::clone(&local),
            tokens: local.tokens(),
            events: Arc::new(Ring::new(world.rng.uuid())),
            clock: Arc::clone(&world.clock),
            rng: Arc::clone(&world.rng),
            figures: lictor_agent::figures::Figures::new(forwarder.metrics(), &config),
            config: Arc::new(config).into(),
            orders: lictor_agent::orders::Orders::default(),
            pools: lictor_agent::pools::Pools::none(),
        });
        Ok(Self { forwarder, local, agent })
    }

    /// The datacenter behind it.
    pub(crate) fn datacenter(&self) -> SharedDatacenter {
        Arc::clone(&self.agent.datacenter)
    }

    /// What it asks with where nothing brings a token.
    pub(crate) fn tokens(&self) -> &AgentTokens {
        &self.agent.tokens
    }

    /// Opens HTTP and DNS, where the settings ask for them.
    pub(crate) async fn open_doors(&self, tasks: &Tasks) -> Result<Doors, AgentError> {
        doors::open(&self.agent, None, tasks).await.map_err(AgentError::Doors)
    }
}

/// Why the agent half cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The settings make no configuration of an agent.
    #[error("the settings make no agent: {0}")]
    Config(#[from] ConfigErrors),
    /// Its services and checks cannot be kept.
    #[error("the agent's services cannot be kept: {0}")]
    Local(io::Error),
    /// HTTP or DNS has no address to listen on.
    #[error(transparent)]
    Doors(io::Error),
}

/// The configuration of an agent with these settings, and with `token` wherever a request carries none.
pub(crate) fn configure(settings: &SidecarSettings, token: Credential) -> Result<Config, ConfigErrors> {
    let flags = Flags {
        server: Some(false),
        datacenter: Some(settings.datacenter.clone()),
        node: Some(settings.node.to_string()),
        node_meta: settings.node_meta.iter().map(|(key, value)| format!("{key}:{value}")).collect(),
        bind: Some("127.0.0.1".into()),
        // It dials servers and nothing else.
        serf_lan_port: Some(-1),
        advertise: Some(settings.address.to_string()),
        server_addresses: settings.server_addresses.clone(),
        // An agent must name one; a sidecar keeps nothing, as its pod is its life. It is taken back below.
        data_dir: Some("none".into()),
        ..Flags::default()
    };
    let mut config = Config::load(&flags, &Host::default())?;
    config.data_dir = None;
    config.addresses.http = settings.http_address.into_iter().collect();
    config.ports.http = settings.http_address.map(|address| address.port());
    config.addresses.https = Vec::new();
    config.ports.https = None;
    config.addresses.dns = settings.dns_address.into_iter().collect();
    config.ports.dns = settings.dns_address.map(|address| address.port());
    config.acl.enabled = true;
    config.acl.default_allow = false;
    config.acl.agent_token = token.clone();
    config.acl.dns_token = token.clone();
    config.acl.default_token = token;
    Ok(config)
}

/// The node's id: the one given, else the pod's uid where there is one, so that a restarted container is the same node.
pub(crate) fn node_id(settings: &SidecarSettings, rng: &dyn Rng) -> String {
    let uuid = |text: &&String| text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let of_pod = || settings.node_meta.get(POD_UID).filter(uuid);
    settings.node_id.as_ref().or_else(of_pod).map_or_else(|| rng.uuid(), |id| id.to_ascii_lowercase())
}
