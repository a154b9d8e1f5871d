//! A real disk that is really full, under the server that leads.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use tokio::task::JoinSet;

use crate::journal::{Writers, everything};

/// Room for the log's segment, its spare, and one more, of 64 MiB each.
const DISK_BYTES: u64 = 220 * 1024 * 1024;
/// A value that fills a segment soon; under the limit of a value.
const LARGE_BYTES: usize = 500_000;
/// For the log to reach the end of its segment, and for what follows of it, on a busy machine.
const DISK_LIMIT: Duration = Duration::from_secs(30);
/// Acknowledged writes in each phase.
const WRITES: u64 = 200;

/// A file system in memory, unmounted when it is dropped, also of a failed test.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one in the place of this directory, with what is in it; or says why it cannot be done here.
    fn under(directory: &Path) -> Result<Self, String> {
        let aside = directory.with_extension("aside");
        std::fs::rename(directory, &aside).map_err(|error| error.to_string())?;
        std::fs::create_dir(directory).map_err(|error| error.to_string())?;
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={DISK_BYTES}"))
            .args(["tmpfs".as_ref(), directory.as_os_str()]))
        .map(|()| Self(directory.to_owned()))?;
        run(Command::new("cp").args(["-a", "--sparse=never"]).arg(aside.join(".")).arg(directory))?;
        Ok(mounted)
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).expect("a file");
        for size in [1024 * 1024, 4096] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    /// Gives it back.
    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("the ballast goes");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server may still run.
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Writes large values of few keys, so that the log grows and the state does not, until it is dropped.
fn grow_the_log(client: &Client) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for writer in 0..2 {
        let client = client.clone();
        tasks.spawn(async move {
            loop {
                let value = Bytes::from(vec![b'x'; LARGE_BYTES]);
                if client.put_bytes(&format!("/v1/kv/large/{writer}"), &[], value).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    tasks
}

/// Consul #665: a full disk ended the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_leader_costs_its_lead_and_no_acknowledged_write() {
    let mut cluster = TestCluster::start(3).await;
    let victim = cluster.leader().await;
    cluster.servers[victim].terminate();
    let disk = match Disk::under(&cluster.directory.path().join(&cluster.servers[victim].name)) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: a disk of a few MiB cannot be mounted here: {reason}"),
    };
    cluster.servers[victim].start();
    let client = cluster.client.client();
    let of_victim = cluster.servers[victim].client();
    take_the_lead(&cluster, victim).await;

    let writers = Writers::start(&client);
    writers.journal.until_more(WRITES).await;
    disk.fill();
    let growing = grow_the_log(&client);
    let said = |words: &'static str| {
        let server = &cluster.servers[victim];
        eventually("the full server says so", DISK_LIMIT, move || async move {
            let text = server.log();
            if text.contains(words) { Ok(()) } else { Err(server.log_tail()) }
        })
    };
    said("the disk is nearly full: nothing new is accepted").await;
    eventually("another leads", DISK_LIMIT, || async {
        let leader = cluster.leader().await;
        if leader == victim { Err("the full one") } else { Ok(()) }
    })
    .await;
    writers.journal.until_more(WRITES).await;
    said("the disk is full: the log waits for room").await;
    drop(growing);
    writers.journal.until_more(WRITES).await;
    let stale = everything(&of_victim, &[("recurse", ""), ("stale", "")]).await;
    assert!(stale.len() as u64 >= WRITES, "the full server answers with {} entries only", stale.len());

    disk.free();
    let acknowledged = writers.stop().await;
    eventually("it has all again", DISK_LIMIT, || async {
        let stored = everything(&of_victim, &[("recurse", ""), ("stale", "")]).await;
        match acknowledged.iter().find(|(key, value)| stored.get(*key) != Some(value)) {
            Some((key, _)) => Err(format!("{key} was acknowledged and is not there")),
            None => Ok(()),
        }
    })
    .await;
    take_the_lead(&cluster, victim).await;
    for server in &mut cluster.servers {
        let stored = everything(&server.client(), &[("recurse", ""), ("consistent", "")]).await;
        for (key, value) in &acknowledged {
            assert_eq!(stored.get(key), Some(value), "{key} was acknowledged, and {} lost it", server.name);
        }
        assert!(server.ended().is_none() && !server.log().contains("panicked"), "{} did not stand it", server.name);
    }
    println!("summary: {} writes acknowledged around a full disk, 0 lost", acknowledged.len());
}

/// Gives the lead to this server.
async fn take_the_lead(cluster: &TestCluster, place: usize) {
    let server = &cluster.servers[place];
    let (own, client) = (server.client(), cluster.client.client());
    eventually("it takes the lead", DISK_LIMIT, || async {
        if cluster.leader().await == place {
            return Ok(());
        }
        let itself =
            own.get_json::<serde_json::Value>("/v1/agent/self", &[]).await.map_err(|error| error.to_string())?;
        let id = itself.0["Config"]["NodeID"].as_str().unwrap_or_default().to_owned();
        let moved = client.put_bytes("/v1/operator/raft/transfer-leader", &[("id", &id)], Bytes::new()).await;
        moved.map_err(|error| error.to_string())?;
        Err("it was asked to".to_owned())
    })
    .await;
}
