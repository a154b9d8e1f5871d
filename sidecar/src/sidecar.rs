//! The sidecar as a whole: what is started in which order, and what is stopped in which.
//!
//! ```text
//! start   ports bound ─ health answers ─> log in ─> agent, HTTP, DNS ─> certificates, intentions, instances
//!         ─> upstream listeners ─> inbound listeners ─> registered ─> started
//! stop    withdrawn ─> grace ─> inbound closed ─> open connections end ─> outbound ─> farewell ─> HTTP, DNS ─> health
//! ```
//!
//! Why this order: every port is bound before anything else, so that one in use is an error at once and not after a
//! login. The HTTP API comes as early as it can, for init containers. Upstream listeners open before the catalog is told,
//! as an application that gets calls makes calls. Nobody learns of an inbound port that is not open.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use lictor_agent::session::{Granted, Session};
use lictor_identity::{
    Credentials, CredentialsPublisher, MaterialError, Roots, RpcMaterial, RpcTrust, SpiffeError, SpiffeId, Tls,
    TlsTransport,
};
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, Resolver, Rng, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::certificate::{Leaf, keep_roots};
use crate::client_agent::{self, AgentError, ClientAgent, World};
use crate::connections::Connections;
use crate::counters::Counters;
use crate::drain::{Drain, Phase};
use crate::follow::Asker;
use crate::health::{Health, Step};
use crate::inbound::{self, Inbound};
use crate::intention::{self, Intentions};
use crate::outbound::{self, Outbound};
use crate::register::Registrations;
use crate::settings::{SettingsError, SidecarSettings};
use crate::socket::BoundPort;
use crate::upstream::Upstream;

/// The domain of the servers' names, as in `server.<datacenter>.consul`.
const DOMAIN: &str = "consul";
/// How long the start waits for the first answer on the instances of the upstreams: a pod may start before what it calls.
const FIRST_INSTANCES: Duration = Duration::from_secs(5);
/// How long tasks get to end after they were told to.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What a sidecar runs on.
pub struct SidecarParts {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Names.
    pub resolver: Resolver,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error("the settings are wrong:{}", .0.iter().map(|error| format!("\n  {error}")).collect::<String>())]
    Settings(Vec<SettingsError>),
    /// The settings make no agent.
    #[error("the settings make no agent: {0}")]
    Agent(String),
    /// The server CA is not one.
    #[error("the server CA cannot be used: {0}")]
    ServerCa(#[from] MaterialError),
    /// The datacenter cannot stand in a server's name.
    #[error("the datacenter cannot be used: {0}")]
    Datacenter(#[from] SpiffeError),
    /// A port is not ours.
    #[error("cannot listen on {address} for {what}: {source}")]
    Bind {
        /// For what.
        what: String,
        /// Where.
        address: SocketAddr,
        /// What is in the way.
        source: io::Error,
    },
}

/// Where a running sidecar listens, with the real ports where 0 was asked for.
#[derive(Clone, Debug)]
pub struct SidecarAddresses {
    /// Of each service, in the order of the settings.
    pub inbound: Vec<SocketAddr>,
    /// Of each upstream, in the order of the settings.
    pub upstreams: Vec<SocketAddr>,
    /// Of probes and `preStop`.
    pub health: Option<SocketAddr>,
}

/// A running sidecar.
pub struct Sidecar {
    shared: Arc<Shared>,
    addresses: SidecarAddresses,
    health_tasks: Tasks,
}

/// What all parts of one sidecar share.
struct Shared {
    settings: SidecarSettings,
    node_id: String,
    world: World,
    tls: Tls,
    drain: Drain,
    step: watch::Sender<Step>,
    inbound_connections: Connections,
    outbound_connections: Connections,
    inbound_counters: Arc<Counters>,
    outbound_counters: Arc<Counters>,
    /// Dropped where they wait: leaves, intentions, instances, the boot.
    upkeep_tasks: Tasks,
    inbound_tasks: Tasks,
    outbound_tasks: Tasks,
    agent_tasks: Tasks,
    /// What the application calls; set when the listeners for it are about to open.
    upstreams: OnceLock<Vec<Arc<Upstream>>>,
    /// Set as soon as there is something to withdraw and to say farewell to.
    member: OnceLock<Member>,
    /// The first trouble that no retry will mend.
    broken: watch::Sender<Option<String>>,
}

/// The sidecar as the servers know it.
struct Member {
    agent: ClientAgent,
    asker: Asker,
    registrations: Registrations,
}

/// What was bound at the start and is used in the boot.
struct Ports {
    inbound: Vec<BoundPort>,
    upstreams: Vec<BoundPort>,
    publishers: Vec<CredentialsPublisher>,
    credentials: Vec<Credentials>,
    transport: SharedTransport,
    material: Arc<RpcMaterial>,
}

impl Sidecar {
    /// Checks the settings, takes every port and begins. Whatever needs the servers goes on from there by itself and is
    /// tried until it succeeds: [`Sidecar::started`] waits for it.
    ///
    /// # Errors
    /// The settings are wrong, or a port is not to be had: nothing that a retry would mend.
    pub async fn start(settings: SidecarSettings, parts: SidecarParts) -> Result<Self, StartError> {
        settings.validate().map_err(StartError::Settings)?;
        client_agent::configure(&settings, lictor_types::Credential::anonymous())
            .map_err(|errors| StartError::Agent(errors.to_string()))?;
        let SidecarParts { clock, rng, resolver } = parts;
        let tls = Tls::new(Arc::clone(&clock));
        let trust = RpcTrust::new(Roots::from_pem(&settings.ca_pem)?, &settings.datacenter, DOMAIN)?;
        let material = RpcMaterial::new(tls.clone(), Arc::new(trust), None);
        let transport: SharedTransport = Arc::new(TlsTransport::dialling(Arc::clone(&material), resolver.clone()));

        let inbound = settings
            .services
            .iter()
            .map(|service| bind(&format!("the service {}", service.name), service.inbound_address))
            .collect::<Result<Vec<_>, _>>()?;
        let upstreams = settings
            .upstreams
            .iter()
            .map(|upstream| bind(&format!("the upstream {}", upstream.service), upstream.local))
            .collect::<Result<Vec<_>, _>>()?;
        let health = settings.health_address.map(|address| listen("health", address)).transpose()?;
        let addresses = SidecarAddresses {
            inbound: inbound.iter().map(BoundPort::address).collect(),
            upstreams: upstreams.iter().map(BoundPort::address).collect(),
            health: health.as_ref().map(|(address, _)| *address),
        };
        let (publishers, credentials): (Vec<_>, Vec<_>) =
            settings.services.iter().map(|_| Credentials::closed()).unzip();

        let shared = Arc::new(Shared {
            node_id: client_agent::node_id(&settings, &*rng),
            settings,
            world: World { clock: Arc::clone(&clock), rng, resolver },
            tls,
            drain: Drain::new(),
            step: watch::Sender::new(Step::LoggingIn),
            inbound_connections: Connections::limited_to(inbound::MAX_CONNECTIONS),
            outbound_connections: Connections::limited_to(outbound::MAX_CONNECTIONS),
            inbound_counters: Arc::default(),
            outbound_counters: Arc::default(),
            upkeep_tasks: Tasks::new(),
            inbound_tasks: Tasks::new(),
            outbound_tasks: Tasks::new(),
            agent_tasks: Tasks::new(),
            upstreams: OnceLock::new(),
            member: OnceLock::new(),
            broken: watch::Sender::new(None),
        });
        let health_tasks = Tasks::new();
        if let Some((_, listener)) = health {
            health_tasks.spawn(shared.health(credentials.clone(), &health_tasks).serve(listener));
        }
        shared.upkeep_tasks.spawn(Arc::clone(&shared).leave());
        let ports = Ports { inbound, upstreams, publishers, credentials, transport, material };
        shared.upkeep_tasks.spawn(Arc::clone(&shared).boot(ports));
        Ok(Self { shared, addresses, health_tasks })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &SidecarAddresses {
        &self.addresses
    }

    /// Waits until it is logged in, has its certificates, has opened its ports and is in the catalog.
    ///
    /// # Errors
    /// It never will be, and why: HTTP or DNS has no address to listen on, for example.
    pub async fn started(&self) -> Result<(), String> {
        let (mut step, mut broken) = (self.shared.step.subscribe(), self.shared.broken.subscribe());
        tokio::select! {
            // Both senders live in `self`, so neither wait ends early.
            _ = step.wait_for(|step| *step == Step::Started) => Ok(()),
            trouble = broken.wait_for(Option::is_some) => {
                Err(trouble.ok().and_then(|trouble| trouble.clone()).unwrap_or_default())
            }
        }
    }

    /// Waits until every upstream has an instance to call; to be asked once it has started.
    pub async fn reachable(&self) {
        for upstream in self.shared.upstreams.get().into_iter().flatten() {
            upstream.reachable().await;
        }
    }

    /// Waits until something has gone wrong that no retry will mend, and tells it. The process should end then.
    pub async fn broken(&self) -> String {
        let mut broken = self.shared.broken.subscribe();
        // The sender lives in `self`, so the wait ends only with a reason.
        let trouble = broken.wait_for(Option::is_some).await;
        trouble.ok().and_then(|trouble| trouble.clone()).unwrap_or_default()
    }

    /// Leaves: out of the catalog, no new inbound connections, and back when the open ones have ended or the limit of the
    /// settings is over. Calls of the application are still carried. A second call waits for the first.
    pub async fn drain(&self) {
        self.shared.drain.begin();
        self.shared.drain.reached(Phase::Drained).await;
    }

    /// Drains, then stops everything in the reverse order of the start, within `limit` and a few seconds for the rest.
    pub async fn stop(self, limit: Duration) {
        let Self { shared, health_tasks, .. } = self;
        let deadline = Instant::now() + limit;
        shared.drain.begin();
        if timeout_at(deadline, shared.drain.reached(Phase::Drained)).await.is_err() {
            tracing::warn!("the limit to stop is over before the leave is; closing what is open");
        }
        let mut clean = shared.inbound_tasks.stop(STOP_LIMIT).await;
        clean &= shared.outbound_tasks.stop(STOP_LIMIT).await;
        clean &= shared.upkeep_tasks.stop(STOP_LIMIT).await;
        if let Some(member) = shared.member.get() {
            let token = member.asker.token();
            let farewell = member.agent.forwarder.leave(&token, shared.settings.node.clone());
            match timeout(STOP_LIMIT, farewell).await {
                Ok(Ok(())) => tracing::info!("left the datacenter"),
                Ok(Err(refusal)) => tracing::warn!(%refusal, "no server heard the farewell"),
                Err(_) => tracing::warn!("no server heard the farewell in time"),
            }
        }
        clean &= shared.agent_tasks.stop(STOP_LIMIT).await;
        clean &= health_tasks.stop(STOP_LIMIT).await;
        if !clean {
            tracing::warn!("some tasks did not end in time");
        }
    }
}

fn bind(what: &str, address: SocketAddr) -> Result<BoundPort, StartError> {
    BoundPort::bind(address).map_err(|source| StartError::Bind { what: what.into(), address, source })
}

fn listen(what: &str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let port = bind(what, address)?;
    let bound = port.address();
    let listener = port.listen().map_err(|source| StartError::Bind { what: what.into(), address, source })?;
    Ok((bound, listener))
}

/// Why the boot cannot go on.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("a service's name makes no identity: {0}")]
    Identity(#[from] SpiffeError),
    #[error("cannot listen for {what}: {source}")]
    Listen { what: String, source: io::Error },
}

impl Shared {
    fn health(&self, credentials: Vec<Credentials>, tasks: &Tasks) -> Health {
        Health {
            step: self.step.subscribe(),
            drain: self.drain.clone(),
            credentials,
            inbound: Arc::clone(&self.inbound_counters),
            outbound: Arc::clone(&self.outbound_counters),
            open_inbound: self.inbound_connections.clone(),
            open_outbound: self.outbound_connections.clone(),
            clock: Arc::clone(&self.world.clock),
            tasks: tasks.clone(),
        }
    }

    /// Carries the leave out when it is asked for.
    async fn leave(self: Arc<Self>) {
        let withdraw = async {
            if let Some(member) = self.member.get() {
                member.registrations.withdraw(&member.agent.local).await;
            }
        };
        self.drain.clone().run(withdraw, self.inbound_connections.clone(), self.settings.drain_limit).await;
    }

    /// Everything that needs the servers, in its order. Given up when the sidecar is told to leave.
    async fn boot(self: Arc<Self>, ports: Ports) {
        let outcome = tokio::select! {
            biased;
            () = self.drain.reached(Phase::Leaving) => return,
            outcome = Box::pin(self.try_boot(ports)) => outcome,
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the sidecar cannot start");
            self.broken.send_replace(Some(error.to_string()));
        }
    }

    async fn try_boot(&self, ports: Ports) -> Result<(), BootError> {
        let Ports { inbound, upstreams, publishers, credentials, transport, material } = ports;
        let (session, granted) = self.login(Arc::clone(&transport), material).await;
        let trust_domain = granted.trust_domain.clone();
        let default_allow = granted.grant.default_intention_allow;

        let member = self.join(&granted, transport, &inbound)?;
        let asker = member.asker.clone();
        member.agent.open_doors(&self.agent_tasks).await?;
        let (present, relogged, agent) = (Arc::clone(&asker.token), Arc::clone(&asker.token), member.agent.clone());
        self.upkeep_tasks.spawn(session.keep(
            granted,
            Arc::clone(&asker.datacenter),
            move || lictor_types::Credential::clone(&present.load()),
            move |token| {
                agent.tokens().set_all(&token);
                relogged.store(Arc::new(token));
            },
        ));

        self.step.send_replace(Step::AwaitingCertificates);
        let identity = |service: &str| SpiffeId::service(&trust_domain, &self.settings.datacenter, service);
        self.keep_leaves(&asker, publishers, &identity)?;
        let inbounds = self.keep_intentions(&asker, &credentials, default_allow);
        self.open_upstreams(&asker, upstreams, &credentials, &identity).await?;

        for own in &credentials {
            // The publisher lives in the task that keeps the leaf; when it is gone, so are we.
            own.clone().ready().await;
        }
        self.step.send_replace(Step::AwaitingIntentions);
        for (half, port) in inbounds.into_iter().zip(inbound) {
            half.ready().await;
            let what = format!("the service {}", half.service);
            let listener = port.listen().map_err(|source| BootError::Listen { what, source })?;
            self.inbound_tasks.spawn(half.serve(listener));
        }
        self.step.send_replace(Step::Registering);
        member.registrations.register(&member.agent.local, &asker).await;
        self.step.send_replace(Step::Started);
        tracing::info!(node = %self.settings.node, "started");
        Ok(())
    }

    async fn login(&self, transport: SharedTransport, material: Arc<RpcMaterial>) -> (Session, Granted) {
        let session = Session {
            transport,
            material,
            servers: Box::new({
                let servers = self.settings.server_addresses.clone();
                move || servers.clone()
            }),
            proof: self.settings.login_token.clone(),
            node: self.settings.node.clone(),
            node_id: self.node_id.clone(),
            watches_token: true,
            services: self.settings.services.iter().map(|service| service.name.clone()).collect(),
            clock: Arc::clone(&self.world.clock),
            rng: Arc::clone(&self.world.rng),
        };
        let granted = session.login().await;
        (session, granted)
    }

    /// Becomes a member of the datacenter.
    fn join(&self, granted: &Granted, transport: SharedTransport, inbound: &[BoundPort]) -> Result<&Member, BootError> {
        let token = granted.grant.token.clone();
        let agent = {
            let id = self.node_id.clone();
            ClientAgent::start(&self.settings, id, token.clone(), transport, &self.world, &self.agent_tasks)?
        };
        let asker = Asker {
            datacenter: agent.datacenter(),
            token: Arc::new(ArcSwap::from_pointee(token)),
            rng: Arc::clone(&self.world.rng),
        };
        let services = self.settings.services.iter().cloned();
        let registrations = Registrations {
            node: self.settings.node.clone(),
            address: self.settings.address,
            local_address: self.settings.local_address,
            services: services.zip(inbound.iter().map(|port| port.address().port())).collect(),
            upstreams: self.settings.upstreams.clone(),
        };
        Ok(self.member.get_or_init(|| Member { agent, asker, registrations }))
    }

    fn keep_leaves(
        &self,
        asker: &Asker,
        publishers: Vec<CredentialsPublisher>,
        identity: &impl Fn(&str) -> Result<SpiffeId, SpiffeError>,
    ) -> Result<(), SpiffeError> {
        let (publisher, roots) = watch::channel(None);
        self.upkeep_tasks.spawn(keep_roots(asker.clone(), publisher));
        for (service, publisher) in self.settings.services.iter().zip(publishers) {
            let leaf = Leaf {
                service: service.name.clone(),
                id: identity(service.name.as_str())?,
                asker: asker.clone(),
                clock: Arc::clone(&self.world.clock),
                roots: roots.clone(),
                publisher,
            };
            self.upkeep_tasks.spawn(leaf.keep());
        }
        Ok(())
    }

    fn keep_intentions(&self, asker: &Asker, credentials: &[Credentials], default_allow: bool) -> Vec<Inbound> {
        let handshakes = Connections::limited_to(inbound::MAX_HANDSHAKES);
        let half = |(service, own): (&crate::ServiceSpec, &Credentials)| {
            let (publisher, intentions) = Intentions::closed();
            let name = service.name.to_string();
            self.upkeep_tasks.spawn(intention::keep(asker.clone(), name, default_allow, publisher));
            Inbound {
                service: service.name.clone(),
                application: SocketAddr::new(self.settings.local_address, service.port),
                tls: self.tls.clone(),
                credentials: own.clone(),
                intentions,
                handshakes: handshakes.clone(),
                connections: self.inbound_connections.clone(),
                counters: Arc::clone(&self.inbound_counters),
                drain: self.drain.clone(),
                tasks: self.inbound_tasks.clone(),
            }
        };
        self.settings.services.iter().zip(credentials).map(half).collect()
    }

    /// Opens a listener for each upstream, once its instances are known or the wait for them is over.
    async fn open_upstreams(
        &self,
        asker: &Asker,
        ports: Vec<BoundPort>,
        credentials: &[Credentials],
        identity: &impl Fn(&str) -> Result<SpiffeId, SpiffeError>,
    ) -> Result<(), BootError> {
        // The application is one process: towards others it is the first of its services.
        let Some(own) = credentials.first() else { return Ok(()) };
        let deadline = Instant::now() + FIRST_INSTANCES;
        let mut halves = Vec::new();
        for (spec, port) in self.settings.upstreams.iter().zip(ports) {
            let upstream = Arc::new(Upstream::new(spec.service.clone(), identity(spec.service.as_str())?));
            self.upkeep_tasks.spawn(Arc::clone(&upstream).keep(asker.clone()));
            halves.push((upstream, port));
        }
        let upstreams = halves.iter().map(|(upstream, _)| Arc::clone(upstream)).collect();
        // The boot runs once, so there is nothing yet.
        let _ = self.upstreams.set(upstreams);
        for (upstream, port) in halves {
            if timeout_at(deadline, upstream.known()).await.is_err() {
                tracing::warn!(service = %upstream.service(), "the instances of an upstream are not known yet");
            }
            let what = format!("the upstream {}", upstream.service());
            let listener = port.listen().map_err(|source| BootError::Listen { what, source })?;
            let half = Outbound {
                upstream,
                tls: self.tls.clone(),
                credentials: own.clone(),
                resolver: self.world.resolver.clone(),
                rng: Arc::clone(&self.world.rng),
                connections: self.outbound_connections.clone(),
                counters: Arc::clone(&self.outbound_counters),
                tasks: self.outbound_tasks.clone(),
            };
            self.outbound_tasks.spawn(half.serve(listener));
        }
        Ok(())
    }
}
