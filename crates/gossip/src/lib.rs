//! Membership by gossip that Serf and Consul understand: who is there, who failed, who left, and what is told to all.
//!
//! ```text
//!  Gossip (handle) ──commands──> driver ──input, time──> Core ──output──> driver ──> UDP, TCP
//!         <──────────events─────────                      (pure)
//! ```
//!
//! [`Core`] is a member without sockets, clock and randomness of its own: SWIM with memberlist's refinements (Lifeguard,
//! push/pull, a probe by stream), and over it Serf's intents, events, queries, keys and coordinates. `driver` owns the sockets.
//! The wire formats are memberlist's protocol 2 to 5 and Serf's 2 to 5, so that one pool may hold ours and theirs.
//!
//! Invariants
//! - `core`, `wire` and what they use open nothing, spawn nothing and read no clock.
//! - Whatever comes over the wire has a named limit before it has memory.

pub mod config;
pub mod core;
pub mod driver;
pub mod event;
pub mod keyring;
pub mod record;
pub mod snapshot;
pub mod wire;

mod broadcast;
mod coordinate;
mod lamport;
mod members;
mod suspicion;

pub use config::{Config, Timing};
pub use coordinate::{Coordinate, DIMENSIONS};
pub use core::{Core, ExchangeId, KeyOperation, KeyReport, Output, QueryError, QueryOptions, Question};
pub use driver::{Answer, Answers, Gossip, GossipError, Settings, StartError};
pub use event::{Change, Event, Member};
pub use keyring::Keyring;
pub use members::Status;
pub use record::{Record, RecordPool};
pub use suspicion::{push_pull_interval, retransmit_limit, suspicion_timeout};
pub use wire::tags::Tags;
