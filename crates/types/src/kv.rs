//! Entries of the key/value store.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Index, json};

/// Bytes in the longest key: what fits in a URL that common clients and proxies pass.
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// Bytes in the largest value unless configured (`limits.kv_max_value_size`).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;

/// One key and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct KvEntry {
    /// How often a lock on this key was taken: the fencing token.
    #[n(0)]
    pub lock_index: u64,
    /// The key, any UTF-8 text.
    #[n(1)]
    pub key: String,
    /// A number for the client's own use.
    #[n(2)]
    pub flags: u64,
    /// The value.
    #[cbor(n(3), with = "minicbor::bytes")]
    #[serde(with = "json::base64_or_null")]
    pub value: Vec<u8>,
    /// The session that holds the lock.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// When the key was made.
    #[n(5)]
    pub create_index: Index,
    /// When it last changed.
    #[n(6)]
    pub modify_index: Index,
}
