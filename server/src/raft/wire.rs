//! What servers say to each other over `raft/1`.
//!
//! A stream carries frames: a length of four bytes, big endian, and a message. The side that dialled sends a
//! [`Request::Hello`] and then requests, without waiting; the other side answers each request with one [`Reply`], in
//! order.

use bytes::Bytes;
use minicbor::bytes::{ByteArray, ByteSlice};
use minicbor::{Decode, Encode};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use tokio_util::codec::LengthDelimitedCodec;

use super::codec::{Ballot, DecodeError, EntryForm, Position};
use super::types::{ServerId, Types};

/// The version of this protocol.
pub(super) const VERSION: u32 = 1;
/// No frame is longer. One replication message holds about four megabytes, or one larger entry.
pub(super) const FRAME_LIMIT: usize = 32 << 20;
/// So many requests of one stream may be without an answer.
pub(super) const PIPELINE: usize = 16;

pub(super) fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT).new_codec()
}

/// A request to vote, real or hypothetical.
#[derive(Debug, Encode, Decode)]
pub(super) struct Candidacy {
    #[n(0)]
    vote: Ballot,
    #[n(1)]
    last: Option<Position>,
    #[n(2)]
    transfer: bool,
}

#[derive(Debug, Encode, Decode)]
pub(super) enum Request<'b> {
    /// First on every stream: who dials, and whom it means to reach.
    #[n(0)]
    Hello {
        #[n(0)]
        version: u32,
        #[n(1)]
        from: ByteArray<16>,
        #[n(2)]
        to: ByteArray<16>,
        #[n(3)]
        cluster: Option<String>,
    },
    #[n(1)]
    Append {
        #[n(0)]
        vote: Ballot,
        #[n(1)]
        previous: Option<Position>,
        #[n(2)]
        committed: Option<Position>,
        #[b(3)]
        entries: Vec<EntryForm<'b>>,
    },
    #[n(2)]
    Vote(#[n(0)] Candidacy),
    #[n(3)]
    PreVote(#[n(0)] Candidacy),
    #[n(4)]
    TransferLeader {
        #[n(0)]
        from: Ballot,
        #[n(1)]
        to: ByteArray<16>,
        #[n(2)]
        last: Option<Position>,
    },
    /// How far must one have applied to read what is committed now?
    #[n(5)]
    ReadIndex,
    /// A snapshot file of this length follows in chunks. Answered when it may begin.
    #[n(6)]
    SnapshotBegin {
        #[n(0)]
        vote: Ballot,
        #[n(1)]
        length: u64,
    },
    /// The next part. The last one is answered with [`Reply::Snapshot`] when all is installed, the others at once.
    #[n(7)]
    SnapshotChunk {
        #[b(0)]
        bytes: &'b ByteSlice,
    },
}

#[derive(Debug, Encode, Decode)]
pub(super) enum Reply {
    #[n(0)]
    Appended,
    /// Only up to here.
    #[n(1)]
    AppendedPart(#[n(0)] Option<Position>),
    /// What should precede the entries is not in the log.
    #[n(2)]
    Conflict,
    #[n(3)]
    HigherVote(#[n(0)] Ballot),
    #[n(4)]
    Vote {
        #[n(0)]
        vote: Ballot,
        #[n(1)]
        granted: bool,
        #[n(2)]
        last: Option<Position>,
    },
    #[n(5)]
    TransferLeader {
        #[n(0)]
        accepted: bool,
    },
    #[n(6)]
    ReadIndex(#[n(0)] Position),
    /// This server does not lead; this one does, as far as it knows.
    #[n(7)]
    NotLeader(#[n(0)] Option<ByteArray<16>>),
    /// Go on.
    #[n(8)]
    SnapshotTaken,
    /// The snapshot is installed, or not wanted: the vote tells.
    #[n(9)]
    Snapshot(#[n(0)] Ballot),
    /// The request was not done.
    #[n(10)]
    Failed(#[n(0)] String),
    /// The stream is not wanted; it ends here.
    #[n(11)]
    Refused(#[n(0)] String),
}

pub(super) fn append(request: &AppendEntriesRequest<Types>) -> Request<'_> {
    Request::Append {
        vote: (&request.vote).into(),
        previous: request.prev_log_id.as_ref().map(Into::into),
        committed: request.leader_commit.as_ref().map(Into::into),
        entries: request.entries.iter().map(Into::into).collect(),
    }
}

/// The parts of [`Request::Append`] as raft's own request; `frame` is what they were decoded from.
pub(super) fn append_request(
    vote: Ballot,
    previous: Option<Position>,
    committed: Option<Position>,
    entries: Vec<EntryForm<'_>>,
    frame: &Bytes,
) -> Result<AppendEntriesRequest<Types>, DecodeError> {
    Ok(AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: previous.map(Into::into),
        leader_commit: committed.map(Into::into),
        entries: entries.into_iter().map(|entry| entry.into_entry(frame)).collect::<Result<_, _>>()?,
    })
}

impl From<AppendEntriesResponse<Types>> for Reply {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Appended,
            AppendEntriesResponse::PartialSuccess(last) => Self::AppendedPart(last.as_ref().map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote((&vote).into()),
        }
    }
}

impl From<&VoteRequest<Types>> for Candidacy {
    fn from(request: &VoteRequest<Types>) -> Self {
        Self {
            vote: (&request.vote).into(),
            last: request.last_log_id.as_ref().map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<Candidacy> for VoteRequest<Types> {
    fn from(candidacy: Candidacy) -> Self {
        let mut request = Self::new(candidacy.vote.into(), candidacy.last.map(Into::into));
        request.leadership_transfer = candidacy.transfer;
        request
    }
}

impl From<VoteResponse<Types>> for Reply {
    fn from(response: VoteResponse<Types>) -> Self {
        Self::Vote {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Into::into),
        }
    }
}

pub(super) fn transfer(request: &TransferLeaderRequest<Types>) -> Request<'static> {
    Request::TransferLeader {
        from: request.from_leader().into(),
        to: request.to_node_id().0.into(),
        last: request.last_log_id().map(Into::into),
    }
}

pub(super) fn transfer_request(
    from: Ballot,
    to: ByteArray<16>,
    last: Option<Position>,
) -> TransferLeaderRequest<Types> {
    TransferLeaderRequest::new(from.into(), ServerId(to.into()), last.map(Into::into))
}

#[cfg(test)]
mod tests {
    use openraft::vote::leader_id_adv::LeaderId;

    use super::*;
    use crate::raft::codec;
    use crate::raft::types::{Entry, LogId, Payload, Proposals, Vote};

    #[test]
    fn an_append_request_comes_back_as_it_was_sent() {
        let leader_id = LeaderId { term: 4, node_id: ServerId([9; 16]) };
        let log_id = |index| LogId::new(leader_id, index);
        let data = Proposals(Bytes::from_static(b"data"));
        let sent = AppendEntriesRequest::<Types> {
            vote: Vote { leader_id, committed: true },
            prev_log_id: Some(log_id(6)),
            leader_commit: None,
            entries: vec![
                Entry { log_id: log_id(7), payload: Payload::Normal(data) },
                Entry { log_id: log_id(8), payload: Payload::Blank },
            ],
        };
        let frame = Bytes::from(codec::encode(&append(&sent)));
        let Request::Append { vote, previous, committed, entries } = codec::decode("request", &frame).unwrap() else {
            panic!("another request");
        };
        let got = append_request(vote, previous, committed, entries, &frame).unwrap();
        assert_eq!((got.vote, got.prev_log_id, got.leader_commit), (sent.vote, sent.prev_log_id, sent.leader_commit));
        assert_eq!(got.entries, sent.entries);
    }

    #[test]
    fn garbage_is_an_error() {
        for frame in [&b""[..], b"\x00", b"\x82\x18\x63\x80", b"\xff\xff\xff"] {
            assert!(codec::decode::<Request<'_>>("request", frame).is_err());
        }
    }
}
