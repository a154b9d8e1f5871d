//! Nearest first: rows in the order of the round-trip time between their node and another.

use lictor_types::{Coordinate, Near, NodeName};

use crate::store::Store;
use crate::tables::nodes::node_key;

/// Sorts `rows` by distance from `origin`. Rows that are as far keep their order; those whose node has no coordinate come
/// last, in their order.
pub fn sort_by_distance<'a, T>(rows: &mut [T], origin: &Coordinate, coordinate: impl Fn(&T) -> Option<&'a Coordinate>) {
    // Computed once per row, not once per comparison.
    rows.sort_by_cached_key(|row| Distance(coordinate(row).map_or(f64::INFINITY, |there| origin.distance(there))));
}

#[derive(PartialEq)]
struct Distance(f64);

impl Eq for Distance {}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Store {
    /// Where a node is; none if it is unknown or has not told.
    pub fn coordinate(&self, node: &NodeName) -> Option<&Coordinate> {
        self.coordinates.get(&node_key(node))
    }

    /// Where the node is that others are to be near to.
    pub fn origin(&self, near: &Near) -> Option<&Coordinate> {
        match near {
            Near::Node(name) => self.coordinates.get(&name.to_ascii_lowercase()),
            Near::Address(address) => {
                let node = self.nodes.rows().find(|node| node.address == *address)?;
                self.coordinate(&node.name)
            }
        }
    }

    /// Sorts `rows` by the distance of their nodes. Without a known origin they stay as they are.
    pub fn sort_near<T>(&self, near: &Near, rows: &mut [T], node: impl Fn(&T) -> Option<&NodeName>) {
        if let Some(origin) = self.origin(near) {
            sort_by_distance(rows, origin, |row| self.coordinate(node(row)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_nearest_first_and_keep_their_order_where_as_far() {
        let at = |first: f64| {
            let mut it = Coordinate::default();
            it.vec[0] = first;
            it
        };
        let places = [Some(at(0.03)), None, Some(at(0.01)), Some(at(-0.01)), None, Some(at(0.0))];
        let mut rows = [0, 1, 2, 3, 4, 5];
        sort_by_distance(&mut rows, &at(0.0), |row| places[*row].as_ref());
        assert_eq!(rows, [5, 2, 3, 0, 1, 4]);
    }
}
