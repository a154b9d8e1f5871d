//! What a token may: the nouns of access rules.

use std::fmt;

use minicbor::{Decode, Encode};

/// What a rule is about; Consul's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Resource {
    /// The ACL tables themselves; also snapshots.
    #[n(0)]
    Acl,
    /// An agent's own endpoints, by node name.
    #[n(1)]
    Agent,
    /// A node of the catalog.
    #[n(2)]
    Node,
    /// A service.
    #[n(3)]
    Service,
    /// The intentions of a destination.
    #[n(4)]
    Intention,
    /// A key.
    #[n(5)]
    Key,
    /// Everything under a prefix of keys.
    #[n(6)]
    KeyPrefix,
    /// The cluster as such; has no name.
    #[n(7)]
    Operator,
    /// The sessions of a node.
    #[n(20)]
    Session,
    /// User events by their name.
    #[n(40)]
    Event,
    /// Prepared queries by their name.
    #[n(41)]
    Query,
    /// The mesh as such; has no name. Who may do it to the cluster may do it to the mesh.
    #[n(80)]
    Mesh,
}

impl Resource {
    /// The word in rules and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Agent => "agent",
            Self::Node => "node",
            Self::Service => "service",
            Self::Intention => "intention",
            Self::Key | Self::KeyPrefix => "key",
            Self::Operator => "operator",
            Self::Session => "session",
            Self::Event => "event",
            Self::Query => "query",
            Self::Mesh => "mesh",
        }
    }
}

/// How a resource is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Access {
    /// Look.
    #[n(0)]
    Read,
    /// Change; includes looking.
    #[n(1)]
    Write,
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Requirement {
    /// Of what.
    #[n(0)]
    pub resource: Resource,
    /// Its name; empty for a resource without one.
    #[n(1)]
    pub name: String,
    /// How.
    #[n(2)]
    pub access: Access,
}

impl Requirement {
    /// Reading `name`.
    pub fn read(resource: Resource, name: impl Into<String>) -> Self {
        Self { resource, name: name.into(), access: Access::Read }
    }

    /// Writing `name`.
    pub fn write(resource: Resource, name: impl Into<String>) -> Self {
        Self { resource, name: name.into(), access: Access::Write }
    }
}

impl fmt::Display for Requirement {
    /// As in Consul's denials: `'service:write' on "web"`, `'operator:read'`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "'{}:{access}'", self.resource.as_str())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " on {:?}", self.name) }
    }
}
