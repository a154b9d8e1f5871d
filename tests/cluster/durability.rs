//! kill -9 of the leader, of a follower, of all three, under concurrent writers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lictor_client::Client;
use lictor_tests::TestCluster;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::journal::{Journal, WRITERS, Writers, entry, everything};

/// Acknowledged writes before and after each kill.
const WRITES_AROUND_A_KILL: u64 = 1_000;
/// A change must reach a parked reader within this after its acknowledgement.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_kill_9_of_leader_follower_or_all() {
    let mut cluster = TestCluster::start(3).await;
    let writers = Writers::start(&cluster.client.client());
    let journal = Arc::clone(&writers.journal);
    let mut watcher = JoinSet::new();
    watcher.spawn(watch_everything(cluster.client.client(), Arc::clone(&journal)));
    let mut pauses = Vec::new();

    journal.until_more(WRITES_AROUND_A_KILL).await;
    for victim in ["leader", "follower", "all"] {
        let leader = cluster.leader().await;
        let places: Vec<usize> = match victim {
            "leader" => vec![leader],
            "follower" => vec![(leader + 1) % 3],
            _ => vec![0, 1, 2],
        };
        let killed = Instant::now();
        places.iter().for_each(|&place| cluster.servers[place].kill());
        if victim == "all" {
            places.iter().for_each(|&place| cluster.servers[place].start());
        }
        journal.until_more(1).await;
        pauses.push(format!("{victim} {} ms", killed.elapsed().as_millis()));
        journal.until_more(WRITES_AROUND_A_KILL).await;
        if victim != "all" {
            places.iter().for_each(|&place| cluster.servers[place].start());
        }
        journal.until_more(WRITES_AROUND_A_KILL).await;
    }
    let acknowledged = writers.stop().await;
    for server in &cluster.servers {
        let stored = everything(&server.client(), &[("recurse", ""), ("consistent", "")]).await;
        for (key, value) in &acknowledged {
            assert_eq!(stored.get(key), Some(value), "{key} was acknowledged, and {} lost it", server.name);
        }
    }
    let seen = tokio::time::timeout(WATCH_LIMIT, watcher.join_next()).await.expect("the watcher ends");
    let seen = seen.expect("there is a watcher").expect("the watcher is well");
    for (key, value) in &acknowledged {
        assert_eq!(seen.get(key), Some(value), "{key} was acknowledged and no blocking query saw it");
    }
    println!(
        "summary: {} writes acknowledged by {WRITERS} writers over 3 kills, 0 lost, {} refused; first write after the kill of: {}",
        acknowledged.len(),
        journal.failures().len(),
        pauses.join(", ")
    );
}

/// Follows everything by blocking queries until every acknowledged write was seen. The index must never go backwards.
async fn watch_everything(client: Client, journal: Arc<Journal>) -> BTreeMap<String, String> {
    let (mut index, mut seen) = (0u64, BTreeMap::new());
    loop {
        let text = index.to_string();
        let answer =
            client.get_json::<Vec<Value>>("/v1/kv/writers", &[("recurse", ""), ("index", &text), ("wait", "2s")]).await;
        if let Ok((rows, meta)) = answer {
            assert!(meta.index >= index, "the index went from {index} back to {}", meta.index);
            index = meta.index;
            seen = rows.iter().map(entry).collect();
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let all =
            journal.stop.load(Ordering::Relaxed) && journal.acknowledged().keys().all(|key| seen.contains_key(key));
        if all {
            return seen;
        }
    }
}
