//! The HTTP door: Consul's API, every route of it that we serve.
//!
//! A handler parses, asks the waist and writes; tokens, consistency, waiting and index rules are not its business
//! ([`caller`]). [`routes`] lists every route.
//!
//! Invariants
//! - State changes only through the waist, so no handler can skip the authoriser.
//! - Endpoints of what only this agent holds guard themselves with `Operation::Authorize`.
//! - Every body, header block, connection and wait is bounded ([`limits`], [`serve`]).

mod agent;
mod agent_checks;
mod agent_health;
mod agent_membership;
mod agent_services;
mod agent_stats;
mod agent_tokens;
mod authorize;
mod body;
mod ca_configuration;
mod caller;
mod catalog;
mod choice;
mod config_entries;
#[cfg(test)]
mod config_tests;
mod connect;
mod coordinate;
mod decode;
mod discovery_chain;
#[cfg(test)]
pub(crate) mod double;
mod event;
mod failure;
mod gateways;
mod guard;
mod health;
mod json;
mod keyring;
mod kv;
mod leaf;
mod limits;
mod metrics;
mod monitor;
mod operator;
mod operator_raft;
mod params;
mod prepared_query;
mod read_record;
mod routes;
mod serve;
mod serve_unix;
mod session;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod txn;
#[cfg(test)]
mod upkeep_tests;
mod usage;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

pub use routes::router;
pub use serve::{ConnectionLimit, HttpListener, serve};
pub use serve_unix::{UnixHttpListener, serve_unix};

use crate::agent::Agent;

/// What every handler can reach.
struct Door {
    agent: Arc<Agent>,
    leaves: leaf::Leaves,
    verdicts: verdicts::Verdicts,
}

impl Door {
    /// The limits in force; a reload changes them.
    fn limits(&self) -> limits::HttpLimits {
        (&self.agent.config.load().limits).into()
    }

    /// How old an answer under this path may be where the reader says nothing of it; none for the leader's own.
    fn discovery_max_stale(&self, path: &str) -> Option<Duration> {
        let is_discovery = path.starts_with("/v1/catalog/") || path.starts_with("/v1/health/");
        let limit = self.agent.config.load().limits.discovery_max_stale;
        (is_discovery && !limit.is_zero()).then_some(limit)
    }
}
