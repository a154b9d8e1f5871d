//! Where nodes are in the space of round-trip times.
//!
//! Invariants
//! - Only nodes of the catalog have a row, so the catalog bounds this table.
//! - Numbers are finite and the space is the same for all, so that distances can be computed.

use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::command::Effect;
use lictor_types::{Answer, Coordinate, Index, NodeCoordinate, NodeName, Resource};

use super::Key;
use super::nodes::node_key;
use crate::answer::Filter;
use crate::changes::{Commit, Table};
use crate::store::Store;

#[derive(Clone, Default)]
pub(crate) struct Coordinates {
    by_node: OrdMap<Key, Arc<NodeCoordinate>>,
}

impl Coordinates {
    pub(crate) fn get(&self, node: &str) -> Option<&Coordinate> {
        self.by_node.get(node).map(|row| &row.coord)
    }

    pub(crate) fn insert(&mut self, row: NodeCoordinate) {
        self.by_node.insert(node_key(&row.node), Arc::new(row));
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &NodeCoordinate> {
        self.by_node.values().map(|row| &**row)
    }
}

impl Store {
    /// Agents find their coordinates anew every few seconds, so what comes of a node that is gone is nothing to refuse.
    pub(crate) fn set_coordinates(&mut self, commit: &mut Commit, rows: &[NodeCoordinate]) -> Effect {
        for row in rows {
            let key = node_key(&row.node);
            let Some(node) = self.nodes.get(&key) else { continue };
            if row.coord.check().is_err() || self.coordinates.get(&key) == Some(&row.coord) {
                continue;
            }
            self.coordinates.insert(NodeCoordinate { node: node.name.clone(), ..row.clone() });
            self.indexes.settled(commit, Table::Coordinates, key, true);
        }
        Effect::Applied
    }

    pub(crate) fn remove_coordinates(&mut self, commit: &mut Commit, node: &Key) {
        if self.coordinates.by_node.remove(node).is_some() {
            self.indexes.settled(commit, Table::Coordinates, node.clone(), false);
        }
    }

    pub(crate) fn all_coordinates(&self, filter: &mut Filter<'_>) -> (Index, Answer) {
        let rows = self.coordinates.rows().filter(|row| filter.may_read(Resource::Node, row.node.as_str()));
        (self.indexes.of_table(Table::Coordinates), Answer::Coordinates(rows.cloned().collect()))
    }

    pub(crate) fn coordinates_of(&self, filter: &mut Filter<'_>, name: &NodeName) -> (Index, Answer) {
        let key = node_key(name);
        let row = self.coordinates.by_node.get(&key);
        let row = row.filter(|row| filter.may_read(Resource::Node, row.node.as_str()));
        let rows = row.map(|row| (**row).clone()).into_iter().collect();
        (self.indexes.of_key(Table::Coordinates, key), Answer::Coordinates(rows))
    }
}
