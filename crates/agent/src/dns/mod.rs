//! The DNS door: names of nodes and services as Consul spells them.
//!
//! [`name`] reads a name, [`answer`] makes records of rows, [`alias`] follows what leads elsewhere, [`recurse`] passes other domains
//! on, [`size`] makes a message fit, [`serve`] owns the sockets. Rows come through the waist, as for HTTP.
//!
//! Invariants
//! - A packet that is not a well-formed query gets at most a header back, and never a panic.
//! - Questions under way, connections and their idle time are bounded; what is over the bound is dropped, not queued.
//! - A name of another domain is refused unless the configuration names recursors, and our own names never leave.

mod alias;
mod answer;
mod limit;
mod name;
mod recurse;
mod resolve;
mod serve;
mod size;
#[cfg(test)]
mod tests;

pub use recurse::Strategy;
pub use serve::{DnsListener, serve};
