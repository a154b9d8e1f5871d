//! The sidecar: an agent in a pod, and the proxy that carries the pod's calls over mutual TLS.
//!
//! Invariants
//! - Without a certificate or without intentions nothing is accepted from the mesh.
//! - Losing the servers changes nothing for what is already configured: the last known intentions, instances and
//!   certificates stay in force until they are replaced or expire.
//! - The private keys are made here and never leave the process.
//! - It dials the server port of the servers and the inbound ports of other sidecars, and nothing else outside the pod.

mod balance;
mod certificate;
mod client_agent;
mod connections;
mod copy;
mod counters;
mod drain;
mod follow;
mod health;
mod inbound;
mod intention;
mod outbound;
mod register;
mod settings;
mod sidecar;
mod socket;
mod upstream;

#[cfg(test)]
mod double;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod whole;

pub use settings::{DEFAULT_DRAIN_LIMIT, ServiceCheck, ServiceSpec, SettingsError, SidecarSettings, UpstreamSpec};
pub use sidecar::{Sidecar, SidecarAddresses, SidecarParts, StartError};
