//! The bytes of prepared queries and user events, pinned as in `golden.rs`.

use std::collections::BTreeMap;

use lictor_types::event::{EVENT_VERSION, EventBatch, FollowEvents, UserEvent};
use lictor_types::prepared_query::{
    PreparedQuery, PreparedQueryDelete, PreparedQueryExecute, PreparedQueryFound, PreparedQuerySet, PreparedService,
    QueryDns, QueryFailover, QueryFailoverTarget, QueryTemplate,
};
use lictor_types::rpc::ForceLeave;
use lictor_types::{
    Answer, CheckServiceNode, Command, Index, Node, NodeService, Operation, Query, Report, Requirement, Resource,
};

use super::check;

fn service() -> PreparedService {
    PreparedService {
        service: "${name.suffix}".into(),
        failover: QueryFailover {
            nearest_n: 2,
            datacenters: vec!["dc2".into()],
            targets: vec![QueryFailoverTarget { peer: "p".into(), datacenter: "dc3".into() }],
        },
        only_passing: true,
        ignore_check_ids: vec!["slow".into()],
        near: "_agent".into(),
        tags: vec!["v1".into(), "!old".into()],
        node_meta: BTreeMap::from([("rack".into(), "a".into())]),
        service_meta: BTreeMap::from([("env".into(), "prod".into())]),
        connect: true,
        peer: "p".into(),
    }
}

fn query() -> PreparedQuery {
    PreparedQuery {
        id: "2d4ce605-dda5-a513-6ef8-a124f58e87fc".into(),
        name: "geo-".into(),
        session: "7ea133ae-1ada-03fc-8608-da9657d497d5".into(),
        token: String::new(),
        template: QueryTemplate {
            kind: "name_prefix_match".into(),
            regexp: "^geo-(.*)$".into(),
            remove_empty_tags: true,
        },
        service: service(),
        dns: QueryDns { ttl: "10s".into() },
        create_index: Index(3),
        modify_index: Index(4),
        token_lookup: Some([7; 32]),
        sealed_token: vec![1, 2, 3],
    }
}

fn event() -> UserEvent {
    UserEvent {
        id: "22342204-6fb0-44af-e497-561d3d0f062e".into(),
        name: "deploy".into(),
        payload: b"v2".to_vec(),
        node_filter: "^n".into(),
        service_filter: "web".into(),
        tag_filter: "v1".into(),
        version: EVENT_VERSION,
        lamport_time: 9,
    }
}

#[test]
fn commands() {
    let set = PreparedQuerySet { query: query(), create: true, authorized: Some("geo-".into()) };
    check("command-prepared-query-set", Command::PreparedQuerySet(Box::new(set)));
    let delete = PreparedQueryDelete { id: "2d4ce605".into(), authorized: Some("geo-".into()) };
    check("command-prepared-query-delete", Command::PreparedQueryDelete(delete));
}

#[test]
fn questions_and_answers() {
    check("query-prepared-query", Query::PreparedQuery("2d4ce605".into()));
    check("query-prepared-queries", Query::PreparedQueries);
    check("query-prepared-query-explain", Query::PreparedQueryExplain("geo-db".into()));
    let execute = PreparedQueryExecute { name: "geo-db".into(), connect: true };
    check("query-prepared-query-execute", Query::PreparedQueryExecute(execute));
    check("answer-prepared-queries", Answer::PreparedQueries(vec![query()]));
    let node = Node {
        id: String::new(),
        name: "n1".parse().unwrap(),
        address: "10.0.0.1".into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: Index(1),
        modify_index: Index(2),
        locality: None,
    };
    let row = CheckServiceNode { node, service: NodeService::new("db".parse().unwrap()), checks: Vec::new() };
    let found = PreparedQueryFound { service: service(), dns: QueryDns { ttl: "10s".into() }, rows: vec![row] };
    check("answer-prepared-query-found", Answer::PreparedQueryFound(Box::new(found)));
}

#[test]
fn operations_and_reports() {
    check("operation-fire-event", Operation::FireEvent(event()));
    let follow = FollowEvents { ring: "r".into(), after: 7, wait_millis: 60_000 };
    check("operation-follow-events", Operation::FollowEvents(follow));
    check("operation-force-leave", Operation::ForceLeave(ForceLeave { node: "n9".into(), prune: true }));
    let batch = EventBatch { ring: "r".into(), next: 8, clock: 9, events: vec![event()] };
    check("report-events", Report::Events(batch));
    check("requirement-event", Requirement::write(Resource::Event, "deploy"));
    check("requirement-query", Requirement::read(Resource::Query, "geo-"));
}
