//! Snapshots by the command line: saved, damaged, restored into the same servers and into new ones, and broken off.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use lictor_tests::process::{START_LIMIT, lictor};
use lictor_tests::{Agent, TestCluster, eventually};
use serde_json::Value;

/// How long servers may take to show the same state.
const AGREE_LIMIT: Duration = Duration::from_secs(20);

fn snapshot(verb: &str, agent: &Agent, file: &Path) -> Output {
    let mut command = Command::new(lictor());
    command.args(["snapshot", verb, &format!("-http-addr={}:8500", agent.address)]).arg(file);
    command.env_remove("CONSUL_HTTP_TOKEN").output().expect("the program runs")
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Bytes without runs: in a compressed run a flipped bit may mean the same bytes, and then nothing is damaged.
fn value(number: u8) -> Vec<u8> {
    (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761).rotate_left(number.into()) >> 24) as u8).collect()
}

async fn put(agent: &Agent, key: &str, value: Vec<u8>) {
    eventually("a write", START_LIMIT, || async {
        let reply = agent.client().put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from(value.clone())).await;
        reply.map_err(|error| error.to_string())
    })
    .await;
}

/// Keys with the indexes of their last changes, and the index of the list.
async fn keys(agent: &Agent, mode: &str) -> Result<(Vec<(String, String)>, u64), String> {
    let read = agent.client().get_json::<Vec<Value>>("/v1/kv/", &[("recurse", ""), (mode, "")]).await;
    let (rows, meta) = read.map_err(|error| error.to_string())?;
    let row = |row: &Value| (row["Key"].to_string(), row["Value"].to_string());
    Ok((rows.iter().map(row).collect(), meta.index))
}

async fn wait_for_keys(agent: &Agent, expected: &[(String, String)]) {
    eventually("a server shows the state", AGREE_LIMIT, || async {
        let (found, _) = keys(agent, "stale").await?;
        if found == expected { Ok(()) } else { Err(format!("{} keys, not {}", found.len(), expected.len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_restores_these_servers_and_new_ones_and_a_damaged_one_changes_nothing() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let seal = files.path().join("seal.key");
    std::fs::write(&seal, "cGxlYXNlLW5ldmVyLXVzZS10aGlzLXNlYWxpbmcta2U=\n").expect("a key file");
    let with_key = [format!("-hcl=seal_key_file = \"{}\"", seal.display())];
    let cluster = TestCluster::start_with(3, &with_key).await;
    for number in 0..50 {
        put(&cluster.client, &format!("k/{number:02}"), value(number)).await;
    }
    let (saved_keys, _) = keys(&cluster.client, "consistent").await.expect("a list");

    let file = files.path().join("one.snap");
    let said = done(&snapshot("save", &cluster.client, &file));
    assert!(said.starts_with("Saved and verified snapshot to index "), "{said}");
    let inspected = Command::new(lictor()).args(["snapshot", "inspect"]).arg(&file).output().expect("it runs");
    let inspected = done(&inspected);
    assert!(inspected.contains("KVS") && inspected.contains("ConnectCA"), "{inspected}");

    put(&cluster.client, "k/00", b"changed".to_vec()).await;
    put(&cluster.client, "later", b"x".to_vec()).await;
    let (changed_keys, changed_index) = keys(&cluster.client, "consistent").await.expect("a list");

    // One byte in the middle.
    let mut bytes = std::fs::read(&file).expect("the snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = files.path().join("damaged.snap");
    std::fs::write(&damaged, &bytes).expect("a file");
    let refused = snapshot("restore", &cluster.client, &damaged);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && complaint.contains("failed to read snapshot"), "{refused:?}");
    assert_eq!(keys(&cluster.client, "consistent").await.expect("a list"), (changed_keys, changed_index));

    // A parked reader of a key that the restore takes away wakes with an index that does not go back.
    let watcher = cluster.client.client();
    let parked = tokio::task::LocalSet::new();
    let woken = parked.run_until(async {
        let after = changed_index.to_string();
        let query = [("recurse", ""), ("index", after.as_str()), ("wait", "60s")];
        let watching = watcher.get_json::<Vec<Value>>("/v1/kv/", &query);
        let restoring = tokio::task::spawn_blocking({
            let (address, file) = (cluster.client.address.clone(), file.clone());
            move || {
                let flag = format!("-http-addr={address}:8500");
                Command::new(lictor()).args(["snapshot", "restore", &flag]).arg(file).output().expect("it runs")
            }
        });
        let (woken, restored) = tokio::join!(watching, restoring);
        assert_eq!(done(&restored.expect("it ends")), "Restored snapshot");
        woken.expect("the parked reader is answered")
    });
    let (rows, meta) = tokio::time::timeout(Duration::from_secs(50), woken).await.expect("it wakes in time");
    assert!(rows.len() == 50 && meta.index > changed_index, "{} rows, index {}", rows.len(), meta.index);
    for server in &cluster.servers {
        wait_for_keys(server, &saved_keys).await;
    }

    // New servers with the same seal key take it; they stay what they are, and go on from there.
    let fresh = TestCluster::start_with(3, &with_key).await;
    put(&fresh.client, "only-here", b"x".to_vec()).await;
    assert_eq!(done(&snapshot("restore", &fresh.client, &file)), "Restored snapshot");
    for server in &fresh.servers {
        wait_for_keys(server, &saved_keys).await;
    }
    put(&fresh.client, "k/00", b"after".to_vec()).await;
    drop(fresh);

    // Others cannot open its secrets, and say so.
    let others = TestCluster::start(1).await;
    let refused = snapshot("restore", &others.client, &file);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && complaint.contains("seal_key_file"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_the_leader_does_not_survive_is_whole_or_did_not_happen() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = TestCluster::start(3).await;
    // Random bytes, so that compression leaves many parts to go through the log.
    let mut state = 1_u64;
    for number in 0..24 {
        let value = (0..400_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        put(&cluster.client, &format!("k/{number}"), value.collect()).await;
    }
    let (saved, _) = keys(&cluster.client, "consistent").await.expect("a list");
    let file = files.path().join("big.snap");
    done(&snapshot("save", &cluster.client, &file));
    put(&cluster.client, "later", b"x".to_vec()).await;
    let (changed, _) = keys(&cluster.client, "consistent").await.expect("a list");
    for pause in [60, 250, 600] {
        let leader = cluster.leader().await;
        let mut restore = Command::new(lictor())
            .args(["snapshot", "restore", &format!("-http-addr={}:8500", cluster.client.address)])
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it runs");
        // Somewhere in the middle; wherever it is, the result must be one of two.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.servers[leader].kill();
        let restored = restore.wait().expect("it ends").success();
        cluster.servers[leader].start();
        let found = eventually("a consistent read", START_LIMIT, || keys(&cluster.client, "consistent")).await.0;
        assert!(found == saved || (!restored && found == changed), "{} keys: half of a restore", found.len());
        for server in &cluster.servers {
            wait_for_keys(server, &found).await;
        }
        put(&cluster.client, "later", b"x".to_vec()).await;
    }
}
