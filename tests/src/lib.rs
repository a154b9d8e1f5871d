//! The harness of the whole-system tests: real processes on addresses of their own.

pub mod debian;
pub mod dns;
pub mod linearizability;
pub mod process;
pub mod tools;
pub mod wait;

pub use process::{Agent, TestCluster};
pub use wait::eventually;
