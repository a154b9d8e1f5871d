//! The one script of requests that a real Consul and ours both get. Every answer is compared.

use crate::script_config;
use crate::script_queries;
use crate::selections;

/// One request.
pub(crate) struct Step {
    pub(crate) method: &'static str,
    /// With `${name}` where a captured value goes.
    pub(crate) target: &'static str,
    pub(crate) body: Option<&'static str>,
    /// Ask again until the answer holds this: for what an agent brings to the catalog after it has answered.
    pub(crate) until: Option<&'static str>,
    /// Keep the value at this place of the answer under this name.
    pub(crate) capture: Option<(&'static str, &'static str)>,
}

impl Step {
    pub(crate) fn until(mut self, text: &'static str) -> Self {
        self.until = Some(text);
        self
    }

    pub(crate) fn capture(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.capture = Some((name, pointer));
        self
    }
}

pub(crate) fn step(method: &'static str, target: &'static str, body: Option<&'static str>) -> Step {
    Step { method, target, body, until: None, capture: None }
}

pub(crate) fn get(target: &'static str) -> Step {
    step("GET", target, None)
}

pub(crate) fn put(target: &'static str, body: &'static str) -> Step {
    step("PUT", target, Some(body))
}

pub(crate) fn post(target: &'static str, body: &'static str) -> Step {
    step("POST", target, Some(body))
}

pub(crate) fn delete(target: &'static str) -> Step {
    step("DELETE", target, None)
}

/// The whole script, in order.
pub(crate) fn script() -> Vec<Step> {
    [
        start(),
        kv(),
        kv_refusals(),
        catalog(),
        catalog_refusals(),
        selections::catalog(),
        services(),
        selections::agent(),
        checks(),
        health(),
        agent_refusals(),
    ]
    .into_iter()
    .chain([script_queries::queries(), script_queries::events()])
    .chain([script_config::entries(), script_config::gateways()])
    .chain([connect(), waiting(), crate::locks_script::locks(), refusals(), cleaning_up()])
    .flatten()
    .collect()
}

/// What an agent alone says of itself.
fn start() -> Vec<Step> {
    vec![
        get("/v1/status/leader").until(":8300"),
        get("/v1/catalog/nodes").until("wan_ipv4"),
        get("/v1/catalog/service/consul"),
        get("/v1/status/peers"),
        get("/v1/agent/self"),
        get("/v1/agent/members"),
        get("/v1/agent/services"),
        get("/v1/agent/checks"),
        get("/v1/catalog/datacenters"),
        get("/v1/catalog/nodes"),
        get("/v1/catalog/services"),
        get("/v1/catalog/node/n1"),
        get("/v1/health/node/n1"),
        get("/v1/health/service/consul"),
        get("/v1/health/service/consul?passing"),
        get("/v1/health/checks/consul"),
        get("/v1/health/state/any"),
        get("/v1/health/state/critical"),
    ]
}

fn kv() -> Vec<Step> {
    vec![
        get("/v1/kv/?keys"),
        get("/v1/kv/absent"),
        put("/v1/kv/a", "one"),
        get("/v1/kv/a").capture("a", "/0/ModifyIndex"),
        get("/v1/kv/a?raw"),
        put("/v1/kv/a", "one"),
        get("/v1/kv/a"),
        put("/v1/kv/a?flags=42", "two"),
        get("/v1/kv/a").capture("a", "/0/ModifyIndex"),
        put("/v1/kv/a?cas=0", "never"),
        put("/v1/kv/a?cas=1", "never"),
        put("/v1/kv/a?cas=${a}", "three"),
        get("/v1/kv/a"),
        put("/v1/kv/b?cas=0", "new"),
        put("/v1/kv/empty", ""),
        get("/v1/kv/empty"),
        get("/v1/kv/empty?raw"),
        put("/v1/kv/dir/", ""),
        put("/v1/kv/dir/x", "x"),
        put("/v1/kv/dir/sub/y", "y"),
        put("/v1/kv/dir/sub/z", "z"),
        put("/v1/kv/sp%20ace/%C3%A9", "u"),
        get("/v1/kv/sp%20ace/%C3%A9"),
        get("/v1/kv/dir/?recurse"),
        get("/v1/kv/dir?recurse=true"),
        get("/v1/kv/dir/?keys"),
        get("/v1/kv/dir/?keys&separator=/"),
        get("/v1/kv/?keys&separator=/"),
        get("/v1/kv/?keys"),
        get("/v1/kv/?recurse"),
        get("/v1/kv/none?recurse"),
        get("/v1/kv/none?keys"),
        get("/v1/kv/a?consistent"),
        get("/v1/kv/a?stale"),
        get("/v1/kv/a?dc=dc1"),
        delete("/v1/kv/absent"),
        delete("/v1/kv/b?cas=0"),
        delete("/v1/kv/b?cas=1"),
        delete("/v1/kv/b"),
        get("/v1/kv/b"),
        delete("/v1/kv/dir/sub/?recurse"),
        get("/v1/kv/dir/?keys"),
    ]
}

fn kv_refusals() -> Vec<Step> {
    vec![
        get("/v1/kv/"),
        put("/v1/kv/", "x"),
        delete("/v1/kv/"),
        put("/v1/kv/a?cas=many", "x"),
        put("/v1/kv/a?flags=-1", "x"),
        put("/v1/kv/a?cas=1&acquire=00000000-0000-0000-0000-000000000000", "x"),
        delete("/v1/kv/a?cas=1&recurse"),
        delete("/v1/kv/a?cas=x"),
        get("/v1/kv/a?dc=nowhere"),
        get("/v1/kv/a?index=x"),
        get("/v1/kv/a?index=1&wait=x"),
        get("/v1/kv/a?stale&consistent"),
        step("POST", "/v1/kv/a", Some("x")),
    ]
}

/// Nodes that no agent runs on.
fn catalog() -> Vec<Step> {
    vec![
        put("/v1/catalog/register", r#"{"Node":"ext1","Address":"192.0.2.10"}"#),
        get("/v1/catalog/node/ext1"),
        put(
            "/v1/catalog/register",
            r#"{"Node":"ext2","Address":"192.0.2.11","ID":"40e4a748-2192-161a-0510-9bf59fe950b5",
                "TaggedAddresses":{"lan":"192.0.2.11","wan":"198.51.100.11"},"NodeMeta":{"zone":"b"},
                "Service":{"ID":"db-1","Service":"db","Tags":["primary","v1"],"Address":"192.0.2.21","Port":5432,
                           "Meta":{"version":"12"},"Weights":{"Passing":10,"Warning":1}},
                "Check":{"Node":"ext2","CheckID":"service:db-1","Name":"db answers","Notes":"by hand","Status":"passing",
                         "ServiceID":"db-1","Definition":{"TCP":"192.0.2.21:5432","Interval":"5s","Timeout":"1s",
                         "DeregisterCriticalServiceAfter":"30s"}}}"#,
        ),
        get("/v1/catalog/node/ext2"),
        get("/v1/catalog/node/40e4a748-2192-161a-0510-9bf59fe950b5"),
        get("/v1/catalog/node/40e4a748"),
        get("/v1/catalog/node/nowhere"),
        get("/v1/catalog/service/db"),
        get("/v1/catalog/service/db?tag=primary"),
        get("/v1/catalog/service/db?tag=primary&tag=v1"),
        get("/v1/catalog/service/db?tag=replica"),
        get("/v1/catalog/service/db?node-meta=zone:b"),
        get("/v1/catalog/service/db?node-meta=zone:a"),
        get("/v1/catalog/service/nowhere"),
        get("/v1/catalog/services?node-meta=zone:b"),
        get("/v1/catalog/nodes?node-meta=zone:b"),
        get("/v1/health/service/db"),
        get("/v1/health/checks/db"),
        get("/v1/health/node/ext2"),
        // The same again changes nothing; another address moves the node alone.
        put("/v1/catalog/register", r#"{"Node":"ext1","Address":"192.0.2.10"}"#),
        get("/v1/catalog/node/ext1"),
        put("/v1/catalog/register", r#"{"Node":"ext1","Address":"192.0.2.12"}"#),
        get("/v1/catalog/node/ext1"),
        // Several checks at once, one of the node.
        put(
            "/v1/catalog/register",
            r#"{"Node":"ext1","Address":"192.0.2.12","Service":{"Service":"cache"},
                "Checks":[{"Name":"disk","CheckID":"disk","Status":"warning","Output":"80 %"},
                          {"Name":"cache","CheckID":"cache","Status":"critical","ServiceID":"cache"}]}"#,
        ),
        get("/v1/catalog/service/cache"),
        get("/v1/health/service/cache"),
        get("/v1/health/service/cache?passing"),
        get("/v1/health/node/ext1"),
        get("/v1/health/state/warning"),
        get("/v1/health/state/critical"),
        // A service of a node that keeps the rest as it is.
        put(
            "/v1/catalog/register",
            r#"{"Node":"ext1","SkipNodeUpdate":true,"Service":{"ID":"cache","Service":"cache","Port":1}}"#,
        ),
        get("/v1/catalog/node/ext1"),
        get("/v1/catalog/services"),
        put("/v1/catalog/deregister", r#"{"Node":"ext1","CheckID":"disk"}"#),
        get("/v1/health/node/ext1"),
        put("/v1/catalog/deregister", r#"{"Node":"ext1","ServiceID":"cache"}"#),
        get("/v1/catalog/node/ext1"),
        get("/v1/health/node/ext1"),
        put("/v1/catalog/deregister", r#"{"Node":"ext1"}"#),
        put("/v1/catalog/deregister", r#"{"Node":"ext1"}"#),
        get("/v1/catalog/node/ext1"),
        get("/v1/catalog/nodes"),
    ]
}

fn catalog_refusals() -> Vec<Step> {
    vec![
        put("/v1/catalog/register", "not JSON"),
        put("/v1/catalog/register", "{}"),
        put("/v1/catalog/register", r#"{"Node":"x"}"#),
        put("/v1/catalog/register", r#"{"Node":"x","Address":"192.0.2.1","ID":"nope"}"#),
        put("/v1/catalog/register", r#"{"Node":"x","Address":"192.0.2.1","Service":{"ID":"i"}}"#),
        put("/v1/catalog/register", r#"{"Node":"x","Address":"192.0.2.1","Check":{"Name":"c","ServiceID":"none"}}"#),
        put("/v1/catalog/register", r#"{"Node":"x","Address":"192.0.2.1","Check":{"Node":"y","Name":"c"}}"#),
        put(
            "/v1/catalog/register",
            r#"{"Node":"ext2","Address":"192.0.2.1","ID":"11111111-2192-161a-0510-9bf59fe950b5"}"#,
        ),
        put("/v1/catalog/deregister", "{}"),
        put("/v1/catalog/deregister", "not JSON"),
        get("/v1/catalog/service/"),
        get("/v1/catalog/node/"),
        get("/v1/catalog/nodes?dc=nowhere"),
        step("POST", "/v1/catalog/nodes", Some("")),
        get("/v1/catalog/register"),
    ]
}

/// Services of the agent itself, and their way into the catalog.
fn services() -> Vec<Step> {
    vec![
        put(
            "/v1/agent/service/register",
            r#"{"ID":"web-1","Name":"web","Tags":["v1","blue"],"Address":"192.0.2.30","Port":8080,"Meta":{"team":"a"},
                "EnableTagOverride":true,"Weights":{"Passing":5,"Warning":2},
                "TaggedAddresses":{"wan":{"Address":"198.51.100.30","Port":80}},
                "Check":{"TTL":"60s","Notes":"say you live"}}"#,
        ),
        get("/v1/agent/services"),
        get("/v1/agent/checks"),
        get("/v1/agent/service/web-1"),
        get("/v1/catalog/service/web").until("web-1"),
        get("/v1/health/service/web").until("service:web-1"),
        get("/v1/health/service/web?passing"),
        get("/v1/catalog/services"),
        put("/v1/agent/check/pass/service:web-1?note=here", ""),
        get("/v1/agent/checks"),
        get("/v1/health/service/web?passing").until("here"),
        get("/v1/health/service/web?passing=true"),
        get("/v1/health/service/web?passing=false"),
        get("/v1/health/service/web?passing=maybe"),
        put("/v1/agent/check/warn/service:web-1?note=slow", ""),
        get("/v1/health/service/web").until("slow"),
        get("/v1/health/service/web?passing"),
        put("/v1/agent/check/fail/service:web-1", ""),
        get("/v1/health/service/web").until("critical"),
        put("/v1/agent/check/update/service:web-1", r#"{"Status":"passing","Output":"by update"}"#),
        get("/v1/health/checks/web").until("by update"),
        // Only a name; two checks; a service of the least.
        put("/v1/agent/service/register", r#"{"Name":"plain"}"#),
        put(
            "/v1/agent/service/register",
            r#"{"Name":"two","Port":1,"Checks":[{"TTL":"30s","Status":"passing"},{"CheckID":"mine","Name":"My own","TTL":"1m"}]}"#,
        ),
        get("/v1/agent/services"),
        get("/v1/agent/checks"),
        get("/v1/catalog/service/two").until("\"two\""),
        get("/v1/catalog/node/n1").until("plain"),
        get("/v1/health/service/two").until("mine"),
        // The same service again keeps the status of its check.
        put("/v1/agent/service/register", r#"{"ID":"web-1","Name":"web","Port":8081,"Check":{"TTL":"60s"}}"#),
        get("/v1/agent/service/web-1"),
        get("/v1/catalog/service/web").until("8081"),
        get("/v1/agent/checks"),
        get("/v1/agent/services?filter=Service==web"),
    ]
}

/// Checks of the agent itself.
fn checks() -> Vec<Step> {
    vec![
        put("/v1/agent/check/register", r#"{"Name":"memory","TTL":"10m","Notes":"of the node"}"#),
        put(
            "/v1/agent/check/register",
            r#"{"ID":"for-web","Name":"for web","ServiceID":"web-1","TTL":"10m","Status":"passing"}"#,
        ),
        get("/v1/agent/checks"),
        put("/v1/agent/check/pass/memory", ""),
        get("/v1/health/node/n1").until("\"memory\""),
        get("/v1/health/service/web").until("for-web"),
        put("/v1/agent/check/deregister/for-web", ""),
        get("/v1/agent/checks"),
    ]
}

fn health() -> Vec<Step> {
    vec![
        get("/v1/agent/health/service/name/web"),
        get("/v1/agent/health/service/id/web-1"),
        get("/v1/agent/health/service/id/web-1?format=text"),
        put("/v1/agent/check/warn/service:web-1", ""),
        get("/v1/agent/health/service/id/web-1"),
        get("/v1/agent/health/service/name/web?format=text"),
        put("/v1/agent/check/fail/service:web-1?note=down", ""),
        get("/v1/agent/health/service/name/web"),
        get("/v1/agent/health/service/id/web-1?format=text"),
        get("/v1/agent/health/service/name/nowhere"),
        get("/v1/agent/health/service/id/nowhere"),
        get("/v1/agent/health/service/id/nowhere?format=text"),
        get("/v1/health/state/critical").until("down"),
        get("/v1/health/node/nowhere"),
        get("/v1/health/service/nowhere"),
        get("/v1/health/checks/nowhere"),
        get("/v1/health/state/unknown"),
        get("/v1/health/state/"),
        get("/v1/health/service/"),
        get("/v1/health/checks/"),
        get("/v1/health/node/"),
    ]
}

fn agent_refusals() -> Vec<Step> {
    vec![
        put("/v1/agent/service/register", "{}"),
        put("/v1/agent/service/register", "not JSON"),
        put(
            "/v1/agent/service/register",
            r#"{"Name":"x","Check":{"TTL":"1m","HTTP":"http://192.0.2.1/","Interval":"1m"}}"#,
        ),
        put("/v1/agent/service/register", r#"{"Name":"x","Check":{"HTTP":"http://192.0.2.1/"}}"#),
        put("/v1/agent/service/register", r#"{"Name":"x","Check":{"TTL":"1m","Status":"fine"}}"#),
        put("/v1/agent/service/register", r#"{"Name":"x","Address":"0.0.0.0"}"#),
        put("/v1/agent/service/register", r#"{"Name":"x","Meta":{"consul-mine":"1"}}"#),
        put("/v1/agent/service/register", r#"{"Name":"x","Weights":{"Passing":-1,"Warning":1}}"#),
        put("/v1/agent/service/register", r#"{"Name":"x","Check":{"Args":["true"],"Interval":"1m"}}"#),
        put("/v1/agent/service/deregister/nowhere", ""),
        put("/v1/agent/service/deregister/", ""),
        put("/v1/agent/check/register", r#"{"TTL":"1m"}"#),
        put("/v1/agent/check/register", r#"{"Name":"c"}"#),
        put("/v1/agent/check/register", r#"{"Name":"c","TTL":"1m","ServiceID":"nowhere"}"#),
        put("/v1/agent/check/register", "not JSON"),
        put("/v1/agent/check/deregister/nowhere", ""),
        put("/v1/agent/check/pass/nowhere", ""),
        put("/v1/agent/check/update/memory", r#"{"Status":"fine"}"#),
        put("/v1/agent/check/update/memory", "not JSON"),
        get("/v1/agent/service/nowhere"),
        get("/v1/agent/service/register"),
        get("/v1/agent/check/pass/memory"),
    ]
}

fn connect() -> Vec<Step> {
    vec![
        get("/v1/connect/ca/roots").until("RootCert"),
        get("/v1/agent/connect/ca/roots"),
        get("/v1/agent/connect/ca/leaf/web"),
        get("/v1/connect/intentions"),
        get("/v1/connect/intentions/match?by=destination&name=web"),
        get("/v1/connect/intentions/check?source=a&destination=web"),
        get("/v1/connect/intentions/check?source=a"),
        get("/v1/connect/intentions/check"),
        get("/v1/connect/intentions/match?name=web"),
        get("/v1/connect/intentions/match?by=middle&name=web"),
        get("/v1/connect/intentions/match?by=source"),
    ]
}

/// Blocking queries; those that nothing wakes end by their own limit.
fn waiting() -> Vec<Step> {
    vec![
        put("/v1/kv/watched", "1"),
        get("/v1/kv/watched").capture("watched", "/0/ModifyIndex"),
        get("/v1/kv/watched?index=${watched}&wait=50ms"),
        put("/v1/kv/watched", "2"),
        get("/v1/kv/watched?index=${watched}&wait=5s"),
        get("/v1/kv/watched?index=999999999&wait=50ms"),
        get("/v1/kv/watched?index=0&wait=5s"),
        get("/v1/health/service/web?index=1&wait=50ms"),
    ]
}

fn refusals() -> Vec<Step> {
    vec![
        get("/v1/nowhere"),
        get("/v2/kv/a"),
        step("POST", "/v1/agent/self", Some("")),
        step("OPTIONS", "/v1/kv/a", None),
    ]
}

fn cleaning_up() -> Vec<Step> {
    vec![
        put("/v1/agent/service/deregister/web-1", ""),
        put("/v1/agent/service/deregister/two", ""),
        put("/v1/agent/service/deregister/plain", ""),
        put("/v1/agent/check/deregister/memory", ""),
        get("/v1/agent/services"),
        get("/v1/agent/checks"),
        get("/v1/catalog/service/web").until("[]"),
        get("/v1/health/checks/two").until("[]"),
        delete("/v1/kv/?recurse"),
        get("/v1/kv/?keys"),
        get("/v1/kv/?recurse"),
    ]
}
