//! Sessions, locks and lock-delays over kill -9 of the leader.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};

/// A change of leader and the writes around it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// The delay that is looked for on the other side of the kill.
const LOCK_DELAY: Duration = Duration::from_secs(20);
/// The shortest TTL there is.
const TTL: Duration = Duration::from_secs(10);

async fn create(client: &Client, body: Value) -> String {
    let made: Value = eventually("a session is made", LIMIT, || async {
        client.put_json("/v1/session/create", &[], &body).await.map_err(|error| error.to_string())
    })
    .await;
    made["ID"].as_str().expect("an id").to_owned()
}

async fn acquire(client: &Client, key: &str, session: &str) -> bool {
    eventually("a lock is asked for", LIMIT, || async {
        let reply = client.put_bytes(&format!("/v1/kv/{key}"), &[("acquire", session)], Bytes::from_static(b"x")).await;
        reply.map(|reply| reply.trim_ascii() == b"true").map_err(|error| error.to_string())
    })
    .await
}

async fn info(client: &Client, session: &str) -> Vec<Value> {
    eventually("a session is looked up", LIMIT, || async {
        let path = format!("/v1/session/info/{session}");
        client.get_json::<Vec<Value>>(&path, &[("consistent", "")]).await.map_err(|error| error.to_string())
    })
    .await
    .0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_locks_and_lock_delays_survive_kill_9_of_the_leader() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    let stays = create(&client, json!({ "Node": "c1", "LockDelay": "0s", "TTL": "24h" })).await;
    let expires = create(&client, json!({ "Node": "c1", "NodeChecks": [], "LockDelay": "0s", "TTL": "10s" })).await;
    let ends = create(&client, json!({ "Node": "c1", "LockDelay": format!("{}s", LOCK_DELAY.as_secs()) })).await;
    for (key, session) in [("held", &stays), ("expiring", &expires), ("delayed", &ends)] {
        assert!(acquire(&client, key, session).await, "{key} is free");
    }
    let ended = Instant::now();
    client.put_bytes(&format!("/v1/session/destroy/{ends}"), &[], Bytes::new()).await.expect("it ends");

    let leader = cluster.leader().await;
    cluster.servers[leader].kill();
    let killed = Instant::now();

    // The delay runs on under the next leader, to its end and no further.
    let other = create(&client, json!({ "Node": "c1", "LockDelay": "0s" })).await;
    assert!(!acquire(&client, "held", &other).await, "a lock was lost with its leader");
    let mut refused = 0;
    while !acquire(&client, "delayed", &other).await {
        refused += 1;
        assert!(ended.elapsed() < LOCK_DELAY + LIMIT, "the lock stays shut");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let delay = ended.elapsed();
    assert!(refused > 0 && delay >= LOCK_DELAY, "a lock was free {delay:?} after its holder's end, not {LOCK_DELAY:?}");
    assert_eq!(info(&client, &stays).await.len(), 1, "a session was lost with its leader");

    // Nobody renews it: it lives a TTL from the change of leader on, and ends within two.
    eventually("an unrenewed session ends under the new leader", LIMIT, || async {
        let found = info(&client, &expires).await;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let life = killed.elapsed();
    assert!(life >= TTL, "a session ended {life:?} after the change of leader, before its TTL was over");
    assert!(acquire(&client, "expiring", &other).await, "the lock of an expired session is free");
    println!(
        "summary: over kill -9 of the leader a lock-delay of {} s held for {:.1} s, a TTL of {} s ended after {:.1} s",
        LOCK_DELAY.as_secs(),
        delay.as_secs_f64(),
        TTL.as_secs(),
        life.as_secs_f64()
    );
}
