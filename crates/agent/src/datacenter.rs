//! The waist: the one road from every door to the replicated state.
//!
//! HTTP, DNS, local checks, anti-entropy and the leader's duties all go through these three verbs. Forwarding, tokens,
//! waiting, index rules and consistency live behind them once. A server implements it on its own state; a client agent
//! implements it by asking a server.

use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::transport::Boxed;
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Command, Credential, Freshness, Outcome, Query, Read, Refusal};

/// A datacenter's replicated state, wherever it is.
pub trait Datacenter: Send + Sync + 'static {
    /// Changes the state. The request id is made here and kept over every retry, so it is applied once.
    ///
    /// # Errors
    /// It was not authorised, could not be done, or no leader could be reached within the hold time.
    fn write<'a>(&'a self, credential: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>>;

    /// Asks the state, and waits for a newer answer when `freshness` says so.
    ///
    /// # Errors
    /// It was not authorised, or no server could answer as freshly as was asked.
    fn read<'a>(
        &'a self,
        credential: &'a Credential,
        query: Query,
        freshness: Freshness,
    ) -> Boxed<'a, Result<Read, Refusal>>;

    /// Does what is neither.
    ///
    /// # Errors
    /// It was not authorised, or could not be done.
    fn operate<'a>(&'a self, credential: &'a Credential, operation: Operation) -> Boxed<'a, Result<Report, Refusal>>;

    /// Where the state stands for the holder of `credential`, if this process holds the state itself: what a stale read answered
    /// after a standing was taken is what it would answer now, as long as the standing has the same version. None where that
    /// cannot be known at once, or where the holder is refused.
    fn standing(&self, _credential: &Credential) -> Option<Standing> {
        None
    }
}

/// Where a state stands: see [`Datacenter::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Changes with every change of the state.
    pub version: u64,
    /// How long ago the leader was heard of.
    pub last_contact: Duration,
}

/// A datacenter shared by its users.
pub type SharedDatacenter = Arc<dyn Datacenter>;
