//! For which index a blocked read waits.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_tests::TestCluster;

/// How long the reads wait.
const WAIT: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_an_index_above_the_one_it_names() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.servers[0].client();
    let put = async |key: &str| {
        client.put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from_static(b"x")).await.expect("a write");
    };
    let read = async |index: u64, mode: &str| {
        let (begun, index) = (Instant::now(), index.to_string());
        let wait = format!("{}ms", WAIT.as_millis());
        let query = [("index", index.as_str()), ("wait", wait.as_str()), (mode, "")];
        let (_, meta) = client.get_bytes("/v1/kv/watched", &query).await.expect("an answer");
        (begun.elapsed() >= WAIT, meta.index)
    };
    put("watched").await;
    let (_, known) = read(0, "consistent").await;
    for _ in 0..8 {
        put("other").await;
    }
    for mode in ["default", "consistent", "stale"] {
        assert_eq!(read(known - 1, mode).await, (false, known), "{mode}: it has changed since");
        assert_eq!(read(known, mode).await, (true, known), "{mode}: it has not changed since");
        // The state has been at this index, so the reader may have it from a server that is ahead of this one.
        assert_eq!(read(known + 4, mode).await, (true, known), "{mode}: it has not changed since, either");
    }
    assert_eq!(read(known + 1_000_000, "default").await, (false, known), "no state of this cluster was ever there");
    assert_eq!(read(known + 1_000_000, "stale").await, (true, known), "a server may be behind");
}
