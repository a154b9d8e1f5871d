//! Autopilot: how the leader looks after the servers of raft, and what it sees of them.

use minicbor::{Decode, Encode};

use crate::rpc::ServerAddress;
use crate::{Index, Timestamp};

/// How the leader looks after the servers of raft.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AutopilotConfig {
    /// Failed servers are taken out of raft.
    #[n(0)]
    pub cleanup_dead_servers: bool,
    /// A server that the leader has not heard of for so many milliseconds is not healthy.
    #[n(1)]
    pub last_contact_threshold_millis: u64,
    /// A server whose log is behind by more entries is not healthy.
    #[n(2)]
    pub max_trailing_logs: u64,
    /// No failed server is taken out if fewer voters than this would remain; 0 leaves only the rule that most of them
    /// must be healthy.
    #[n(3)]
    pub min_quorum: u64,
    /// A new server must be healthy for so many milliseconds before it votes.
    #[n(4)]
    pub server_stabilization_millis: u64,
    /// The index at which it was first set; 0 while it never was.
    #[n(5)]
    pub create_index: Index,
    /// The index of its last change.
    #[n(6)]
    pub modify_index: Index,
}

impl Default for AutopilotConfig {
    /// Consul's.
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold_millis: 200,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_millis: 10_000,
            create_index: Index(0),
            modify_index: Index(0),
        }
    }
}

/// Sets how the leader looks after the servers of raft.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AutopilotSet {
    /// The new configuration; its indexes do not count.
    #[n(0)]
    pub config: AutopilotConfig,
    /// Only if the stored one has this modify index; 0 means that there must be none.
    #[n(1)]
    pub cas: Option<Index>,
}

/// The servers of raft as the leader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AutopilotState {
    /// Every server is healthy.
    #[n(0)]
    pub healthy: bool,
    /// So many healthy voters may fail before writes stop.
    #[n(1)]
    pub failure_tolerance: u32,
    /// Every server in raft, by id.
    #[n(2)]
    pub servers: Vec<ServerHealth>,
}

/// One server as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServerHealth {
    /// Who it is, and where.
    #[n(0)]
    pub server: ServerAddress,
    /// How it is as a member: `alive`, `left`, `failed`, or `none` when no word came from it yet.
    #[n(1)]
    pub member_status: String,
    /// Its release, as it says itself.
    #[n(2)]
    pub version: String,
    /// It leads.
    #[n(3)]
    pub leader: bool,
    /// It votes; else it learns.
    #[n(4)]
    pub voter: bool,
    /// Milliseconds since it last answered the leader; none when it never did.
    #[n(5)]
    pub last_contact_millis: Option<u64>,
    /// The term of the last entry of its log, as far as the leader knows.
    #[n(6)]
    pub last_term: u64,
    /// The index of that entry.
    #[n(7)]
    pub last_index: u64,
    /// It is alive, answers in time and is not far behind.
    #[n(8)]
    pub healthy: bool,
    /// When `healthy` last changed, or when this leader began to look.
    #[n(9)]
    pub stable_since: Timestamp,
    /// Its state is another than that of most servers, as of this index, where they were compared last.
    #[n(90)]
    pub differs_at: Option<Index>,
}

/// A server in raft, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RaftPeer {
    /// Who it is, and where.
    #[n(0)]
    pub server: ServerAddress,
    /// It leads.
    #[n(1)]
    pub leader: bool,
    /// It votes; else it learns.
    #[n(2)]
    pub voter: bool,
    /// The raft index of the last entry it is known to hold; 0 when the server that answers does not know.
    #[n(3)]
    pub last_index: u64,
}

/// Who is in raft.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RaftPeers {
    /// Every server, by id.
    #[n(0)]
    pub servers: Vec<RaftPeer>,
    /// The raft index up to which the log was committed when this was looked up.
    #[n(1)]
    pub index: u64,
}

/// What a server is to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// It votes or learns.
    #[n(0)]
    Member,
    /// It is not in raft; it may join.
    #[n(1)]
    Stranger,
    /// It was removed for ever.
    #[n(2)]
    Removed,
}
