//! Read barriers: everybody who waits shares one question to the quorum.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use openraft::{Raft, ReadPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use super::network::Links;
use super::settings::{Bug, Faults};
use super::state_machine::Applier;
use super::types::{LogId, ServerId, Types};
use super::{Leader, ReadError};

/// So many questions may be asked at once. A reader joins a question that was not asked yet, never one that was.
const QUESTIONS_IN_FLIGHT: usize = 4;
/// So many readers share one question.
const READERS: usize = 4_096;

/// A reader that waits for its barrier.
pub(super) type Waiter = oneshot::Sender<Result<(), ReadError>>;

/// Asks for barriers.
#[derive(Clone)]
pub(super) struct Reads {
    pub own: ServerId,
    pub raft: Raft<Types, Applier>,
    pub links: Arc<Links>,
    pub leader: watch::Receiver<Option<Leader>>,
    pub applied: watch::Receiver<Option<LogId>>,
    pub deadline: Duration,
    pub faults: Faults,
}

impl Reads {
    /// Takes waiters until nobody can become one any more.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Waiter>) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            let mut waiters = Vec::new();
            tokio::select! {
                biased;
                Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
                taken = waiting.recv_many(&mut waiters, READERS), if in_flight.len() < QUESTIONS_IN_FLIGHT => {
                    if taken == 0 {
                        break;
                    }
                }
            }
            let reads = self.clone();
            in_flight.push(
                async move {
                    let outcome = tokio::time::timeout(reads.deadline, reads.barrier()).await;
                    let outcome = outcome.unwrap_or_else(|_| {
                        Err(ReadError::Unavailable("no quorum of servers confirmed the leader in time".to_owned()))
                    });
                    for waiter in waiters {
                        // Whoever asked may be gone.
                        let _ = waiter.send(outcome.clone());
                    }
                }
                .boxed(),
            );
        }
        while in_flight.next().await.is_some() {}
    }

    async fn barrier(&self) -> Result<(), ReadError> {
        let index = self.index().await?;
        if self.faults.has(Bug::ReadIndexNotAwaited) {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied.index() >= index.index())).await;
        reached.map(|_| ()).map_err(|_| ReadError::Fatal("this server is stopping".to_owned()))
    }

    /// The position that one must have applied.
    async fn index(&self) -> Result<LogId, ReadError> {
        let leader = self.leader.borrow().clone();
        let Some(leader) = leader else { return Err(ReadError::NotLeader(None)) };
        if leader.id == self.own {
            return match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
                Ok(linearizer) => Ok(*linearizer.read_log_id().log_id()),
                Err(error) => Err(match (error.forward_to_leader(), error.fatal()) {
                    (Some(forward), _) => {
                        ReadError::NotLeader(Leader::of(forward.leader_id, forward.leader_node.clone()))
                    }
                    (None, Some(fatal)) => ReadError::Fatal(fatal.to_string()),
                    (None, None) => ReadError::Unavailable(error.to_string()),
                }),
            };
        }
        match self.links.read_index(leader.id, &leader.address, self.deadline).await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(_)) => Err(ReadError::NotLeader(None)),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }
}
