//! Prepared queries: a stored question for the healthy instances of a service, asked by its name.
//!
//! Consul's JSON outside. The token that a query runs with is never stored in the clear: the leader seals it before the
//! log, and keeps its HMAC to look it up by.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize, Serializer};

use crate::{CheckServiceNode, Index, json};

/// What is shown of a token to who may not see it.
pub const HIDDEN_TOKEN: &str = "<hidden>";
/// The agent that is asked, as the node that others are to be near to.
pub const NEAR_AGENT: &str = "_agent";
/// The client that asks, by its address.
pub const NEAR_ADDRESS: &str = "_ip";
/// The only type of template there is.
pub const NAME_PREFIX_MATCH: &str = "name_prefix_match";

/// A stored question.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct PreparedQuery {
    /// A UUID, made before the log.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// The name it is asked by; of a template, what such names begin with.
    #[n(1)]
    pub name: String,
    /// The session whose end is its end; empty for none.
    #[n(2)]
    pub session: String,
    /// The secret of the token it runs with; in the state always empty, see `sealed_token`.
    #[n(3)]
    pub token: String,
    /// Makes it answer to every name that begins with its own.
    #[n(4)]
    #[serde(deserialize_with = "json::null_is_default")]
    pub template: QueryTemplate,
    /// What it asks for.
    #[n(5)]
    #[serde(deserialize_with = "json::null_is_default")]
    pub service: PreparedService,
    /// How DNS answers it.
    #[n(6)]
    #[serde(rename = "DNS", deserialize_with = "json::null_is_default")]
    pub dns: QueryDns,
    /// When it was made.
    #[n(7)]
    pub create_index: Index,
    /// When it last changed.
    #[n(8)]
    pub modify_index: Index,
    /// The HMAC of the token it runs with.
    #[n(9)]
    #[serde(skip)]
    pub token_lookup: Option<[u8; 32]>,
    /// The token it runs with, sealed.
    #[cbor(n(10), with = "minicbor::bytes")]
    #[serde(skip)]
    pub sealed_token: Vec<u8>,
}

impl PreparedQuery {
    /// Whether it answers to more than its own name.
    pub fn is_template(&self) -> bool {
        !self.template.kind.is_empty()
    }

    /// The name that rules of tokens speak of; none for a query that only its id finds.
    pub fn access_name(&self) -> Option<&str> {
        (!self.name.is_empty() || self.is_template()).then_some(self.name.as_str())
    }

    /// Whether it runs with a token of its own.
    pub fn has_token(&self) -> bool {
        self.token_lookup.is_some()
    }
}

impl std::fmt::Debug for PreparedQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedQuery")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// How a query answers to many names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryTemplate {
    /// [`NAME_PREFIX_MATCH`]; empty for a query that is no template.
    #[n(0)]
    #[serde(rename = "Type")]
    pub kind: String,
    /// Takes the name apart for `${match(N)}`.
    #[n(1)]
    pub regexp: String,
    /// Leaves out tags that are empty once rendered.
    #[n(2)]
    pub remove_empty_tags: bool,
}

/// What a query asks for. Every text of it may hold `${...}` in a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct PreparedService {
    /// The service.
    #[n(0)]
    pub service: String,
    /// Where else to ask when there is no instance here.
    #[n(1)]
    #[serde(deserialize_with = "json::null_is_default")]
    pub failover: QueryFailover,
    /// Leave instances with a warning out too.
    #[n(2)]
    pub only_passing: bool,
    /// Checks that do not count.
    #[n(3)]
    #[serde(rename = "IgnoreCheckIDs", deserialize_with = "json::null_is_default", serialize_with = "list_or_null")]
    pub ignore_check_ids: Vec<String>,
    /// The node that the nearest instances are wanted of; [`NEAR_AGENT`] for the one that is asked, [`NEAR_ADDRESS`] for the
    /// one with the client's address.
    #[n(4)]
    pub near: String,
    /// Tags that an instance must have, or with `!` before it must not have.
    #[n(5)]
    #[serde(deserialize_with = "json::null_is_default", serialize_with = "list_or_null")]
    pub tags: Vec<String>,
    /// Meta that the node must have.
    #[n(6)]
    #[serde(deserialize_with = "json::null_is_default", serialize_with = "map_or_null")]
    pub node_meta: BTreeMap<String, String>,
    /// Meta that the instance must have.
    #[n(7)]
    #[serde(deserialize_with = "json::null_is_default", serialize_with = "map_or_null")]
    pub service_meta: BTreeMap<String, String>,
    /// The instances that serve it over mutual TLS, instead of the plain ones.
    #[n(8)]
    pub connect: bool,
    /// The peer to ask; always empty here.
    #[n(9)]
    pub peer: String,
}

/// Where else to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryFailover {
    /// So many of the nearest datacenters first.
    #[n(0)]
    pub nearest_n: i64,
    /// Then these.
    #[n(1)]
    #[serde(deserialize_with = "json::null_is_default", serialize_with = "list_or_null")]
    pub datacenters: Vec<String>,
    /// Or these, in their order.
    #[n(2)]
    #[serde(deserialize_with = "json::null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<QueryFailoverTarget>,
}

/// One place to fail over to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryFailoverTarget {
    /// A peer.
    #[n(0)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// A datacenter.
    #[n(1)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub datacenter: String,
}

/// How DNS answers a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryDns {
    /// A Go duration; empty for the one of the service.
    #[n(0)]
    #[serde(rename = "TTL")]
    pub ttl: String,
}

/// Stores a query.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PreparedQuerySet {
    /// The query with its id.
    #[n(0)]
    pub query: PreparedQuery,
    /// It must not be there yet; else it must.
    #[n(1)]
    pub create: bool,
    /// The name that the authoriser saw of the stored one; if it is another by now, nothing changes.
    #[n(2)]
    pub authorized: Option<String>,
}

/// Removes a query.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PreparedQueryDelete {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// As in [`PreparedQuerySet`].
    #[n(1)]
    pub authorized: Option<String>,
}

/// Asks what a query finds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PreparedQueryExecute {
    /// The id or the name.
    #[n(0)]
    pub name: String,
    /// The instances that serve it over mutual TLS, whatever the query says.
    #[n(1)]
    pub connect: bool,
    /// The node that the nearest instances are wanted of, [`NEAR_AGENT`] or [`NEAR_ADDRESS`]; none for what the query says.
    #[n(2)]
    pub near: Option<String>,
    /// The node of the agent that is asked.
    #[n(3)]
    pub agent: Option<String>,
    /// The IP address of the client that asks.
    #[n(4)]
    pub client: Option<String>,
}

impl PreparedQueryExecute {
    /// Asks the query of this name or id, for nobody in particular.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), connect: false, near: None, agent: None, client: None }
    }
}

/// What a query found in this datacenter, in no order that means anything.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PreparedQueryFound {
    /// What it asked for, rendered.
    #[n(0)]
    pub service: PreparedService,
    /// How DNS answers it.
    #[n(1)]
    pub dns: QueryDns,
    /// The instances.
    #[n(2)]
    pub rows: Vec<CheckServiceNode>,
    /// The node that the nearest are wanted of.
    #[n(3)]
    pub origin: Option<String>,
    /// Of each instance, how far its node is from that one, in nanoseconds; none when that one has no coordinate.
    #[n(4)]
    pub distances: Option<Vec<u64>>,
}

/// Go writes a slice that nobody filled as null.
fn list_or_null<S: Serializer, T: Serialize>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() { serializer.serialize_none() } else { list.serialize(serializer) }
}

fn map_or_null<S: Serializer>(map: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    if map.is_empty() { serializer.serialize_none() } else { map.serialize(serializer) }
}
