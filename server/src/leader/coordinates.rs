//! Coordinates as they come in: gathered by the leader and written together, so that thousands of agents which move a
//! little every few seconds cost the log next to nothing.
//!
//! Invariants
//! - Of a node the newest coordinate waits, and no more than [`PENDING_MAX`] nodes wait.
//! - At most [`WRITES_PER_ROUND`] are written in a round of [`ROUND`], in one command.
//! - What waits when the lead is lost is lost: agents tell again.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_state::access::Duty;
use lictor_types::refusal::RefusalKind;
use lictor_types::{Command, NodeCoordinate, NodeName, Refusal};
use parking_lot::Mutex;

use crate::datacenter::ServerDatacenter;

/// Between two writes.
pub(crate) const ROUND: Duration = Duration::from_secs(1);
/// Nodes whose coordinates go into one write: Consul's target of 64 a second.
pub(crate) const WRITES_PER_ROUND: usize = 64;
/// Nodes that may wait; those beyond are refused.
pub(crate) const PENDING_MAX: usize = 4096;

/// What waits to be written.
#[derive(Default)]
pub struct CoordinateBatch(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    updates: BTreeMap<NodeName, NodeCoordinate>,
    /// The node after which the last round ended, so that none waits for ever behind others.
    last: Option<NodeName>,
}

impl CoordinateBatch {
    /// Takes a coordinate in; a newer one of the same node replaces an older one.
    pub(crate) fn add(&self, update: NodeCoordinate) -> Result<(), Refusal> {
        let mut pending = self.0.lock();
        if pending.updates.len() >= PENDING_MAX && !pending.updates.contains_key(&update.node) {
            return Err(Refusal::new(
                RefusalKind::TooMany,
                format!("{PENDING_MAX} coordinates wait to be written already: send this one later"),
            ));
        }
        pending.updates.insert(update.node.clone(), update);
        Ok(())
    }

    /// The next ones to write, round robin over the nodes.
    fn take(&self) -> Vec<NodeCoordinate> {
        let mut pending = self.0.lock();
        let first = pending.last.take();
        let after = pending.updates.keys().filter(|name| first.as_ref().is_none_or(|first| *name > first));
        let before = pending.updates.keys().filter(|name| first.as_ref().is_some_and(|first| *name <= first));
        let names: Vec<NodeName> = after.chain(before).take(WRITES_PER_ROUND).cloned().collect();
        pending.last = names.last().cloned();
        names.iter().filter_map(|name| pending.updates.remove(name)).collect()
    }

    /// A lead is over.
    pub(crate) fn end(&self) {
        *self.0.lock() = Pending::default();
    }
}

/// Writes what was gathered, for as long as this server leads.
pub(crate) async fn write(datacenter: &ServerDatacenter) {
    loop {
        tokio::time::sleep(ROUND).await;
        let updates = datacenter.coordinates.take();
        if updates.is_empty() {
            continue;
        }
        if let Err(refusal) = datacenter.write_as(Duty::Reconcile, Command::CoordinatesSet(updates)).await {
            tracing::debug!(%refusal, "could not write coordinates; agents tell theirs again");
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::Coordinate;

    use super::*;

    fn of(node: usize, height: f64) -> NodeCoordinate {
        let node = format!("n{node:05}").parse().unwrap();
        NodeCoordinate { node, segment: String::new(), coord: Coordinate { height, ..Coordinate::default() } }
    }

    #[test]
    fn every_node_has_its_turn_and_the_newest_counts() {
        let batch = CoordinateBatch::default();
        for node in 0..100 {
            batch.add(of(node, 1.0)).unwrap();
        }
        batch.add(of(3, 2.0)).unwrap();
        let first = batch.take();
        assert_eq!(first.len(), WRITES_PER_ROUND);
        assert_eq!(first[3], of(3, 2.0));
        // The first ones move again; the others come first all the same.
        for node in 0..64 {
            batch.add(of(node, 3.0)).unwrap();
        }
        assert_eq!(batch.take()[0], of(64, 1.0));
        assert_eq!(batch.take().len(), 36);
        assert!(batch.take().is_empty());
    }

    #[test]
    fn no_more_wait_than_the_limit() {
        let batch = CoordinateBatch::default();
        for node in 0..PENDING_MAX {
            batch.add(of(node, 1.0)).unwrap();
        }
        assert_eq!(batch.add(of(PENDING_MAX, 1.0)).unwrap_err().status(), 429);
        batch.add(of(0, 2.0)).unwrap();
        batch.end();
        assert!(batch.take().is_empty());
    }
}
