//! The bytes of compiled chains and of what peers may call, pinned as in `golden.rs`.

use std::collections::BTreeMap;

use lictor_types::discovery_chain::{
    ChainAnswer, ChainNode, ChainQuery, ChainResolver, ChainRoute, ChainSplit, ChainStep, ChainTarget, CompiledChain,
};
use lictor_types::json::{Opaque, OpaqueList};
use lictor_types::query::ExportedService;
use lictor_types::{Answer, Query};
use serde_json::json;

use super::check;

fn opaque(value: serde_json::Value) -> Opaque {
    value.as_object().cloned().unwrap().into()
}

fn chain() -> CompiledChain {
    let route = ChainRoute { definition: opaque(json!({"Match": {}})), next_node: "splitter:web".into() };
    let split =
        ChainSplit { definition: opaque(json!({"Weight": 99.5})), hundredths: 9950, next_node: "resolver:web".into() };
    let resolver = ChainResolver {
        is_default: false,
        connect_timeout_nanos: 5_000_000_000,
        request_timeout_nanos: 1,
        target: "v1.web.default.default.dc1".into(),
        failover: vec!["web.default.default.dc2".into()],
        failover_policy: Some(opaque(json!({"Mode": "sequential"}))),
        prioritize_by_locality: Some(opaque(json!({"Mode": "failover"}))),
    };
    let node = |step, load_balancer| ChainNode { name: "web.default.default".into(), step, load_balancer };
    let target = ChainTarget {
        id: "v1.web.default.default.dc1".into(),
        service: "web".into(),
        subset_name: "v1".into(),
        datacenter: "dc1".into(),
        peer: "east".into(),
        mesh_gateway: "local".into(),
        subset: opaque(json!({"OnlyPassing": true})),
        dialed_directly: true,
        connect_timeout_nanos: 5_000_000_000,
        is_external: true,
        sni: "web.example".into(),
        name: "v1.web.default.dc1.internal.x.consul".into(),
    };
    CompiledChain {
        service: "web".into(),
        datacenter: "dc1".into(),
        customization_hash: "0badcafe".into(),
        is_default: true,
        protocol: "http".into(),
        meta: BTreeMap::from([("a".into(), "b".into())]),
        envoy_extensions: OpaqueList(vec![json!({"Name": "builtin/lua"})]),
        start: "router:web".into(),
        nodes: BTreeMap::from([
            ("router:web".into(), node(ChainStep::Router(vec![route]), None)),
            ("splitter:web".into(), node(ChainStep::Splitter(vec![split]), Some(opaque(json!({"Policy": "maglev"}))))),
            ("resolver:web".into(), node(ChainStep::Resolver(resolver), None)),
        ]),
        targets: BTreeMap::from([("v1.web.default.default.dc1".into(), target)]),
        automatic_addresses: vec!["240.0.0.1".into()],
        manual_addresses: Some(vec!["10.1.0.1".into()]),
    }
}

#[test]
fn chains_and_exports() {
    let query = ChainQuery {
        service: "web".parse().unwrap(),
        datacenter: "dc1".into(),
        protocol: "grpc".into(),
        connect_timeout_nanos: 7,
        mesh_gateway: "none".into(),
    };
    check("query-discovery-chain", Query::DiscoveryChain(query));
    check("query-exported-services", Query::ExportedServices);
    let compiled = ChainAnswer::Compiled(Box::new(chain()));
    check("answer-discovery-chain", Answer::DiscoveryChain(Some(compiled)));
    check("answer-discovery-chain-broken", Answer::DiscoveryChain(Some(ChainAnswer::Broken("no way".into()))));
    let exported = ExportedService { service: "web".into(), peers: vec!["east".into()] };
    check("answer-exported-services", Answer::ExportedServices(vec![exported]));
}
