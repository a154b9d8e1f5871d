//! The proposer: drains everything that waits into one entry.

use std::time::Duration;

use openraft::Raft;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};

use super::state_machine::Applier;
use super::types::{Proposals, Types};
use super::{Leader, ProposeError, batch};
use crate::batches::{BatchLimits, send_in_batches};

/// So many entries may be on their way at once: while they are, what comes waits and makes the next ones larger.
const ENTRIES_IN_FLIGHT: usize = 3;

/// Between two attempts of a new leader whose quorum has not answered yet.
const LEASE_PAUSE: Duration = Duration::from_millis(10);

/// A proposal that waits.
pub(super) struct Proposal {
    pub envelope: Vec<u8>,
    pub reply: oneshot::Sender<Result<Vec<u8>, ProposeError>>,
}

type Replies = Vec<oneshot::Sender<Result<Vec<u8>, ProposeError>>>;

/// Takes proposals until nobody can make one any more.
pub(super) async fn run(
    raft: Raft<Types, Applier>,
    waiting: mpsc::Receiver<Proposal>,
    entry_bytes: usize,
    deadline: Duration,
) {
    let limits = BatchLimits { in_flight: ENTRIES_IN_FLIGHT, pieces: usize::MAX, bytes: entry_bytes };
    let size = |proposal: &Proposal| batch::OVERHEAD + proposal.envelope.len();
    send_in_batches(waiting, limits, size, |proposals| {
        let raft = raft.clone();
        let data = Proposals(batch::join(proposals.iter().map(|proposal| &proposal.envelope[..])));
        let replies: Replies = proposals.into_iter().map(|proposal| proposal.reply).collect();
        async move {
            let written = tokio::time::timeout(deadline, write(&raft, data)).await;
            let unconfirmed = || unknown("no quorum of servers confirmed the write in time");
            answer(replies, written.unwrap_or_else(|_| Err(unconfirmed())));
        }
    })
    .await;
}

fn unknown(why: &str) -> ProposeError {
    ProposeError::Unavailable(why.to_owned())
}

/// Has one entry agreed on and applied.
async fn write(raft: &Raft<Types, Applier>, data: Proposals) -> Result<Vec<Vec<u8>>, ProposeError> {
    loop {
        let (responder, outcome) = ProgressResponder::complete_only();
        raft.client_write_ff(data.clone(), Some(responder))
            .await
            .map_err(|error| ProposeError::Fatal(error.to_string()))?;
        let outcome: ClientWriteResult<Types> =
            outcome.await.map_err(|_| ProposeError::Fatal(Fatal::<Types>::Stopped.to_string()))?;
        match outcome {
            Ok(response) => return Ok(response.data.0),
            // A new leader takes no writes before its quorum has answered once. It was not appended, and will be soon.
            Err(ClientWriteError::ForwardToLeader(forward)) if forward.reason == ForwardReason::LeaseExpired => {
                tokio::time::sleep(LEASE_PAUSE).await;
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                return Err(ProposeError::NotLeader(Leader::of(forward.leader_id, forward.leader_node)));
            }
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                return Err(unknown("the leader changed before the write was confirmed"));
            }
            Err(other) => return Err(unknown(&other.to_string())),
        }
    }
}

fn answer(replies: Replies, written: Result<Vec<Vec<u8>>, ProposeError>) {
    let error = match written {
        Ok(outcomes) if outcomes.len() == replies.len() => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may be gone.
                let _ = reply.send(Ok(outcome));
            }
            return;
        }
        Ok(_) => ProposeError::Fatal("the state machine did not answer every envelope of an entry".to_owned()),
        Err(error) => error,
    };
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
