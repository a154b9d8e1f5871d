//! A log that is damaged where it was durable once.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use lictor_tests::{TestCluster, eventually};
use serde_json::Value;

use crate::journal::{Writers, everything};

/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes before the damage.
const WRITES: u64 = 300;
/// A byte of the first segment that every server has written and written more after.
const DAMAGED_BYTE: u64 = 4_096 + 20;

/// Consul #7471, #5680, #6257: a damaged store made the start panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_damaged_log_never_votes_with_it_and_comes_back_as_a_new_one() {
    let quick = ["-hcl=autopilot { server_stabilization_time = \"1s\" last_contact_threshold = \"1s\" }".to_owned()];
    let mut cluster = TestCluster::start_with(3, &quick).await;
    let client = cluster.client.client();
    let writers = Writers::start(&client);
    writers.journal.until_more(WRITES).await;
    let victim = (cluster.leader().await + 1) % 3;
    let of_victim = cluster.servers[victim].client();
    let id = |value: &Value| value["Config"]["NodeID"].clone();
    let old = id(&of_victim.get_json::<Value>("/v1/agent/self", &[]).await.expect("itself").0);
    cluster.servers[victim].kill();
    let data = cluster.directory.path().join(&cluster.servers[victim].name);
    let segment = data.join("raft/log/log-0000000000000001.seg");
    let file = std::fs::File::options().read(true).write(true).open(segment).expect("the first segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, DAMAGED_BYTE).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], DAMAGED_BYTE).expect("a flipped byte");
    cluster.servers[victim].start();
    eventually("it votes again, as another, in the place of the old", RETURN_LIMIT, || async {
        let new = of_victim.get_json::<Value>("/v1/agent/self", &[]).await.map_err(|error| error.to_string())?.0;
        let asked = client.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
        let servers = asked.map_err(|error| error.to_string())?.0["Servers"].clone();
        let has =
            |id: &Value| servers.as_array().into_iter().flatten().any(|it| it["ID"] == *id && it["Voter"] == true);
        if has(&id(&new)) && !has(&old) { Ok(()) } else { Err(servers.to_string()) }
    })
    .await;
    assert!(data.join("raft.damaged-1/log").exists(), "the damaged files are kept aside");
    assert_eq!(writers.journal.failures(), Vec::<String>::new());
    let acknowledged = writers.stop().await;
    let stored = everything(&of_victim, &[("recurse", ""), ("consistent", "")]).await;
    for (key, value) in &acknowledged {
        assert_eq!(stored.get(key), Some(value), "{key} was acknowledged and is lost");
    }
}
