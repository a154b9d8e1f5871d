//! The part of the script about config entries and gateways, as far as Consul 1.8.7 has them.

use crate::script::{Step, delete, get, post, put};

/// Entries that are set, read, listed, changed and removed, and what is refused.
pub(crate) fn entries() -> Vec<Step> {
    vec![
        get("/v1/config/service-defaults"),
        get("/v1/config/service-defaults/absent"),
        put(
            "/v1/config",
            r#"{"Kind":"proxy-defaults","Name":"global","Config":{"protocol":"http","a":{"b":1}},"MeshGateway":{"Mode":"local"}}"#,
        ),
        get("/v1/config/proxy-defaults/global"),
        get("/v1/config/proxy-defaults"),
        put(
            "/v1/config",
            r#"{"kind":"service-defaults","name":"cfg","protocol":"HTTP","external_sni":"","mesh_gateway":{"mode":"remote"},"expose":{"paths":[{"path":"/x","listener_port":21500,"local_path_port":80,"protocol":"http2"}]}}"#,
        ),
        get("/v1/config/service-defaults/cfg").capture("cfg", "/ModifyIndex"),
        put("/v1/config?cas=1", r#"{"Kind":"service-defaults","Name":"cfg","Protocol":"grpc"}"#),
        put("/v1/config?cas=${cfg}", r#"{"Kind":"service-defaults","Name":"cfg","Protocol":"http"}"#),
        get("/v1/config/service-defaults/cfg"),
        put(
            "/v1/config",
            r#"{"Kind":"service-resolver","Name":"cfg","DefaultSubset":"v1","ConnectTimeout":"15s","Subsets":{"v1":{"Filter":"Service.Meta.v == 1"},"v2":{"OnlyPassing":true}},"Failover":{"*":{"Datacenters":["dc2"]}}}"#,
        ),
        get("/v1/config/service-resolver/cfg"),
        put(
            "/v1/config",
            r#"{"Kind":"service-splitter","Name":"cfg","Splits":[{"Weight":99.5,"ServiceSubset":"v1"},{"Weight":0.5,"ServiceSubset":"v2"}]}"#,
        ),
        get("/v1/config/service-splitter/cfg"),
        put(
            "/v1/config",
            r#"{"Kind":"service-router","Name":"cfg","Routes":[{"Match":{"HTTP":{"PathPrefix":"/a","Header":[{"Name":"h","Exact":"x"}],"QueryParam":[{"Name":"q","Present":true}],"Methods":["get"]}},"Destination":{"Service":"cfg2","PrefixRewrite":"/","RequestTimeout":"3s","NumRetries":2,"RetryOnStatusCodes":[503]}}]}"#,
        ),
        get("/v1/config/service-router/cfg"),
        get("/v1/config/service-router"),
        get("/v1/config/service-defaults?filter=Protocol%20%3D%3D%20http"),
        // Where calls go in the end.
        get("/v1/discovery-chain/cfg"),
        get("/v1/discovery-chain/nobody"),
        get("/v1/discovery-chain/cfg?compile-dc=dc9"),
        post("/v1/discovery-chain/cfg", r#"{"OverrideConnectTimeout":"7s","OverrideMeshGateway":{"Mode":"remote"}}"#),
        post("/v1/discovery-chain/cfg", r#"{"OverrideProtocol":"tcp"}"#),
        post("/v1/discovery-chain/cfg", r#"{"OverrideMeshGateway":{"Mode":"far"}}"#),
        post("/v1/discovery-chain/cfg", "not JSON"),
        get("/v1/discovery-chain/"),
        // What others rest on stays, and what does not hold is refused.
        delete("/v1/config/service-resolver/cfg"),
        delete("/v1/config/proxy-defaults/global"),
        put("/v1/config", r#"{"Kind":"service-defaults","Name":"cfg","Protocol":"tcp"}"#),
        put("/v1/config", r#"{"Kind":"service-splitter","Name":"cfg","Splits":[{"Weight":50}]}"#),
        put("/v1/config", r#"{"Kind":"service-splitter","Name":"cfg"}"#),
        put("/v1/config", r#"{"Kind":"service-resolver","Name":"cfg3","Redirect":{}}"#),
        put("/v1/config", r#"{"Kind":"service-resolver","Name":"cfg3","DefaultSubset":"x"}"#),
        put("/v1/config", r#"{"Kind":"service-resolver","Name":"cfg3","ConnectTimeout":"-1s"}"#),
        put("/v1/config", r#"{"Kind":"service-router","Name":"cfg","Routes":[{"Match":{"HTTP":{"PathPrefix":"a"}}}]}"#),
        put("/v1/config", r#"{"Kind":"service-defaults"}"#),
        put("/v1/config", r#"{"Kind":"nope","Name":"x"}"#),
        put("/v1/config", r#"{"Name":"x"}"#),
        put("/v1/config", r#"{"Kind":"service-defaults","Name":"x","Foo":1}"#),
        put("/v1/config", "not JSON"),
        get("/v1/config/nope"),
        get("/v1/config/"),
        delete("/v1/config/service-defaults"),
        delete("/v1/config/service-defaults/absent"),
    ]
}

/// Gateways of both kinds, and what is behind them.
pub(crate) fn gateways() -> Vec<Step> {
    vec![
        put(
            "/v1/catalog/register",
            r#"{"Node":"gws","Address":"192.0.2.90","Service":{"Kind":"terminating-gateway","Service":"tgw","Port":8443},"Check":{"CheckID":"gw","Name":"gw","Status":"passing","ServiceID":"tgw"}}"#,
        ),
        put(
            "/v1/catalog/register",
            r#"{"Node":"gws","Address":"192.0.2.90","Service":{"Kind":"ingress-gateway","Service":"gate","Port":8080}}"#,
        ),
        put(
            "/v1/catalog/register",
            r#"{"Node":"gws","Address":"192.0.2.90","Service":{"Service":"legacy","Port":80}}"#,
        ),
        put(
            "/v1/catalog/register",
            r#"{"Node":"gws","Address":"192.0.2.90","Service":{"Kind":"mesh-gateway","Service":"mgw"}}"#,
        ),
        put(
            "/v1/catalog/register",
            r#"{"Node":"gws","Address":"192.0.2.90","Service":{"Kind":"terminating-gateway","Service":"bad","Port":1,"Proxy":{"Upstreams":[{"DestinationName":"db","LocalBindPort":1}]}}}"#,
        ),
        put(
            "/v1/config",
            r#"{"Kind":"terminating-gateway","Name":"tgw","Services":[{"Name":"legacy","CAFile":"ca.pem","CertFile":"cert.pem","KeyFile":"key.pem","SNI":"legacy.example"}]}"#,
        ),
        get("/v1/config/terminating-gateway/tgw"),
        get("/v1/catalog/gateway-services/tgw"),
        get("/v1/health/connect/legacy"),
        get("/v1/catalog/connect/legacy"),
        put(
            "/v1/config",
            r#"{"Kind":"ingress-gateway","Name":"gate","Listeners":[{"Port":8080,"Protocol":"http","Services":[{"Name":"cfg","Hosts":["a.example"]}]},{"Port":8081,"Services":[{"Name":"plain"}]}]}"#,
        ),
        put(
            "/v1/config",
            r#"{"Kind":"ingress-gateway","Name":"gate","Listeners":[{"Port":8080,"Protocol":"http","Services":[{"Name":"cfg","Hosts":["a.example"]}]}]}"#,
        ),
        get("/v1/config/ingress-gateway/gate"),
        get("/v1/catalog/gateway-services/gate"),
        get("/v1/catalog/gateway-services/nobody"),
        get("/v1/catalog/gateway-services/"),
        get("/v1/health/ingress/cfg"),
        get("/v1/health/ingress/nobody"),
        put(
            "/v1/config",
            r#"{"Kind":"terminating-gateway","Name":"tgw","Services":[{"Name":"legacy"},{"Name":"legacy"}]}"#,
        ),
        put(
            "/v1/config",
            r#"{"Kind":"terminating-gateway","Name":"tgw","Services":[{"Name":"legacy","CertFile":"x"}]}"#,
        ),
        put(
            "/v1/config",
            r#"{"Kind":"ingress-gateway","Name":"gate","Listeners":[{"Port":1,"Protocol":"udp","Services":[{"Name":"cfg"}]}]}"#,
        ),
        put(
            "/v1/config",
            r#"{"Kind":"ingress-gateway","Name":"gate","Listeners":[{"Port":1,"Services":[{"Name":"*"}]}]}"#,
        ),
        delete("/v1/config/ingress-gateway/gate"),
        delete("/v1/config/terminating-gateway/tgw"),
        get("/v1/health/connect/legacy"),
        delete("/v1/config/service-router/cfg"),
        delete("/v1/config/service-splitter/cfg"),
        delete("/v1/config/service-resolver/cfg"),
        delete("/v1/config/service-defaults/cfg"),
        delete("/v1/config/proxy-defaults/global"),
        put("/v1/catalog/deregister", r#"{"Node":"gws"}"#),
    ]
}
