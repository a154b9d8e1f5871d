use serde_json::json;

use super::*;

fn parsed(kind: ConfigKind, written: &Value) -> ConfigEntry {
    ConfigEntry::parse(kind, written).unwrap_or_else(|problem| panic!("{written}: {problem}"))
}

fn shown(kind: ConfigKind, written: &Value) -> Value {
    let mut shown = serde_json::to_value(parsed(kind, written)).unwrap();
    shown.as_object_mut().unwrap().remove("Hash");
    shown
}

fn refused(kind: ConfigKind, written: &Value) -> String {
    parsed(kind, written).validate().expect_err("it is refused")
}

#[test]
fn every_spelling_of_a_kind_is_one() {
    for kind in ConfigKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(kind.as_str().replace('-', "_").parse(), Ok(kind));
        assert_eq!(kind.as_str().replace('-', "").to_uppercase().parse(), Ok(kind));
    }
    assert_eq!("sameness-group".parse::<ConfigKind>(), Err("invalid config entry kind: sameness-group".into()));
    assert!(is_intentions("ServiceIntentions") && !is_intentions("service-defaults"));
}

#[test]
fn camel_case_and_snake_case_say_the_same() {
    let camel = json!({"Kind": "service-resolver", "Name": "web", "ConnectTimeout": "15s", "DefaultSubset": "v1",
        "Subsets": {"v1": {"OnlyPassing": true}}, "LoadBalancer": {"Policy": "ring_hash",
        "RingHashConfig": {"MinimumRingSize": 3}}, "CreateIndex": 9, "Hash": 7});
    let snake = json!({"kind": "service-resolver", "name": "web", "connect_timeout": 15_000_000_000u64,
        "default_subset": "v1", "subsets": [{"v1": [{"only_passing": "true"}]}],
        "load_balancer": {"policy": "ring_hash", "ring_hash_config": [{"minimum_ring_size": "3"}]}});
    let kind = ConfigKind::ServiceResolver;
    assert_eq!(parsed(kind, &camel), parsed(kind, &snake));
    assert_eq!(parsed(kind, &camel).hash(), parsed(kind, &snake).hash());
    assert_eq!(
        shown(kind, &camel),
        json!({"Kind": "service-resolver", "Name": "web", "ConnectTimeout": "15s", "DefaultSubset": "v1",
            "Subsets": {"v1": {"OnlyPassing": true}}, "LoadBalancer": {"Policy": "ring_hash",
            "RingHashConfig": {"MinimumRingSize": 3}}, "CreateIndex": 0, "ModifyIndex": 0})
    );
}

#[test]
fn what_consul_always_tells_is_told() {
    assert_eq!(
        shown(ConfigKind::ServiceDefaults, &json!({"Name": "web", "Protocol": "HTTP", "Meta": {"a": 1}})),
        json!({"Kind": "service-defaults", "Name": "web", "Protocol": "http", "TransparentProxy": {}, "MeshGateway": {},
            "Expose": {}, "Meta": {"a": "1"}, "CreateIndex": 0, "ModifyIndex": 0})
    );
    assert_eq!(shown(ConfigKind::Mesh, &json!({}))["TransparentProxy"], json!({"MeshDestinationsOnly": false}));
    let splitter = shown(
        ConfigKind::ServiceSplitter,
        &json!({"Name": "web", "Splits": [{"Weight": 33.333, "Service": "a"}, {"Weight": "66.67"}]}),
    );
    assert_eq!(splitter["Splits"], json!([{"Weight": 33.33, "Service": "a"}, {"Weight": 66.67}]));
}

#[test]
fn a_field_that_nobody_knows_is_named_with_its_place() {
    let written = json!({"Name": "web", "Protokol": "http", "Expose": {"Paths": [{"Pfad": "/"}]}, "Namespace": "x"});
    assert_eq!(
        ConfigEntry::parse(ConfigKind::ServiceDefaults, &written),
        Err("3 errors occurred:\n\t* invalid config key \"Expose.Paths[0].Pfad\"\n\t* \"Namespace\" - namespaces are a \
             Consul Enterprise feature\n\t* invalid config key \"Protokol\"\n\n"
            .into())
    );
    assert_eq!(
        ConfigEntry::parse(ConfigKind::ServiceDefaults, &json!({"MaxInboundConnections": "many"})),
        Err("MaxInboundConnections: a whole number is expected, not the text \"many\"".into())
    );
}

#[test]
fn an_entry_is_refused_in_consuls_words() {
    use ConfigKind as Kind;
    for (kind, written, words) in [
        (Kind::ServiceDefaults, json!({"Name": "*"}), "service-defaults name must be the name of a service"),
        (Kind::ServiceDefaults, json!({}), "Name is required"),
        (
            Kind::ServiceDefaults,
            json!({"Name": "a", "Destination": {"Addresses": ["a.b", "a.b"], "Port": 1}}),
            "Duplicate address 'a.b' is not allowed",
        ),
        (Kind::ProxyDefaults, json!({"Name": "web"}), "invalid name (\"web\"), only \"global\" is supported"),
        (Kind::ProxyDefaults, json!({"Config": 1}), "Config must be an object"),
        (
            Kind::ServiceSplitter,
            json!({"Name": "a", "Splits": [{"Weight": 99.5}]}),
            "the sum of all split weights must be 100, not 99.500000",
        ),
        (
            Kind::ServiceSplitter,
            json!({"Name": "a", "Splits": [{"Weight": 150}, {"Weight": -50, "Service": "b"}]}),
            "the weight of a split must be between 0 and 100, not -50",
        ),
        (
            Kind::ServiceSplitter,
            json!({"Name": "a", "Splits": [{"Weight": 50}, {"Weight": 50, "Service": "a"}]}),
            "split destination occurs more than once: service=\"a\", subset=\"\"",
        ),
        (
            Kind::ServiceRouter,
            json!({"Name": "a", "Routes": [{"Match": {"HTTP": {"PathPrefix": "x"}}}]}),
            "Route[0] PathPrefix doesn't start with '/': \"x\"",
        ),
        (Kind::ServiceResolver, json!({"Name": "a", "Redirect": {}}), "Redirect is empty"),
        (
            Kind::ServiceResolver,
            json!({"Name": "a", "Failover": {"v1": {"Service": "b"}}}),
            "Bad Failover[\"v1\"]: not a valid subset subset",
        ),
        (
            Kind::ServiceResolver,
            json!({"Name": "a", "ConnectTimeout": "-1s"}),
            "Bad ConnectTimeout '-1s', must be >= 0",
        ),
        (
            Kind::IngressGateway,
            json!({"Name": "a", "Listeners": [{"Port": 80, "Services": [{"Name": "*"}]}]}),
            "Wildcard service name is only valid for protocol = 'http' (listener on port 80)",
        ),
        (
            Kind::TerminatingGateway,
            json!({"Name": "a", "Services": [{"Name": "b", "CertFile": "c"}]}),
            "Service \"b\" must have a CertFile, CAFile, and KeyFile specified for TLS origination",
        ),
        (Kind::ApiGateway, json!({"Name": "a"}), "api gateway must have at least one listener"),
        (Kind::InlineCertificate, json!({"Name": "a", "Certificate": "x", "PrivateKey": "y"}), "it is not PEM"),
        (Kind::JwtProvider, json!({"Name": "a"}), "JSONWebKeySet is required"),
        (
            Kind::Mesh,
            json!({"TLS": {"Incoming": {"TLSMinVersion": "TLSv9"}}}),
            "error in incoming TLS configuration: no matching TLS version found for TLSv9",
        ),
        (
            Kind::ExportedServices,
            json!({"Name": "default", "Services": [{"Name": "a"}]}),
            "Services[0]: must have at least one consumer",
        ),
    ] {
        let text = refused(kind, &written);
        assert!(text.contains(words), "{kind} {written}: {text}");
    }
}

#[test]
fn an_entry_has_limits() {
    let many: BTreeMap<String, String> = (0..65).map(|number| (number.to_string(), String::new())).collect();
    let kind = ConfigKind::ServiceDefaults;
    assert_eq!(refused(kind, &json!({"Name": "a", "Meta": many})), "Meta exceeds maximum element count 64");
    assert!(refused(kind, &json!({"Name": "a".repeat(513)})).contains("at most 512 bytes"));
    let body = json!({"Config": {"a": "x".repeat(BODY_BYTES_MAX)}});
    assert!(refused(ConfigKind::ProxyDefaults, &body).contains("at most 524288 are allowed"));
}
