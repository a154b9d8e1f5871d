//! Everything that can change the replicated state.

use std::collections::BTreeMap;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use serde::Deserialize;

use crate::archive::{RestoreCommit, RestorePart, TransferId};
use crate::authority::{AuthorityRecord, AuthoritySettings};
use crate::autopilot::AutopilotSet;
use crate::config_entry::{ConfigEntryDelete, ConfigEntrySet};
use crate::prepared_query::{PreparedQueryDelete, PreparedQuerySet};
use crate::session::SessionDestroy;
use crate::token::JoinToken;
use crate::transaction::TransactionOutcome;
use crate::{
    CheckId, HealthCheck, Index, Locality, NodeCoordinate, NodeName, NodeService, Refusal, Requirement, ServiceId,
    ServiceIntentions, Session, SourceIntention, Timestamp, Token, Transaction, VirtualAddressesSet, json,
};

/// A request's id: made by the first agent that takes it and kept over every retry and relay.
pub type RequestId = [u8; 16];

/// What one log entry carries for one command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Envelope {
    /// Makes a repeat recognisable.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub request_id: RequestId,
    /// Stamped by the leader before the log.
    #[n(1)]
    pub leader_time: Timestamp,
    /// What to do.
    #[n(2)]
    pub command: Command,
}

/// A change of the replicated state. Stored on disk: append variants and fields, never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Adds or changes a node, an instance and checks.
    #[n(0)]
    Register(#[n(0)] Box<Registration>),
    /// Removes a node, an instance or a check.
    #[n(1)]
    Deregister(#[n(0)] Deregistration),
    /// Changes the key/value store.
    #[n(2)]
    Kv(#[n(0)] KvCommand),
    /// Sets all intentions of one destination.
    #[n(3)]
    IntentionsSet(#[n(0)] IntentionsSet),
    /// Removes all intentions of one destination.
    #[n(4)]
    IntentionsDelete(#[n(0)] IntentionsDelete),
    /// Sets one intention.
    #[n(5)]
    IntentionUpsert(#[n(0)] IntentionUpsert),
    /// Removes one intention.
    #[n(6)]
    IntentionDelete(#[n(0)] IntentionDelete),
    /// Adds or changes a token.
    #[n(7)]
    TokenSet(#[n(0)] Token),
    /// Removes the token with this accessor id.
    #[n(8)]
    TokenDelete(#[n(0)] String),
    /// Adds a join token.
    #[n(9)]
    JoinTokenSet(#[n(0)] JoinToken),
    /// Uses a join token up; refused when it is not there or over.
    #[n(10)]
    JoinTokenUse(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// Names the cluster. Only the first one counts.
    #[n(11)]
    ClusterInitialize(#[n(0)] ClusterIdentity),
    /// Sets the mesh CA. Only the first one counts.
    #[n(12)]
    AuthorityInitialize(#[n(0)] AuthorityRecord),
    /// Gives a service to a Kubernetes namespace; refused when another namespace has it.
    #[n(13)]
    ServiceClaim(#[n(0)] ServiceClaim),
    /// Remembers a removed server's id, which must never come back.
    #[n(14)]
    ServerRemoved(#[n(0)] String),
    /// A registration with what its asker may. What the authoriser makes of [`Command::Register`] for whoever may not do
    /// everything; nobody sends it.
    #[n(15)]
    RegisterWithin(#[n(0)] Box<BoundedRegistration>),
    /// Lets a node in: uses its join token up and sets the token of its login, both or neither; refused when the name is
    /// another's.
    #[n(60)]
    NodeLogin(#[n(0)] Box<NodeLogin>),
    /// The token of a node's login lives on; refused when there is none.
    #[n(61)]
    LoginRenew(#[n(0)] LoginRenewal),
    /// Sets how the mesh CA signs.
    #[n(62)]
    AuthorityConfigure(#[n(0)] AuthoritySettings),
    /// Makes a session.
    #[n(20)]
    SessionCreate(#[n(0)] Session),
    /// Ends a session.
    #[n(21)]
    SessionDestroy(#[n(0)] SessionDestroy),
    /// Ends the sessions with these ids, which nobody renewed in time.
    #[n(22)]
    SessionsExpire(#[n(0)] Vec<String>),
    /// Several operations, all or none.
    #[n(23)]
    Transaction(#[n(0)] Transaction),
    /// Lays a part of a snapshot aside that is being restored.
    #[n(70)]
    RestorePart(#[n(0)] RestorePart),
    /// Replaces the state by what was laid aside.
    #[n(71)]
    RestoreCommit(#[n(0)] RestoreCommit),
    /// Drops what was laid aside.
    #[n(72)]
    RestoreAbort(#[cbor(n(0), with = "minicbor::bytes")] TransferId),
    /// Sets how the leader looks after the servers of raft.
    #[n(50)]
    AutopilotSet(#[n(0)] AutopilotSet),
    /// Where nodes are in the space of round-trip times; of nodes that are not there nothing is kept.
    #[n(30)]
    CoordinatesSet(#[n(0)] Vec<NodeCoordinate>),
    /// Stores a prepared query.
    #[n(40)]
    PreparedQuerySet(#[n(0)] Box<PreparedQuerySet>),
    /// Removes a prepared query.
    #[n(41)]
    PreparedQueryDelete(#[n(0)] PreparedQueryDelete),
    /// Sets a config entry.
    #[n(80)]
    ConfigEntrySet(#[n(0)] Box<ConfigEntrySet>),
    /// Removes a config entry.
    #[n(81)]
    ConfigEntryDelete(#[n(0)] ConfigEntryDelete),
    /// Gives a service addresses of its own.
    #[n(82)]
    VirtualAddressesSet(#[n(0)] VirtualAddressesSet),
    /// Changes nothing but the index: every server looks at its state at this place of the log, so that they can be
    /// compared.
    #[n(90)]
    StateCompare,
    /// Makes a session, within bounds that the leader's configuration says. What the leader makes of
    /// [`Command::SessionCreate`] where those are not the usual ones.
    #[n(100)]
    SessionCreateWithin(#[n(0)] BoundedSession),
}

impl std::fmt::Debug for AuthorityRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityRecord").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("services", &self.services).finish_non_exhaustive()
    }
}

/// A session with the bounds of its TTL.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BoundedSession {
    /// The session.
    #[n(0)]
    pub session: Session,
    /// Nanoseconds of the shortest TTL.
    #[n(1)]
    pub ttl_min_nanos: u64,
}

/// What makes a cluster this one and no other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ClusterIdentity {
    /// A random UUID.
    #[n(0)]
    pub cluster_id: String,
    /// Id of the key that its secrets are sealed with.
    #[n(1)]
    pub seal_key_id: String,
}

/// A service that belongs to a Kubernetes namespace.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServiceClaim {
    /// The service.
    #[n(0)]
    pub service: String,
    /// The namespace.
    #[n(1)]
    pub namespace: String,
}

/// The body of `catalog/register`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Registration {
    /// The node's UUID, if it has one.
    #[n(0)]
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The node.
    #[n(1)]
    pub node: NodeName,
    /// Its address; may be empty only with `skip_node_update`.
    #[n(2)]
    #[serde(default)]
    pub address: String,
    /// The datacenter it is for; the servers' own when empty.
    #[n(3)]
    #[serde(default)]
    pub datacenter: String,
    /// Addresses by purpose.
    #[n(4)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub tagged_addresses: BTreeMap<String, String>,
    /// Whatever its owner says of the node.
    #[n(5)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub node_meta: BTreeMap<String, String>,
    /// An instance to add or change.
    #[n(6)]
    #[serde(default)]
    pub service: Option<NodeService>,
    /// A check to add or change.
    #[n(7)]
    #[serde(default)]
    pub check: Option<HealthCheck>,
    /// More checks.
    #[n(8)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub checks: Vec<HealthCheck>,
    /// Leave a node that is there as it is.
    #[n(9)]
    #[serde(default)]
    pub skip_node_update: bool,
    /// Where the node runs.
    #[n(80)]
    #[serde(default)]
    pub locality: Option<Locality>,
}

/// A node that is let in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeLogin {
    /// Its token; `login_node` and `login_node_id` say who it is.
    #[n(0)]
    pub token: Token,
    /// HMAC of the join token that it showed, if it did.
    #[n(1)]
    pub join_token: Option<ByteArray<32>>,
    /// What its proof says of its name.
    #[n(2)]
    pub right: NameRight,
}

/// What a proof says of the node name that it is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NameRight {
    /// Nothing: the name must be free, or this node's own.
    #[n(0)]
    FirstCome,
    /// Whoever made the proof gave it this name: it may also be that of a row which no agent stands behind.
    #[n(1)]
    Named,
    /// Nobody else can have the name now: it is a pod's, and Kubernetes says that this is the pod.
    #[n(2)]
    Proven,
}

/// The token of a node's login lives on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoginRenewal {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// When its token ends now; never earlier than before.
    #[n(1)]
    pub expiration_time: Timestamp,
}

/// A registration with what its asker may.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BoundedRegistration {
    /// What to register.
    #[n(0)]
    pub registration: Registration,
    /// What the authoriser granted. If the rows that the registration meets have changed so that it requires more by now,
    /// nothing is registered and the request is refused.
    #[n(1)]
    pub granted: Vec<Requirement>,
}

/// The body of `catalog/deregister`: an instance, a check, or with neither the whole node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deregistration {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// The instance to remove.
    #[n(1)]
    pub service_id: Option<ServiceId>,
    /// The check to remove.
    #[n(2)]
    pub check_id: Option<CheckId>,
    /// The service that the authoriser saw behind the id; if it is another by now, nothing is removed and the request is refused.
    #[n(3)]
    pub authorized_service: Option<String>,
}

/// A change of the key/value store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KvCommand {
    /// What to do.
    #[n(0)]
    pub verb: KvVerb,
    /// The key, or the prefix of [`KvVerb::DeleteTree`].
    #[n(1)]
    pub key: String,
    /// The new value.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// The new flags.
    #[n(3)]
    pub flags: u64,
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KvVerb {
    /// Store.
    #[n(0)]
    Set,
    /// Store if the entry's modify index is this one; 0 means that there must be none.
    #[n(1)]
    Cas(#[n(0)] Index),
    /// Remove.
    #[n(2)]
    Delete,
    /// Remove if the entry's modify index is this one.
    #[n(3)]
    DeleteCas(#[n(0)] Index),
    /// Remove everything that starts with the key.
    #[n(4)]
    DeleteTree,
    /// Take the lock for this session and store, if nobody else holds it and no lock-delay runs.
    #[n(20)]
    Lock(#[n(0)] String),
    /// Give the lock of this session back and store, if it holds it.
    #[n(21)]
    Unlock(#[n(0)] String),
}

/// Sets all intentions of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionsSet {
    /// The new entry.
    #[n(0)]
    pub entry: ServiceIntentions,
    /// Only if the stored entry has this modify index; 0 means that there must be none.
    #[n(1)]
    pub cas: Option<Index>,
}

/// Removes all intentions of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionsDelete {
    /// The destination.
    #[n(0)]
    pub name: String,
    /// Only if the stored entry has this modify index.
    #[n(1)]
    pub cas: Option<Index>,
}

/// Sets one intention.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionUpsert {
    /// The called service.
    #[n(0)]
    pub destination: String,
    /// The caller and what it may.
    #[n(1)]
    pub source: SourceIntention,
}

/// Removes one intention.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionDelete {
    /// The called service.
    #[n(0)]
    pub destination: String,
    /// The caller.
    #[n(1)]
    pub source: String,
}

/// What became of a command. Kept for recent request ids, so that a repeat gets the first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Outcome {
    /// The index it was applied at.
    #[n(0)]
    pub index: Index,
    /// What it did.
    #[n(1)]
    pub effect: Effect,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// It took effect.
    #[n(0)]
    Applied,
    /// Its condition did not hold, so nothing changed.
    #[n(1)]
    NotApplied,
    /// It cannot be done, so nothing changed.
    #[n(2)]
    Refused(#[n(0)] Refusal),
    /// It was a transaction; with errors in it, nothing changed.
    #[n(20)]
    Transaction(#[n(0)] Box<TransactionOutcome>),
    /// Addresses were given to a service; the names are those of the services that had them before.
    #[n(80)]
    Unassigned(#[n(0)] Vec<String>),
}
