//! Config entries, gateways and virtual addresses at the door.

use http::StatusCode;
use lictor_types::command::Effect;
use lictor_types::config_entry::{ConfigEntryDelete, ConfigEntryKey};
use lictor_types::gateway::GatewayService;
use lictor_types::{
    Answer, Command, ConfigEntry, ConfigKind, Index, Merge, NodeService, Query, Rows, VirtualAddressesSet,
};
use serde_json::{Value, json};

use super::double::{Tested, at};

fn entry(written: &Value) -> ConfigEntry {
    ConfigEntry::parse(ConfigKind::ServiceDefaults, written).unwrap()
}

#[tokio::test]
async fn an_entry_is_written_in_either_spelling() {
    let door = Tested::answering(at(1, Answer::ConfigEntry(None)));
    for body in [
        r#"{"Kind":"service-defaults","Name":"web","ExternalSNI":"x"}"#,
        r#"{"kind":"service_defaults","name":"web","external_sni":"x"}"#,
    ] {
        let got = door.call("PUT", "/v1/config?cas=3", body).await;
        assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "true"), "{body}");
    }
    let asked = door.double.asked.lock();
    let Command::ConfigEntrySet(set) = &asked.writes[0].1 else { panic!("{:?}", asked.writes) };
    assert_eq!((&set.entry, set.cas), (&entry(&json!({"Name": "web", "ExternalSNI": "x"})), Some(Index(3))));
    assert_eq!(asked.writes[0].1, asked.writes[1].1);
}

#[tokio::test]
async fn a_body_that_is_no_entry_is_400_and_says_why() {
    let door = Tested::answering(at(1, Answer::ConfigEntry(None)));
    for (body, text) in [
        ("{}", "Payload does not contain a kind/Kind key at the top level"),
        (r#"{"Kind":1}"#, "Kind value in payload is not a string"),
        (r#"{"Kind":"nope"}"#, "invalid config entry kind: nope"),
        (r#"{"Kind":"mesh","Foo":1}"#, "1 error occurred:\n\t* invalid config key \"Foo\"\n\n"),
        ("not JSON", "expected ident at line 1 column 2"),
    ] {
        let got = door.call("PUT", "/v1/config", body).await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (StatusCode::BAD_REQUEST, format!("Request decoding failed: {text}").as_str())
        );
    }
    assert!(door.double.asked.lock().writes.is_empty());
}

#[tokio::test]
async fn entries_are_read_listed_and_removed() {
    let stored = entry(&json!({"Name": "web", "Protocol": "http"}));
    let door = Tested::answering(at(4, Answer::ConfigEntry(Some(Box::new(stored.clone())))));
    let got = door.get("/v1/config/ServiceDefaults/web").await;
    let shown: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!((shown["Protocol"].as_str(), shown["Hash"].as_u64()), (Some("http"), Some(stored.hash())));
    assert_eq!(got.header("x-consul-index"), "4");
    let key = || ConfigEntryKey { kind: ConfigKind::ServiceDefaults, name: "web".into() };
    assert_eq!(door.double.asked.lock().reads[0].1, Query::ConfigEntry(key()));
    assert_eq!(door.call("DELETE", "/v1/config/service-defaults/web", "").await.body, "{}");
    assert_eq!(door.call("DELETE", "/v1/config/service-defaults/web?cas=4", "").await.body, "true");
    let delete = Command::ConfigEntryDelete(ConfigEntryDelete { key: key(), cas: None });
    assert_eq!(door.double.asked.lock().writes[0].1, delete);

    let door = Tested::answering(at(4, Answer::ConfigEntry(None)));
    let got = door.get("/v1/config/mesh/mesh").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    assert_eq!(got.body, r#"Config entry not found for "mesh" / "mesh""#);
    assert_eq!(got.header("x-consul-index"), "4", "who waits for an entry needs an index to wait from");
    let door = Tested::answering(at(4, Answer::ConfigEntries(Vec::new())));
    assert_eq!(door.get("/v1/config/mesh").await.body, "[]");
    let got = door.get("/v1/config/nope").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (500, "invalid config entry kind: nope"));
}

#[tokio::test]
async fn rows_are_completed_where_that_is_asked_for() {
    let door = Tested::answering(at(1, Answer::CheckServiceNodes(Rows::default())));
    door.get("/v1/health/service/web?merge-central-config").await;
    door.get("/v1/health/service/web?merge-central-config=false").await;
    let asked = door.double.asked.lock();
    let Query::Selected(selection) = &asked.reads[0].1 else { panic!("{:?}", asked.reads) };
    assert_eq!(selection.merge, Some(Merge::CentralConfig));
    assert!(matches!(asked.reads[1].1, Query::HealthService(_)));
}

#[tokio::test]
async fn an_agents_own_instance_is_completed_where_that_is_asked_for() {
    let mut completed = NodeService::new("p".parse().unwrap());
    completed.kind = "connect-proxy".into();
    completed.proxy.mode = "transparent".into();
    let door = Tested::answering(at(8, Answer::Completed(Box::new(completed))));
    let body = r#"{"Name":"p","Kind":"connect-proxy","Port":1,"Proxy":{"DestinationServiceName":"web"}}"#;
    assert_eq!(door.call("PUT", "/v1/agent/service/register", body).await.status, StatusCode::OK);
    assert!(door.get("/v1/agent/service/p").await.body.contains(r#""Mode":"""#));
    let merged = door.get("/v1/agent/service/p?merge-central-config").await;
    assert!(merged.body.contains(r#""Mode":"transparent""#), "{}", merged.body);
    let hash = merged.header("x-consul-contenthash").to_owned();
    // What it waits on is what the servers say, too.
    let later = at(9, Answer::Completed(Box::new(NodeService::new("p".parse().unwrap()))));
    let now = door.double.reads.lock()[0].clone();
    *door.double.reads.lock() = vec![now, later];
    let woken = door.get(&format!("/v1/agent/service/p?merge-central-config&hash={hash}&wait=10m")).await;
    assert_ne!(woken.header("x-consul-contenthash"), hash);
}

#[tokio::test]
async fn a_gateways_registration_has_what_fits_its_kind() {
    let door = Tested::answering(at(1, Answer::ConfigEntry(None)));
    let register = |body: Value| {
        let door = &door;
        async move { door.call("PUT", "/v1/agent/service/register", &body.to_string()).await }
    };
    let got = register(json!({"Name": "gw", "Kind": "mesh-gateway"})).await;
    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (400, "Validation failed: Port must be non-zero for a mesh-gateway")
    );
    let locality = json!({"region": "eu", "Zone": "eu-1"});
    let body = json!({"Name": "gw", "Kind": "mesh-gateway", "Port": 8443, "locality": locality,
        "Proxy": {"TransparentProxy": {"OutboundListenerPort": 1}}});
    assert_eq!(register(body).await.status, StatusCode::OK);
    let shown = door.get("/v1/agent/service/gw").await.body;
    assert!(shown.contains(r#""Locality":{"Region":"eu","Zone":"eu-1"}"#), "{shown}");
    assert!(shown.contains(r#""TransparentProxy":{"OutboundListenerPort":1}"#), "{shown}");
}

#[tokio::test]
async fn services_behind_a_gateway_are_shown_as_consul_shows_them() {
    let row = GatewayService {
        gateway: "gate".into(),
        service: "web".into(),
        gateway_kind: "ingress-gateway".into(),
        port: 8080,
        protocol: "http".into(),
        hosts: Vec::new(),
        ca_file: String::new(),
        cert_file: String::new(),
        key_file: String::new(),
        sni: String::new(),
        from_wildcard: false,
        create_index: Index(3),
        modify_index: Index(4),
    };
    let door = Tested::answering(at(4, Answer::GatewayServices(vec![row])));
    let got = door.get("/v1/catalog/gateway-services/gate").await;
    assert_eq!(
        got.body,
        r#"[{"Gateway":{"Name":"gate"},"Service":{"Name":"web"},"GatewayKind":"ingress-gateway","Port":8080,"Protocol":"http","CreateIndex":3,"ModifyIndex":4}]"#
    );
    let got = door.get("/v1/catalog/gateway-services/").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (400, "Missing gateway name"));
    let got = door.get("/v1/health/ingress/").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (400, "Missing service name"));
}

#[tokio::test]
async fn addresses_that_were_taken_from_others_are_told() {
    let door = Tested::answering(at(1, Answer::VirtualAddress(None)));
    let body = r#"{"Service":"web","ManualVIPs":["10.1.0.1"]}"#;
    *door.double.effect.lock() = Effect::Unassigned(vec!["db".into()]);
    let got = door.call("PUT", "/v1/internal/service-virtual-ip", body).await;
    assert_eq!(got.body, r#"{"Found":true,"UnassignedFrom":[{"ServiceName":{"Name":"db"},"Peer":""}]}"#);
    let set = VirtualAddressesSet { service: "web".into(), addresses: vec!["10.1.0.1".into()] };
    assert_eq!(door.double.asked.lock().writes[0].1, Command::VirtualAddressesSet(set));
    *door.double.effect.lock() = Effect::NotApplied;
    let got = door.call("PUT", "/v1/internal/service-virtual-ip", body).await;
    assert_eq!(got.body, r#"{"Found":false,"UnassignedFrom":null}"#);
}
