//! Every decision, and the patch that follows from it, as tables.

use serde_json::{Value, json};

use super::*;
use crate::injector::patch::patch;

fn datacenter(name: &str, inject: &Value) -> Arc<ConsulDatacenter> {
    let resource = json!({
        "apiVersion": "lictor.dev/v1alpha1",
        "kind": "ConsulDatacenter",
        "metadata": { "name": name, "namespace": "consul", "uid": "u" },
        "spec": { "inject": inject },
        "status": { "serverCa": "-----BEGIN CERTIFICATE-----" },
    });
    Arc::new(serde_json::from_value(resource).expect("legal"))
}

fn apps() -> Vec<Arc<ConsulDatacenter>> {
    vec![datacenter(
        "dc1",
        &json!({
            "namespaces": ["apps"],
            "bindings": [
                { "namespace": "apps", "serviceAccount": "web", "services": ["web-admin"] },
                { "namespace": "other", "serviceAccount": "batch", "services": ["jobs"] },
            ],
        }),
    )]
}

fn pod(annotations: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web-0", "annotations": annotations },
        "spec": {
            "serviceAccountName": "web",
            "containers": [{ "name": "web", "ports": [
                { "containerPort": 8080, "name": "http" }, { "containerPort": 9090, "name": "admin" },
            ] }],
        },
    }))
    .expect("legal")
}

fn injected(annotations: &Value) -> Injection {
    match decide(&pod(annotations), "apps", &apps()) {
        Decision::Inject(injection) => *injection,
        other => panic!("{annotations}: {other:?}"),
    }
}

fn refused(pod: &Pod, namespace: &str, known: &[Arc<ConsulDatacenter>]) -> String {
    match decide(pod, namespace, known) {
        Decision::Refuse(refusal) => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn flat(ports: &[NamedPort]) -> Vec<String> {
    ports.iter().map(|port| format!("{}:{}", port.name, port.port)).collect()
}

#[test]
fn annotations_of_both_families_say_the_same() {
    let table = [
        (json!({ "lictor.dev/inject": "true" }), vec!["web:8080"], vec![]),
        (json!({ "consul.hashicorp.com/connect-inject": "true" }), vec!["web:8080"], vec![]),
        (
            json!({ "lictor.dev/inject": "true", "lictor.dev/services": "web:8080, web-admin:9090",
                    "lictor.dev/upstreams": "api:9191" }),
            vec!["web:8080", "web-admin:9090"],
            vec!["api:9191"],
        ),
        (json!({ "lictor.dev/inject": "true", "lictor.dev/services": "web:admin" }), vec!["web:9090"], vec![]),
        (
            json!({ "consul.hashicorp.com/connect-inject": "true",
                    "consul.hashicorp.com/connect-service": "web",
                    "consul.hashicorp.com/connect-service-port": "http",
                    "consul.hashicorp.com/connect-service-upstreams": "api:1234,store.svc:1235" }),
            vec!["web:8080"],
            vec!["api:1234", "store:1235"],
        ),
        (
            json!({ "consul.hashicorp.com/connect-inject": "true",
                    "consul.hashicorp.com/connect-service": "web,web-admin",
                    "consul.hashicorp.com/connect-service-port": "8080,admin" }),
            vec!["web:8080", "web-admin:9090"],
            vec![],
        ),
    ];
    for (annotations, services, upstreams) in table {
        let injection = injected(&annotations);
        assert_eq!(flat(&injection.services), services, "{annotations}");
        assert_eq!(flat(&injection.upstreams), upstreams, "{annotations}");
    }
}

#[test]
fn a_pod_that_does_not_ask_is_left_alone() {
    for annotations in [json!({}), json!({ "lictor.dev/inject": "false" }), json!({ "lictor.dev/services": "web:1" })] {
        assert_eq!(decide(&pod(&annotations), "apps", &apps()), Decision::Leave);
    }
}

#[test]
fn wrong_annotations_are_refused_with_what_would_be_right() {
    let ask = |key: &str, value: &str| json!({ "lictor.dev/inject": "true", key: value });
    let table = [
        (ask("lictor.dev/services", "Web:80"), "\"Web\" is no name of a service"),
        (ask("lictor.dev/services", "web:https"), "\"https\" is neither a port"),
        (ask("lictor.dev/services", "web:0"), "\"0\" is neither a port"),
        (ask("lictor.dev/services", "web:1,web:2"), "service \"web\" is there twice"),
        (ask("lictor.dev/services", "web:8500"), "port 8500 belongs to the sidecar"),
        (ask("lictor.dev/upstreams", "api"), "\"api\" is no NAME:PORT"),
        (ask("lictor.dev/upstreams", "api:20000"), "port 20000 belongs to the sidecar"),
        (ask("lictor.dev/upstreams", "api:8080"), "on which the pod itself serves"),
        (ask("lictor.dev/upstreams", "api:1:dc2"), "asks for another datacenter"),
        (ask("consul.hashicorp.com/connect-service", "web,admin"), "give one port for each service"),
        (ask("lictor.dev/services", "other"), "services: [other]"),
        (ask("lictor.dev/datacenter", "dc9"), "there are: consul/dc1"),
    ];
    for (annotations, expected) in table {
        let text = refused(&pod(&annotations), "apps", &apps());
        assert!(text.contains(expected), "{annotations}: {text}");
    }
}

#[test]
fn who_a_pod_may_be_follows_from_its_account_and_namespace() {
    let ask = pod(&json!({ "lictor.dev/inject": "true" }));
    let text = refused(&ask, "elsewhere", &apps());
    assert!(text.contains("add it to spec.inject.namespaces"), "{text}");
    assert!(text.contains("{namespace: elsewhere, serviceAccount: web, services: [web]}"), "{text}");

    let text = refused(&ask, "other", &apps());
    assert!(text.contains("may not be the service \"web\""), "a binding is for its own account only: {text}");

    let mut batch = pod(&json!({ "lictor.dev/inject": "true", "lictor.dev/services": "jobs:80" }));
    batch.spec.as_mut().expect("spec").service_account_name = Some("batch".to_owned());
    assert!(matches!(decide(&batch, "other", &apps()), Decision::Inject(_)));
    assert!(
        refused(&batch, "apps", &apps()).contains("may not be the service \"jobs\""),
        "a binding is for its namespace"
    );

    for account in [None, Some("default".to_owned())] {
        let mut nobody = ask.clone();
        nobody.spec.as_mut().expect("spec").service_account_name = account;
        assert!(refused(&nobody, "apps", &apps()).contains("'default' has no identity"));
    }
}

#[test]
fn a_pod_without_a_port_or_with_the_nodes_network_is_refused() {
    let mut portless = pod(&json!({ "lictor.dev/inject": "true" }));
    portless.spec.as_mut().expect("spec").containers[0].ports = None;
    let text = refused(&portless, "apps", &apps());
    assert!(text.contains("add the annotation lictor.dev/services: \"web:PORT\""), "{text}");

    let mut on_node = pod(&json!({ "lictor.dev/inject": "true" }));
    on_node.spec.as_mut().expect("spec").host_network = Some(true);
    assert!(refused(&on_node, "apps", &apps()).contains("hostNetwork"));
}

#[test]
fn of_several_datacenters_the_one_that_is_named_or_takes_the_namespace_is_meant() {
    let east = datacenter("east", &json!({ "namespaces": ["apps"] }));
    let west = datacenter("west", &json!({ "namespaces": ["shops"] }));
    let both = datacenter("both", &json!({ "namespaces": ["apps", "shops"] }));
    let ask = pod(&json!({ "lictor.dev/inject": "true" }));
    let chosen = |pod: &Pod, known: &[Arc<ConsulDatacenter>]| match decide(pod, "apps", known) {
        Decision::Inject(injection) => injection.names.name,
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(&ask, &[east.clone(), west.clone()]), "east");
    let named = pod(&json!({ "lictor.dev/inject": "true", "lictor.dev/datacenter": "consul/both" }));
    assert_eq!(chosen(&named, &[east.clone(), both.clone()]), "both");
    assert!(refused(&ask, "apps", &[east, both]).contains("consul/both, consul/east"));
    assert!(refused(&ask, "apps", &[]).contains("make one"));
}

#[test]
fn a_pod_is_not_taken_before_the_servers_have_an_authority() {
    let mut young = (*apps()[0]).clone();
    young.status = None;
    let text = refused(&pod(&json!({ "lictor.dev/inject": "true" })), "apps", &[Arc::new(young)]);
    assert!(text.contains("not ready to take pods yet"), "{text}");
}

#[test]
fn the_patch_puts_the_sidecar_first_and_a_second_one_changes_nothing() {
    let annotations = json!({ "lictor.dev/inject": "true", "lictor.dev/upstreams": "api:9191" });
    let own_init = json!([{ "name": "migrate" }]);
    for init_containers in [Value::Null, own_init] {
        let mut before = serde_json::to_value(pod(&annotations)).expect("serializes");
        if !init_containers.is_null() {
            before["spec"]["initContainers"] = init_containers.clone();
        }
        let pod: Pod = serde_json::from_value(before.clone()).expect("legal");
        let Decision::Inject(injection) = decide(&pod, "apps", &apps()) else { panic!("not injected") };
        let mut after = before;
        json_patch::patch(&mut after, &patch(&pod, &injection, "lictor:1")).expect("the patch applies");

        let sidecar = &after["spec"]["initContainers"][0];
        assert_eq!(sidecar["name"], "lictor-sidecar");
        assert_eq!(sidecar["restartPolicy"], "Always");
        assert_eq!(
            sidecar["args"],
            json!([
                "sidecar",
                "-datacenter=dc1",
                "-server-address=dc1-server.consul.svc.cluster.local:8300",
                "-login-token-file=/var/run/lictor/identity/token",
                "-service=web:8080",
                "-upstream=api:9191",
            ])
        );
        let token = &after["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["audience"], "lictor://consul/dc1");
        assert_eq!(after["metadata"]["labels"]["lictor.dev/injected"], "true");
        assert!(after["spec"]["containers"][0]["volumeMounts"].is_null(), "the application sees no token of ours");
        if !init_containers.is_null() {
            assert_eq!(after["spec"]["initContainers"][1]["name"], "migrate");
        }
        let again: Pod = serde_json::from_value(after).expect("still a pod");
        assert_eq!(decide(&again, "apps", &apps()), Decision::Leave);
    }
}
