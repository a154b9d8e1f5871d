//! The types that raft is told to use, and the only names for openraft's own types in this module.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use openraft::type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use thiserror::Error;

use super::executor::Executor;

/// The identity of a server in raft: the random UUID in its data directory. It is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerId(pub [u8; 16]);

/// A text is not a server id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a server id: a UUID such as 7f1c1a3e-2d4b-4c1d-9a55-0e6f1d2c3b4a is")]
pub struct ServerIdError(String);

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for ServerId {
    type Err = ServerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ServerIdError(text.chars().take(64).collect());
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if bytes.len() != 36 || dashes.iter().any(|at| bytes[*at] != b'-') {
            return Err(error());
        }
        let mut digits =
            bytes.iter().enumerate().filter(|(at, _)| !dashes.contains(at)).map(|(_, digit)| *digit as char);
        let mut id = [0; 16];
        for byte in &mut id {
            let (Some(high), Some(low)) = (digits.next(), digits.next()) else { return Err(error()) };
            let (Some(high), Some(low)) = (high.to_digit(16), low.to_digit(16)) else { return Err(error()) };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(id))
    }
}

/// What raft knows of a server beside its id.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Server {
    /// The node name of its agent.
    pub name: String,
    /// Where it takes RPC: `host:port`.
    pub address: String,
}

/// The data of an entry: envelopes, see [`super::batch`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proposals(pub Bytes);

impl fmt::Debug for Proposals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// One outcome for each envelope of an entry; empty for entries that hold none.
#[derive(Debug, Default)]
pub(super) struct Outcomes(pub Vec<Vec<u8>>);

openraft::declare_raft_types!(
    /// Ties the types together.
    pub(super) Types:
        D = Proposals,
        R = Outcomes,
        NodeId = ServerId,
        Node = Server,
        AsyncRuntime = Executor,
);

pub(super) type Entry = EntryOf<Types>;
pub(super) type LogId = LogIdOf<Types>;
pub(super) type Vote = VoteOf<Types>;
pub(super) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(super) type StoredMembership = StoredMembershipOf<Types>;
pub(super) type RaftMembership = openraft::Membership<ServerId, Server>;
pub(super) type Payload = openraft::EntryPayload<Proposals, ServerId, Server>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_written_as_a_uuid_and_read_back() {
        let text = "7f1c1a3e-2d4b-4c1d-9a55-0e6f1d2c3b4a";
        let id: ServerId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        for wrong in [
            "",
            "7f1c1a3e",
            "7f1c1a3e-2d4b-4c1d-9a55-0e6f1d2c3b4g",
            "7f1c1a3e02d4b-4c1d-9a55-0e6f1d2c3b4a",
            "ääääääääääääääääää",
        ] {
            assert!(wrong.parse::<ServerId>().is_err(), "{wrong}");
        }
    }
}
