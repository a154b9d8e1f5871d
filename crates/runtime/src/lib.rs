//! The only doors to the world: time, randomness, tasks, files, names and connections.
//!
//! Everything above this crate takes these as values, so that a test or a simulation can stand in for the world.
//!
//! Invariants
//! - This crate depends on none of ours.
//! - A task has an owner that stops it; nothing is spawned and forgotten.

pub mod block;
pub mod clock;
pub mod fs;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod random;
pub mod resolver;
pub mod retry;
pub mod tasks;
pub mod transport;

pub use block::Block;
pub use clock::{Clock, SystemClock};
pub use listen::listen;
pub use random::{Rng, SeededRng, SystemRng};
pub use resolver::Resolver;
pub use retry::RetryPause;
pub use tasks::{Tasks, TasksExecutor};
pub use transport::{PeerIdentity, Stream, Transport};
