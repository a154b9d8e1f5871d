//! What every agent does, client or server: configuration, HTTP, DNS, local services and checks, anti-entropy, and in client
//! mode forwarding.
//!
//! Invariants
//! - Nothing here depends on the state: everything goes through the waist, [`datacenter::Datacenter`].
//! - A client agent holds no cluster state.

pub mod datacenter;

pub use datacenter::{Datacenter, SharedDatacenter};
