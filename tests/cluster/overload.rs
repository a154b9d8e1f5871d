//! More requests than the servers can take: raft goes on, and who is turned away is told by which limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_client::Client;
use lictor_runtime::Tasks;
use lictor_tests::TestCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the flood goes on: many times the longest election timeout.
const FLOOD: Duration = Duration::from_secs(8);
/// Requests under way at once.
const CLIENTS: usize = 160;
/// Connections of one address, as configured.
const CONNECTIONS: usize = 200;
/// A write must be acknowledged within this even so, on a busy machine.
const WRITE_LIMIT: Duration = Duration::from_secs(7);

async fn figure(client: &Client, name: &str) -> f64 {
    let scraped = client.get_bytes("/v1/agent/metrics", &[("format", "prometheus")]).await.expect("figures").0;
    let text = String::from_utf8(scraped.to_vec()).expect("text");
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or_else(|| panic!("{name} is not in:\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_stops_neither_heartbeats_nor_replication() {
    let cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let server = &cluster.servers[leader];
    let follower = &cluster.servers[(leader + 1) % 3];
    let term = figure(&server.client(), "consul_raft_term").await;
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = Tasks::new();
    for place in 0..CLIENTS {
        let (client, over, done) = (server.client(), over.clone(), done.clone());
        flood.spawn(async move {
            let value = Bytes::from(vec![b'x'; 4096]);
            let path = format!("/v1/kv/flood/{place}");
            while !over.load(Ordering::Relaxed) {
                // Refused or not: it is only noise.
                let written = client.put_bytes(&path, &[], value.clone()).await;
                let read = client.get_bytes("/v1/kv/flood/", &[("keys", "")]).await;
                done.fetch_add(u64::from(written.is_ok()) + u64::from(read.is_ok()), Ordering::Relaxed);
            }
        });
    }
    let begin = Instant::now();
    let mut number = 0;
    while begin.elapsed() < FLOOD {
        number += 1;
        let value = number.to_string();
        let asked = Instant::now();
        let written = follower.client().put_bytes("/v1/kv/measured", &[], Bytes::from(value.clone())).await;
        written.unwrap_or_else(|error| panic!("write {number} after {:?}: {error}", begin.elapsed()));
        assert!(asked.elapsed() < WRITE_LIMIT, "write {number} took {:?}", asked.elapsed());
        let (read, _) = follower.client().get_bytes("/v1/kv/measured", &[("raw", "")]).await.expect("a read");
        assert_eq!(read, value, "what was acknowledged is read");
    }
    over.store(true, Ordering::Relaxed);
    assert!(flood.stop(Duration::from_secs(30)).await);
    assert_eq!(cluster.leader().await, leader, "another server leads");
    assert_eq!(figure(&server.client(), "consul_raft_term").await, term, "there was an election");
    println!(
        "summary: overload: {} requests of {CLIENTS} clients in {FLOOD:?}, {number} writes through a follower meanwhile, no \
         election",
        done.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_the_limit() {
    let cluster = TestCluster::start(1).await;
    let door = format!("{}:8500", cluster.servers[0].address);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&door).await.expect("a connection");
        stream.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
        held.push(stream);
    }
    let mut said = String::new();
    // The connections of the test itself count too, so this one is beyond the limit in any case.
    let mut refused = TcpStream::connect(&door).await.expect("a connection");
    refused.read_to_string(&mut said).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 429 Too Many Requests"), "{said}");
    assert!(said.contains("limits.http_max_conns_per_client") && said.contains("200"), "{said}");
}
