//! What agents and servers say to each other. The same bytes as the log: no second set of message types.

use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::archive::{RestoreWrite, SnapshotOpen, SnapshotOpened, SnapshotPiece, SnapshotRead, TransferId, Usage};
use crate::autopilot::{AutopilotState, RaftPeers, Standing};
use crate::event::{EventBatch, FollowEvents, UserEvent};
use crate::keyring::{KEYRING_WAIT, KeyringAnswer, KeyringRequest};
use crate::{
    Command, Freshness, Index, LeafCertificate, Member, NodeCoordinate, NodeName, Outcome, Query, Read, Refusal,
    RequestId, Requirement, ServiceName, Session,
};

/// Who asks: the secret of an ACL token, or nobody.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Credential {
    /// The token's secret; empty for the anonymous token.
    #[n(0)]
    pub secret: String,
}

impl Credential {
    /// The holder of this secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self { secret: secret.into() }
    }

    /// Nobody.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Whether a token was given.
    pub fn is_anonymous(&self) -> bool {
        self.secret.is_empty()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_anonymous() { "Credential(anonymous)" } else { "Credential(<hidden>)" })
    }
}

/// A request to a server.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// Who asks.
    #[n(0)]
    pub credential: Credential,
    /// What for.
    #[n(1)]
    pub body: RequestBody,
    /// A server passed it on already: it is answered here or refused, so that it cannot go in circles.
    #[n(2)]
    #[cbor(default)]
    pub forwarded: bool,
}

/// What a request asks for: the verbs of the waist.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RequestBody {
    /// Change the state, once.
    #[n(0)]
    Write(#[n(0)] Box<WriteRequest>),
    /// Ask the state.
    #[n(1)]
    Read(#[n(0)] ReadRequest),
    /// Neither.
    #[n(2)]
    Operate(#[n(0)] Operation),
    /// From another server: what its clients ask to change, each the binary form of a [`RelayedWrite`].
    #[n(3)]
    Relay(#[n(0)] Vec<ByteVec>),
}

/// A write that a server passes on, judged by the credential in it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayedWrite {
    /// Who asks.
    #[n(0)]
    pub credential: Credential,
    /// To change what.
    #[n(1)]
    pub write: WriteRequest,
}

/// Change the state, once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WriteRequest {
    /// Kept over every retry.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub request_id: RequestId,
    /// What to do.
    #[n(1)]
    pub command: Command,
}

/// Ask the state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReadRequest {
    /// What to ask.
    #[n(0)]
    pub query: Query,
    /// How fresh the answer must be.
    #[n(1)]
    pub freshness: Freshness,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// To a write.
    #[n(0)]
    Written(#[n(0)] Outcome),
    /// To a read.
    #[n(1)]
    Read(#[n(0)] Read),
    /// To an operation.
    #[n(2)]
    Report(#[n(0)] Report),
    /// It was not served.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// To writes that were passed on: what came of each, in their order.
    #[n(4)]
    Relayed(#[n(0)] Vec<Result<Outcome, Refusal>>),
}

impl Response {
    /// The refusal for an answer of another kind than what was asked for.
    pub fn unexpected(&self) -> Refusal {
        let what = match self {
            Self::Written(_) => "the outcome of a write",
            Self::Relayed(_) => "the outcomes of writes",
            Self::Read(_) => "an answer",
            Self::Report(_) => "a report",
            Self::Refused(_) => "a refusal",
        };
        Refusal::failed(format!("a server answered with {what} to another kind of request"))
    }
}

/// A request that neither changes nor asks the replicated state alone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// "I am here": sent every few seconds by every member; reaches the leader.
    #[n(0)]
    Keepalive(#[n(0)] Member),
    /// The member leaves on purpose.
    #[n(1)]
    Leave(#[n(0)] NodeName),
    /// Who is alive, failed or left.
    #[n(2)]
    Members,
    /// Who leads, and who votes.
    #[n(3)]
    Status,
    /// Sign a leaf certificate for a service.
    #[n(4)]
    SignLeaf(#[n(0)] SignLeaf),
    /// Sign the next certificate of the client agent that asks, over the connection of its present one: a signing request, PEM.
    #[n(5)]
    SignAgent(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Make a join token.
    #[n(6)]
    CreateJoinToken(#[n(0)] CreateJoinToken),
    /// A new server asks to become a learner, and a voter when it has caught up.
    #[n(7)]
    JoinServer(#[n(0)] ServerAddress),
    /// What a server says of itself before there is a cluster.
    #[n(8)]
    Probe,
    /// Take a server out of raft for ever.
    #[n(9)]
    RemoveServer(#[n(0)] String),
    /// The index up to which the leader has applied, once a quorum has confirmed that it leads.
    #[n(10)]
    ReadIndex,
    /// Hand the lead to another server.
    #[n(11)]
    TransferLeader,
    /// Which of these the asker may: how an agent guards what only it holds.
    #[n(12)]
    Authorize(#[n(0)] Vec<Requirement>),
    /// A login that another server took in: only the leader grants.
    #[n(13)]
    Login(#[n(0)] Box<Login>),
    /// A server has renewed this node's certificate: the token of its login lives as long.
    #[n(60)]
    RenewLogin(#[n(0)] NodeName),
    /// Give the session with this id another TTL of life.
    #[n(20)]
    RenewSession(#[n(0)] String),
    /// Take a snapshot for a person.
    #[n(70)]
    SnapshotOpen(#[n(0)] SnapshotOpen),
    /// Read it, piece by piece.
    #[n(71)]
    SnapshotRead(#[n(0)] SnapshotRead),
    /// Begin to restore a snapshot.
    #[n(72)]
    RestoreOpen(#[cbor(n(0), with = "minicbor::bytes")] TransferId),
    /// Hand it over, piece by piece.
    #[n(73)]
    RestoreWrite(#[n(0)] RestoreWrite),
    /// All is handed over: verify it and replace the state. Asked again until it is done.
    #[n(74)]
    RestoreFinish(#[cbor(n(0), with = "minicbor::bytes")] TransferId),
    /// How many of what there are.
    #[n(75)]
    Usage,
    /// Take the server with this `host:port` out of raft for ever.
    #[n(50)]
    RemoveServerAt(#[n(0)] String),
    /// What the server with this raft id is to the cluster of the server that is asked.
    #[n(51)]
    Standing(#[n(0)] String),
    /// The servers of raft as the leader sees them.
    #[n(52)]
    AutopilotState,
    /// Hand the lead to the server with this raft id.
    #[n(53)]
    TransferLeaderTo(#[n(0)] String),
    /// Who is in raft, as the leader knows it.
    #[n(54)]
    RaftPeers,
    /// The same as the server that is asked knows it.
    #[n(55)]
    RaftPeersHere,
    /// A server leaves raft on purpose and may come back with the log it has.
    #[n(56)]
    LeaveRaft(#[n(0)] String),
    /// Where a node is in the space of round-trip times; the leader gathers these and writes them together.
    #[n(30)]
    UpdateCoordinate(#[n(0)] NodeCoordinate),
    /// Send a user event to the agents.
    #[n(40)]
    FireEvent(#[n(0)] UserEvent),
    /// The user events after a place in a server's ring, as soon as there is one.
    #[n(41)]
    FollowEvents(#[n(0)] FollowEvents),
    /// Count a member that has failed as left.
    #[n(42)]
    ForceLeave(#[n(0)] ForceLeave),
    /// The hash of the asked server's state at an index, with the one of the asking leader.
    #[n(90)]
    CompareState(#[n(0)] StateHash),
    /// The keys of gossip, which every agent of the datacenter needs: for the node of this name, as the leader has them.
    #[n(110)]
    GossipKeys(#[n(0)] NodeName),
    /// List or change the keys of gossip at every member.
    #[n(111)]
    Keyring(#[n(0)] KeyringRequest),
}

impl Operation {
    /// How long the answer may take on purpose.
    pub fn wait(&self) -> Duration {
        match self {
            Self::FollowEvents(it) => Duration::from_millis(it.wait_millis),
            Self::CompareState(it) => Duration::from_millis(it.wait_millis),
            Self::Keyring(_) => KEYRING_WAIT,
            _ => Duration::ZERO,
        }
    }
}

/// What a leader's state is at an index, said to a server that is asked for its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StateHash {
    /// The index of the state.
    #[n(0)]
    pub index: Index,
    /// The leader's hash of it.
    #[n(1)]
    pub hash: u32,
    /// The name of the leader.
    #[n(2)]
    pub leader: String,
    /// So long the asked server may take until it has its own.
    #[n(3)]
    pub wait_millis: u64,
}

/// Count a member that has failed as left.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ForceLeave {
    /// Its name.
    #[n(0)]
    pub node: String,
    /// Forget it altogether.
    #[n(1)]
    pub prune: bool,
}

/// Sign a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignLeaf {
    /// The service that the leaf is for.
    #[n(0)]
    pub service: ServiceName,
    /// The certificate signing request, PEM.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
}

/// Make a join token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CreateJoinToken {
    /// The services that whoever uses it may be.
    #[n(0)]
    pub services: Vec<String>,
    /// Seconds that it is valid.
    #[n(1)]
    pub valid_seconds: u64,
    /// The only node that whoever uses it may be.
    #[n(2)]
    pub node: Option<NodeName>,
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServerAddress {
    /// Its raft node id, a UUID.
    #[n(0)]
    pub id: String,
    /// Its node name.
    #[n(1)]
    pub name: NodeName,
    /// `host:port` of its server port.
    #[n(2)]
    pub address: String,
}

/// What an operation reports.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    /// It was done.
    #[n(0)]
    Done,
    /// To `Members`.
    #[n(1)]
    Members(#[n(0)] Vec<Member>),
    /// To `Status`.
    #[n(2)]
    Status(#[n(0)] Status),
    /// To `SignLeaf`, `SignAgent`.
    #[n(3)]
    Leaf(#[n(0)] LeafCertificate),
    /// To `CreateJoinToken`: the secret, shown this once.
    #[n(4)]
    JoinToken(#[n(0)] Credential),
    /// To `Probe`.
    #[n(5)]
    Probe(#[n(0)] Probe),
    /// To `ReadIndex`: the raft log index to wait for.
    #[n(6)]
    ReadIndex(#[n(0)] u64),
    /// To `Keepalive`: the servers there are, so that a client knows them all.
    #[n(7)]
    Servers(#[n(0)] Vec<ServerAddress>, #[n(1)] Option<u32>),
    /// To `Authorize`: in the same order, the refusal of what the asker may not.
    #[n(8)]
    Authorized(#[n(0)] Vec<Option<Refusal>>),
    /// To `Login`.
    #[n(9)]
    Granted(#[n(0)] Box<LoginGrant>),
    /// To `RenewSession`: none when there is no such session.
    #[n(20)]
    Session(#[n(0)] Option<Box<Session>>),
    /// To `SnapshotOpen`.
    #[n(70)]
    SnapshotOpened(#[n(0)] SnapshotOpened),
    /// To `SnapshotRead`.
    #[n(71)]
    SnapshotPiece(#[n(0)] SnapshotPiece),
    /// To `RestoreFinish`: the index of the restored state; none while it is being worked on.
    #[n(72)]
    Restored(#[n(0)] Option<Index>),
    /// To `Usage`.
    #[n(73)]
    Usage(#[n(0)] Usage),
    /// To `Standing`.
    #[n(50)]
    Standing(#[n(0)] Standing),
    /// To `AutopilotState`.
    #[n(51)]
    Autopilot(#[n(0)] Box<AutopilotState>),
    /// To `RaftPeers`, `RaftPeersHere`.
    #[n(52)]
    RaftPeers(#[n(0)] RaftPeers),
    /// To `FollowEvents`.
    #[n(40)]
    Events(#[n(0)] EventBatch),
    /// To `CompareState`: the hash; none when the server was at that index and has not kept it, or was not in time.
    #[n(90)]
    StateHash(#[n(0)] Option<u32>),
    /// To `GossipKeys`: in base64, the primary first; none where gossip is not encrypted.
    #[n(110)]
    GossipKeys(#[n(0)] Vec<Credential>),
    /// To `Keyring`: one answer of each pool.
    #[n(111)]
    Keyring(#[n(0)] Vec<KeyringAnswer>),
}

/// Who leads, and who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// `host:port` of the leader, if one is known.
    #[n(0)]
    pub leader: Option<String>,
    /// `host:port` of every voter.
    #[n(1)]
    pub peers: Vec<String>,
    /// The state's index at the server that answered.
    #[n(2)]
    pub index: Index,
    /// That server is the leader.
    #[n(3)]
    pub is_leader: bool,
    /// Every server in raft.
    #[n(4)]
    #[cbor(default)]
    pub servers: Vec<RaftServer>,
    /// How far the log of that server is.
    #[n(130)]
    pub log: Option<LogFigures>,
}

/// How far a server's log is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogFigures {
    /// What the server is, in Consul's word.
    #[n(0)]
    pub state: String,
    /// The term.
    #[n(1)]
    pub term: u64,
    /// The index of the last entry.
    #[n(2)]
    pub last: u64,
    /// Up to which index entries are committed.
    #[n(3)]
    pub committed: u64,
    /// Up to which index they are applied.
    #[n(4)]
    pub applied: u64,
    /// The index that the latest snapshot ends with.
    #[n(5)]
    pub snapshot: u64,
    /// The term of the last entry that is applied.
    #[n(6)]
    pub applied_term: u64,
    /// Milliseconds since a leader was heard of; 0 at the leader itself.
    #[n(7)]
    pub contact_millis: u64,
    /// Entries that are committed and not applied yet.
    #[n(8)]
    pub pending: u64,
}

/// A server in raft.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RaftServer {
    /// Who it is, and where.
    #[n(0)]
    pub server: ServerAddress,
    /// It votes; else it learns.
    #[n(1)]
    pub voter: bool,
}

/// What a server says of itself before there is a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Probe {
    /// Itself.
    #[n(0)]
    pub server: ServerAddress,
    /// The cluster it is part of, if any.
    #[n(1)]
    pub cluster_id: Option<String>,
    /// How many servers it expects.
    #[n(2)]
    pub bootstrap_expect: u32,
    /// The servers it has found, itself among them.
    #[n(3)]
    pub found: Vec<ServerAddress>,
    /// It votes or learns in a cluster already, or has a log.
    #[n(4)]
    pub initialized: bool,
}

/// The first thing on `login/1`, from the server: what the client needs to word its signing request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoginHello {
    /// `<cluster id>.consul`; empty while there is no cluster yet.
    #[n(0)]
    pub trust_domain: String,
    /// The datacenter.
    #[n(1)]
    pub datacenter: String,
}

/// What the client sends on `login/1` after the [`LoginHello`]: one of these, one reply, end.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Login {
    /// The proof: a Kubernetes ServiceAccount token, or a join token's secret.
    #[n(0)]
    pub proof: String,
    /// The node name that the agent wants. In Kubernetes it must be `<pod>.<namespace>` of the proven pod.
    #[n(1)]
    pub node: NodeName,
    /// The services that the workload wants to be.
    #[n(2)]
    pub services: Vec<ServiceName>,
    /// The certificate signing request of the agent's own certificate, PEM.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
    /// The node's id, a UUID: with it a node that comes back is known to be the one that has the name.
    #[n(4)]
    pub node_id: Option<String>,
}

/// What a login gets.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoginGrant {
    /// The secret of an ACL token that may be what was asked for.
    #[n(0)]
    pub token: Credential,
    /// The agent's certificate chain, PEM.
    #[n(1)]
    pub chain_pem: String,
    /// The mesh CA's roots, PEM.
    #[n(2)]
    pub roots_pem: String,
    /// `<cluster id>.consul`.
    #[n(3)]
    pub trust_domain: String,
    /// The datacenter.
    #[n(4)]
    pub datacenter: String,
    /// The servers there are.
    #[n(5)]
    pub servers: Vec<ServerAddress>,
    /// A call that no intention speaks of is allowed.
    #[n(6)]
    #[cbor(default)]
    pub default_intention_allow: bool,
}

/// The reply on `login/1`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LoginReply {
    /// Welcome.
    #[n(0)]
    Granted(#[n(0)] LoginGrant),
    /// No, and why.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("node", &self.node).field("services", &self.services).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LoginGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginGrant").field("datacenter", &self.datacenter).finish_non_exhaustive()
    }
}
