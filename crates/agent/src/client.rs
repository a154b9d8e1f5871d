//! A client agent as a whole: the way in, the road to the servers, local services and checks, and the doors.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{
    FileError, KeyedChain, RenewableChain, Roots, RpcMaterial, RpcTrust, SpiffeError, Tls, TlsTransport, files,
};
use lictor_runtime::fs::{Fs, RealFs};
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, Resolver, Rng, Tasks};
use tokio::sync::watch;

use crate::SharedDatacenter;
use crate::agent::{Agent, AgentIdentity, node_id};
use crate::config::{Config, TlsFiles};
use crate::doors::{self, Doors};
use crate::events::Ring;
use crate::figures::{self, Figures};
use crate::forward::Forwarder;
use crate::local::{Local, LocalSettings};
use crate::orders::Orders;
use crate::pools::{KeysError, Pools};
use crate::renewal::{self, AuthorityFile, CertificateFiles, LOOK_INTERVAL};
use crate::session::{Proof, Session};

/// What a client agent is given of the world.
#[derive(Clone)]
pub struct ClientDeps {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Names.
    pub resolver: Resolver,
}

/// How a client agent comes by its certificate.
pub enum ClientIdentity {
    /// By a login.
    Login(Proof),
    /// It was signed beforehand.
    Signed(KeyedChain),
}

/// Why a client agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It has nobody to ask.
    #[error(
        "a client without gossip needs the address of a server: give -retry-join=HOST or -server-address=HOST:PORT"
    )]
    NoServers,
    /// It has no CA to know servers by.
    #[error(
        "a client beyond loopback knows servers by their CA: set tls.defaults.ca_file to the server CA's certificate"
    )]
    NoAuthority,
    /// It has nothing to log in with.
    #[error(
        "a client beyond loopback needs a proof for its first certificate: make one with `lictor join-token create` on a \
         server and name its file with -login-token-file, or set tls.defaults.cert_file and key_file"
    )]
    NoProof,
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its datacenter or domain cannot be part of a certificate.
    #[error("the datacenter's name cannot stand in a certificate: {0}")]
    Name(#[from] SpiffeError),
    /// Gossip did not start.
    #[error(transparent)]
    Gossip(#[from] lictor_gossip::StartError),
    /// The keys of gossip cannot be used.
    #[error(transparent)]
    GossipKeys(#[from] KeysError),
    /// An address, a file or a definition cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A running client agent.
pub struct ClientAgent {
    /// What its doors share.
    pub agent: Arc<Agent>,
    /// Its doors.
    pub doors: Doors,
    forwarder: Arc<Forwarder>,
    fatal: watch::Sender<Option<String>>,
    tasks: Tasks,
}

impl ClientAgent {
    /// Starts a client. `roots` is the server CA. The doors open at once; requests wait for the login.
    ///
    /// # Errors
    /// Says what cannot be used and what would be right. Nothing is left running.
    pub async fn start(
        config: Config,
        roots: Roots,
        identity: ClientIdentity,
        deps: ClientDeps,
    ) -> Result<Self, ClientError> {
        let tasks = Tasks::new();
        let started = start(config, roots, identity, deps, &tasks).await;
        if started.is_err() {
            tasks.stop(Duration::from_secs(1)).await;
        }
        started
    }

    /// Becomes some text when the agent must stop, and why.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Leaves the cluster on purpose: the servers take the node out of members and catalog.
    pub async fn leave(&self) {
        self.agent.pools.leave().await;
        let node = self.agent.identity.node_name.clone();
        if let Err(refusal) = self.forwarder.leave(&self.agent.tokens.agent(), node).await {
            tracing::warn!(%refusal, "could not say farewell; the node will count as failed");
        }
    }

    /// Puts into force what of the configuration concerns the road to the servers, at the start and after a reload.
    pub fn reconfigure(&self) {
        let limits = self.agent.config.load().limits;
        self.forwarder.limit_rate(limits.rpc_rate, limits.rpc_max_burst);
    }

    /// Stops everything within `limit`.
    pub async fn stop(self, limit: Duration) {
        self.tasks.stop(limit).await;
    }
}

/// What `config` names of a client's identity; none where loopback shares it.
///
/// # Errors
/// A file cannot be used.
pub fn configured_identity(
    config: &Config,
    clock: &dyn Clock,
) -> Result<(Option<Roots>, Option<ClientIdentity>), ClientError> {
    let tls = &config.rpc_tls;
    let roots = tls.ca_file.as_deref().map(files::read_roots).transpose()?;
    let identity = match (&tls.cert_file, &tls.key_file, &config.login_token_file) {
        (Some(cert), Some(key), _) => Some(ClientIdentity::Signed(files::read_keyed_chain(cert, key, clock.now())?)),
        (_, _, Some(file)) => Some(ClientIdentity::Login(Proof::File(file.clone()))),
        _ => None,
    };
    Ok((roots, identity))
}

/// What HTTPS is served with, if the configuration names a certificate for it.
fn https_tls(
    config: &Config,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<Option<Arc<rustls::ServerConfig>>, ClientError> {
    let https = &config.https_tls;
    let (Some(certificate), Some(key)) = (&https.cert_file, &https.key_file) else { return Ok(None) };
    if config.addresses.https.is_empty() {
        return Ok(None);
    }
    let chain = RenewableChain::new(files::read_keyed_chain(certificate, key, clock.now())?);
    let tls = Tls::new(Arc::clone(clock)).https_server(&chain, renewal::https_clients(https, tasks)?);
    let files = CertificateFiles::new(certificate, key);
    tasks.spawn(files.follow("HTTPS", Arc::clone(clock), LOOK_INTERVAL, move |chain_in_file| chain.set(chain_in_file)));
    Ok(Some(tls.map_err(io::Error::other)?))
}

/// Puts in force what is new in the files of the road to the servers; a certificate of a login is renewed by its session.
fn follow_files(
    files: &TlsFiles,
    signed: bool,
    trust: Arc<RpcTrust>,
    material: &Arc<RpcMaterial>,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) {
    const WHAT: &str = "the road to the servers";
    if let Some(file) = &files.ca_file {
        let put_in_force = move |roots| trust.set_server_roots(roots);
        tasks.spawn(AuthorityFile(file.clone()).follow(WHAT, LOOK_INTERVAL, put_in_force));
    }
    if let (Some(certificate), Some(key), true) = (&files.cert_file, &files.key_file, signed) {
        let material = Arc::clone(material);
        let put_in_force = move |chain| material.set_own(chain);
        let files = CertificateFiles::new(certificate, key);
        tasks.spawn(files.follow(WHAT, Arc::clone(clock), LOOK_INTERVAL, put_in_force));
    }
}

/// Opens the pools with the keys that this agent has, or later with those that the servers tell it.
async fn open_pools(
    agent: &Arc<Agent>,
    fatal: &watch::Sender<Option<String>>,
    tasks: &Tasks,
) -> Result<(), ClientError> {
    if let Some(keys) = agent.pools.own_keys(None)? {
        return Ok(agent.pools.start(&keys).await?);
    }
    let (agent, fatal) = (Arc::clone(agent), fatal.clone());
    tasks.spawn(async move {
        if let Err(error) = agent.pools.start_with_the_servers_keys(&agent).await {
            fatal.send_replace(Some(error.to_string()));
        }
    });
    Ok(())
}

async fn start(
    config: Config,
    roots: Roots,
    identity: ClientIdentity,
    deps: ClientDeps,
    tasks: &Tasks,
) -> Result<ClientAgent, ClientError> {
    let ClientDeps { clock, rng, resolver } = deps;
    // With gossip whoever joins us tells where they are.
    if config.join.servers.is_empty() && config.gossip.lan.is_none() {
        return Err(ClientError::NoServers);
    }
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let domain = config.dns.domain.trim_end_matches('.');
    let trust = Arc::new(RpcTrust::new(roots, &config.datacenter, domain)?);
    let (own, proof) = match identity {
        ClientIdentity::Signed(chain) => (Some(chain), None),
        ClientIdentity::Login(proof) => (None, Some(proof)),
    };
    let material = RpcMaterial::new(Tls::new(Arc::clone(&clock)), Arc::clone(&trust), own);
    follow_files(&config.rpc_tls, proof.is_none(), trust, &material, &clock, tasks);
    let transport: SharedTransport = Arc::new(TlsTransport::dialling(Arc::clone(&material), resolver.clone()));
    let identity = AgentIdentity::new(&config, node_id(&config, &*fs, &*rng)?);
    let pools = Pools::new(&config, &identity, resolver.clone(), Arc::clone(&rng), tasks);
    let hold = config.performance.rpc_hold_timeout;
    let forwarder = Forwarder::new(Arc::clone(&transport), config.join.servers.clone(), hold, Arc::clone(&rng), tasks);
    let datacenter: SharedDatacenter = Arc::clone(&forwarder) as SharedDatacenter;
    let local =
        Local::start(LocalSettings::new(identity.clone(), &config, fs, resolver, Arc::clone(&rng), tasks.clone()))?;
    let metrics = forwarder.metrics();
    figures::show_certificate_end(&metrics, Arc::clone(&material), Arc::clone(&clock));
    let agent = Arc::new(Agent {
        identity,
        datacenter,
        local: Arc::clone(&local),
        tokens: local.tokens(),
        events: Arc::new(Ring::new(rng.uuid())),
        clock: Arc::clone(&clock),
        rng: Arc::clone(&rng),
        figures: Figures::new(metrics, &config),
        config: Arc::new(config).into(),
        orders: Orders::default(),
        pools: Arc::clone(&pools),
    });
    let fatal = watch::Sender::new(None);
    pools.follow(&agent, Some(&forwarder), &fatal);
    open_pools(&agent, &fatal, tasks).await?;
    let https = https_tls(&agent.config.load(), &clock, tasks)?;
    agent.local.expect_catalog();
    let doors = doors::open(&agent, https, tasks).await?;
    let begin = {
        let (agent, forwarder) = (Arc::clone(&agent), Arc::clone(&forwarder));
        let (token, member) = (agent.tokens.agent(), agent.identity.member());
        move || {
            forwarder.keep_alive(token, member);
            local.keep_in_sync(Arc::clone(&agent.datacenter), forwarder.reconnections(), forwarder.members());
        }
    };
    match proof {
        None => begin(),
        Some(proof) => {
            let session = Session {
                transport,
                material,
                servers: Box::new({
                    let forwarder = Arc::clone(&forwarder);
                    move || forwarder.servers()
                }),
                proof,
                node: agent.identity.node_name.clone(),
                node_id: agent.identity.node_id.clone(),
                // A plain client asks with the tokens of its configuration, not with the one of its login.
                watches_token: false,
                services: Vec::new(),
                clock,
                rng,
            };
            let agent = Arc::clone(&agent);
            tasks.spawn(async move {
                let granted = session.login().await;
                begin();
                let datacenter = Arc::clone(&agent.datacenter);
                session.keep(granted, datacenter, move || agent.tokens.agent(), |_| {}).await;
            });
        }
    }
    let client = ClientAgent { agent, doors, forwarder, fatal, tasks: tasks.clone() };
    client.reconfigure();
    Ok(client)
}
