//! Intentions: which service may call which.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Index, Timestamp, json};

/// The name that stands for every service.
pub const WILDCARD: &str = "*";

/// What an intention says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The source may call the destination.
    #[n(0)]
    Allow,
    /// It may not.
    #[n(1)]
    Deny,
}

/// One source within the intentions of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SourceIntention {
    /// The calling service, or [`WILDCARD`].
    #[n(0)]
    pub name: String,
    /// What it may.
    #[n(1)]
    pub action: Action,
    /// Which of several matching intentions counts: the highest. Computed by the servers.
    #[n(2)]
    #[serde(default)]
    pub precedence: u32,
    /// Always `consul`.
    #[n(3)]
    #[serde(rename = "Type", default = "SourceIntention::consul_type")]
    pub kind: String,
    /// For people.
    #[n(4)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made. Stamped by the leader.
    #[n(5)]
    #[serde(skip)]
    pub created_at: Timestamp,
    /// When it last changed. Stamped by the leader.
    #[n(6)]
    #[serde(skip)]
    pub updated_at: Timestamp,
}

impl SourceIntention {
    /// The only type of source there is.
    pub fn consul_type() -> String {
        "consul".into()
    }
}

/// The config entry of kind `service-intentions`: all intentions of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceIntentions {
    /// Always `service-intentions`.
    #[n(0)]
    #[serde(default = "ServiceIntentions::kind_text")]
    pub kind: String,
    /// The called service, or [`WILDCARD`].
    #[n(1)]
    pub name: String,
    /// Who may call it, most specific first.
    #[n(2)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub sources: Vec<SourceIntention>,
    /// Whatever its owner says of it.
    #[n(3)]
    #[serde(default, deserialize_with = "json::null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// When it was made.
    #[n(4)]
    #[serde(default)]
    pub create_index: Index,
    /// When it last changed.
    #[n(5)]
    #[serde(default)]
    pub modify_index: Index,
}

impl ServiceIntentions {
    /// The kind of these config entries.
    pub const KIND: &'static str = "service-intentions";

    fn kind_text() -> String {
        Self::KIND.into()
    }
}

/// One intention as `connect/intentions` shows it: a source joined with its destination.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Intention {
    /// The called service.
    #[n(0)]
    pub destination: String,
    /// The caller and what it may.
    #[n(1)]
    pub source: SourceIntention,
    /// When the destination's entry was made.
    #[n(2)]
    pub create_index: Index,
    /// When the destination's entry last changed.
    #[n(3)]
    pub modify_index: Index,
    /// Meta of the destination's entry.
    #[n(4)]
    pub meta: BTreeMap<String, String>,
}

impl Serialize for Intention {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Json<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            description: &'a str,
            #[serde(rename = "SourceNS")]
            source_ns: &'a str,
            source_name: &'a str,
            #[serde(rename = "DestinationNS")]
            destination_ns: &'a str,
            destination_name: &'a str,
            source_type: &'a str,
            action: Action,
            precedence: u32,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            meta: &'a BTreeMap<String, String>,
            created_at: String,
            updated_at: String,
            create_index: Index,
            modify_index: Index,
        }
        let Self { destination, source, create_index, modify_index, meta } = self;
        Json {
            description: &source.description,
            source_ns: "default",
            source_name: &source.name,
            destination_ns: "default",
            destination_name: destination,
            source_type: &source.kind,
            action: source.action,
            precedence: source.precedence,
            meta,
            created_at: source.created_at.to_rfc3339(),
            updated_at: source.updated_at.to_rfc3339(),
            create_index: *create_index,
            modify_index: *modify_index,
        }
        .serialize(serializer)
    }
}

/// How specific an intention is; Consul's numbers (without namespaces).
pub fn precedence(source: &str, destination: &str) -> u32 {
    match (source == WILDCARD, destination == WILDCARD) {
        (false, false) => 9,
        (true, false) => 8,
        (false, true) => 6,
        (true, true) => 5,
    }
}

/// What the most specific matching intention says of a call; `None` when none matches.
pub fn decide<'a>(
    intentions: impl IntoIterator<Item = &'a Intention>,
    source: &str,
    destination: &str,
) -> Option<&'a Intention> {
    intentions
        .into_iter()
        .filter(|it| it.destination == WILDCARD || it.destination == destination)
        .filter(|it| it.source.name == WILDCARD || it.source.name == source)
        .max_by_key(|it| it.source.precedence)
}
