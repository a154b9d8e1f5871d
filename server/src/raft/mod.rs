//! Consensus: the servers of a datacenter agree on one order of envelopes and apply them to the state.
//!
//! ```text
//!  propose ──> proposer ── one entry for all who wait ──> raft ──> log ── one sync for all that waits ──> disk
//!                  ^                                       │ │
//!                  └──────────── outcomes ── StateMachine <┘ └──> network ── pipelined, raft/1 ──> other servers
//! ```
//!
//! Invariants
//! - Nothing outside this module names the library that implements raft.
//! - This module knows no tables: an envelope is bytes, and only [`StateMachine`] reads it.
//! - What [`Consensus::propose`] answered with success is durable on a quorum.
//! - Every queue and every wait has a limit.

mod batch;
mod codec;
mod data_directory;
mod error;
mod executor;
mod log;
mod membership;
mod network;
mod proposer;
mod reads;
mod recover;
mod serve;
mod settings;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lictor_runtime::metrics::Counter;
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{PeerIdentity, Stream, Tasks};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{AsyncRuntime, Instant as _, Raft, RaftMetrics, ServerState};
use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use data_directory::{DataDirectory, DataDirectoryError};
pub use error::{InitializeError, MembershipError, ProposeError, ReadError, StartError};
pub use executor::seed_randomness;
pub use log::{LogError, LogOptions};
pub use membership::{Member, Membership};
pub use recover::{Holding, RecoverError, Survivor};
pub use serve::ServeError;
pub use settings::{Bug, Drive, Faults, Settings};
pub use state_machine::{SnapshotView, StateMachine};
pub use types::{Server, ServerId, ServerIdError};

use executor::Executor;
use log::{Log, LogFaults, LogStore};
use network::{Dialler, Links};
use proposer::Proposal;
use reads::{Reads, Waiter};
use serve::{Contact, Service};
use snapshot::SnapshotStore;
use state_machine::Applier;
use types::{LogId, Types};

/// So many readers may wait to share the next question to the quorum.
const READ_QUEUE: usize = 16_384;
/// No setting makes an entry larger: it must fit a frame of the network.
const ENTRY_LIMIT: usize = 16 << 20;
/// Between two looks whether the disk is full.
const FULL_DISK_LOOK: Duration = Duration::from_millis(500);
/// The oldest proposal is looked for in so many entries: those before it hold none.
const OLDEST_WITHIN: u64 = 64;
/// Bytes that such a look reads at once.
const OLDEST_BYTES: usize = 1 << 20;
/// Stopping takes at most this long.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The server that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its identity.
    pub id: ServerId,
    /// Its node name.
    pub name: String,
    /// Where it takes RPC: `host:port`.
    pub address: String,
}

impl Leader {
    fn of(id: Option<ServerId>, server: Option<Server>) -> Option<Self> {
        let server = server?;
        Some(Self { id: id?, name: server.name, address: server.address })
    }
}

/// What a server is in raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It receives the log and does not vote.
    Learner,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A moment of raft on this server, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this server is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The index of the last entry of the log.
    pub last_log: u64,
    /// The index up to which the log is known to be committed.
    pub committed: u64,
    /// The index up to which the log is applied.
    pub applied: u64,
    /// The index that the latest snapshot ends with.
    pub snapshot: u64,
    /// The term of that entry.
    pub snapshot_term: u64,
    /// On the leader: how much of the log each other server is known to hold.
    pub matched: BTreeMap<ServerId, u64>,
    /// The term of the last entry that is applied.
    pub last_term: u64,
    /// On the leader: what else it knows of each other server.
    pub progress: BTreeMap<ServerId, ServerProgress>,
}

/// What a leader knows of another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerProgress {
    /// The term of the last entry it is known to hold.
    pub term: u64,
    /// How long ago it answered.
    pub contact: Option<Duration>,
}

/// What consensus needs from outside.
pub struct Dependencies {
    /// The data directory.
    pub directory: Arc<DataDirectory>,
    /// How other servers are reached.
    pub transport: SharedTransport,
    /// The replicated state.
    pub machine: Arc<dyn StateMachine>,
    /// The owner of the tasks.
    pub tasks: Tasks,
    /// What counts which roles this server took.
    pub roles: RoleCounters,
}

/// How often a server became what it may be in raft.
#[derive(Clone, Default)]
pub struct RoleCounters {
    /// The leader.
    pub leader: Counter,
    /// A candidate.
    pub candidate: Counter,
    /// A follower.
    pub follower: Counter,
}

impl RoleCounters {
    fn took(&self, state: ServerState) {
        match state {
            ServerState::Leader => self.leader.increment(),
            ServerState::Candidate => self.candidate.increment(),
            ServerState::Follower => self.follower.increment(),
            ServerState::Learner | ServerState::Shutdown => {}
        }
    }
}

/// This server's part in consensus. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    id: ServerId,
    settings: Settings,
    raft: Raft<Types, Applier>,
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    log: Log,
    links: Arc<Links>,
    service: Arc<Service>,
    contact: Arc<Contact>,
    leader: watch::Receiver<Option<Leader>>,
    applied: watch::Receiver<Option<LogId>>,
    fatal: watch::Receiver<Option<String>>,
    proposals: mpsc::Sender<Proposal>,
    waiters: mpsc::Sender<Waiter>,
    /// Leadership is being given away: the lease must not be used.
    transferring: watch::Sender<Option<Instant>>,
    tasks: Tasks,
}

impl Consensus {
    /// Recovers what is in the data directory and takes part from then on.
    ///
    /// # Errors
    /// The log or the latest snapshot is damaged or cannot be read; the error says where and what to do.
    pub async fn start(settings: Settings, dependencies: Dependencies) -> Result<Self, StartError> {
        let Dependencies { directory, transport, machine, tasks, roles } = dependencies;
        let tasks = tasks.child();
        let id = directory.server_id();
        if settings.entry_bytes > ENTRY_LIMIT || settings.entry_bytes <= batch::OVERHEAD {
            let why = format!("an entry may take up to {ENTRY_LIMIT} bytes, not {}", settings.entry_bytes);
            return Err(StartError::Settings(why));
        }
        let faults = LogFaults {
            ack_before_sync: settings.faults.has(Bug::AckBeforeFsync),
            vote_not_persisted: settings.faults.has(Bug::VoteNotPersisted),
        };
        let (log, flusher) = Log::open(directory.fs(), &directory.log(), settings.log, faults)?;
        let voted_before = log.vote().is_some();
        match settings.drive {
            Drive::Threads => flusher.drive_on_thread().map_err(StartError::Thread)?,
            Drive::Tasks => tasks.spawn(flusher.drive_in_task()),
        }
        let snapshots = SnapshotStore::open(directory.fs(), directory.snapshots()).map_err(StartError::Snapshot)?;
        let (progress, applied) = watch::channel(None);
        let applier = Applier::new(machine, snapshots.clone(), settings.drive, progress);
        let config = Arc::new(settings.raft().validate().map_err(|error| StartError::Settings(error.to_string()))?);
        let links = Links::new(directory.clone(), transport, tasks.clone(), settings.rpc_deadline());
        let store = LogStore::new(log.clone());
        let raft = Raft::build(id, config, Dialler(links.clone()), store, applier)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        // A vote may have been promised to a leader whose lease still runs: until it has run out for sure this server
        // neither votes nor asks for votes.
        raft.runtime_config().elect(!voted_before);
        raft.run();
        let wait = if voted_before { settings.lease() } else { Duration::ZERO };
        if voted_before {
            let spread = Executor::thread_rng().random_range(0..=settings.candidacy_spread_millis());
            tasks.spawn(let_elect(raft.clone(), id, wait + Duration::from_millis(spread)));
        }
        let contact = Arc::new(Contact::new());
        let service = Arc::new(Service {
            raft: raft.clone(),
            directory,
            snapshots,
            drive: settings.drive,
            contact: contact.clone(),
            votes_from: Instant::now() + wait,
            next_incoming: AtomicU64::new(0),
        });
        let (leader_sender, leader) = watch::channel(None);
        let (fatal_sender, fatal) = watch::channel(None);
        tasks.spawn(watch_leader(raft.clone(), log.clone(), leader_sender, fatal_sender, roles));
        let (proposals, waiting) = mpsc::channel(settings.proposal_queue);
        tasks.spawn(proposer::run(raft.clone(), waiting, settings.entry_bytes, settings.deadline));
        let (waiters, waiting) = mpsc::channel(READ_QUEUE);
        let reads = Reads {
            own: id,
            raft: raft.clone(),
            links: links.clone(),
            leader: leader.clone(),
            applied: applied.clone(),
            deadline: settings.deadline,
            faults: settings.faults,
        };
        tasks.spawn(reads.run(waiting));
        let metrics = raft.metrics();
        let transferring = watch::Sender::new(None);
        let consensus = Self {
            inner: Arc::new(Inner {
                id,
                settings,
                raft,
                metrics,
                log,
                links,
                service,
                contact,
                leader,
                applied,
                fatal,
                proposals,
                waiters,
                transferring,
                tasks,
            }),
        };
        consensus.inner.tasks.spawn(step_aside_when_full(Arc::downgrade(&consensus.inner)));
        Ok(consensus)
    }

    /// Answers an accepted `raft/1` stream until the other side closes it.
    ///
    /// # Errors
    /// `identity` is not a server, or the other side breaks the protocol or the stream.
    pub async fn serve(&self, identity: &PeerIdentity, stream: Stream) -> Result<(), ServeError> {
        // The caller has looked already; a mesh certificate that speaks raft would be worth two looks.
        if *identity != PeerIdentity::Server {
            return Err(ServeError::Refused(format!("{identity:?} is not a server, and only servers speak raft")));
        }
        self.inner.service.serve(stream).await
    }

    /// Has `envelope` agreed on and applied, and returns its outcome.
    ///
    /// # Errors
    /// See [`ProposeError`]. Only [`ProposeError::Unavailable`] leaves open whether it was applied.
    pub async fn propose(&self, envelope: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        let inner = &*self.inner;
        let limit = inner.settings.entry_bytes - batch::OVERHEAD;
        if envelope.len() > limit {
            return Err(ProposeError::TooLarge { bytes: envelope.len(), limit });
        }
        if let Some(why) = &*inner.fatal.borrow() {
            return Err(ProposeError::Fatal(why.clone()));
        }
        if inner.log.is_full() {
            return Err(ProposeError::NoSpace);
        }
        {
            let leader = inner.leader.borrow();
            if leader.as_ref().is_none_or(|leader| leader.id != inner.id) {
                return Err(ProposeError::NotLeader(leader.clone()));
            }
        }
        let (reply, outcome) = oneshot::channel();
        inner.proposals.try_send(Proposal { envelope, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded { limit: inner.settings.proposal_queue },
            mpsc::error::TrySendError::Closed(_) => ProposeError::Fatal("this server is stopping".to_owned()),
        })?;
        match tokio::time::timeout(inner.settings.deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(ProposeError::Unavailable("this server stopped before the write was confirmed".to_owned()))
            }
            Err(_) => Err(ProposeError::Unavailable("the write was not confirmed in time".to_owned())),
        }
    }

    /// Returns when this server has applied everything that was committed when it was called: a read of the state
    /// after it is linearizable. It works on every server; all who wait share one question to the leader and its
    /// quorum.
    ///
    /// # Errors
    /// No leader is known, or it did not confirm in time that it still leads.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let inner = &*self.inner;
        if inner.settings.faults.has(Bug::ReadWithoutQuorum) {
            return Ok(());
        }
        if let Some(why) = &*inner.fatal.borrow() {
            return Err(ReadError::Fatal(why.clone()));
        }
        let (waiter, outcome) = oneshot::channel();
        inner.waiters.try_send(waiter).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded { limit: READ_QUEUE },
            mpsc::error::TrySendError::Closed(_) => ReadError::Fatal("this server is stopping".to_owned()),
        })?;
        match tokio::time::timeout(inner.settings.deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ReadError::Fatal("this server is stopping".to_owned())),
            Err(_) => Err(ReadError::Unavailable("the read was not confirmed in time".to_owned())),
        }
    }

    /// Whether this server leads and knows that nobody else can: its state is then current. It asks nobody and costs
    /// nothing, but trusts that clocks run at the same speed within a tenth.
    pub fn lease_valid(&self) -> bool {
        let inner = &*self.inner;
        let metrics = inner.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return false;
        }
        if inner.settings.faults.has(Bug::ReadWithoutQuorum) {
            return true;
        }
        if inner.transferring.borrow().is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let mut lease = inner.settings.read_lease();
        if inner.settings.faults.has(Bug::LeaseTooLong) {
            lease *= 20;
        }
        let confirmed = metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < lease);
        // Until an entry of its own term is applied, a new leader may not have applied all that the one before
        // answered.
        let term_applied =
            inner.applied.borrow().is_some_and(|applied| *applied.committed_leader_id() == metrics.vote.leader_id);
        let votes = metrics.membership_config.membership().voter_ids().any(|voter| voter == inner.id);
        confirmed && term_applied && votes
    }

    /// For reads in default mode on the leader: returns at once under the lease, and after a barrier without it.
    ///
    /// # Errors
    /// This server does not lead, or could not confirm that it does.
    pub async fn lease_read(&self) -> Result<(), ReadError> {
        if self.lease_valid() {
            return self.applied_what_others_know().await;
        }
        let leader = self.inner.leader.borrow().clone();
        if leader.as_ref().is_none_or(|leader| leader.id != self.inner.id) {
            return Err(ReadError::NotLeader(leader));
        }
        self.read_barrier().await
    }

    /// Waits until this server has applied what it told others to be committed: a follower may be quicker to apply it and
    /// to show it to a reader, who must not see less here.
    async fn applied_what_others_know(&self) -> Result<(), ReadError> {
        let told = self.inner.links.told();
        let mut applied = self.inner.applied.clone();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied.index() >= told) || told == 0);
        match tokio::time::timeout(self.inner.settings.deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Fatal("this server is stopping".to_owned())),
            Err(_) => Err(ReadError::Unavailable("what is committed could not be applied in time".to_owned())),
        }
    }

    /// Bugs that a test planted.
    pub(crate) fn faults(&self) -> Faults {
        self.inner.settings.faults
    }

    /// The leader as this server knows it.
    pub fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.inner.leader.clone()
    }

    /// Whether this server leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.inner.leader.borrow().as_ref().is_some_and(|leader| leader.id == self.inner.id)
    }

    /// How long ago a leader was last heard; zero on the leader.
    pub fn last_contact(&self) -> Duration {
        if self.is_leader() { Duration::ZERO } else { self.inner.contact.age() }
    }

    /// The identity of this server.
    pub fn id(&self) -> ServerId {
        self.inner.id
    }

    /// The raft index up to which the log is applied here. It is not the index of the state.
    pub fn applied(&self) -> u64 {
        self.inner.applied.borrow().map_or(0, |applied| applied.index())
    }

    /// The index at which the log begins; none while it is empty.
    pub fn first_index(&self) -> Option<u64> {
        self.inner.log.first_index()
    }

    /// The oldest envelope that the log holds; none if it holds none near its beginning, or that cannot be read.
    pub fn oldest_envelope(&self) -> Option<Vec<u8>> {
        let log = &self.inner.log;
        let first = log.first_index()?;
        let mut at = first;
        while at < first + OLDEST_WITHIN {
            let entries = log.read(at, first + OLDEST_WITHIN, OLDEST_BYTES).ok()?;
            at = entries.last()?.0 + 1;
            for (_, body) in &entries {
                if let types::Payload::Normal(proposals) = &codec::decode_entry(body).ok()?.payload
                    && let Some(envelope) = batch::split(&proposals.0).as_deref().and_then(<[_]>::first)
                {
                    return Some(envelope.to_vec());
                }
            }
        }
        None
    }

    /// Raft as it is now.
    pub fn status(&self) -> Status {
        let metrics = self.inner.metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.map_or(0, |id| id.index());
        let mut progress: BTreeMap<ServerId, ServerProgress> = BTreeMap::new();
        for (id, matched) in metrics.replication.iter().flatten() {
            progress.entry(*id).or_default().term = matched.map_or(0, |matched| matched.committed_leader_id().term);
        }
        for (id, heard) in metrics.heartbeat.iter().flatten() {
            progress.entry(*id).or_default().contact = heard.as_ref().map(|at| at.elapsed());
        }
        let matched = metrics.replication.iter().flatten().map(|(id, matched)| (*id, index(matched))).collect();
        Status {
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            },
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            snapshot: index(&metrics.snapshot),
            snapshot_term: metrics.snapshot.map_or(0, |id| id.committed_leader_id().term),
            matched,
            last_term: metrics.last_applied.map_or(0, |id| id.committed_leader_id().term),
            progress,
        }
    }

    /// Becomes `Some` when this server cannot go on: its disk failed. The process must end; what it acknowledged is
    /// kept.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.clone()
    }

    /// Stops taking part. Everything that was acknowledged is durable; what waits is given up.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        let stopped = async {
            if inner.raft.shutdown().await.is_err() {
                tracing::warn!("raft did not stop cleanly");
            }
            inner.log.close();
            inner.log.ended().await;
        };
        if tokio::time::timeout(STOP_DEADLINE, stopped).await.is_err() {
            tracing::warn!("raft did not stop within {STOP_DEADLINE:?}");
        }
        if !inner.tasks.stop(STOP_DEADLINE).await {
            tracing::warn!("tasks of consensus did not stop within {STOP_DEADLINE:?}");
        }
    }
}

/// A server whose disk is full cannot lead: it hands the lead on and asks for no votes until there is room again.
async fn step_aside_when_full(inner: Weak<Inner>) {
    let mut aside = false;
    loop {
        tokio::time::sleep(FULL_DISK_LOOK).await;
        let Some(inner) = inner.upgrade() else { return };
        let full = inner.log.is_full();
        if full || aside {
            inner.raft.runtime_config().elect(!full);
        }
        if full != aside {
            aside = full;
            tracing::warn!(full, "the disk of this server is full, or has room again: it leads only with room");
        }
        let consensus = Consensus { inner };
        if full
            && consensus.is_leader()
            && consensus.membership().voters.len() > 1
            && let Err(error) = consensus.transfer_leader(None).await
        {
            tracing::warn!(%error, "the disk is full and nobody takes the lead over");
        }
    }
}

/// Lets this server ask for votes after a restart: at once when it is the only voter, else after `wait`.
async fn let_elect(raft: Raft<Types, Applier>, own: ServerId, wait: Duration) {
    let alone =
        raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().all(|id| id == own)).await;
    if !alone.unwrap_or(false) {
        tokio::time::sleep(wait).await;
    }
    raft.runtime_config().elect(true);
}

/// Tells who leads, and when raft ends for another reason than a shutdown.
async fn watch_leader(
    raft: Raft<Types, Applier>,
    log: Log,
    leader: watch::Sender<Option<Leader>>,
    fatal: watch::Sender<Option<String>>,
    roles: RoleCounters,
) {
    let mut metrics = raft.server_metrics();
    let mut log_fatal = log.fatal();
    let mut role = None;
    loop {
        {
            let now = metrics.borrow_watched();
            if role.replace(now.state) != Some(now.state) {
                roles.took(now.state);
            }
            let server = now.current_leader.and_then(|id| now.membership_config.get_node(&id).cloned());
            let next = Leader::of(now.current_leader, server);
            leader.send_if_modified(|known| {
                let changed = *known != next;
                *known = next;
                changed
            });
        }
        let why = tokio::select! {
            biased;
            failed = log_fatal.wait_for(Option::is_some) => match failed {
                Ok(error) => error.as_ref().map(ToString::to_string),
                Err(_) => None,
            },
            changed = metrics.changed() => match changed {
                Ok(()) => continue,
                Err(_) => match &raft.metrics().borrow_watched().running_state {
                    Err(openraft::errors::Fatal::Stopped) | Ok(()) => None,
                    Err(error) => Some(error.to_string()),
                },
            },
        };
        leader.send_replace(None);
        fatal.send_replace(why);
        return;
    }
}
