//! What keeps a cluster well, as clients see it.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use lictor_types::{Answer, KvEntry};

use super::double::{Tested, at};

fn door() -> Tested {
    Tested::guarded(at(9, Answer::KvEntry(None)))
}

#[tokio::test]
async fn figures_are_served_in_both_forms_and_only_to_who_may_read_the_agent() {
    let door = door();
    let got = door.get("/v1/agent/metrics").await;
    assert_eq!(got.status, StatusCode::OK);
    let json: serde_json::Value = serde_json::from_str(&got.body).unwrap();
    for list in ["Gauges", "Points", "Counters", "Samples"] {
        assert!(json[list].is_array(), "{list} in {}", got.body);
    }
    assert!(json["Timestamp"].as_str().unwrap().ends_with(" +0000 UTC"), "{}", got.body);
    let got = door.get("/v1/agent/metrics?format=prometheus").await;
    assert!(got.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(got.body.contains("# TYPE consul_api_http summary\n"), "{}", got.body);
    assert!(got.body.contains("consul_runtime_alloc_bytes "), "{}", got.body);
    door.double.forbidden.lock().push("n1".into());
    for path in ["/v1/agent/metrics", "/v1/agent/metrics?format=prometheus", "/v1/agent/monitor"] {
        assert_eq!(door.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_log_level_is_refused_with_consuls_words() {
    let got = door().get("/v1/agent/monitor?loglevel=loud").await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::BAD_REQUEST, "Unknown log level: loud"));
}

#[tokio::test]
async fn an_instance_is_waited_for_by_its_hash() {
    let door = door();
    let register = |port: u16| format!(r#"{{"ID":"web","Name":"web","Port":{port}}}"#);
    assert_eq!(door.call("PUT", "/v1/agent/service/register", &register(1)).await.status, StatusCode::OK);
    let first = door.get("/v1/agent/service/web").await;
    let hash = first.header("x-consul-contenthash").to_owned();
    assert_eq!(hash.len(), 16);
    assert!(first.body.contains(&format!(r#""ContentHash":"{hash}""#)), "{}", first.body);
    assert_eq!(door.get("/v1/agent/service/web?hash=other").await.header("x-consul-contenthash"), hash);
    let path = format!("/v1/agent/service/web?hash={hash}&wait=100ms");
    assert_eq!(door.get(&path).await.header("x-consul-contenthash"), hash, "the same after the wait");
    let path = format!("/v1/agent/service/web?hash={hash}&wait=60s");
    let body = register(2);
    let (waited, registered) = tokio::join!(door.get(&path), door.call("PUT", "/v1/agent/service/register", &body));
    assert_eq!(registered.status, StatusCode::OK);
    assert_ne!(waited.header("x-consul-contenthash"), hash);
    assert!(waited.body.contains(r#""Port":2"#), "{}", waited.body);
}

#[tokio::test]
async fn a_large_answer_is_compressed_for_who_takes_it_and_a_small_one_is_not() {
    let entry = |bytes: usize| KvEntry {
        lock_index: 0,
        key: "k".into(),
        flags: 0,
        value: vec![b'a'; bytes],
        session: None,
        create_index: lictor_types::Index(1),
        modify_index: lictor_types::Index(1),
    };
    for (bytes, compressed) in [(10_000, true), (100, false)] {
        let door = Tested::answering(at(9, Answer::KvEntry(Some(entry(bytes)))));
        let asked = Request::get("/v1/kv/k").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
        let answer = door.answer(asked).await;
        assert_eq!(answer.headers().contains_key("content-encoding"), compressed, "{bytes} bytes");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        if compressed {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            assert!(text.starts_with("[{"), "{text}");
            assert!(body.len() < 2_000);
        }
        let plain = tokio::time::timeout(Duration::from_secs(5), door.get("/v1/kv/k")).await.unwrap();
        assert_eq!(plain.header("content-encoding"), "");
    }
}
