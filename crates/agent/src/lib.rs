//! What every agent does, client or server: configuration, HTTP, DNS, local services and checks, anti-entropy, and in client
//! mode forwarding.
//!
//! Invariants
//! - Nothing here depends on the state: everything goes through the waist, [`datacenter::Datacenter`].
//! - A client agent holds no cluster state.

pub mod agent;
pub mod client;
pub mod config;
pub mod datacenter;
pub mod dns;
pub mod doors;
pub mod events;
pub mod figures;
pub mod forward;
pub mod http;
pub mod local;
pub mod orders;
pub mod pools;
mod prepared_query;
pub mod reload;
pub mod renewal;
pub mod rpc;
pub mod session;
#[cfg(test)]
mod testing;
pub mod tokens;

pub use agent::{Agent, AgentIdentity};
pub use config::Config;
pub use datacenter::{Datacenter, SharedDatacenter, Standing};
