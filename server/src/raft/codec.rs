//! Raft's own values as bytes: in the log, in snapshots and on the wire.
//!
//! The form is CBOR arrays whose positions are the tags: a later release adds positions at the end, an older one skips
//! them, and a position is never used for something else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::bytes::{ByteArray, ByteSlice};
use minicbor::{Decode, Encode};
use openraft::vote::leader_id_adv::LeaderId;
use thiserror::Error;

use super::types::{
    Entry, LogId, Payload, Proposals, RaftMembership, Server, ServerId, SnapshotMeta, StoredMembership, Vote,
};

/// Bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed {what}: {why}")]
pub(super) struct DecodeError {
    what: &'static str,
    why: String,
}

impl DecodeError {
    pub(super) fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(super) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector cannot fail, and none of our encoders refuses a value.
    minicbor::encode(value, &mut bytes).expect("encoding to memory does not fail");
    bytes
}

pub(super) fn decode<'b, T: Decode<'b, ()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, DecodeError> {
    minicbor::decode(bytes).map_err(|error| DecodeError::new(what, error))
}

/// A [`LogId`].
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(super) struct Position {
    #[n(0)]
    term: u64,
    #[n(1)]
    leader: ByteArray<16>,
    #[n(2)]
    index: u64,
}

impl From<&LogId> for Position {
    fn from(id: &LogId) -> Self {
        let leader = id.committed_leader_id();
        Self { term: leader.term, leader: leader.node_id.0.into(), index: id.index() }
    }
}

impl From<Position> for LogId {
    fn from(position: Position) -> Self {
        let leader = LeaderId { term: position.term, node_id: ServerId(position.leader.into()) };
        Self::new(leader, position.index)
    }
}

/// A [`Vote`].
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(super) struct Ballot {
    #[n(0)]
    term: u64,
    #[n(1)]
    candidate: ByteArray<16>,
    #[n(2)]
    committed: bool,
}

impl From<&Vote> for Ballot {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, candidate: vote.leader_id.node_id.0.into(), committed: vote.committed }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Self {
        let leader_id = LeaderId { term: ballot.term, node_id: ServerId(ballot.candidate.into()) };
        Self { leader_id, committed: ballot.committed }
    }
}

#[derive(Clone, Debug, Encode, Decode)]
struct Member {
    #[n(0)]
    id: ByteArray<16>,
    #[n(1)]
    name: String,
    #[n(2)]
    address: String,
}

/// A [`RaftMembership`].
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct Members {
    #[n(0)]
    voters: Vec<Vec<ByteArray<16>>>,
    #[n(1)]
    members: Vec<Member>,
}

impl From<&RaftMembership> for Members {
    fn from(membership: &RaftMembership) -> Self {
        let voters = membership.get_joint_config().iter();
        let members = membership.nodes().map(|(id, server)| Member {
            id: id.0.into(),
            name: server.name.clone(),
            address: server.address.clone(),
        });
        Self {
            voters: voters.map(|voters| voters.iter().map(|id| id.0.into()).collect()).collect(),
            members: members.collect(),
        }
    }
}

impl TryFrom<Members> for RaftMembership {
    type Error = DecodeError;

    fn try_from(members: Members) -> Result<Self, Self::Error> {
        let voters = members.voters.into_iter();
        let voters: Vec<BTreeSet<ServerId>> =
            voters.map(|voters| voters.into_iter().map(|id| ServerId(id.into())).collect()).collect();
        let servers = members.members.into_iter();
        let servers: BTreeMap<ServerId, Server> = servers
            .map(|member| (ServerId(member.id.into()), Server { name: member.name, address: member.address }))
            .collect();
        Self::new(voters, servers).map_err(|error| DecodeError::new("membership", error))
    }
}

/// An [`Entry`].
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct EntryForm<'b> {
    #[n(0)]
    position: Position,
    #[b(1)]
    data: Option<&'b ByteSlice>,
    #[n(2)]
    members: Option<Members>,
}

impl<'b> From<&'b Entry> for EntryForm<'b> {
    fn from(entry: &'b Entry) -> Self {
        let (data, members) = match &entry.payload {
            Payload::Blank => (None, None),
            Payload::Normal(proposals) => (Some(<&ByteSlice>::from(&proposals.0[..])), None),
            Payload::Membership(membership) => (None, Some(Members::from(membership))),
        };
        Self { position: (&entry.log_id).into(), data, members }
    }
}

impl EntryForm<'_> {
    /// The entry; its data is a slice of `whole`, from which this was decoded.
    pub(super) fn into_entry(self, whole: &Bytes) -> Result<Entry, DecodeError> {
        let payload = match (self.data, self.members) {
            (None, None) => Payload::Blank,
            (Some(data), None) => Payload::Normal(Proposals(whole.slice_ref(data))),
            (None, Some(members)) => Payload::Membership(members.try_into()?),
            (Some(_), Some(_)) => return Err(DecodeError::new("entry", "it has data and members")),
        };
        Ok(Entry { log_id: self.position.into(), payload })
    }
}

pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    encode(&EntryForm::from(entry)).into()
}

pub(super) fn decode_entry(bytes: &Bytes) -> Result<Entry, DecodeError> {
    decode::<EntryForm<'_>>("entry", bytes)?.into_entry(bytes)
}

pub(super) fn encode_position(id: &LogId) -> Bytes {
    encode(&Position::from(id)).into()
}

pub(super) fn decode_position(bytes: &[u8]) -> Result<LogId, DecodeError> {
    decode::<Position>("position", bytes).map(Into::into)
}

pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    encode(&Ballot::from(vote)).into()
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    decode::<Ballot>("vote", bytes).map(Into::into)
}

/// A [`SnapshotMeta`].
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct SnapshotForm {
    #[n(0)]
    last: Option<Position>,
    #[n(1)]
    members_at: Option<Position>,
    #[n(2)]
    members: Members,
}

impl From<&SnapshotMeta> for SnapshotForm {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.as_ref().map(Into::into),
            members_at: meta.last_membership.log_id().as_ref().map(Into::into),
            members: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<SnapshotForm> for SnapshotMeta {
    type Error = DecodeError;

    fn try_from(form: SnapshotForm) -> Result<Self, Self::Error> {
        let last_membership = StoredMembership::new(form.members_at.map(Into::into), form.members.try_into()?);
        Ok(Self { last_log_id: form.last.map(Into::into), last_membership })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: ServerId([7; 16]) }, index)
    }

    #[test]
    fn entries_of_every_kind_come_back() {
        let server = Server { name: "a".into(), address: "a:8300".into() };
        let voters = BTreeSet::from([ServerId([1; 16])]);
        let membership = RaftMembership::new(
            vec![voters.clone(), voters],
            BTreeMap::from([(ServerId([1; 16]), server.clone()), (ServerId([2; 16]), server)]),
        )
        .unwrap();
        let payloads =
            [Payload::Blank, Payload::Normal(Proposals(Bytes::from_static(b"x"))), Payload::Membership(membership)];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 9), payload };
            assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
        }
    }

    #[test]
    fn an_entry_of_a_later_release_is_read_without_what_it_adds() {
        let entry = Entry { log_id: log_id(1, 2), payload: Payload::Normal(Proposals(Bytes::from_static(b"x"))) };
        let bytes = encode_entry(&entry);
        assert_eq!(bytes[0], 0x82, "an array of two: the position and the data");
        let mut later = bytes.to_vec();
        later[0] = 0x84;
        later.extend([0xf6, 0x01]);
        assert_eq!(decode_entry(&later.into()).unwrap(), entry);
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&b""[..], b"\xff", b"\x83\x01\x02\x03"] {
            assert!(decode_entry(&Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
