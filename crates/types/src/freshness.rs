//! How fresh an answer must be, and how long to wait for a newer one.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::Index;

/// How an answer relates to the latest acknowledged write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Consistency {
    /// Served under the leader's lease.
    #[n(0)]
    #[default]
    Default,
    /// Linearizable.
    #[n(1)]
    Consistent,
    /// Served by any server from what it has.
    #[n(2)]
    Stale,
}

/// A blocking query: answer when the index has passed `after`, or when `wait` is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Block {
    /// The index that the client has seen.
    #[n(0)]
    pub after: Index,
    /// Milliseconds to wait at most, jitter included.
    #[n(1)]
    pub wait_millis: u64,
}

impl Block {
    /// The time to wait at most.
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_millis)
    }
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Freshness {
    /// Relation to the latest write.
    #[n(0)]
    pub consistency: Consistency,
    /// Wait for a newer answer than the one the client has.
    #[n(1)]
    pub block: Option<Block>,
}
