//! ACL tokens: who asks, and what that one may.

use minicbor::{Decode, Encode};

use crate::{Index, NodeName, Timestamp};

/// The id that requests without a token carry in messages.
pub const ANONYMOUS_ACCESSOR: &str = "00000000-0000-0000-0000-000000000002";

/// A token as the state keeps it: its secret can be recognised, not read.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Token {
    /// The public name of the token, a UUID.
    #[n(0)]
    pub accessor_id: String,
    /// HMAC of the secret under a key derived from the seal key: how a token is found.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub lookup: [u8; 32],
    /// The secret, sealed.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed_secret: Vec<u8>,
    /// For people.
    #[n(3)]
    pub description: String,
    /// It may do everything.
    #[n(4)]
    pub management: bool,
    /// The services it may be: write each and its sidecar proxy, read all services and nodes.
    #[n(5)]
    pub service_identities: Vec<String>,
    /// The nodes it may be: write each, read all services.
    #[n(6)]
    pub node_identities: Vec<String>,
    /// When it was made.
    #[n(7)]
    pub create_time: Timestamp,
    /// When it ends; never, if none.
    #[n(8)]
    pub expiration_time: Option<Timestamp>,
    /// When it was made.
    #[n(9)]
    pub create_index: Index,
    /// When it last changed.
    #[n(10)]
    pub modify_index: Index,
    /// The node whose login made it. The next login of that node replaces it, and it goes with the node.
    #[n(11)]
    pub login_node: Option<String>,
    /// The id of that node.
    #[n(60)]
    pub login_node_id: Option<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("accessor_id", &self.accessor_id).finish_non_exhaustive()
    }
}

/// A single-use proof with which a client agent or a sidecar outside Kubernetes gets its first certificate.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JoinToken {
    /// HMAC of the secret.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub lookup: [u8; 32],
    /// The services that whoever uses it may be; none for a plain client agent.
    #[n(1)]
    pub services: Vec<String>,
    /// It stays valid after use. Only for members on one loopback, which share one.
    #[n(2)]
    pub reusable: bool,
    /// When it ends.
    #[n(3)]
    pub expiration_time: Timestamp,
    /// The only node that whoever uses it may be; without it any name that is free.
    #[n(4)]
    pub node: Option<NodeName>,
}
