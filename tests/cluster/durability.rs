//! kill -9 of the leader, of a follower, of all three, under concurrent writers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use serde_json::Value;
use tokio::task::JoinSet;

/// Writers at once.
const WRITERS: usize = 8;
/// Acknowledged writes before and after each kill.
const WRITES_AROUND_A_KILL: u64 = 1_000;
/// For one phase of writing, on a busy machine.
const PHASE_LIMIT: Duration = Duration::from_secs(120);
/// A change must reach a parked reader within this after its acknowledgement.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

/// What the writers were told.
#[derive(Default)]
struct Journal {
    acknowledged: Mutex<BTreeMap<String, String>>,
    count: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Journal {
    fn acknowledged(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.acknowledged.lock().expect("no writer panicked")
    }
}

async fn write_until_told(journal: Arc<Journal>, client: Client, writer: usize) {
    let mut number = 0u64;
    while !journal.stop.load(Ordering::Relaxed) {
        let key = format!("writers/{writer}/{number:06}");
        let value = format!("{writer}-{number}");
        number += 1;
        match client.put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from(value.clone())).await {
            Ok(reply) if reply.starts_with(b"true") => {
                journal.acknowledged().insert(key, value);
                journal.count.fetch_add(1, Ordering::Relaxed);
            }
            // Not acknowledged: it may or may not be there, and nobody asks.
            _ => {
                journal.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn until_more_are_acknowledged(journal: &Journal, more: u64) {
    let goal = journal.count.load(Ordering::Relaxed) + more;
    eventually("enough acknowledged writes", PHASE_LIMIT, || async {
        let count = journal.count.load(Ordering::Relaxed);
        if count >= goal { Ok(()) } else { Err(format!("{count} of {goal}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_kill_9_of_leader_follower_or_all() {
    let mut cluster = TestCluster::start(3).await;
    let journal = Arc::new(Journal::default());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_until_told(Arc::clone(&journal), cluster.client.client(), writer));
    }
    let mut watcher = JoinSet::new();
    watcher.spawn(watch_everything(cluster.client.client(), Arc::clone(&journal)));
    let mut pauses = Vec::new();

    until_more_are_acknowledged(&journal, WRITES_AROUND_A_KILL).await;
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
        until_more_are_acknowledged(&journal, 1).await;
        pauses.push(format!("{victim} {} ms", killed.elapsed().as_millis()));
        until_more_are_acknowledged(&journal, WRITES_AROUND_A_KILL).await;
        if victim != "all" {
            places.iter().for_each(|&place| cluster.servers[place].start());
        }
        until_more_are_acknowledged(&journal, WRITES_AROUND_A_KILL).await;
    }
    journal.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer ends well");
    }

    let acknowledged = journal.acknowledged().clone();
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
        journal.failed.load(Ordering::Relaxed),
        pauses.join(", ")
    );
}

async fn everything(client: &Client, query: &[(&str, &str)]) -> BTreeMap<String, String> {
    let rows = eventually("all entries can be read", Duration::from_secs(30), || async {
        client.get_json::<Vec<Value>>("/v1/kv/writers", query).await.map_err(|error| error.to_string())
    })
    .await
    .0;
    rows.iter().map(entry).collect()
}

fn entry(row: &Value) -> (String, String) {
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    (text("Key"), decode_base64(&text("Value")))
}

fn decode_base64(text: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    String::from_utf8(bytes).expect("text")
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
