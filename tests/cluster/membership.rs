//! Servers that come and go.

use std::time::Duration;

use bytes::Bytes;
use lictor_tests::{TestCluster, eventually};
use serde_json::Value;

/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_wiped_disk_comes_back_as_a_new_one_and_replaces_the_old() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    client.put_bytes("/v1/kv/before", &[], Bytes::from_static(b"1")).await.expect("a write");
    let follower = (cluster.leader().await + 1) % 3;
    cluster.servers[follower].kill();
    let data = cluster.directory.path().join(&cluster.servers[follower].name);
    std::fs::remove_dir_all(&data).expect("the data directory is wiped");
    cluster.servers[follower].start();
    let returned = cluster.servers[follower].client();
    eventually("the new server has the old data", RETURN_LIMIT, || async {
        match returned.get_bytes("/v1/kv/before", &[("stale", ""), ("raw", "")]).await {
            Ok((value, _)) if value == "1" => Ok(()),
            Ok((value, _)) => Err(format!("{value:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    let new_id = returned.get_json::<Value>("/v1/agent/self", &[]).await.expect("itself").0["Config"]["NodeID"].clone();
    eventually("the new server votes in the place of the old", RETURN_LIMIT, || async {
        let asked = client.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
        let servers = asked.map_err(|error| error.to_string())?.0["Servers"].clone();
        let voters: Vec<&Value> = servers.as_array().into_iter().flatten().filter(|it| it["Voter"] == true).collect();
        let replaced = voters.len() == 3 && voters.iter().any(|it| it["ID"] == new_id);
        if replaced { Ok(()) } else { Err(servers.to_string()) }
    })
    .await;
    // The quorum needs the newcomer now: its vote must count.
    let other = (0..3).find(|&place| place != follower).expect("another server");
    cluster.servers[other].kill();
    eventually("two of three still take a write", RETURN_LIMIT, || async {
        client.put_bytes("/v1/kv/after", &[], Bytes::from_static(b"2")).await.map_err(|error| error.to_string())
    })
    .await;
}
