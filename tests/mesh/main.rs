//! `lictor dev` as a newcomer meets it: a real process, the five things that it says to try, and its end.

mod dev;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dev::{Dev, call, eventually_calls, keep_open};
use lictor_tests::dns;
use serde_json::Value;

/// What DESIGN promises of a deny: within a second, also for what is open.
const DENY_LIMIT: Duration = Duration::from_secs(1);
/// How long the end may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long the start may take on an idle machine; tests share theirs, so it is shown and not checked.
const START_GOAL: Duration = Duration::from_secs(3);

const CALLED: &str = "web called api, which said: hello from api\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_five_things_to_try_work_and_the_end_is_clean() {
    let mut dev = Dev::start();
    println!("summary: lictor dev was ready in {} (goal: {START_GOAL:?} on an idle machine)", dev.ready_in);
    let client = dev.client();

    // 1. The catalog.
    let (services, _) = client.get_json::<Value>("/v1/catalog/services", &[]).await.expect("the catalog");
    for service in ["consul", "web", "web-sidecar-proxy", "api", "api-sidecar-proxy"] {
        assert!(services.get(service).is_some(), "{service} is not in {services}");
    }
    // 2. DNS.
    let srv_ports = |name: &str| dns::srv_ports(([127, 0, 0, 1], dev.dns).into(), name).expect("an answer");
    assert_eq!(srv_ports("web.service.consul"), [dev.web]);
    assert_eq!(srv_ports("nobody.service.consul"), [] as [u16; 0]);
    // 3. The key/value store.
    let put = client.put_bytes("/v1/kv/greeting", &[], Bytes::from_static(b"hello")).await.expect("a put");
    assert_eq!(put.as_ref(), b"true");
    let (value, _) = client.get_bytes("/v1/kv/greeting", &[("raw", "")]).await.expect("a get");
    assert_eq!(value.as_ref(), b"hello");
    // 4. The call, which no other road but mutual TLS leads to.
    assert_eq!(call(dev.web), (200, CALLED.to_owned()));
    plain_bytes_get_nothing(dev.api_inbound);

    // 5. The deny.
    let mut open = keep_open(dev.upstream);
    let took = deny(&dev, &mut open).await;
    println!("summary: a deny cut an open connection after {} ms and refused a new call after {} ms", took.0, took.1);
    let (status, body) = call(dev.web);
    assert!(status == 502 && body.starts_with("web could not call api"), "{status} {body}");
    assert_eq!(client.get_bytes("/v1/kv/greeting", &[("raw", "")]).await.expect("the rest works").0.as_ref(), b"hello");
    dev.intention("allow").await;
    let healed = eventually_calls(dev.web, 200, DENY_LIMIT);
    println!("summary: an allow healed it after {} ms", healed.as_millis());

    let (stopped, status) = dev.terminate();
    println!("summary: SIGTERM ended everything after {} ms", stopped.as_millis());
    assert!(status.success() && stopped < STOP_LIMIT, "{status} after {stopped:?}");
    for port in dev.ports() {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port} is still open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_is_there_again_and_a_decision_stays() {
    let mut dev = Dev::start();
    let client = dev.client();
    client.put_bytes("/v1/kv/kept", &[], Bytes::from_static(b"yes")).await.expect("a put");
    dev.intention("deny").await;
    eventually_calls(dev.web, 502, DENY_LIMIT);
    assert!(dev.terminate().1.success());
    dev.start_again();
    let (value, _) = dev.client().get_bytes("/v1/kv/kept", &[("raw", "")]).await.expect("a get");
    assert_eq!(value.as_ref(), b"yes");
    assert!(dev.output().contains("denies web -> api"), "{}", dev.output());
    assert_eq!(call(dev.web).0, 502);
}

#[test]
fn a_port_in_use_is_named_with_the_flags_that_move_it_and_nothing_is_left() {
    let dev = Dev::prepare();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", dev.http)).expect("a free port");
    let (status, complaint) = dev.run_to_end();
    assert_eq!(status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(&format!("port {}", dev.http)), "{complaint}");
    assert!(complaint.contains("-port-offset") && complaint.contains("-http-port"), "{complaint}");
    assert!(!dev.data().exists(), "nothing is made before the ports are known to be free");
}

/// Denies the call; how many milliseconds until an open connection ended, and until a new call was refused.
async fn deny(dev: &Dev, open: &mut TcpStream) -> (u128, u128) {
    let begun = Instant::now();
    dev.intention("deny").await;
    open.set_read_timeout(Some(DENY_LIMIT)).expect("a limit");
    let ended = open.read(&mut [0; 64]);
    let cut = begun.elapsed();
    match &ended {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("the open connection goes on: {other:?} after {cut:?}"),
    }
    eventually_calls(dev.web, 502, DENY_LIMIT.saturating_sub(cut));
    let refused = begun.elapsed();
    assert!(cut < DENY_LIMIT && refused < DENY_LIMIT, "cut after {cut:?}, refused after {refused:?}");
    (cut.as_millis(), refused.as_millis())
}

/// A caller without TLS gets not one byte of the application, and the connection is closed on it.
fn plain_bytes_get_nothing(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the inbound port is open");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").expect("it takes bytes");
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("a plain caller was neither answered nor closed on: {error}"),
    }
    // TLS may say in an alert why it ends; the application says nothing.
    assert!(!String::from_utf8_lossy(&got).contains("HTTP"), "{}", String::from_utf8_lossy(&got));
}
