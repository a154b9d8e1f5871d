//! A quorum that is lost for ever.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lictor_tests::process::lictor;
use lictor_tests::{TestCluster, eventually};
use serde_json::Value;

use crate::journal::{Writers, everything};

/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes before the loss.
const WRITES: u64 = 500;

fn recover(directories: &[&PathBuf]) -> (bool, String) {
    let mut command = Command::new(lictor());
    command.args(["operator", "recover", "-yes"]);
    command.args(directories.iter().map(|it| format!("-data-dir={}", it.display())));
    let output = command.output().expect("the program under test runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// A quorum that is lost for ever: recovery was a file made by hand, on the wrong server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_from_the_newest_survivor_with_all_that_was_acknowledged() {
    let quick = ["-hcl=autopilot { server_stabilization_time = \"1s\" last_contact_threshold = \"1s\" }".to_owned()];
    let mut cluster = TestCluster::start_with(3, &quick).await;
    let directories: Vec<PathBuf> = cluster.servers.iter().map(|it| cluster.directory.path().join(&it.name)).collect();
    let client = cluster.client.client();
    let writers = Writers::start(&client);
    writers.journal.until_more(WRITES).await;

    let (done, said) = recover(&[&directories[0]]);
    assert!(!done && said.contains("is used by another process"), "{said}");
    cluster.servers[0].kill();
    let (done, said) = recover(&[&directories[0]]);
    assert!(!done && said.contains("which is a quorum"), "{said}");
    writers.journal.until_more(WRITES).await;
    cluster.servers[1].kill();
    cluster.servers[2].kill();
    let acknowledged = {
        let known = writers.journal.acknowledged().clone();
        writers.end_without_waiting();
        known
    };

    // The first was dead while the others went on: it must not be chosen while a newer one is known.
    let (done, said) = recover(&[&directories[0], &directories[1], &directories[2]]);
    assert!(!done && said.contains("is newer: give it first"), "{said}");
    let chosen = [1, 2].into_iter().find(|place| {
        let other = 3 - place;
        let (done, said) = recover(&[&directories[*place], &directories[0], &directories[other]]);
        assert!(done || said.contains("is newer"), "{said}");
        assert!(!done || said.contains("becomes the only voter"), "{said}");
        done
    });
    let chosen = chosen.expect("one of them is the newest");
    cluster.servers[chosen].start();
    let survivor = cluster.servers[chosen].client();
    let stored = everything(&survivor, &[("recurse", ""), ("consistent", "")]).await;
    for (key, value) in &acknowledged {
        assert_eq!(stored.get(key), Some(value), "{key} was acknowledged and is lost");
    }
    // One of the lost comes back as it was: it is refused. Emptied, both join as new servers.
    let lost: Vec<usize> = (0..3).filter(|place| *place != chosen).collect();
    cluster.servers[lost[0]].start();
    let old = std::cell::RefCell::new(&mut cluster.servers[lost[0]]);
    eventually("a lost server that comes back ends by itself", RETURN_LIMIT, || async {
        old.borrow_mut().ended().ok_or("it runs")
    })
    .await;
    for place in lost {
        std::fs::remove_dir_all(&directories[place]).expect("it is emptied");
        cluster.servers[place].start();
    }
    eventually("three servers vote again", RETURN_LIMIT, || async {
        let asked = survivor.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
        let servers = asked.map_err(|error| error.to_string())?.0["Servers"].clone();
        let voters = servers.as_array().into_iter().flatten().filter(|it| it["Voter"] == true).count();
        if voters == 3 { Ok(()) } else { Err(servers.to_string()) }
    })
    .await;
    println!("summary: recovery from one of three servers: {} acknowledged writes, 0 lost", acknowledged.len());
}
