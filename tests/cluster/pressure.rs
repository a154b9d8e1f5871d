//! Clusters under more than they should have to bear. What went wrong with others: see `docs/regressions.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Clients that never let go.
const POUNDING: u64 = 300;
/// For a cluster to serve again, on a busy machine.
const SERVES_AGAIN: Duration = Duration::from_secs(30);
/// Readers of a hostile client at once.
const HOSTILE: usize = 32;
/// A registration beside a hostile reader takes at most this long, on a busy machine.
const REGISTERED_WITHIN: Duration = Duration::from_secs(2);

/// Clients that write, read and park at every agent, whether anybody answers or not.
struct Pounding {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Pounding {
    fn start(clients: &[Client]) -> Self {
        let (mut tasks, stop, answered) =
            (JoinSet::new(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        for number in 0..POUNDING {
            let client = clients[number as usize % clients.len()].clone();
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                let key = format!("/v1/kv/pounding/{}", number % 20);
                let mut index = 0;
                while !stop.load(Ordering::Relaxed) {
                    let well = match number % 3 {
                        0 => client.put_bytes(&key, &[], Bytes::from(number.to_string())).await.is_ok(),
                        1 => client.get_json::<Value>("/v1/catalog/services", &[]).await.is_ok(),
                        _ => {
                            let after = u64::to_string(&index);
                            let asked = client.get_json::<Value>(&key, &[("index", &after), ("wait", "5s")]).await;
                            index = asked.as_ref().map_or(0, |(_, meta)| meta.index);
                            asked.is_ok()
                        }
                    };
                    answered.fetch_add(u64::from(well), Ordering::Relaxed);
                    // No pause after an answer, and next to none after an error: worse than any client should be.
                    if !well {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        }
        Self { tasks, stop, answered }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Roblox, October 2021, and Datadog, March 2023: a cluster that had been restarted fell over under the load of all who had
/// waited for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roblox_2021_datadog_2023_a_cluster_that_restarts_under_all_its_clients_serves_again() {
    let mut cluster = TestCluster::start(3).await;
    let clients: Vec<Client> = cluster.servers.iter().chain([&cluster.client]).map(|it| it.client()).collect();
    let pounding = Pounding::start(&clients);
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        eventually("there is load", SERVES_AGAIN, || async {
            let answered = pounding.answered.load(Ordering::Relaxed);
            if answered > (round + 1) * 1_000 { Ok(()) } else { Err(answered) }
        })
        .await;
        cluster.servers.iter_mut().for_each(|it| it.kill());
        cluster.servers.iter_mut().for_each(|it| it.start());
        let begun = Instant::now();
        let key = format!("/v1/kv/round/{round}");
        for client in &clients {
            eventually("a write at every agent", SERVES_AGAIN, || async {
                client.put_bytes(&key, &[], Bytes::from_static(b"1")).await.map_err(|error| error.to_string())
            })
            .await;
        }
        longest = longest.max(begun.elapsed());
    }
    pounding.stop().await;
    for server in &cluster.servers {
        assert!(!server.log().contains("panicked"), "{}", server.log_tail());
    }
    println!(
        "summary: 3 restarts of all servers under {POUNDING} clients without mercy: written at every agent again within {} ms",
        longest.as_millis()
    );
}

/// Criteo (Consul #3911, #6181): reads of one kind of client took the leader whole, and registrations took seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn criteo_3911_a_hostile_reader_holds_up_no_registration() {
    let cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.servers[leader].client();
    for key in 0..500 {
        let value = Bytes::from(vec![b'x'; 1_000]);
        client.put_bytes(&format!("/v1/kv/large/{key:04}"), &[], value).await.expect("a write");
    }
    let (mut readers, read) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for _ in 0..HOSTILE {
        let (client, read) = (client.clone(), Arc::clone(&read));
        readers.spawn(async move {
            loop {
                let whole = client.get_bytes("/v1/kv/large", &[("recurse", "")]).await;
                read.fetch_add(u64::from(whole.is_ok()), Ordering::Relaxed);
            }
        });
    }
    eventually("it reads", SERVES_AGAIN, || async {
        if read.load(Ordering::Relaxed) > 50 { Ok(()) } else { Err("not yet") }
    })
    .await;
    let other = cluster.client.client();
    let mut took = Vec::new();
    for number in 0..60 {
        let body =
            json!({"Node": "beside", "Address": "10.0.0.1", "Service": {"Service": format!("s{number}"), "Port": 1}});
        let begun = Instant::now();
        other.put_json::<_, bool>("/v1/catalog/register", &[], &body).await.expect("a registration");
        took.push(begun.elapsed());
    }
    readers.abort_all();
    took.sort_unstable();
    let slowest = took[took.len() * 95 / 100];
    assert!(slowest < REGISTERED_WITHIN, "registrations took {slowest:?} beside a hostile reader");
    assert_eq!(cluster.leader().await, leader, "it cost the leader its lead");
    println!(
        "summary: registrations beside {HOSTILE} readers of 500 kB each: {} ms, of 20 slowest but one {} ms",
        took[took.len() / 2].as_millis(),
        slowest.as_millis()
    );
}

/// Fly.io, 4 June 2024: a delete of everything under "node-1" took "node-10" along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fly_2024_06_04_a_recursive_delete_of_half_a_name_is_warned_of() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.servers[0].client();
    for key in ["node-1/a", "node-10/b", "node-2/c"] {
        client.put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from_static(b"1")).await.expect("a write");
    }
    client.delete("/v1/kv/node-2/", &[("recurse", "")]).await.expect("a delete");
    assert!(!cluster.servers[0].log().contains("a recursive delete"), "a folder is no half of a name");
    client.delete("/v1/kv/node-1", &[("recurse", "")]).await.expect("a delete");
    let log = cluster.servers[0].log();
    assert!(log.contains("a recursive delete of a prefix without") && log.contains("node-1"), "{log}");
    let gone = client.get_bytes("/v1/kv/node-10/b", &[]).await;
    assert!(gone.is_err_and(|error| error.is_not_found()), "as Consul does: it is a prefix");
}
