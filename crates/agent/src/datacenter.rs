//! The waist: the one road from every door to the replicated state.
//!
//! HTTP, DNS, local checks, anti-entropy and the leader's duties all go through these three verbs. Forwarding, tokens,
//! waiting, index rules and consistency live behind them once. A server implements it on its own state; a client agent
//! implements it by asking a server.

use std::sync::Arc;

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
}

/// A datacenter shared by its users.
pub type SharedDatacenter = Arc<dyn Datacenter>;
