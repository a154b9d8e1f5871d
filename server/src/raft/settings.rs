//! What an operator or a test may set.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use super::log::LogOptions;

/// How many followers' log positions behind a snapshot are still served from the log.
const KEPT_AFTER_SNAPSHOT: u64 = 10_000;

/// Where the work beside the tasks is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// The log is written by a thread, snapshots by the blocking pool.
    #[default]
    Threads,
    /// Everything is done in tasks: for simulation, where nothing may run beside the one thread.
    Tasks,
}

/// A bug that a test plants to see that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Entries and votes are called durable before they are.
    AckBeforeFsync,
    /// Votes are not written.
    VoteNotPersisted,
    /// Reads are called linearizable without asking anybody.
    ReadWithoutQuorum,
    /// The leader's lease outlasts the election timeout of the others by far.
    LeaseTooLong,
    /// A follower answers reads in default mode as if it led.
    FollowerServesDefault,
    /// A follower asks for the read index and does not wait until it has applied it.
    ReadIndexNotAwaited,
    /// The first entry after a start is applied twice.
    AppliedTwiceAfterRestart,
    /// A repeated request is taken for a new one.
    RetryAppliedTwice,
    /// Outcomes and tombstones are forgotten at once.
    ReapedTooEarly,
    /// Cas does not look at the index.
    CasIgnoresIndex,
    /// The last command of a batch is answered and not kept.
    BatchPartlyApplied,
    /// Applying asks something that differs between servers.
    ApplyNotDeterministic,
    /// Blocked readers are not woken.
    LostWakeup,
    /// Readers are now and then told an older index.
    IndexGoesBack,
    /// A snapshot is of the state before the one it names.
    StaleSnapshot,
    /// A snapshot lacks the index.
    SnapshotDropsIndex,
    /// A snapshot lacks the entries of KV.
    SnapshotDropsKv,
    /// A snapshot lacks the outcomes of recent requests.
    SnapshotDropsOutcomes,
    /// A snapshot lacks the nodes.
    SnapshotDropsNodes,
    /// A snapshot lacks the checks.
    SnapshotDropsChecks,
    /// A snapshot lacks the tombstones.
    SnapshotDropsTombstones,
    /// A snapshot lacks the sessions.
    SnapshotDropsSessions,
    /// A snapshot lacks the lock-delays.
    SnapshotDropsLockDelays,
    /// Of a transaction that fails, what comes before the failure is kept.
    TransactionPartlyApplied,
    /// A new leader knows of no lock-delay.
    LockDelaysLostOnFailover,
    /// A server that leads again goes on with the timers of its earlier lead.
    TimersNotReset,
    /// A new leader sets no timers for the sessions that are there.
    TimersNotStarted,
    /// A renewal is answered and sets no timer anew.
    RenewalForgotten,
    /// A session that is being ended can still be renewed.
    RenewalOfTheEnding,
}

/// Bugs that a test plants. None outside of tests, and a release build has no way to have one: see [`Faults::has`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(Option<Bug>);

impl Faults {
    /// With this bug.
    pub const fn planted(bug: Bug) -> Self {
        Self(Some(bug))
    }

    /// Whether `bug` is planted. Without debug assertions the answer is no at compile time, whatever was set.
    pub(crate) fn has(self, bug: Bug) -> bool {
        cfg!(debug_assertions) && self.0 == Some(bug)
    }
}

/// The settings of consensus.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the datacenter, for messages.
    pub datacenter: String,
    /// Scales all timers, 1 to 10.
    pub raft_multiplier: u32,
    /// A snapshot is taken after so many entries.
    pub snapshot_entries: u64,
    /// So many entries are kept after a snapshot, so that a slow follower needs no snapshot.
    pub kept_entries: u64,
    /// Sizes of the log.
    pub log: LogOptions,
    /// How many proposals may wait. One more is refused as [`super::ProposeError::Overloaded`].
    pub proposal_queue: usize,
    /// The largest entry, and so the largest proposal.
    pub entry_bytes: usize,
    /// A proposal or a read that is not answered within this is given up.
    pub deadline: Duration,
    /// Where the work is done.
    pub drive: Drive,
    /// Planted bugs.
    pub faults: Faults,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            datacenter: "dc1".to_owned(),
            raft_multiplier: 1,
            snapshot_entries: 16_384,
            kept_entries: KEPT_AFTER_SNAPSHOT,
            log: LogOptions::default(),
            proposal_queue: 8_192,
            entry_bytes: 1 << 20,
            deadline: Duration::from_secs(5),
            drive: Drive::default(),
            faults: Faults::default(),
        }
    }
}

const HEARTBEAT_MILLIS: u64 = 100;
/// A follower that heard its leader votes for nobody for so long; a leader reads alone for nine tenths of it.
const LEASE_MILLIS: u64 = 400;
/// After the lease a follower waits between this and a whole lease before it asks for votes: 550 to 800 ms after the
/// last word of the leader, so that two seldom ask at once.
const CANDIDACY_MIN_MILLIS: u64 = 150;
/// A message of raft waits for the disk of the other side.
const RPC_MILLIS: u64 = 1_000;

impl Settings {
    fn scaled(&self, millis: u64) -> u64 {
        millis * u64::from(self.raft_multiplier.clamp(1, 10))
    }

    /// For how long a follower that heard its leader votes for nobody.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.scaled(LEASE_MILLIS))
    }

    /// From the last word of a leader to the latest candidacy of who heard it.
    pub(crate) fn longest_election(&self) -> Duration {
        self.lease() * 2
    }

    /// For how long after its last confirmed question a leader answers reads alone. A tenth shorter than the lease that
    /// followers keep: clocks may differ by that much in speed before a read could be old.
    pub(super) fn read_lease(&self) -> Duration {
        self.lease() * 9 / 10
    }

    /// How many milliseconds of difference there may be between the candidacies of two servers.
    pub(super) fn candidacy_spread_millis(&self) -> u64 {
        self.scaled(LEASE_MILLIS - CANDIDACY_MIN_MILLIS)
    }

    /// How long one message of raft may go unanswered.
    pub(super) fn rpc_deadline(&self) -> Duration {
        Duration::from_millis(self.scaled(RPC_MILLIS))
    }

    pub(super) fn raft(&self) -> Config {
        let lease = self.scaled(LEASE_MILLIS);
        Config {
            cluster_name: self.datacenter.clone(),
            heartbeat_interval: self.scaled(HEARTBEAT_MILLIS),
            // The library counts these from the end of the lease, not from the leader's last word, and takes the longer
            // of them for the lease.
            election_timeout_min: self.scaled(CANDIDACY_MIN_MILLIS),
            election_timeout_max: lease,
            enable_pre_vote: Some(true),
            // Without it a leader that lost its quorum could keep the others from electing one that has it.
            quorum_loss_probe_interval: Some(2 * lease),
            // A leader that restarts asks for votes again, rather than to trust what it knew.
            enable_leader_restore: Some(false),
            removed_leader_step_down: StepDownPolicy::After(self.scaled(HEARTBEAT_MILLIS)),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.kept_entries,
            // Beyond the distance of two snapshots a follower is better served by one.
            replication_lag_threshold: self.snapshot_entries * 2 + self.kept_entries,
            purge_batch_size: 256,
            snapshot_max_chunk_size: super::snapshot::CHUNK_BYTES as u64,
            install_snapshot_timeout: self.scaled(10_000),
            backoff: "50ms 100ms 200ms ...1s".to_owned(),
            ..Config::default()
        }
    }
}
