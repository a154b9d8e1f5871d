//! Prepared queries at the edge: the order of what was found, and where else to look.
//!
//! The state says which instances a query finds; chance and place are not its business. HTTP and DNS both come here.

use lictor_runtime::Rng;
use lictor_types::CheckServiceNode;
use lictor_types::prepared_query::{PreparedQueryFound, PreparedService};

/// How deep the node itself is looked for that the nearest instances are wanted of.
const NEAREST_DEPTH: usize = 10;

/// Puts what was found into its order: shuffled, the nearest first if nearness is wanted, at most `limit` if that is not 0.
/// Returns how many other datacenters were asked.
pub(crate) fn arrange(rng: &dyn Rng, found: &mut PreparedQueryFound, limit: usize) -> u32 {
    let PreparedQueryFound { service, rows, origin, distances, .. } = found;
    for last in (1..rows.len()).rev() {
        let other = rng.below(last as u64 + 1) as usize;
        rows.swap(last, other);
        if let Some(distances) = distances.as_mut().filter(|distances| last < distances.len()) {
            distances.swap(last, other);
        }
    }
    if let Some(origin) = origin {
        by_distance(rows, distances.as_deref().unwrap_or_default());
        own_first(rows, origin);
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

/// Sorts by distance; those as far stay in their order, which is chance.
fn by_distance(rows: &mut Vec<CheckServiceNode>, distances: &[u64]) {
    if distances.len() != rows.len() {
        return;
    }
    let mut measured: Vec<(u64, CheckServiceNode)> = distances.iter().copied().zip(std::mem::take(rows)).collect();
    measured.sort_by_key(|(distance, _)| *distance);
    rows.extend(measured.into_iter().map(|(_, row)| row));
}

/// The instance on the node itself is the nearest, whatever coordinates say.
fn own_first(rows: &mut [CheckServiceNode], node: &str) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lictor_runtime::SeededRng;
    use lictor_types::prepared_query::QueryDns;
    use lictor_types::{Index, Node, NodeService};

    use super::*;

    fn found(origin: Option<&str>, nodes: &[(&str, u64)]) -> PreparedQueryFound {
        let row = |name: &str| CheckServiceNode {
            node: Node {
                id: String::new(),
                name: name.parse().unwrap(),
                address: "10.0.0.1".into(),
                datacenter: "dc1".into(),
                tagged_addresses: BTreeMap::new(),
                meta: BTreeMap::new(),
                locality: None,
                create_index: Index(1),
                modify_index: Index(1),
            },
            service: NodeService::new("web".parse().unwrap()),
            checks: Vec::new(),
        };
        PreparedQueryFound {
            service: PreparedService::default(),
            dns: QueryDns::default(),
            rows: nodes.iter().map(|(name, _)| row(name)).collect(),
            origin: origin.map(str::to_owned),
            distances: origin.map(|_| nodes.iter().map(|(_, far)| *far).collect()),
        }
    }

    fn names(found: &PreparedQueryFound) -> Vec<&str> {
        found.rows.iter().map(|row| row.node.name.as_str()).collect()
    }

    #[test]
    fn the_nearest_come_first_those_as_far_by_chance_and_the_unknown_last() {
        let nodes = [("far", 9), ("lost", u64::MAX), ("near", 1), ("middle-1", 5), ("middle-2", 5)];
        let mut firsts = [0, 0];
        for seed in 0..40 {
            let mut found = found(Some("elsewhere"), &nodes);
            arrange(&SeededRng::new(seed), &mut found, 0);
            let names = names(&found);
            assert_eq!((names[0], names[3], names[4]), ("near", "far", "lost"), "{names:?}");
            firsts[usize::from(names[1] == "middle-2")] += 1;
        }
        assert!(firsts.iter().all(|count| *count > 5), "{firsts:?}");
        let mut limited = found(Some("far"), &nodes);
        arrange(&SeededRng::new(1), &mut limited, 2);
        assert_eq!(names(&limited)[0], "far", "the node itself is the nearest");
        assert_eq!(limited.rows.len(), 2);
    }

    #[test]
    fn without_an_origin_chance_alone_decides() {
        let nodes = [("a", 0), ("b", 0), ("c", 0)];
        let firsts: std::collections::BTreeSet<String> = (0..40)
            .map(|seed| {
                let mut found = found(None, &nodes);
                arrange(&SeededRng::new(seed), &mut found, 0);
                names(&found)[0].to_owned()
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }
}
