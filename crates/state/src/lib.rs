//! The replicated state machine, pure: commands in, outcomes and changes out.
//!
//! ```text
//!  Command ─> Authorizer ─> Authorized<Command> ─> raft log ─> Store::apply ─> Outcome
//!                                                                   └─> Changes ─> Published ─> Watches wake readers
//!  Query ──> Authorizer ─> Authorized<Query> ───────────────────> Store::answer ─> Answered
//! ```
//!
//! Invariants
//! - Nothing here reads a clock, randomness, a file or a socket, and every map is ordered: same log, same bytes.
//! - [`Store::answer`] takes an [`access::Authorized`] query, and only [`access`] makes one: no answer without a check.
//! - Every command gets an index of its own, refused ones too. A repeated request id gets the first outcome and no
//!   index.
//! - The index of an answer never goes backwards while its question stays the same, and is never 0.

pub mod access;
mod addresses;
mod answer;
mod answers;
mod authorize;
mod catalog;
mod central;
mod chain;
mod changes;
mod config;
mod discovery;
mod gateways;
mod health;
mod indexes;
mod login;
pub mod near;
pub mod parts;
mod prepared_query;
pub mod published;
mod replies;
mod restore;
mod select;
mod sessions;
mod snapshot;
mod store;
mod tables;
mod template;
mod transaction;
mod trie;
mod usage;
mod virtual_addresses;
pub mod watches;

pub use answer::Answered;
pub use changes::Changes;
pub use snapshot::{SnapshotError, section_name};
pub use store::{Applied, Store};
