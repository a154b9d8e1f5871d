//! The door as clients see it, in front of a double of the waist.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use lictor_types::command::{Effect, KvCommand};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::Operation;
use lictor_types::{
    Answer, Block, CaRoot, CaRoots, Command, Consistency, Credential, Freshness, Index, KvEntry, KvVerb, Query, Refusal,
};

use super::double::{Tested, at};

#[tokio::test]
async fn leave_and_reload_need_the_right_and_somebody_who_carries_them_out() {
    for path in ["/v1/agent/leave", "/v1/agent/reload"] {
        let tested = Tested::guarded(at(1, Answer::Keys(Vec::new())));
        let got = tested.call("PUT", path, "").await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(got.body.contains("part of another process"), "{}", got.body);
        tested.double.forbidden.lock().push("n1".into());
        assert_eq!(tested.call("PUT", path, "").await.status, StatusCode::FORBIDDEN);
    }
}

fn entry(key: &str, value: &str) -> KvEntry {
    KvEntry {
        lock_index: 0,
        key: key.into(),
        flags: 42,
        value: value.into(),
        session: None,
        create_index: Index(3),
        modify_index: Index(9),
    }
}

fn roots() -> CaRoots {
    let root = CaRoot {
        id: "ab:cd".into(),
        name: "Lictor CA Root".into(),
        serial_number: 1,
        signing_key_id: String::new(),
        external_trust_domain: String::new(),
        not_before: String::new(),
        not_after: String::new(),
        root_cert: "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----".into(),
        intermediate_certs: None,
        active: true,
        private_key_type: "ec".into(),
        private_key_bits: 256,
        create_index: Index(5),
        modify_index: Index(5),
    };
    CaRoots {
        active_root_id: "ab:cd".into(),
        trust_domain: "11111111-2222-3333-4444-555555555555.consul".into(),
        roots: vec![root],
    }
}

#[tokio::test]
async fn a_key_is_shown_with_the_headers_of_a_read() {
    let door = Tested::answering(at(9, Answer::KvEntry(Some(entry("a<b", "hi")))));
    let got = door.get("/v1/kv/a%3Cb").await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(
        got.body,
        r#"[{"LockIndex":0,"Key":"a\u003cb","Flags":42,"Value":"aGk=","CreateIndex":3,"ModifyIndex":9}]"#
    );
    for (header, value) in [
        ("content-type", "application/json"),
        ("x-consul-index", "9"),
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", "leader"),
        ("x-consul-query-backend", "blocking-query"),
        ("x-consul-default-acl-policy", "allow"),
    ] {
        assert_eq!(got.header(header), value, "{header}");
    }
    assert_eq!(door.double.asked.lock().reads[0].1, Query::KvGet("a<b".into()));
    let raw = door.get("/v1/kv/a?raw").await;
    assert_eq!((raw.body.as_str(), raw.header("content-type")), ("hi", "text/plain"));
    assert_eq!((raw.header("x-content-type-options"), raw.header("x-consul-index")), ("nosniff", "9"));
}

#[tokio::test]
async fn an_absent_key_is_404_with_an_index_that_is_never_0() {
    let door = Tested::answering(at(0, Answer::KvEntry(None)));
    let got = door.get("/v1/kv/x").await;
    assert_eq!((got.status, got.body.as_str(), got.header("x-consul-index")), (StatusCode::NOT_FOUND, "", "1"));
    let door = Tested::answering(at(4, Answer::Keys(Vec::new())));
    let got = door.get("/v1/kv/?keys").await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "[]"));
    assert_eq!(door.get("/v1/kv/a/?keys&separator=/").await.status, StatusCode::NOT_FOUND);
    assert_eq!(door.get("/v1/kv/").await.body, "Missing key name");
}

#[tokio::test]
async fn the_freshness_of_the_request_reaches_the_waist() {
    let door = Tested::answering(at(9, Answer::Nodes(Vec::new())));
    let got = door.get("/v1/catalog/nodes?stale&index=8&wait=0.016s").await;
    assert_eq!((got.body.as_str(), got.header("x-consul-effective-consistency")), ("[]", "stale"));
    let freshness = door.double.asked.lock().reads[0].2;
    assert_eq!(freshness.consistency, Consistency::Stale);
    assert!(matches!(freshness.block, Some(Block { after: Index(8), wait_millis: 16..=17 })), "{freshness:?}");
    assert_eq!(door.get("/v1/catalog/nodes?stale&consistent").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_answer_that_is_too_old_is_asked_for_again_at_the_leader() {
    let door = Tested::answering(at(9, Answer::Nodes(Vec::new())));
    let mut old = at(8, Answer::Nodes(Vec::new())).unwrap();
    old.last_contact_millis = 5000;
    door.double.reads.lock().insert(0, Ok(old));
    let got = door.get("/v1/catalog/nodes?stale&max_stale=1s").await;
    assert_eq!((got.header("x-consul-index"), got.header("x-consul-effective-consistency")), ("9", "leader"));
    assert_eq!(door.double.asked.lock().reads[1].2, Freshness::default());
}

#[tokio::test]
async fn who_says_how_old_an_answer_may_be_is_answered_by_any_server() {
    let consistency = |door: &Tested| door.double.asked.lock().reads.pop().unwrap().2.consistency;
    let configured = |fragment: &str| Tested::configured(at(9, Answer::Nodes(Vec::new())), fragment);
    let door = configured("");
    door.get("/v1/catalog/nodes?max_stale=1s").await;
    assert_eq!(consistency(&door), Consistency::Stale);
    door.get("/v1/catalog/nodes").await;
    assert_eq!(consistency(&door), Consistency::Default);
    // What the agent says for readers who do not.
    let door = configured("discovery_max_stale = \"5s\"");
    for (path, expected) in [
        ("/v1/catalog/nodes", Consistency::Stale),
        ("/v1/health/state/any", Consistency::Stale),
        ("/v1/catalog/nodes?leader", Consistency::Default),
        ("/v1/catalog/nodes?consistent", Consistency::Consistent),
        ("/v1/session/list", Consistency::Default),
    ] {
        door.get(path).await;
        assert_eq!(consistency(&door), expected, "{path}");
    }
    let mut old = at(8, Answer::Nodes(Vec::new())).unwrap();
    old.last_contact_millis = 6000;
    door.double.reads.lock().insert(0, Ok(old));
    assert_eq!(door.get("/v1/catalog/nodes").await.header("x-consul-effective-consistency"), "leader");
}

#[tokio::test]
async fn filtered_rows_are_told_to_those_who_gave_a_token() {
    let mut read = at(9, Answer::Nodes(Vec::new())).unwrap();
    read.filtered_by_acls = true;
    let door = Tested::answering(Ok(read));
    assert_eq!(door.get("/v1/catalog/nodes").await.header("x-consul-results-filtered-by-acls"), "");
    assert_eq!(door.get("/v1/catalog/nodes?token=t").await.header("x-consul-results-filtered-by-acls"), "true");
}

#[tokio::test]
async fn a_token_is_taken_in_consuls_order() {
    let fragment = "acl {\n enabled = true\n tokens {\n default = \"of-the-agent\"\n }\n}\n";
    let door = Tested::configured(at(9, Answer::Nodes(Vec::new())), fragment);
    let request = |query: &str, header: &str, bearer: &str| {
        let mut request = Request::get(format!("/v1/catalog/nodes{query}"));
        if !header.is_empty() {
            request = request.header("X-Consul-Token", header);
        }
        if !bearer.is_empty() {
            request = request.header("Authorization", bearer);
        }
        request.body(Body::empty()).unwrap()
    };
    for (request, secret) in [
        (request("?token=q", "h", "Bearer b"), "q"),
        (request("?token=", "h", "Bearer b"), "h"),
        (request("", "", "bearer b"), "b"),
        (request("", "", "Basic b"), "of-the-agent"),
        (request("", "", ""), "of-the-agent"),
    ] {
        door.send(request).await;
        let asked = door.double.asked.lock().reads.pop().unwrap();
        assert_eq!(asked.0, Credential::new(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_refusal_becomes_its_status_and_its_words() {
    for (refusal, status) in [
        (Refusal::no_leader(), 500),
        (Refusal::acl_not_found(), 403),
        (Refusal::permission_denied("x"), 403),
        (Refusal::new(RefusalKind::TooMany, "slow down"), 429),
        (Refusal::new(RefusalKind::Unavailable, "later"), 503),
    ] {
        let door = Tested::answering(Err(refusal.clone()));
        let got = door.get("/v1/kv/a").await;
        assert_eq!((got.status.as_u16(), &got.body), (status, &refusal.text));
        assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
        *door.double.effect.lock() = Effect::Refused(refusal.clone());
        let got = door.call("PUT", "/v1/kv/a", "x").await;
        assert_eq!((got.status.as_u16(), &got.body), (status, &refusal.text));
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_get_consuls_words() {
    let door = Tested::answering(at(1, Answer::KvEntry(None)));
    let unknown = door.get("/v1/nothing").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.body, "Invalid URL path: not a recognized HTTP API endpoint");
    assert!(door.get("/kv/a").await.body.ends_with("ensure the path starts with '/v1/'"));
    assert!(door.get("/").await.body.starts_with("Consul Agent: UI disabled."));
    let wrong = door.call("PATCH", "/v1/kv/a", "").await;
    assert_eq!((wrong.status, wrong.body.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method PATCH not allowed"));
    assert_eq!(wrong.header("allow"), "OPTIONS,GET,PUT,DELETE");
    assert_eq!(door.call("HEAD", "/v1/kv/a", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let options = door.call("OPTIONS", "/v1/catalog/nodes", "").await;
    assert_eq!((options.status, options.header("allow"), options.body.as_str()), (StatusCode::OK, "OPTIONS,GET", ""));
    assert!(door.double.asked.lock().reads.is_empty());
    door.get("//v1/kv//a/./b").await;
    assert_eq!(door.double.asked.lock().reads[0].1, Query::KvGet("a/b".into()));
}

#[tokio::test]
async fn parameters_that_we_do_not_serve_are_refused_before_anything_is_asked() {
    let door = Tested::answering(at(1, Answer::Nodes(Vec::new())));
    for (query, status, words) in [
        ("dc=elsewhere", 500, "No path to datacenter"),
        ("ns=x", 400, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature"),
        ("partition=x", 400, "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature"),
    ] {
        let got = door.get(&format!("/v1/catalog/nodes?{query}")).await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (status, words), "{query}");
    }
    assert!(door.double.asked.lock().reads.is_empty());
    assert_eq!(door.get("/v1/catalog/nodes?dc=DC1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_put_becomes_a_command() {
    let door = Tested::answering(at(1, Answer::KvEntry(None)));
    let written = |verb, flags| Command::Kv(KvCommand { verb, key: "a/b".into(), value: b"x".to_vec(), flags });
    assert_eq!(door.call("PUT", "/v1/kv/a/b?flags=7", "x").await.body, "true");
    *door.double.effect.lock() = Effect::NotApplied;
    assert_eq!(door.call("PUT", "/v1/kv/a/b?cas=0", "x").await.body, "false");
    let commands: Vec<Command> = door.double.asked.lock().writes.drain(..).map(|(_, command)| command).collect();
    assert_eq!(commands, [written(KvVerb::Set, 7), written(KvVerb::Cas(Index(0)), 0)]);
    for (method, uri, status, words) in [
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/a?cas=x", 400, "Invalid value for ?cas"),
        ("PUT", "/v1/kv/a?cas=1&acquire=y", 400, "Conflicting flags: acquire=y&cas=1\n"),
        ("DELETE", "/v1/kv/a?cas=1&recurse", 400, "Conflicting flags: cas=1&recurse=\n"),
    ] {
        let got = door.call(method, uri, "").await;
        assert!(got.status.as_u16() == status && got.body.starts_with(words), "{uri}: {}", got.body);
    }
    assert!(door.double.asked.lock().writes.is_empty());
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_whether_or_not_it_says_its_length() {
    let door = Tested::answering(at(1, Answer::KvEntry(None)));
    let large = "x".repeat(512 * 1024 + 1);
    let words = "Request body(524289 bytes) too large, max size: 524288 bytes. See https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size.";
    let got = door.call("PUT", "/v1/kv/a", &large).await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, words));
    let chunks = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(large)]);
    let got = door.send(Request::put("/v1/kv/a").body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, words));
    assert!(door.double.asked.lock().writes.is_empty());
    assert_eq!(door.call("PUT", "/v1/kv/a", &"x".repeat(512 * 1024)).await.body, "true");
}

#[tokio::test]
async fn a_wrong_registration_changes_nothing_and_says_what_is_wrong() {
    let door = Tested::answering(at(1, Answer::KvEntry(None)));
    for (body, status, words) in [
        ("{", 400, "Request decode failed: EOF"),
        (r#"{"Node":"n","Address":"a","Nope":1}"#, 400, "Request decode failed: json: unknown field \"Nope\""),
        (r#"{"Address":"a"}"#, 500, "Must provide node"),
        (r#"{"Node":"n"}"#, 500, "Must provide address if SkipNodeUpdate is not set"),
        (r#"{"Node":"n","Address":"a","Service":{"ID":"x"}}"#, 500, "Must provide service name (Service.Service)"),
        (r#"{"Node":"n","Address":"a","Datacenter":"dc9"}"#, 500, "No path to datacenter"),
    ] {
        let got = door.call("PUT", "/v1/catalog/register", body).await;
        assert!(got.status.as_u16() == status && got.body.starts_with(words), "{body}: {} {}", got.status, got.body);
    }
    assert!(door.double.asked.lock().writes.is_empty());
    let body = r#"{"Node":"n","Address":"a","Service":{"Service":"web","Port":80},
                   "Check":{"Name":"c","Definition":{"TCP":"a:80"}}}"#;
    assert_eq!(door.call("PUT", "/v1/catalog/register", body).await.body, "true");
    assert_eq!(door.call("PUT", "/v1/catalog/deregister", r#"{"Node":"n","ServiceID":"web"}"#).await.body, "true");
    let writes = std::mem::take(&mut door.double.asked.lock().writes);
    let [(_, Command::Register(registration)), _] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((registration.datacenter.as_str(), registration.check.as_ref().unwrap().kind.as_str()), ("dc1", "tcp"));
}

#[tokio::test]
async fn pretty_is_indented_and_ends_with_a_line() {
    let door = Tested::answering(at(1, Answer::Keys(vec!["a".into()])));
    assert_eq!(door.get("/v1/kv/?keys&pretty").await.body, "[\n    \"a\"\n]\n");
}

#[tokio::test]
async fn the_agent_registers_shows_and_filters_its_own_services() {
    let door = Tested::guarded(at(1, Answer::KvEntry(None)));
    let body = r#"{"name":"web","port":80,"check":{"ttl":"30s","status":"warning"}}"#;
    let got = door.call("PUT", "/v1/agent/service/register", body).await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, ""));
    let shown = door.get("/v1/agent/services").await.body;
    assert!(shown.starts_with(r#"{"web":{"ID":"web","Service":"web","Tags":[],"Meta":{},"Port":80,"#), "{shown}");
    let health = door.get("/v1/agent/health/service/id/web?format=text").await;
    assert_eq!((health.status.as_u16(), health.body.as_str()), (429, "warning"));
    assert_eq!(door.call("PUT", "/v1/agent/check/pass/service:web?note=fine", "").await.status, StatusCode::OK);
    let health = door.get("/v1/agent/health/service/name/web").await;
    assert_eq!((health.status.as_u16(), health.header("x-consul-reason")), (200, "passing"));
    assert!(door.get("/v1/agent/checks").await.body.contains(r#""Output":"fine""#));
    door.double.forbidden.lock().push("web".into());
    assert_eq!(door.get("/v1/agent/services?token=t").await.body, "{}");
    assert_eq!(door.get("/v1/agent/checks").await.body, "{}");
    let denied = door.call("PUT", "/v1/agent/service/deregister/web", "").await;
    assert_eq!((denied.status.as_u16(), denied.body.as_str()), (403, "Permission denied: \"web\""));
    door.double.forbidden.lock().clear();
    assert_eq!(door.call("PUT", "/v1/agent/service/deregister/web", "").await.status, StatusCode::OK);
    assert_eq!(door.get("/v1/agent/health/service/id/web?format=text").await.status, StatusCode::NOT_FOUND);
    for (uri, words) in [
        ("/v1/agent/service/deregister/web", "Unknown service ID \"web\". Ensure that the service ID is passed"),
        ("/v1/agent/check/pass/nope", "Unknown check ID \"nope\". Ensure that the check ID is passed"),
    ] {
        let got = door.call("PUT", uri, "").await;
        assert!(got.status == StatusCode::NOT_FOUND && got.body.starts_with(words), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_holds_needs_no_server() {
    let with_acls = Tested::guarded(at(1, Answer::KvEntry(None)));
    let without = Tested::answering(at(1, Answer::KvEntry(None)));
    *without.double.silent.lock() = true;
    let asked = [
        ("PUT", "/v1/agent/service/register", r#"{"name":"web","check":{"ttl":"30s"}}"#),
        ("GET", "/v1/agent/services", ""),
        ("GET", "/v1/agent/checks", ""),
        ("PUT", "/v1/agent/check/pass/service:web", ""),
        ("GET", "/v1/agent/health/service/id/web", ""),
        ("GET", "/v1/agent/self", ""),
        ("GET", "/v1/agent/metrics", ""),
        ("PUT", "/v1/agent/maintenance?enable=true", ""),
    ];
    for door in [&with_acls, &without] {
        for (method, path, body) in asked {
            let begun = tokio::time::Instant::now();
            assert_eq!(door.call(method, path, body).await.status, StatusCode::OK, "{path}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{path} took {:?}", begun.elapsed());
            assert_eq!(door.call("PUT", "/v1/agent/maintenance?enable=false", "").await.status, StatusCode::OK);
        }
        // Whoever was allowed once stays so while no server answers; whoever was not asks in vain.
        *door.double.silent.lock() = true;
        door.double.forbidden.lock().push("web".into());
    }
    let unknown = with_acls.get("/v1/agent/services?token=another");
    assert!(tokio::time::timeout(Duration::from_secs(30), unknown).await.is_err());
    for (method, path, body) in asked {
        assert_eq!(with_acls.call(method, path, body).await.status, StatusCode::OK, "{path}");
    }
    *with_acls.double.silent.lock() = false;
    let denied = with_acls.call("PUT", "/v1/agent/check/pass/service:web", "").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN, "a server that answers has the last word");
    *with_acls.double.silent.lock() = true;
    let denied = with_acls.call("PUT", "/v1/agent/check/pass/service:web", "").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN, "and it is remembered");
}

#[tokio::test]
async fn readiness_follows_the_leader() {
    let door = Tested::answering(at(1, Answer::KvEntry(None)));
    assert_eq!(door.get("/v1/agent/ready").await.status, StatusCode::OK);
    assert_eq!(door.get("/v1/status/leader").await.body, "\"10.0.0.1:8300\"");
    *door.double.leader.lock() = None;
    assert_eq!(door.get("/v1/agent/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(door.get("/v1/status/leader").await.body, "\"\"");
}

#[tokio::test]
async fn a_kept_leaf_is_authorised_again_at_every_read() {
    let door = Tested::guarded(at(5, Answer::CaRoots(Some(roots()))));
    let first = door.get("/v1/agent/connect/ca/leaf/web?token=t").await;
    assert_eq!((first.status, first.header("x-cache")), (StatusCode::OK, "MISS"), "{}", first.body);
    assert!(first.body.contains("PRIVATE KEY") && first.header("x-consul-index") == "5", "{}", first.body);
    let second = door.get("/v1/agent/connect/ca/leaf/web?token=t").await;
    assert_eq!((second.header("x-cache"), &second.body), ("HIT", &first.body));
    let other = door.get("/v1/agent/connect/ca/leaf/web?token=u").await;
    assert_ne!(other.body, first.body);
    door.double.forbidden.lock().push("web".into());
    assert_eq!(door.get("/v1/agent/connect/ca/leaf/web?token=t").await.status, StatusCode::FORBIDDEN);
    let signed = door.double.asked.lock().operations.iter().filter(|it| matches!(it.1, Operation::SignLeaf(_))).count();
    assert_eq!(signed, 2);
    assert!(door.get("/v1/connect/ca/roots?pem=true").await.body.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_leaf_waits_until_it_is_replaced() {
    let door = Tested::answering(at(5, Answer::CaRoots(Some(roots()))));
    let first = door.get("/v1/agent/connect/ca/leaf/web").await;
    let same = door.get("/v1/agent/connect/ca/leaf/web?index=5&wait=10s").await;
    assert_eq!(same.body, first.body);
    let mut rotated = roots();
    rotated.active_root_id = "ef:01".into();
    *door.double.reads.lock() = vec![at(6, Answer::CaRoots(Some(rotated)))];
    let next = door.get("/v1/agent/connect/ca/leaf/web?index=5&wait=10s").await;
    assert_eq!(next.header("x-consul-index"), "6");
    assert_ne!(next.body, first.body);
}

#[tokio::test]
async fn intentions_are_set_checked_and_missed_in_consuls_words() {
    let door = Tested::answering(at(5, Answer::Intentions(Vec::new())));
    let got = door.get("/v1/connect/intentions/check?source=web&destination=api").await;
    assert_eq!(got.body, r#"{"Allowed":true}"#);
    let body = r#"{"SourceName":"web","DestinationName":"api","Action":"deny","Meta":null,"Precedence":9}"#;
    let exact = "/v1/connect/intentions/exact?source=web&destination=api";
    assert_eq!(door.call("PUT", exact, body).await.body, "true");
    assert!(door.call("PUT", exact, r#"{"SourceName":"x","Action":"deny"}"#).await.body.contains("the body names"));
    *door.double.reads.lock() = vec![at(5, Answer::Intention(None))];
    let got = door.get(exact).await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::NOT_FOUND, "Intention not found"));
    let got = door.call("PUT", "/v1/config", r#"{"Kind":"service-nonsense","Name":"x"}"#).await;
    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (400, "Request decoding failed: invalid config entry kind: service-nonsense")
    );
    let entry = r#"{"kind":"service-intentions","name":"api","sources":[{"name":"web","action":"allow"}]}"#;
    assert_eq!(door.call("PUT", "/v1/config?cas=3", entry).await.body, "true");
    assert_eq!(door.call("DELETE", "/v1/config/service-intentions/api", "").await.body, "{}");
    *door.double.reads.lock() = vec![at(5, Answer::ServiceIntentions(None))];
    let got = door.get("/v1/config/service-intentions/api").await;
    assert_eq!(got.body, "Config entry not found for \"service-intentions\" / \"api\"");
}

#[tokio::test]
async fn the_agent_says_who_it_is_and_whom_it_knows() {
    let door = Tested::guarded(at(5, Answer::KvEntry(None)));
    let this: serde_json::Value = serde_json::from_str(&door.get("/v1/agent/self").await.body).unwrap();
    assert_eq!((&this["Config"]["Datacenter"], &this["Config"]["NodeName"]), (&"dc1".into(), &"n1".into()));
    assert_eq!(this["Member"]["Addr"], this["DebugConfig"]["AdvertiseAddrLAN"]);
    let agent = super::double::agent(&door.double, super::double::ACLS);
    let (mut seen, mut hidden) = (agent.identity.member(), agent.identity.member());
    seen.name = "seen".parse().unwrap();
    hidden.name = "hidden".parse().unwrap();
    *door.double.members.lock() = vec![seen, hidden];
    door.double.forbidden.lock().push("hidden".into());
    let got = door.get("/v1/agent/members?token=t").await;
    assert!(got.body.contains(r#""Name":"seen""#) && !got.body.contains("hidden"), "{}", got.body);
    assert_eq!(got.header("x-consul-results-filtered-by-acls"), "true");
    assert_eq!(door.get("/v1/catalog/datacenters").await.body, r#"["dc1"]"#);
    let made = door.call("PUT", "/v1/operator/join-token", r#"{"Services":["web"],"TTL":"10m"}"#).await;
    assert_eq!(made.body, r#"{"SecretID":"join-secret","TTL":"10m0s"}"#);
    assert_eq!(door.call("PUT", "/v1/operator/join-token", r#"{"TTL":"9000h"}"#).await.status, StatusCode::BAD_REQUEST);
}
