//! The bytes of config entries, gateways and virtual addresses, pinned as in `golden.rs`.

use std::collections::BTreeMap;

use lictor_types::command::Effect;
use lictor_types::config_entry::{ConfigEntryDelete, ConfigEntryKey, ConfigEntrySet, ConfigKind};
use lictor_types::gateway::{GatewayService, VirtualAddress};
use lictor_types::json::{Opaque, OpaqueList};
use lictor_types::query::ServiceQuery;
use lictor_types::service::Upstream;
use lictor_types::{
    Answer, Command, ConfigEntry, Index, Locality, Merge, Node, NodeService, Query, Requirement, Resource, Selection,
    VirtualAddressesSet,
};
use serde_json::json;

use super::check;

fn entry() -> ConfigEntry {
    let written = json!({"Name": "web", "Protocol": "http", "Meta": {"a": "b"},
        "UpstreamConfig": {"Overrides": [{"Name": "db", "Limits": {"MaxConnections": 3}}]}});
    let parsed = ConfigEntry::parse(ConfigKind::ServiceDefaults, &written).unwrap();
    ConfigEntry { create_index: Index(3), modify_index: Index(4), ..parsed }
}

fn opaque(name: &str, value: serde_json::Value) -> Opaque {
    let mut opaque = Opaque::default();
    opaque.set(name, value);
    opaque
}

fn service() -> NodeService {
    let mut service = NodeService::new("web-proxy".parse().unwrap());
    service.kind = "connect-proxy".into();
    service.locality = Some(Locality { region: "eu".into(), zone: "eu-1".into() });
    service.proxy.destination_service_name = "web".into();
    service.proxy.local_service_socket_path = Some("/run/web".into());
    service.proxy.transparent_proxy = Some(opaque("DialedDirectly", true.into()));
    service.proxy.mutual_tls_mode = Some("strict".into());
    service.proxy.access_logs = Some(opaque("Enabled", true.into()));
    service.proxy.envoy_extensions = Some(OpaqueList(vec![json!({"Name": "builtin/lua"})]));
    service.proxy.upstreams = vec![Upstream {
        config: opaque("protocol", "http".into()),
        mesh_gateway: opaque("Mode", "local".into()),
        centrally_configured: Some(true),
        ..Upstream::new("db".into())
    }];
    service
}

#[test]
fn config_entries_and_what_hangs_on_them() {
    let key = || ConfigEntryKey { kind: ConfigKind::JwtProvider, name: "p".into() };
    let linked = GatewayService {
        gateway: "gate".into(),
        service: "web".into(),
        gateway_kind: "ingress-gateway".into(),
        port: 8080,
        protocol: "http".into(),
        hosts: vec!["a.example".into()],
        ca_file: "ca".into(),
        cert_file: "cert".into(),
        key_file: "key".into(),
        sni: "sni".into(),
        from_wildcard: true,
        create_index: Index(3),
        modify_index: Index(4),
    };
    let address = VirtualAddress {
        service: "web".into(),
        place: 7,
        manual: vec!["10.1.0.1".into()],
        create_index: Index(3),
        modify_index: Index(4),
    };
    let node = Node {
        id: String::new(),
        name: "n1".parse().unwrap(),
        address: "10.0.0.1".into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: Index(1),
        modify_index: Index(1),
        locality: Some(Locality { region: "eu".into(), zone: String::new() }),
    };
    let name = || "web".parse().unwrap();
    check("config-entry", entry());
    check("node-with-locality", node);
    check("service-completed", service());
    check("virtual-address", address.clone());
    let set = ConfigEntrySet { entry: entry(), cas: Some(Index(3)) };
    check("command-config-entry-set", Command::ConfigEntrySet(Box::new(set)));
    check("command-config-entry-delete", Command::ConfigEntryDelete(ConfigEntryDelete { key: key(), cas: None }));
    let addresses = VirtualAddressesSet { service: "web".into(), addresses: vec!["10.1.0.1".into()] };
    check("command-virtual-addresses-set", Command::VirtualAddressesSet(addresses));
    check("effect-unassigned", Effect::Unassigned(vec!["db".into()]));
    check("query-config-entry", Query::ConfigEntry(key()));
    check("query-config-entries", Query::ConfigEntries(ConfigKind::Mesh));
    check("query-gateway-services", Query::GatewayServices(name()));
    check("query-health-ingress", Query::HealthIngress(ServiceQuery::all(name())));
    check("query-virtual-address", Query::VirtualAddress(name()));
    check("query-completed", Query::Completed(Box::new(service())));
    let query = Query::ServiceNodes(ServiceQuery::all(name()));
    let merged = Selection { query, filter: String::new(), near: None, merge: Some(Merge::CentralConfig) };
    check("query-merged", Query::Selected(Box::new(merged)));
    check("answer-config-entry", Answer::ConfigEntry(Some(Box::new(entry()))));
    check("answer-config-entries", Answer::ConfigEntries(vec![entry()]));
    check("answer-gateway-services", Answer::GatewayServices(vec![linked]));
    check("answer-virtual-address", Answer::VirtualAddress(Some(address)));
    check("answer-completed", Answer::Completed(Box::new(service())));
    check("requirement-mesh", Requirement::write(Resource::Mesh, ""));
    for kind in ConfigKind::ALL {
        check(&format!("config-kind-{kind}"), kind);
    }
}
