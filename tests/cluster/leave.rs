//! A server that leaves on purpose.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use lictor_tests::{TestCluster, eventually};
use serde_json::Value;

/// For an order to show, on a busy machine.
const SHOWN_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_is_gone_from_raft_and_catalog_and_comes_back_when_it_is_started() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let name = cluster.servers[leader].name.clone();
    let left = cluster.servers[leader].client().put_bytes("/v1/agent/leave", &[], Bytes::new()).await;
    left.expect("it answers when it has left");
    let other = cluster.servers[(leader + 1) % 3].client();
    let voters = || async {
        let asked = other.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
        let servers = asked.map_err(|error| error.to_string())?.0["Servers"].clone();
        let servers = servers.as_array().cloned().unwrap_or_default();
        Ok::<_, String>(servers.into_iter().filter(|it| it["Voter"] == true).collect::<Vec<_>>())
    };
    let nodes = || async {
        let asked = other.get_json::<Value>("/v1/catalog/nodes", &[]).await.map_err(|error| error.to_string())?;
        let nodes = asked.0.as_array().cloned().unwrap_or_default();
        Ok::<_, String>(nodes.iter().filter_map(|node| node["Node"].as_str().map(str::to_owned)).collect::<Vec<_>>())
    };
    eventually("it is no voter and no node", SHOWN_LIMIT, || async {
        let (voters, nodes) = (voters().await?, nodes().await?);
        let gone = voters.len() == 2 && voters.iter().all(|it| it["Node"] != name.as_str()) && !nodes.contains(&name);
        if gone { Ok(()) } else { Err(format!("{voters:?} {nodes:?}")) }
    })
    .await;
    let status = {
        let process = Mutex::new(&mut cluster.servers[leader]);
        let ended = || {
            let ended = process.lock().map_or(None, |mut process| process.ended());
            async move { ended.ok_or("it runs") }
        };
        eventually("the process ends", SHOWN_LIMIT, ended).await
    };
    assert!(status.success(), "{status}");
    assert!(!nodes().await.expect("the nodes").contains(&name), "nothing put it back");
    cluster.servers[leader].start();
    eventually("it votes again and is a node", SHOWN_LIMIT, || async {
        let (voters, nodes) = (voters().await?, nodes().await?);
        if voters.len() == 3 && nodes.contains(&name) { Ok(()) } else { Err(format!("{voters:?} {nodes:?}")) }
    })
    .await;
}
