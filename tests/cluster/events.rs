//! User events over real processes: every agent hears them, whoever takes them in, and another leader passes on too.

use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use serde_json::Value;

/// For an event to reach everybody, or for another leader, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// How many events of this name an agent has heard.
async fn heard(client: &Client, name: &str) -> Result<usize, String> {
    let asked = client.get_json::<Value>("/v1/event/list", &[("name", name)]).await;
    Ok(asked.map_err(|error| error.to_string())?.0.as_array().map_or(0, Vec::len))
}

async fn fire(client: &Client, name: &str, filters: &[(&str, &str)]) -> Result<(), String> {
    let path = format!("/v1/event/fire/{name}");
    client.put_bytes(&path, filters, Bytes::from_static(b"v2")).await.map(|_| ()).map_err(|error| error.to_string())
}

async fn all_hear(agents: &[Client], name: &str) {
    for agent in agents {
        eventually("an agent hears an event", LIMIT, || async {
            let count = heard(agent, name).await?;
            if count > 0 { Ok(()) } else { Err(format!("nobody told of {name}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_hears_an_event_once_and_goes_on_with_another_leader() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    let mut agents: Vec<Client> = cluster.servers.iter().map(|server| server.client()).collect();
    agents.push(cluster.client.client());
    // An agent hears what is sent after it began to follow: this one is sent until all have.
    eventually("all follow", LIMIT, || async {
        fire(&client, "first", &[]).await?;
        for agent in &agents {
            if heard(agent, "first").await? == 0 {
                return Err("an agent follows nobody yet".to_owned());
            }
        }
        Ok(())
    })
    .await;
    fire(&client, "servers", &[("node", "^s[0-9]$")]).await.expect("an event");
    fire(&client, "second", &[]).await.expect("an event");
    all_hear(&agents, "second").await;
    for (place, agent) in agents.iter().enumerate() {
        assert_eq!(heard(agent, "second").await, Ok(1), "agent {place}");
        assert_eq!(heard(agent, "servers").await, Ok(usize::from(place < 3)), "agent {place}");
    }
    let leader = cluster.leader().await;
    cluster.servers[leader].kill();
    agents.remove(leader);
    eventually("another leader takes an event in", LIMIT, || fire(&client, "third", &[])).await;
    all_hear(&agents, "third").await;
    for agent in &agents {
        assert_eq!(heard(agent, "second").await, Ok(1), "an event came twice by the change of leader");
    }
}
