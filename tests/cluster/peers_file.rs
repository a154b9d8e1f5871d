//! Consul's way to recover a lost quorum: `raft/peers.json`, read at the next start.

use std::time::Duration;

use bytes::Bytes;
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};

use crate::journal::{Writers, everything};

/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes before the loss.
const WRITES: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_file_makes_its_server_the_only_voter_and_is_used_once() {
    let quick = ["-hcl=autopilot { server_stabilization_time = \"1s\" last_contact_threshold = \"1s\" }".to_owned()];
    let mut cluster = TestCluster::start_with(3, &quick).await;
    let writers = Writers::start(&cluster.client.client());
    writers.journal.until_more(WRITES).await;
    let acknowledged = writers.stop().await;
    let survivor = cluster.servers[0].client();
    eventually("the one that will survive has everything", RETURN_LIMIT, || async {
        let stored = everything(&survivor, &[("recurse", ""), ("stale", "")]).await;
        if acknowledged.iter().all(|(key, value)| stored.get(key) == Some(value)) { Ok(()) } else { Err("not yet") }
    })
    .await;
    let itself = survivor.get_json::<Value>("/v1/agent/self", &[]).await.expect("itself").0;
    let id = itself["Config"]["NodeID"].as_str().expect("its id").to_owned();
    cluster.servers.iter_mut().for_each(|it| it.kill());
    for lost in [1, 2] {
        let data = cluster.directory.path().join(&cluster.servers[lost].name);
        std::fs::remove_dir_all(data).expect("the others are lost for ever");
    }

    let raft = cluster.directory.path().join(&cluster.servers[0].name).join("raft");
    let (file, used) = (raft.join("peers.json"), raft.join("peers.json.used"));
    // One that cannot be used changes nothing, and says what would do.
    for wrong in ["{", "[]", r#"[{"id": "no id", "address": "127.0.0.1:8300"}]"#] {
        std::fs::write(&file, wrong).expect("the file");
        cluster.servers[0].start();
        let refused = std::cell::RefCell::new(&mut cluster.servers[0]);
        let status = eventually("it refuses", RETURN_LIMIT, || async { refused.borrow_mut().ended().ok_or("it runs") });
        assert!(!status.await.success());
        let log = cluster.servers[0].log_tail();
        assert!(log.contains("peers.json") && !log.contains("panicked"), "{wrong}: {log}");
        assert!(file.exists() && !used.exists());
    }
    let address = format!("{}:8300", cluster.servers[0].address);
    let peers = json!([{"id": id, "address": address, "non_voter": false}]);
    std::fs::write(&file, peers.to_string()).expect("the file");
    cluster.servers[0].start();
    eventually("it takes writes alone", RETURN_LIMIT, || async {
        survivor.put_bytes("/v1/kv/alone", &[], Bytes::from_static(b"1")).await.map_err(|error| error.to_string())
    })
    .await;
    assert!(!file.exists() && used.exists(), "it is put aside, so that it is not used again");
    let stored = everything(&survivor, &[("recurse", ""), ("consistent", "")]).await;
    for (key, value) in &acknowledged {
        assert_eq!(stored.get(key), Some(value), "{key} was acknowledged and is lost");
    }
    let configuration = || async {
        let asked = survivor.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
        asked.map(|(answer, _)| answer["Servers"].clone()).map_err(|error| error.to_string())
    };
    let servers = configuration().await.expect("it leads");
    assert_eq!(servers.as_array().map(Vec::len), Some(1), "{servers}");

    // The lost ones come back as new servers, and the file was for one start only.
    cluster.servers[1].start();
    cluster.servers[2].start();
    eventually("three servers vote again", RETURN_LIMIT, || async {
        let servers = configuration().await?;
        let voters = servers.as_array().into_iter().flatten().filter(|it| it["Voter"] == true).count();
        if voters == 3 { Ok(()) } else { Err(servers.to_string()) }
    })
    .await;
    cluster.servers[0].kill();
    cluster.servers[0].start();
    eventually("the two others are still there after its restart", RETURN_LIMIT, || async {
        let servers = configuration().await?;
        if servers.as_array().map(Vec::len) == Some(3) { Ok(()) } else { Err(servers.to_string()) }
    })
    .await;
}
