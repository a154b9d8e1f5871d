//! The leader dies or goes, and writes go on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_tests::{TestCluster, eventually};

use crate::journal::{WRITERS, Writers, everything};

/// Kills of the leader.
const KILLS: u32 = 5;
/// From the kill to the next acknowledged write, on a busy machine. The figure is in the summary; it is measured over
/// 30 kills by `lictor-bench failover`.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);
/// For an agent to notice that its server says nothing and to ask another one, on a busy machine. It takes 0.7 s on an idle one.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// Acknowledged writes between two restarts.
const WRITES_BETWEEN: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_soon_after_kill_9_of_the_leader() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    let mut pauses = Vec::new();
    for round in 0..KILLS {
        let leader = cluster.leader().await;
        let value = Bytes::from(round.to_string());
        client.put_bytes("/v1/kv/round", &[], value.clone()).await.expect("a write before the kill");
        let killed = Instant::now();
        cluster.servers[leader].kill();
        eventually("a write after the kill", PAUSE_LIMIT, || async {
            client.put_bytes("/v1/kv/round", &[], value.clone()).await.map_err(|error| error.to_string())
        })
        .await;
        pauses.push(killed.elapsed().as_millis());
        cluster.servers[leader].start();
        eventually("the server knows the leader again", RETURN_LIMIT, || cluster.servers[leader].leader()).await;
    }
    pauses.sort_unstable();
    println!(
        "summary: first write after kill -9 of the leader, {KILLS} times: median {} ms, most {} ms",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
}

/// Fly.io, Vault, April 2024: a leader was stopped before it had handed the lead on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_server_falls_silent_asks_another_one() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    client.put_bytes("/v1/kv/there", &[], Bytes::from_static(b"yes")).await.expect("a write");
    let mut longest = Duration::ZERO;
    // One of the three is the agent's server when its turn comes.
    for server in &cluster.servers {
        server.pause(true);
        let begun = Instant::now();
        let read = client.get_bytes("/v1/kv/there", &[("raw", ""), ("stale", "")]).await;
        longest = longest.max(begun.elapsed());
        server.pause(false);
        read.expect("a read while one server is stopped");
        eventually("the server knows the leader again", RETURN_LIMIT, || server.leader()).await;
    }
    println!("summary: a client agent's read when its server falls silent: {} ms", longest.as_millis());
    assert!(longest < SILENCE_LIMIT, "{longest:?}");
}

/// Fly.io, Vault, April 2024: a leader was stopped before it had handed the lead on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_write() {
    let mut cluster = TestCluster::start(3).await;
    let writers = Writers::start(&cluster.client.client());
    writers.journal.until_more(WRITES_BETWEEN).await;
    // The leader first and, as the lead moves, whoever has it then: every stop but the last must hand it on.
    let mut order: Vec<usize> = vec![cluster.leader().await];
    order.extend((0..3).filter(|place| *place != order[0]).collect::<Vec<_>>());
    for place in order {
        assert!(cluster.servers[place].terminate().success(), "it ends well");
        writers.journal.until_more(WRITES_BETWEEN).await;
        cluster.servers[place].start();
        let address = cluster.servers[place].client();
        eventually("the server has caught up", RETURN_LIMIT, || async {
            address.get_bytes("/v1/kv/writers/0/000000", &[]).await.map_err(|error| error.to_string())
        })
        .await;
        writers.journal.until_more(WRITES_BETWEEN).await;
    }
    assert_eq!(writers.journal.failures(), Vec::<String>::new(), "no write fails in a rolling restart");
    let acknowledged = writers.stop().await;
    for server in &cluster.servers {
        let stored = everything(&server.client(), &[("recurse", ""), ("consistent", "")]).await;
        for (key, value) in &acknowledged {
            assert_eq!(stored.get(key), Some(value), "{key} was acknowledged, and {} lost it", server.name);
        }
    }
    println!("summary: rolling restart of 3 servers: {} writes by {WRITERS} writers, 0 failed", acknowledged.len());
}
