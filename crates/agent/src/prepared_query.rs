//! Prepared queries at the edge: the order of what was found, and where else to look.
//!
//! The state says which instances a query finds; chance and place are not its business. HTTP and DNS both come here.

use lictor_types::CheckServiceNode;
use lictor_types::prepared_query::{PreparedQueryFound, PreparedService};

use crate::agent::Agent;

/// The node that stands for the agent that is asked.
const OWN_NODE: &str = "_agent";
/// How deep the node itself is looked for that the nearest instances are wanted of.
const NEAREST_DEPTH: usize = 10;

/// Puts what was found into its order: shuffled, the nearest to `near` (else to what the query says) first, at most
/// `limit` if that is not 0. Returns how many other datacenters were asked.
pub(crate) fn arrange(agent: &Agent, found: &mut PreparedQueryFound, near: Option<&str>, limit: usize) -> u32 {
    let PreparedQueryFound { service, rows, .. } = found;
    for last in (1..rows.len()).rev() {
        rows.swap(last, agent.rng.below(last as u64 + 1) as usize);
    }
    let own = agent.identity.node_name.as_str();
    match near.filter(|near| !near.is_empty()).unwrap_or(&service.near) {
        "" => {}
        OWN_NODE => nearest_first(rows, own),
        node => nearest_first(rows, node),
    }
    if limit > 0 {
        rows.truncate(limit);
    }
    if rows.is_empty() {
        skip_failover(service);
    }
    // No other datacenter is known, so none was asked.
    0
}

/// The instance on the node itself is the nearest, whatever coordinates say. Sorting all others by distance belongs before
/// this.
fn nearest_first(rows: &mut [CheckServiceNode], node: &str) {
    let is_it = |row: &CheckServiceNode| row.node.name.as_str().eq_ignore_ascii_case(node);
    if let Some(at) = rows.iter().take(NEAREST_DEPTH).position(is_it) {
        rows.swap(0, at);
    }
}

fn skip_failover(service: &PreparedService) {
    let failover = &service.failover;
    let targets = failover.targets.iter().map(|target| &target.datacenter);
    for datacenter in failover.datacenters.iter().chain(targets) {
        tracing::debug!(datacenter, service = service.service, "Skipping unknown datacenter in prepared query");
    }
}
