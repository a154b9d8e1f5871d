//! Nodes of the catalog.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Index, Locality, NodeName, json};

/// A member or an external host that services run on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// A UUID; empty for nodes that gave none.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    #[n(1)]
    #[serde(rename = "Node")]
    pub name: NodeName,
    /// An IP address or a name.
    #[n(2)]
    pub address: String,
    /// The datacenter it is in.
    #[n(3)]
    pub datacenter: String,
    /// Addresses by purpose: `lan`, `wan`, `lan_ipv4` and so on.
    #[n(4)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub tagged_addresses: BTreeMap<String, String>,
    /// Whatever its owner says of it.
    #[n(5)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub meta: BTreeMap<String, String>,
    /// When it was first registered.
    #[n(6)]
    #[serde(default)]
    pub create_index: Index,
    /// When it last changed.
    #[n(7)]
    #[serde(default)]
    pub modify_index: Index,
    /// Where it runs.
    #[n(80)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}
