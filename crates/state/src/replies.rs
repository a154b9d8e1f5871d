//! The outcomes of recent requests: what makes a retry harmless.
//!
//! Invariants
//! - Bounded by count and by the leader's time, and forgotten oldest first, so every server forgets the same.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use lictor_types::command::Effect;
use lictor_types::{Index, Outcome, Refusal, RequestId, Timestamp, encoding};
use minicbor::{Decode, Encode};

/// Outcomes remembered at most.
pub(crate) const REPLIES_MAX: usize = 64 * 1024;
/// How long an outcome is remembered: longer than any client or relay retries one request.
pub(crate) const REPLY_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Bytes of a remembered outcome: only a transaction that read values has more.
const REPLY_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Reply {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) request_id: RequestId,
    #[n(1)]
    pub(crate) time: Timestamp,
    #[n(2)]
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Default)]
pub(crate) struct Replies {
    by_index: OrdMap<Index, Arc<Reply>>,
    by_request: OrdMap<RequestId, Index>,
}

impl Replies {
    /// The outcome as it is remembered: what a large transaction found is told once.
    fn remembered(outcome: Outcome) -> Outcome {
        match &outcome.effect {
            Effect::Transaction(it) if encoding::encode(&**it).len() > REPLY_BYTES_MAX => Outcome {
                index: outcome.index,
                effect: Effect::Refused(Refusal::failed(format!(
                    "the transaction was applied at index {}, but what it found was too large to be kept for this retry: \
                     read it anew",
                    outcome.index
                ))),
            },
            _ => outcome,
        }
    }

    pub(crate) fn get(&self, request_id: &RequestId) -> Option<&Outcome> {
        let index = self.by_request.get(request_id)?;
        self.by_index.get(index).map(|reply| &reply.outcome)
    }

    pub(crate) fn insert(&mut self, reply: Reply) {
        self.by_request.insert(reply.request_id, reply.outcome.index);
        let reply = Reply { outcome: Self::remembered(reply.outcome), ..reply };
        self.by_index.insert(reply.outcome.index, Arc::new(reply));
    }

    /// Forgets what is too old, and the oldest where there are too many.
    pub(crate) fn reap(&mut self, now: Timestamp) {
        while let Some((index, reply)) = self.by_index.get_min() {
            if self.by_index.len() <= REPLIES_MAX && now.since(reply.time) <= REPLY_AGE_MAX {
                break;
            }
            let (index, request_id) = (*index, reply.request_id);
            self.by_index.remove(&index);
            self.by_request.remove(&request_id);
        }
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &Reply> {
        self.by_index.values().map(|reply| &**reply)
    }
}
