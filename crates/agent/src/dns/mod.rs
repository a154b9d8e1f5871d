//! The DNS door: names of nodes and services as Consul spells them.
//!
//! [`name`] reads a name, [`answer`] makes records of rows, [`alias`] follows what leads elsewhere, [`recurse`] passes other domains
//! on, [`size`] makes a message fit, [`serve`] owns the sockets. Rows come through the waist, as for HTTP.
//!
//! Nearly all questions take the short way: [`batch`] takes many packets in a call, [`packet`] reads each in place, [`door`] finds the
//! answer among those [`kept`], and it is written as it was [`prepared`]. Who cannot be answered so waits in [`flights`] with others
//! who ask the same, or goes through [`resolve`] alone.
//!
//! Invariants
//! - A packet that is not a well-formed query gets at most a header back, and never a panic.
//! - Questions under way, connections and their idle time are bounded; what is over the bound is dropped, not queued.
//! - No kept answer is given after the state it was made of, its token or its settings were replaced.
//! - A name of another domain is refused unless the configuration names recursors, and our own names never leave.

mod alias;
mod answer;
mod batch;
mod door;
mod flights;
#[cfg(test)]
mod fuzz;
mod kept;
#[cfg(test)]
mod kept_tests;
mod limit;
mod name;
mod packet;
mod prepared;
#[cfg(test)]
mod prepared_tests;
mod recurse;
mod resolve;
mod serve;
mod size;
#[cfg(test)]
mod tests;

pub use recurse::Strategy;
pub use serve::{DnsListener, serve};
