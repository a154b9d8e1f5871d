//! The keys of gossip: what is asked of all members, and what they answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::Credential;

/// How long the members of both pools may take to answer.
pub const KEYRING_WAIT: Duration = Duration::from_secs(30);

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KeyringOperation {
    /// Tell which there are.
    #[n(0)]
    List,
    /// Add it to decrypt with.
    #[n(1)]
    Install,
    /// Encrypt with it.
    #[n(2)]
    Use,
    /// Take it out.
    #[n(3)]
    Remove,
}

/// List or change the keys at every member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyringRequest {
    /// What to do.
    #[n(0)]
    pub operation: KeyringOperation,
    /// The key in base64; empty for a list. A secret as a token is, and hidden as one.
    #[n(1)]
    pub key: Credential,
    /// Through how many other members each answer is sent too.
    #[n(2)]
    pub relay_factor: u8,
    /// Only the keys of the server that is asked.
    #[n(3)]
    pub local_only: bool,
}

/// What the members of one pool said. The JSON is Consul's.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct KeyringAnswer {
    /// It is the pool of all servers.
    #[n(0)]
    #[serde(rename = "WAN")]
    pub wan: bool,
    /// The datacenter of the server that asked them.
    #[n(1)]
    pub datacenter: String,
    /// Always empty: network segments are an Enterprise feature.
    #[n(2)]
    pub segment: String,
    /// What members that could not do it said, by name.
    #[n(3)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub messages: BTreeMap<String, String>,
    /// The keys, and how many members hold each.
    #[n(4)]
    pub keys: BTreeMap<String, u32>,
    /// The keys that members encrypt with, and how many do with each.
    #[n(5)]
    pub primary_keys: BTreeMap<String, u32>,
    /// How many members there are.
    #[n(6)]
    pub num_nodes: u32,
    /// Why it was not done; empty when it was.
    #[n(7)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl fmt::Debug for KeyringAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyringAnswer")
            .field("wan", &self.wan)
            .field("datacenter", &self.datacenter)
            .field("keys", &self.keys.len())
            .field("num_nodes", &self.num_nodes)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
