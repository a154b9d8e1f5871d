//! Three servers become five and three again, under writes.

use std::process::Command;
use std::time::Duration;

use lictor_client::Client;
use lictor_tests::process::lictor;
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};

use crate::journal::{WRITERS, Writers, everything};

/// For a change of the members, on a busy machine.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes between two changes.
const WRITES_BETWEEN: u64 = 100;

async fn peers(client: &Client) -> Result<Vec<Value>, String> {
    let asked = client.get_json::<Value>("/v1/operator/raft/configuration", &[]).await;
    let (answer, _) = asked.map_err(|error| error.to_string())?;
    Ok(answer["Servers"].as_array().cloned().unwrap_or_default())
}

async fn until_voters(client: &Client, count: usize) -> Vec<Value> {
    eventually("as many voters as wanted and nobody else", CHANGE_LIMIT, || async {
        let peers = peers(client).await?;
        let voters = peers.iter().filter(|it| it["Voter"] == true).count();
        if voters == count && peers.len() == count { Ok(peers) } else { Err(format!("{peers:?}")) }
    })
    .await
}

fn id_of(peers: &[Value], name: &str) -> String {
    peers.iter().find(|it| it["Node"] == name).and_then(|it| it["ID"].as_str()).expect("it is a peer").to_owned()
}

fn operator(address: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(lictor());
    command.arg("operator").args(arguments).arg(format!("-http-addr={address}:8500"));
    let output = command.output().expect("the program under test runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

async fn until_it_refuses(cluster: &mut TestCluster, place: usize) {
    let server = std::cell::RefCell::new(&mut cluster.servers[place]);
    let status = eventually("a removed server ends by itself", CHANGE_LIMIT, || async {
        server.borrow_mut().ended().ok_or("it runs")
    })
    .await;
    assert!(!status.success());
    let log = cluster.servers[place].log_tail();
    assert!(log.contains("was removed from this cluster and must never come back"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_become_five_and_three_again_under_writes() {
    let quick = ["-hcl=autopilot { server_stabilization_time = \"1s\" last_contact_threshold = \"1s\" }".to_owned()];
    let mut cluster = TestCluster::start_with(3, &quick).await;
    let client = cluster.client.client();
    until_voters(&client, 3).await;
    let writers = Writers::start(&client);
    writers.journal.until_more(WRITES_BETWEEN).await;

    cluster.add_server(&[]);
    let fifth = cluster.add_server(&["-hcl=leave_on_terminate = true".to_owned()]);
    let five = until_voters(&client, 5).await;
    assert!(five.iter().all(|it| it["ProtocolVersion"] == "3" && it["LastIndex"].as_u64() > Some(0)), "{five:?}");
    assert_eq!(five.iter().filter(|it| it["Leader"] == true).count(), 1);
    writers.journal.until_more(WRITES_BETWEEN).await;

    // A server that leaves on purpose is out at once, and comes back with the log that it has.
    assert!(cluster.servers[fifth].terminate().success());
    until_voters(&client, 4).await;
    cluster.servers[fifth].start();
    let again = until_voters(&client, 5).await;
    assert_eq!(id_of(&five, "s5"), id_of(&again, "s5"));

    let listed = operator(&cluster.client.address, &["raft", "list-peers"]);
    assert!(listed.starts_with("Node  ID") && listed.lines().count() == 6, "{listed}");
    // The leader itself is removed by its id, another by its address.
    let leader = cluster.leader().await;
    let id = id_of(&again, &cluster.servers[leader].name);
    let said = operator(&cluster.client.address, &["raft", "remove-peer", &format!("-id={id}")]);
    assert_eq!(said, format!("Removed peer with id {id:?}\n"));
    until_voters(&client, 4).await;
    writers.journal.until_more(WRITES_BETWEEN).await;
    let next = cluster.leader().await;
    let other = (0..5).find(|place| *place != leader && *place != next).expect("another");
    let address = format!("{}:8300", cluster.servers[other].address);
    client.delete("/v1/operator/raft/peer", &[("address", &address)]).await.expect("it is removed");
    let three = until_voters(&client, 3).await;
    writers.journal.until_more(WRITES_BETWEEN).await;
    until_it_refuses(&mut cluster, leader).await;
    until_it_refuses(&mut cluster, other).await;
    cluster.servers[other].start();
    until_it_refuses(&mut cluster, other).await;

    // The lead goes where it is told to.
    let to =
        three.iter().find(|it| it["Leader"] == false).expect("a follower")["ID"].as_str().expect("an id").to_owned();
    let done = client.put_json::<_, Value>("/v1/operator/raft/transfer-leader", &[("id", &to)], &json!({})).await;
    assert_eq!(done.expect("it is handed on"), json!({ "Success": true }));
    eventually("the named one leads", CHANGE_LIMIT, || async {
        let leads = peers(&client).await?.iter().any(|it| it["Leader"] == true && it["ID"] == to);
        if leads { Ok(()) } else { Err("another leads") }.map_err(str::to_owned)
    })
    .await;
    assert_eq!(writers.journal.failures(), Vec::<String>::new(), "no write fails while servers come and go");
    let acknowledged = writers.stop().await;
    let stored = everything(&client, &[("recurse", ""), ("consistent", "")]).await;
    for (key, value) in &acknowledged {
        assert_eq!(stored.get(key), Some(value), "{key} was acknowledged and is lost");
    }
    println!("summary: 3 to 5 to 3 servers under {WRITERS} writers: {} writes, 0 failed, 0 lost", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autopilot_tells_how_the_servers_are_and_takes_a_failed_one_out() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    let path = "/v1/operator/autopilot/configuration";
    let (config, _) = client.get_json::<Value>(path, &[]).await.expect("the configuration");
    assert_eq!(config["ServerStabilizationTime"], "10s");
    assert_eq!((&config["LastContactThreshold"], &config["MaxTrailingLogs"]), (&json!("200ms"), &json!(250)));
    let changed = operator(&cluster.client.address, &["autopilot", "set-config", "-last-contact-threshold=1s"]);
    assert_eq!(changed, "Configuration updated!\n");
    let stale = client.put_json::<_, bool>(path, &[("cas", "1")], &json!({ "MinQuorum": 3 })).await;
    assert!(!stale.expect("an answer"), "a change at an old index takes no effect");
    let shown = operator(&cluster.client.address, &["autopilot", "get-config"]);
    assert!(shown.contains("LastContactThreshold = 1s\n") && shown.contains("CleanupDeadServers = true\n"), "{shown}");
    let health = eventually("all servers are healthy", CHANGE_LIMIT, || async {
        client.get_json::<Value>("/v1/operator/autopilot/health", &[]).await.map_err(|error| error.to_string())
    })
    .await
    .0;
    assert_eq!((&health["Healthy"], &health["FailureTolerance"]), (&json!(true), &json!(1)));
    assert!(operator(&cluster.client.address, &["autopilot", "state"]).contains("Node Status:"));
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    cluster.servers[dead].kill();
    eventually("the answer is 429 with a failed server", CHANGE_LIMIT, || async {
        match client.get_json::<Value>("/v1/operator/autopilot/health", &[]).await {
            Err(error) if error.to_string().contains("429") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    until_voters(&client, 2).await;
    // It lost nothing, so it may come back.
    cluster.servers[dead].start();
    until_voters(&client, 3).await;
}
