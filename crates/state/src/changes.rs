//! What an apply touched, so that readers can be woken.

use std::collections::BTreeSet;

use lictor_types::{Index, Timestamp};
use minicbor::{Decode, Encode};

use crate::tables::Key;

/// What a reader can wait on. The numbers are in snapshots: append, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub(crate) enum Table {
    /// Keys.
    #[n(0)]
    Kv,
    /// Rows of nodes, by node.
    #[n(1)]
    Nodes,
    /// All that is on a node, by node.
    #[n(2)]
    NodeContents,
    /// Rows of instances, by service.
    #[n(3)]
    ServiceNames,
    /// Instances with their nodes and checks, by service.
    #[n(4)]
    Services,
    /// Instances that serve a service over mutual TLS, with their nodes and checks, by that service.
    #[n(5)]
    Connect,
    /// Checks, by node.
    #[n(6)]
    Checks,
    /// Intentions, by destination.
    #[n(7)]
    Intentions,
    /// The mesh CA.
    #[n(8)]
    Authority,
    /// Sessions, by id.
    #[n(20)]
    Sessions,
    /// The sessions of a node, by node.
    #[n(21)]
    NodeSessions,
    /// How the leader looks after the servers of raft.
    #[n(50)]
    Autopilot,
    /// Coordinates, by node.
    #[n(30)]
    Coordinates,
    /// Prepared queries, by id.
    #[n(40)]
    PreparedQueries,
    /// Config entries, by kind and name.
    #[n(80)]
    ConfigEntries,
    /// Config entries of a kind, by kind.
    #[n(81)]
    ConfigKinds,
    /// Instances of gateways with their nodes and checks, and what their entries say, by gateway.
    #[n(82)]
    Gateways,
    /// The addresses that stand for services, by service.
    #[n(83)]
    VirtualAddresses,
}

impl Table {
    /// How many there are.
    pub(crate) const COUNT: usize = 18;
}

/// The keys that one or more commands touched.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    keys: BTreeSet<(Table, Key)>,
    everything: bool,
}

impl Changes {
    /// Everything may have changed: the state was replaced by a snapshot.
    pub(crate) fn everything() -> Self {
        Self { keys: BTreeSet::new(), everything: true }
    }

    /// Adds the changes of another command.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.everything |= other.everything;
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.everything
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (Table, &str)> {
        self.keys.iter().map(|(table, key)| (*table, &**key))
    }
}

/// One command while it is applied: its position, its time, and what it touched so far.
pub(crate) struct Commit {
    pub(crate) at: Index,
    pub(crate) now: Timestamp,
    pub(crate) changes: Changes,
}

impl Commit {
    pub(crate) fn touch(&mut self, table: Table, key: Key) {
        self.changes.keys.insert((table, key));
    }
}
