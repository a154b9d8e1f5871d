//! The relay: writes that arrive at a server that does not lead, passed on to the leader together.
//!
//! A call to the leader costs more than what the leader then does for one write, so writes that wait while calls are on
//! their way share the next one.
//!
//! Invariants
//! - A write keeps its own credential and request id: the leader judges and applies each by itself.
//! - Every queue and every wait has a limit.

use std::sync::Arc;

use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{RelayedWrite, RequestBody, Response};
use lictor_types::{Credential, Outcome, Refusal, encoding};
use minicbor::bytes::ByteVec;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::batches::{BatchLimits, send_in_batches};
use crate::datacenter::ServerDatacenter;

/// Calls on their way at once, and what one carries: well below the largest message of RPC.
const LIMITS: BatchLimits = BatchLimits { in_flight: 4, pieces: 256, bytes: 1 << 20 };
/// Writes that may wait for a call. One more is refused.
const QUEUE: usize = 8_192;

/// Where writes for the leader are handed in.
pub(crate) struct Relay(mpsc::Sender<Waiting>);

/// The other end, which [`run`] takes.
pub(crate) type RelayQueue = mpsc::Receiver<Waiting>;

/// A write that waits for its call.
pub(crate) struct Waiting {
    write: ByteVec,
    deadline: Instant,
    reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

impl Relay {
    pub(crate) fn new() -> (Self, RelayQueue) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self(sender), queue)
    }

    /// Has the leader apply `write`, and waits for what came of it until `deadline`.
    pub(crate) async fn write(&self, write: &RelayedWrite, deadline: Instant) -> Result<Outcome, Refusal> {
        let (reply, answered) = oneshot::channel();
        let write = ByteVec::from(encoding::encode(write));
        match self.0.try_send(Waiting { write, deadline, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let why = format!("{QUEUE} writes wait for the leader already: try again");
                return Err(Refusal::new(RefusalKind::Unavailable, why));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Refusal::no_leader()),
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(uncertain("this server is stopping")),
            Err(_) => Err(uncertain("the leader did not answer in time")),
        }
    }
}

/// Passes writes on until nobody can hand in one any more.
pub(crate) async fn run(datacenter: Arc<ServerDatacenter>, queue: RelayQueue) {
    send_in_batches(queue, LIMITS, |waiting| waiting.write.len(), |batch| pass_on(&datacenter, batch)).await;
}

async fn pass_on(datacenter: &ServerDatacenter, batch: Vec<Waiting>) {
    let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).max() else { return };
    let (writes, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|it| (it.write, it.reply)).unzip();
    // Each write has its own credential in it.
    let answered = datacenter.ask_leader(&Credential::anonymous(), RequestBody::Relay(writes), deadline).await;
    let refusal = match answered {
        Ok(Response::Relayed(outcomes)) if outcomes.len() == replies.len() => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may be gone.
                let _ = reply.send(outcome);
            }
            return;
        }
        Ok(other) => other.unexpected(),
        Err(refusal) => refusal,
    };
    for reply in replies {
        let _ = reply.send(Err(refusal.clone()));
    }
}

fn uncertain(why: &str) -> Refusal {
    Refusal::new(RefusalKind::Uncertain, why)
}
