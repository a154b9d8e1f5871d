//! Everything that can change the replicated state.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::Deserialize;

use crate::authority::AuthorityRecord;
use crate::prepared_query::{PreparedQueryDelete, PreparedQuerySet};
use crate::token::JoinToken;
use crate::{
    CheckId, HealthCheck, Index, NodeName, NodeService, Refusal, Requirement, ServiceId, ServiceIntentions,
    SourceIntention, Timestamp, Token, json,
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
    /// Stores a prepared query.
    #[n(40)]
    PreparedQuerySet(#[n(0)] Box<PreparedQuerySet>),
    /// Removes a prepared query.
    #[n(41)]
    PreparedQueryDelete(#[n(0)] PreparedQueryDelete),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
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
}
