//! The catalog as the leader's own duties see it.

use std::collections::BTreeMap;

use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_types::check::SERF_HEALTH;
use lictor_types::query::StateQuery;
use lictor_types::{Answer, CheckStatus, Member, MemberStatus, Node, NodeName, NodeService, Query};

fn ask(store: &Store, query: Query) -> Answer {
    store.answer(&Authorized::system(Duty::Reconcile, query)).answer
}

/// A node and its instances by id.
pub(crate) fn of_node(store: &Store, name: &NodeName) -> Option<(Node, BTreeMap<String, NodeService>)> {
    match ask(store, Query::NodeServices(name.clone())) {
        Answer::NodeServices(found) => found.map(|it| (it.node, it.services)),
        _ => None,
    }
}

/// What the catalog says of a member's life.
pub(crate) fn serf_health(store: &Store, name: &NodeName) -> Option<CheckStatus> {
    let Answer::Checks(checks) = ask(store, Query::HealthNode(name.clone())) else { return None };
    checks.into_iter().find(|it| it.check_id.as_ref().is_some_and(|id| id.as_str() == SERF_HEALTH)).map(|it| it.status)
}

/// The nodes that are members, alive for all we know: those with a [`SERF_HEALTH`] check.
pub(crate) fn members(store: &Store) -> Vec<Member> {
    let query = Query::HealthState(StateQuery { state: "any".into(), node_meta: BTreeMap::new() });
    let Answer::Checks(checks) = ask(store, query) else { return Vec::new() };
    checks
        .into_iter()
        .filter(|it| it.check_id.as_ref().is_some_and(|id| id.as_str() == SERF_HEALTH))
        .filter_map(|it| it.node)
        .filter_map(|name| of_node(store, &name))
        .map(|(node, services)| as_member(node, services.get("consul")))
        .collect()
}

/// A member as far as the catalog knows it; its next keepalive says the rest.
fn as_member(node: Node, server: Option<&NodeService>) -> Member {
    let role = if server.is_some() { "consul" } else { "node" };
    let mut tags = BTreeMap::from([("role".to_owned(), role.to_owned()), ("id".to_owned(), node.id.clone())]);
    if let Some(server) = server {
        tags.insert("port".into(), server.port.to_string());
    }
    Member {
        name: node.name,
        id: node.id,
        address: node.address,
        port: 0,
        tags,
        meta: node.meta,
        status: MemberStatus::Alive,
        protocols: None,
    }
}
