//! The gossip pools of an agent: everybody of its datacenter (LAN), and, for servers, all servers (WAN).
//!
//! ```text
//!              keys ── keyring.rs ──┐             ┌── members.rs ──> /v1/agent/members, the leader's members
//!  retry_join ─────── join.rs ──────┼── Gossip ───┼── events.rs ───> user events, log
//!  /v1/agent/join, leave ... ───────┘             └── upkeep.rs ───> servers to ask, coordinates
//! ```
//!
//! Invariants
//! - Gossip only finds and tells. It never decides what the catalog holds of an agent that has an RPC session.
//! - Beyond loopback it is encrypted, unless the configuration says otherwise in words.

mod events;
mod join;
mod keyring;
mod members;
mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;

use lictor_gossip::{Config as MemberConfig, Gossip, GossipError, RecordPool, Settings, StartError};
use lictor_runtime::fs::{Fs, RealFs};
use lictor_runtime::{Resolver, Rng, Tasks};
use lictor_types::Member;
use tokio::sync::watch;

pub use events::as_user_event;
pub use keyring::{Keys, KeysError};
pub use members::{as_member, node_of_wan};
pub(crate) use upkeep::as_coordinate;

use crate::agent::{Agent, AgentIdentity};
use crate::config::{Config, GossipConfig, PoolConfig};
use crate::forward::Forwarder;

/// The longest name and payload of an event: one of Consul's fits into a packet.
const EVENT_BYTES_MAX: usize = 1200;

/// The pools of one agent; some or all may be off.
pub struct Pools {
    /// None where gossip is no part of the agent: a sidecar, a simulated server.
    setup: Option<Setup>,
    lan: watch::Sender<Option<Gossip>>,
    wan: watch::Sender<Option<Gossip>>,
}

/// What a pool is made of.
struct Setup {
    config: GossipConfig,
    identity: AgentIdentity,
    coordinates: bool,
    data_dir: Option<PathBuf>,
    files: Arc<dyn Fs>,
    rng: Arc<dyn Rng>,
    resolver: Resolver,
    tasks: Tasks,
}

/// Which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Everybody of the datacenter.
    Lan,
    /// The servers of all.
    Wan,
}

impl PoolKind {
    const fn file(self) -> &'static str {
        match self {
            Self::Lan => "local",
            Self::Wan => "remote",
        }
    }
}

impl Pools {
    /// No pools.
    pub fn none() -> Arc<Self> {
        Arc::new(Self { setup: None, lan: watch::channel(None).0, wan: watch::channel(None).0 })
    }

    /// The pools that `config` names, which [`Pools::start`] opens.
    pub fn new(
        config: &Config,
        identity: &AgentIdentity,
        resolver: Resolver,
        rng: Arc<dyn Rng>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let setup = Setup {
            config: config.gossip.clone(),
            identity: identity.clone(),
            coordinates: !config.disable_coordinates,
            data_dir: config.data_dir.as_ref().map(|directory| directory.join("serf")),
            files: Arc::new(RealFs),
            rng,
            resolver,
            tasks: tasks.child(),
        };
        Arc::new(Self { setup: Some(setup), ..Arc::into_inner(Self::none()).expect("nobody else has it yet") })
    }

    /// The pool of the datacenter, once it is open.
    pub fn lan(&self) -> Option<Gossip> {
        self.lan.borrow().clone()
    }

    /// The pool of all servers, once it is open.
    pub fn wan(&self) -> Option<Gossip> {
        self.wan.borrow().clone()
    }

    /// Waits until the pool of the datacenter is open; for ever where it is off.
    pub async fn lan_opened(&self) -> Gossip {
        opened(&self.lan).await
    }

    async fn wan_opened(&self) -> Gossip {
        opened(&self.wan).await
    }

    /// Opens the pools. Nobody is joined yet.
    ///
    /// # Errors
    /// A pool cannot listen or open its files, or the keys are none.
    pub async fn start(&self, keys: &Keys) -> Result<(), StartError> {
        let Some(setup) = &self.setup else { return Ok(()) };
        if let Some(pool) = setup.config.lan {
            self.lan.send_replace(Some(setup.open(PoolKind::Lan, pool, keys).await?));
        }
        if let Some(pool) = setup.config.wan {
            self.wan.send_replace(Some(setup.open(PoolKind::Wan, pool, keys).await?));
        }
        Ok(())
    }

    /// Does what an agent does with its pools: joins, passes on what is told, and, for a client, learns of servers.
    pub fn follow(
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        forwarder: Option<&Arc<Forwarder>>,
        fatal: &watch::Sender<Option<String>>,
    ) {
        let Some(setup) = &self.setup else { return };
        let tasks = &setup.tasks;
        tasks.spawn(events::follow(Arc::clone(self), Arc::clone(agent)));
        tasks.spawn(join::keep_joined(Arc::clone(self), Arc::clone(agent), fatal.clone()));
        if setup.coordinates {
            tasks.spawn(upkeep::tell_coordinates(Arc::clone(self), Arc::clone(agent)));
        }
        if let Some(forwarder) = forwarder {
            tasks.spawn(upkeep::find_servers(Arc::clone(self), Arc::clone(agent), Arc::clone(forwarder)));
        }
        tasks.spawn(Arc::clone(self).follow_the_leaders_keys(Arc::clone(agent)));
        tasks.spawn(join::keep_wan_joined(Arc::clone(self), Arc::clone(agent)));
        tasks.spawn(events::watch_name(Arc::clone(self), fatal.clone()));
    }

    /// Everybody of the datacenter whom gossip knows, by name; nobody where it is off.
    pub async fn members(&self) -> Vec<Member> {
        members::of(self.lan()).await
    }

    /// The servers of all datacenters, by name; nobody where WAN gossip is off.
    pub async fn wan_members(&self) -> Vec<Member> {
        members::of(self.wan()).await
    }

    /// Joins the members of these addresses: `host` or `host:port`. Answers how many were reached.
    ///
    /// # Errors
    /// None was, or the pool is off.
    pub async fn join(&self, kind: PoolKind, addresses: &[String]) -> Result<usize, GossipError> {
        let (pool, port) = match kind {
            PoolKind::Lan => (self.lan(), self.port(|config| config.lan)),
            PoolKind::Wan => (self.wan(), self.port(|config| config.wan)),
        };
        let pool = pool.ok_or(GossipError::Stopped)?;
        let (addresses, problems): (Vec<_>, Vec<_>) = addresses
            .iter()
            .map(|address| crate::config::gossip_address("join", address, port))
            .partition(Result::is_ok);
        if addresses.is_empty() {
            return Err(GossipError::Join(problems.into_iter().filter_map(Result::err).collect()));
        }
        pool.join(&addresses.into_iter().filter_map(Result::ok).collect::<Vec<_>>(), true).await
    }

    fn port(&self, pool: impl Fn(&GossipConfig) -> Option<PoolConfig>) -> u16 {
        self.setup.as_ref().and_then(|setup| pool(&setup.config)).map_or(0, |pool| pool.advertise.port())
    }

    /// Says goodbye in all pools.
    pub async fn leave(&self) {
        for pool in [self.wan(), self.lan()].into_iter().flatten() {
            if let Err(error) = pool.leave().await {
                tracing::warn!(%error, "could not say goodbye to a gossip pool");
            }
        }
    }
}

async fn opened(pool: &watch::Sender<Option<Gossip>>) -> Gossip {
    let mut seen = pool.subscribe();
    match seen.wait_for(Option::is_some).await.map(|pool| pool.clone()) {
        Ok(Some(pool)) => pool,
        // The sender is ours, so this does not come.
        _ => std::future::pending().await,
    }
}

impl Setup {
    async fn open(&self, kind: PoolKind, pool: PoolConfig, keys: &Keys) -> Result<Gossip, StartError> {
        let identity = &self.identity;
        let name = match kind {
            PoolKind::Lan => identity.node_name.to_string(),
            PoolKind::Wan => format!("{}.{}", identity.node_name, identity.datacenter),
        };
        let gossip = Gossip::start(
            Settings {
                config: MemberConfig {
                    tags: identity.member().tags.into_iter().collect(),
                    keyring: keys.keyring(kind)?,
                    verify_incoming: self.config.verify_incoming,
                    verify_outgoing: self.config.verify_outgoing,
                    timing: pool.timing,
                    event_size: EVENT_BYTES_MAX,
                    coordinates: self.coordinates,
                    allowed: match kind {
                        PoolKind::Lan => self.config.allowed_lan.clone(),
                        PoolKind::Wan => self.config.allowed_wan.clone(),
                    },
                    kept_for: Some(lictor_types::member::reconnect_timeout),
                    ..MemberConfig::new(name, pool.advertise)
                },
                bind: pool.bind,
                snapshot: self.data_dir.as_ref().map(|it| it.join(format!("{}.snapshot", kind.file()))),
                rejoin_after_leave: self.config.rejoin_after_leave,
                keyring_file: self.keyring_file(kind),
                files: Arc::clone(&self.files),
                rng: Arc::clone(&self.rng),
                resolver: self.resolver.clone(),
                records: RecordPool::new(),
            },
            &self.tasks,
        )
        .await?;
        let encrypted = keys.is_encrypted();
        tracing::info!(pool = ?kind, address = %gossip.address(), encrypted, "gossip is open");
        Ok(gossip)
    }
}
