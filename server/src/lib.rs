//! Server mode: consensus, the replicated state, RPC, and the leader's duties.
//!
//! ```text
//!  agent's doors (HTTP, DNS, checks) ──┐
//!  rpc (port 8300) ────────────────────┼─> ServerDatacenter ── write ─> access ─> raft ─> Replica::apply ─> Published
//!  leader's duties ────────────────────┘        └────────────── read ── barrier ─> Published snapshot + watches
//! ```
//!
//! Invariants
//! - Only [`datacenter`] proposes to raft, and only what the authoriser has authorised.
//! - Nothing outside `raft` names the consensus library.
//! - A server certificate is needed to speak raft; a mesh certificate never is one.

pub mod archive;
mod batches;
pub mod boot;
pub mod bootstrap;
pub mod core;
mod damage;
pub mod datacenter;
pub mod equality;
mod events;
mod expiry;
pub mod figures;
mod gossip;
pub mod leader;
pub mod login;
pub mod material;
mod membership;
mod operations;
mod prepared_query;
pub mod raft;
mod raft_operations;
pub mod recover;
mod relay;
pub mod replica;
pub mod rpc;
mod signatures;
mod standing;
mod watchdog;

pub use boot::{RunningAgent, Server, StartError, run_agent};
