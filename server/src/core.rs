//! A server without its doors: consensus, state, RPC, and the leader's duties.
//!
//! Everything it needs of the world comes in as a value, so that a simulation runs this very code.

use std::sync::Arc;
use std::time::Duration;

use lictor_agent::events::Ring;
use lictor_agent::forward::RpcPool;
use lictor_agent::pools::Pools;
use lictor_identity::RpcTrust;
use lictor_identity::seal::SealKey;
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, Rng, Tasks};
use lictor_state::Store;
use lictor_state::access::Authorizer;
use lictor_state::published::Published;
use lictor_types::rpc::{Operation, Probe, ServerAddress};
use lictor_types::{Credential, Member, NodeName, Query};
use tokio::sync::watch;

use crate::archive::{self, Archives};
use crate::bootstrap;
use crate::datacenter::{ServerDatacenter, ServerSettings};
use crate::equality::Looks;
use crate::figures::{self, ServerFigures};
use crate::leader::autopilot::HealthTable;
use crate::leader::coordinates::CoordinateBatch;
use crate::leader::equality::EqualityTable;
use crate::leader::members::MemberTable;
use crate::leader::sessions::SessionTimers;
use crate::leader::{self, Founding};
use crate::login::LoginMethods;
use crate::raft::{self, Consensus, DataDirectory};
use crate::relay::{self, Relay};
use crate::replica::Replica;
use crate::rpc;
use crate::signatures::SignatureLimit;
use crate::standing;

/// How often a server tells the leader that it is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After a keepalive that reached no leader.
const KEEPALIVE_RETRY: Duration = Duration::from_millis(500);

/// What a server is told.
pub struct CoreSettings {
    /// Its raft node id, its name, and where other servers dial it.
    pub own: ServerAddress,
    /// Itself as a member.
    pub member: Member,
    /// How many servers begin a cluster; 0 for one that only joins.
    pub bootstrap_expect: u32,
    /// `host:port` of server ports to ask for a cluster.
    pub join: Vec<String>,
    /// Consensus.
    pub raft: raft::Settings,
    /// What the waist needs.
    pub server: ServerSettings,
    /// Whether tokens are asked for.
    pub authorizer: Authorizer,
    /// What the first leader must make.
    pub founding: Founding,
}

/// What a server is given of the world.
pub struct CoreDeps {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// The data directory of raft.
    pub directory: Arc<DataDirectory>,
    /// The server port.
    pub transport: SharedTransport,
    /// The key that secrets are sealed with.
    pub seal: Arc<SealKey>,
    /// How proofs of logins are judged.
    pub logins: LoginMethods,
    /// The gossip pools that this server is in.
    pub pools: Arc<Pools>,
    /// Learns the mesh's roots as they change; none where connections are not TLS.
    pub trust: Option<Arc<RpcTrust>>,
}

/// A running server without its doors.
pub struct Core {
    /// Its waist.
    pub datacenter: Arc<ServerDatacenter>,
    /// Becomes some text when the server must stop, and why.
    pub fatal: watch::Sender<Option<String>>,
    name: NodeName,
    /// Stopped first: calls under way still need consensus.
    rpc: Tasks,
    /// What keeps this server in the cluster; stopped when it leaves.
    presence: Tasks,
    tasks: Tasks,
}

impl Core {
    /// Starts consensus from what is on disk, then RPC, then the search for a cluster, then the duties.
    ///
    /// # Errors
    /// The data directory cannot be used.
    pub async fn start(settings: CoreSettings, deps: CoreDeps) -> Result<Self, raft::StartError> {
        let tasks = Tasks::new();
        let (rpc, presence) = (tasks.child(), tasks.child());
        let published = Arc::new(Published::default());
        let figures = ServerFigures::default();
        let longest_election = settings.raft.longest_election();
        let looks = Arc::new(Looks::default());
        tasks.spawn(Arc::clone(&looks).hash(settings.raft.drive));
        let replica = Replica::new(Arc::clone(&published), Arc::clone(&looks), settings.raft.faults, &*deps.rng);
        let consensus = Consensus::start(
            settings.raft,
            raft::Dependencies {
                directory: Arc::clone(&deps.directory),
                transport: Arc::clone(&deps.transport),
                machine: Arc::new(replica),
                tasks: tasks.clone(),
                roles: figures.roles.clone(),
            },
        )
        .await?;
        let (probe, probe_seen) = watch::channel(Probe {
            server: settings.own.clone(),
            cluster_id: None,
            bootstrap_expect: settings.bootstrap_expect,
            found: vec![settings.own.clone()],
            initialized: consensus.is_initialized().await,
        });
        let fatal = watch::Sender::new(None);
        let (archives, restores) = Archives::new(&deps.directory);
        let (relay, relayed) = Relay::new();
        let datacenter = Arc::new(ServerDatacenter {
            consensus,
            published,
            authorizer: settings.authorizer,
            seal: deps.seal,
            peers: RpcPool::new(Arc::clone(&deps.transport), &tasks),
            relay,
            members: MemberTable::default(),
            sessions: SessionTimers::default(),
            health: HealthTable::default(),
            looks,
            equality: EqualityTable::default(),
            coordinates: CoordinateBatch::default(),
            pools: deps.pools,
            events: Ring::new(deps.rng.uuid()),
            clock: deps.clock,
            rng: deps.rng,
            logins: deps.logins,
            settings: settings.server,
            signatures: SignatureLimit::default(),
            probe: probe_seen,
            archives,
            figures,
        });
        rpc.spawn(rpc::serve(Arc::clone(&datacenter), deps.transport, rpc.clone()));
        figures::show_gauges(&datacenter);
        tasks.spawn(relay::run(Arc::clone(&datacenter), relayed));
        tasks.spawn(archive::restore::run(Arc::clone(&datacenter), restores));
        tasks.spawn(archive::sweep(Arc::clone(&datacenter)));
        tasks.spawn(report_broken(datacenter.consensus.fatal(), fatal.clone()));
        tasks.spawn(follow_cluster(Arc::clone(&datacenter), Arc::clone(&deps.directory), deps.trust, fatal.clone()));
        let join: Vec<String> = settings.join.into_iter().filter(|it| *it != settings.own.address).collect();
        let (standing_join, standing_fatal) = (join.clone(), fatal.clone());
        presence.spawn(standing::watch(
            Arc::clone(&datacenter),
            deps.directory,
            standing_join,
            settings.own.clone(),
            standing_fatal,
        ));
        tasks.spawn(bootstrap::find_cluster(Arc::clone(&datacenter), join, settings.bootstrap_expect, probe));
        tasks.spawn(leader::run(Arc::clone(&datacenter), Arc::new(settings.founding), tasks.child()));
        tasks.spawn(crate::events::follow_leader(Arc::clone(&datacenter)));
        tasks.spawn(crate::gossip::follow(Arc::clone(&datacenter)));
        tasks.spawn(crate::watchdog::watch(Arc::clone(&datacenter), longest_election));
        let name = settings.member.name.clone();
        presence.spawn(keep_alive(Arc::clone(&datacenter), settings.member));
        Ok(Self { datacenter, fatal, name, rpc, presence, tasks })
    }

    /// Grows whenever a leader was found: then is a good time to compare what this agent holds with the catalog.
    pub fn elections(&self, tasks: &Tasks) -> watch::Receiver<u64> {
        let (count, seen) = watch::channel(0);
        let mut leader = self.datacenter.consensus.leader();
        tasks.spawn(async move {
            while leader.changed().await.is_ok() {
                let name = leader.borrow_and_update().as_ref().map(|leader| leader.name.clone());
                if let Some(name) = name {
                    tracing::info!("New leader elected: {name}");
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        seen
    }

    /// The replicated state as this server has applied it.
    pub fn state(&self) -> Arc<Store> {
        self.datacenter.published.load()
    }

    /// Who is in raft, as this server knows it.
    pub fn membership(&self) -> raft::Membership {
        self.datacenter.consensus.membership()
    }

    /// Raft as it is now on this server.
    pub fn status(&self) -> raft::Status {
        self.datacenter.consensus.status()
    }

    /// Hands the lead to another server if this one has it.
    pub async fn hand_on_the_lead(&self, limit: Duration) {
        let consensus = &self.datacenter.consensus;
        if consensus.is_leader() && consensus.membership().voters.len() > 1 {
            let handed_on = tokio::time::timeout(limit, consensus.transfer_leader(None)).await;
            if !matches!(handed_on, Ok(Ok(()))) {
                tracing::warn!("could not hand the lead to another server before the end");
            }
        }
    }

    /// Leaves the cluster on purpose within `limit`: hands the lead on, says farewell, and leaves raft. Returns whether
    /// others go on without this server; the only one of a cluster just stays what it is.
    pub async fn leave(&self, limit: Duration) -> bool {
        let consensus = &self.datacenter.consensus;
        if !self.datacenter.is_member() || consensus.membership().voters.iter().all(|it| it.id == consensus.id()) {
            return false;
        }
        self.hand_on_the_lead(limit / 4).await;
        // A sign of life after the farewell would make it a member again, a silent leader a learner.
        self.presence.stop(limit / 4).await;
        let farewell = Operation::Leave(self.name.clone());
        let nobody = Credential::anonymous();
        let said = tokio::time::timeout(limit / 4, self.datacenter.operate_anywhere(&nobody, farewell)).await;
        match said {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => tracing::warn!(%refusal, "could not say farewell; this server will count as failed"),
            Err(_) => tracing::warn!("no leader heard the farewell in time; this server will count as failed"),
        }
        self.leave_raft(limit / 4).await;
        true
    }

    /// Leaves raft on purpose, so that the others need not count on this server any more. It keeps its log and may come
    /// back.
    async fn leave_raft(&self, limit: Duration) {
        let operation = Operation::LeaveRaft(self.datacenter.consensus.id().to_string());
        let nobody = Credential::anonymous();
        let asked = self.datacenter.operate_anywhere(&nobody, operation);
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(_)) => tracing::info!("this server has left raft"),
            Ok(Err(refusal)) => tracing::warn!(%refusal, "this server did not leave raft"),
            Err(_) => tracing::warn!("this server did not leave raft in time"),
        }
    }

    /// Stops everything within `limit`.
    pub async fn stop(self, limit: Duration) {
        self.rpc.stop(limit / 2).await;
        self.tasks.stop(limit).await;
        self.datacenter.consensus.shutdown().await;
    }
}

async fn keep_alive(datacenter: Arc<ServerDatacenter>, member: Member) {
    loop {
        let operation = Operation::Keepalive(member.clone());
        let pause = match datacenter.operate_anywhere(&Credential::anonymous(), operation).await {
            Ok(_) => {
                // A new leader must hear of us at once, not at the next round.
                let mut leader = datacenter.consensus.leader();
                leader.mark_unchanged();
                match tokio::time::timeout(KEEPALIVE_INTERVAL, leader.changed()).await {
                    // Consensus has ended; the agent ends as well.
                    Ok(Err(_)) => return,
                    Ok(Ok(())) | Err(_) => continue,
                }
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "no leader heard of us");
                KEEPALIVE_RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Passes on that consensus cannot go on, for example because the disk failed.
async fn report_broken(mut broken: watch::Receiver<Option<String>>, fatal: watch::Sender<Option<String>>) {
    if let Ok(reason) = broken.wait_for(Option::is_some).await {
        fatal.send_replace(reason.clone());
    }
}

/// Follows what the replicated state says of the cluster itself: its seal key and the mesh's roots.
async fn follow_cluster(
    datacenter: Arc<ServerDatacenter>,
    directory: Arc<DataDirectory>,
    trust: Option<Arc<RpcTrust>>,
    fatal: watch::Sender<Option<String>>,
) {
    let mut watch = datacenter.published.watches().register(&Query::CaRoots);
    loop {
        let store = datacenter.published.load();
        if let Some(cluster) = store.cluster()
            && cluster.seal_key_id != datacenter.seal.id()
        {
            let reason = format!(
                "this cluster's secrets are sealed with the key {}, but this server has the key {}: give every server of \
                 the datacenter the same seal_key_file",
                cluster.seal_key_id,
                datacenter.seal.id()
            );
            tracing::error!("{reason}");
            fatal.send_replace(Some(reason));
            return;
        }
        if let Some(cluster) = store.cluster()
            && let Err(error) = directory.set_cluster_id(&cluster.cluster_id)
        {
            tracing::error!(%error, "cannot note which cluster this data directory belongs to");
        }
        if let (Some(trust), Some(authority)) = (&trust, store.authority()) {
            let set = authority.trust_domain.parse().map_err(|error| format!("{error}")).and_then(|domain| {
                trust.set_mesh_roots(domain, &authority.root.root_cert).map_err(|it| it.to_string())
            });
            if let Err(error) = set {
                tracing::error!(%error, "the mesh's roots in the state cannot be used");
            }
        }
        watch.changed().await;
    }
}
