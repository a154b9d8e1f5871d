//! Snapshots that people take and restore: how one is carried through the waist in pieces, and through the log in parts.

use minicbor::{Decode, Encode};

use crate::Index;

/// The id of one saving or one restoring: made by the agent that was asked, and kept over every retry.
pub type TransferId = [u8; 16];

/// Bytes of the largest piece that is carried at once.
pub const PIECE_BYTES_MAX: usize = 512 * 1024;

/// Begin to save a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotOpen {
    /// Of which saving.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: TransferId,
    /// Any server may take it of what it has; else a quorum confirms first that this is everything.
    #[n(1)]
    pub stale: bool,
}

/// A snapshot was taken and can be read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotOpened {
    /// The index of the state in it.
    #[n(0)]
    pub index: Index,
    /// Milliseconds since the server heard of its leader.
    #[n(1)]
    pub last_contact_millis: u64,
    /// The server knows a leader.
    #[n(2)]
    pub known_leader: bool,
}

/// Ask for one piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotRead {
    /// Of which saving.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: TransferId,
    /// Which piece, from 0; the last one may be asked for again.
    #[n(1)]
    pub piece: u64,
}

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotPiece {
    /// Its bytes; none when it is not made yet: ask again.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// There are no more.
    #[n(1)]
    pub end: bool,
}

/// One piece of a snapshot to restore.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RestoreWrite {
    /// Of which restoring.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: TransferId,
    /// Which piece, from 0; the last one may be sent again.
    #[n(1)]
    pub piece: u64,
    /// Its bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for RestoreWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreWrite").field("piece", &self.piece).field("bytes", &self.bytes.len()).finish()
    }
}

/// One part of a state that will replace the present one, carried by the log. It is laid aside until the commit.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RestorePart {
    /// Of which restoring.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: TransferId,
    /// Its place, from 0; 0 drops whatever another restoring has laid aside.
    #[n(1)]
    pub sequence: u64,
    /// Rows as a snapshot holds them, or the beginning of that.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// The next part goes on in the middle of these bytes.
    #[n(3)]
    pub continues: bool,
}

impl std::fmt::Debug for RestorePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestorePart").field("sequence", &self.sequence).field("bytes", &self.bytes.len()).finish()
    }
}

/// Replaces the state by what was laid aside, if that is all of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RestoreCommit {
    /// Of which restoring.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: TransferId,
    /// How many parts there are.
    #[n(1)]
    pub parts: u64,
}

/// How many of what the state holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Usage {
    /// Nodes.
    #[n(0)]
    pub nodes: u64,
    /// Names of services.
    #[n(1)]
    pub services: u64,
    /// Instances of services.
    #[n(2)]
    pub service_instances: u64,
    /// Instances by what they are for the mesh: `connect-native`, `connect-proxy`, `mesh-gateway`, ...
    #[n(3)]
    pub connect_instances: std::collections::BTreeMap<String, u64>,
    /// Instances that are billable in Consul's words: neither Consul itself nor part of the mesh.
    #[n(4)]
    pub billable_instances: u64,
    /// Keys.
    #[n(5)]
    pub keys: u64,
    /// Destinations with intentions.
    #[n(6)]
    pub intentions: u64,
    /// Checks.
    #[n(7)]
    pub checks: u64,
    /// The index of the state that was counted.
    #[n(8)]
    pub index: Index,
}
