//! What the catalog says of our node and we do not, and the other way round. Pure.

use lictor_types::check::SERF_HEALTH;
use lictor_types::gateway::VIRTUAL_TAG;
use lictor_types::{CheckId, HealthCheck, Index, Node, NodeService, ServiceId};

use super::rows::Rows;

/// The instance that a server's leader registers for it.
pub(super) const CONSUL_SERVICE: &str = "consul";

/// What the catalog holds of our node.
pub(super) struct Remote {
    /// The node, if it is there.
    pub(super) node: Option<Node>,
    /// Its instances.
    pub(super) services: Vec<NodeService>,
    /// Its checks.
    pub(super) checks: Vec<HealthCheck>,
}

/// What must change in the catalog, and the tags that the catalog may change here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// The node is not there or differs.
    pub(super) node: bool,
    /// Instances that are not there or differ.
    pub(super) services: Vec<ServiceId>,
    /// Checks that are not there or differ.
    pub(super) checks: Vec<CheckId>,
    /// Instances that are ours no more.
    pub(super) unknown_services: Vec<ServiceId>,
    /// Checks that are ours no more.
    pub(super) unknown_checks: Vec<CheckId>,
    /// Tags that win over ours.
    pub(super) tags: Vec<(ServiceId, Vec<String>)>,
}

/// Compares `rows` and the node `own` with the catalog.
pub(super) fn difference(own: &Node, rows: &Rows, remote: &Remote) -> Difference {
    let mut difference =
        Difference { node: remote.node.as_ref().is_none_or(|node| !same_node(own, node)), ..Difference::default() };
    for (id, row) in &rows.services {
        let Some(there) = remote.services.iter().find(|service| service.id_text() == id.as_str()) else {
            difference.services.push(id.clone());
            continue;
        };
        let mut ours = row.service.clone();
        if ours.enable_tag_override && ours.tags != there.tags {
            ours.tags.clone_from(&there.tags);
            difference.tags.push((id.clone(), there.tags.clone()));
        }
        if !same_service(&ours, there) {
            difference.services.push(id.clone());
        }
    }
    for (id, row) in &rows.checks {
        let there = remote.checks.iter().find(|check| check.check_id.as_ref() == Some(id));
        // An output that waits for its time is not a difference.
        let ignore_output = row.deferred_until.is_some();
        if there.is_none_or(|there| !same_check(&row.check, there, ignore_output)) {
            difference.checks.push(id.clone());
        }
    }
    let unknown = remote.services.iter().filter_map(|service| service.id.clone());
    difference.unknown_services =
        unknown.filter(|id| id.as_str() != CONSUL_SERVICE && !rows.services.contains_key(id)).collect();
    let unknown = remote.checks.iter().filter(|check| {
        // Those of an instance that goes are removed with it.
        !difference.unknown_services.iter().any(|id| id.as_str() == check.service_id)
            && check.service_id != CONSUL_SERVICE
    });
    difference.unknown_checks = unknown
        .filter_map(|check| check.check_id.clone())
        .filter(|id| id.as_str() != SERF_HEALTH && !rows.checks.contains_key(id))
        .collect();
    difference
}

fn same_node(own: &Node, there: &Node) -> bool {
    own.id == there.id
        && own.address == there.address
        && own.tagged_addresses == there.tagged_addresses
        && own.meta == there.meta
        && own.locality == there.locality
}

fn same_service(ours: &NodeService, there: &NodeService) -> bool {
    let mut there = there.clone();
    (there.create_index, there.modify_index) = (ours.create_index, ours.modify_index);
    // The address that stands for its service is the servers' to give.
    if !ours.tagged_addresses.contains_key(VIRTUAL_TAG) {
        there.tagged_addresses.remove(VIRTUAL_TAG);
    }
    *ours == there
}

fn same_check(ours: &HealthCheck, there: &HealthCheck, ignore_output: bool) -> bool {
    let mut there = there.clone();
    (there.create_index, there.modify_index) = (Index(0), Index(0));
    // The servers fill these in.
    there.node.clone_from(&ours.node);
    there.service_name.clone_from(&ours.service_name);
    there.service_tags.clone_from(&ours.service_tags);
    if ignore_output {
        there.output.clone_from(&ours.output);
    }
    let mut ours = ours.clone();
    (ours.create_index, ours.modify_index) = (Index(0), Index(0));
    ours == there
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lictor_types::service::ServiceAddress;
    use lictor_types::{CheckStatus, Credential};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::local::definition::ServiceDefinition;

    fn own() -> Node {
        Node {
            id: "id".into(),
            name: "n1".parse().unwrap(),
            address: "10.0.0.1".into(),
            datacenter: "dc1".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: Index(0),
            modify_index: Index(0),
            locality: None,
        }
    }

    fn rows() -> Rows {
        let mut rows = Rows::default();
        for name in ["web", "tagged"] {
            let written = json!({"Name": name, "EnableTagOverride": name == "tagged", "Check": {"TTL": "10s"}});
            let service = ServiceDefinition::from_json(&written).unwrap();
            let check = service.all_checks().remove(0);
            let health = check.to_health_check(check.id.parse().unwrap());
            let id = name.parse().unwrap();
            rows.put_service(id, service.to_node_service().unwrap(), Credential::default());
            rows.put_check(&"n1".parse().unwrap(), health, check, Credential::default(), true, Instant::now());
        }
        rows
    }

    fn mirror(rows: &Rows) -> Remote {
        Remote {
            node: Some(Node { create_index: Index(3), modify_index: Index(9), ..own() }),
            services: rows
                .services
                .values()
                .map(|row| NodeService { modify_index: Index(7), ..row.service.clone() })
                .collect(),
            checks: rows
                .checks
                .values()
                .map(|row| HealthCheck { modify_index: Index(7), ..row.check.clone() })
                .collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_catalog_that_agrees_needs_nothing() {
        let rows = rows();
        assert_eq!(difference(&own(), &rows, &mirror(&rows)), Difference::default());
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_that_the_servers_give_is_no_difference() {
        let rows = rows();
        let mut remote = mirror(&rows);
        let address = ServiceAddress { address: "240.0.0.1".into(), port: 80 };
        remote.services[0].tagged_addresses.insert(VIRTUAL_TAG.into(), address.clone());
        assert_eq!(difference(&own(), &rows, &remote), Difference::default());
        remote.services[0].tagged_addresses.insert("lan".into(), address);
        assert_eq!(difference(&own(), &rows, &remote).services.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_catalog_needs_everything() {
        let rows = rows();
        let found = difference(&own(), &rows, &Remote { node: None, services: Vec::new(), checks: Vec::new() });
        assert!(found.node);
        assert_eq!((found.services.len(), found.checks.len()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_ours_goes_except_what_the_leader_keeps() {
        let rows = rows();
        let mut remote = mirror(&rows);
        let stray = |name: &str| NodeService { id: Some(name.parse().unwrap()), ..remote.services[0].clone() };
        let (old, consul) = (stray("old"), stray("consul"));
        remote.services.extend([old, consul]);
        let check = |id: &str, service: &str| HealthCheck {
            service_id: service.into(),
            ..HealthCheck::new(id.parse().unwrap(), id, CheckStatus::Passing, "")
        };
        remote.checks.extend([check("serfHealth", ""), check("service:old", "old"), check("disk", "")]);
        let found = difference(&own(), &rows, &remote);
        assert_eq!(found.unknown_services, ["old".parse().unwrap()]);
        assert_eq!(found.unknown_checks, ["disk".parse().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn tags_of_the_catalog_win_where_the_owner_said_so() {
        let rows = rows();
        let mut remote = mirror(&rows);
        for service in &mut remote.services {
            service.tags = vec!["theirs".into()];
        }
        let found = difference(&own(), &rows, &remote);
        assert_eq!(found.services, ["web".parse().unwrap()]);
        assert_eq!(found.tags, [("tagged".parse().unwrap(), vec!["theirs".to_owned()])]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_that_waits_for_its_time_is_no_difference() {
        let mut rows = rows();
        let remote = mirror(&rows);
        let id: CheckId = "service:web".parse().unwrap();
        rows.checks.get_mut(&id).unwrap().in_sync = true;
        rows.observe(&id, CheckStatus::Critical, "new", Instant::now(), std::time::Duration::from_secs(1));
        assert_eq!(difference(&own(), &rows, &remote).checks, []);
        rows.checks.get_mut(&id).unwrap().deferred_until = None;
        assert_eq!(difference(&own(), &rows, &remote).checks, [id]);
    }
}
