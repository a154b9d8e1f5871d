//! Whole agents in one pool with a real Serf and a real Consul: what gossip tells reaches HTTP and the catalog, and back.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::process::{Agent, next_address};
use lictor_tests::{TestCluster, eventually, tools};
use serde_json::{Value, json};

use crate::serf::{PORT, SerfAgent};
use crate::{DEATH, FIRST_KEY, NEWS, SECOND_KEY, cache, program};

/// Port of LAN gossip.
const LAN: u16 = 8301;

async fn get(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
    client.get_json::<Value>(path, query).await.map(|(value, _)| value).map_err(|error| error.to_string())
}

/// Whether this agent shows a member with this number of Serf's for its status; its tags.
async fn shows(client: &Client, name: &str, status: u64, query: &[(&str, &str)]) -> Result<Value, String> {
    let members = get(client, "/v1/agent/members", query).await?;
    let found = members.as_array().into_iter().flatten().find(|it| it["Name"] == name && it["Status"] == status);
    found.map(|it| it["Tags"].clone()).ok_or_else(|| format!("{name} is not {status} in {members}"))
}

/// The status of the check that says whether a node lives; an error where there is no such node.
async fn serf_health(client: &Client, node: &str, wanted: &str) -> Result<(), String> {
    let checks = get(client, &format!("/v1/health/node/{node}"), &[]).await?;
    let found = checks.as_array().into_iter().flatten().find(|it| it["CheckID"] == "serfHealth");
    match found {
        Some(check) if check["Status"] == wanted => Ok(()),
        other => Err(format!("serfHealth of {node} is {other:?}")),
    }
}

async fn is_no_node(client: &Client, name: &str) -> Result<(), String> {
    let nodes = get(client, "/v1/catalog/nodes", &[]).await?;
    let found = nodes.as_array().into_iter().flatten().any(|it| it["Node"] == name);
    if found { Err(format!("{name} is still a node")) } else { Ok(()) }
}

async fn lists_event(client: &Client, name: &str, payload: &str) -> Result<(), String> {
    let events = get(client, "/v1/event/list", &[("name", name)]).await?;
    let found = events.as_array().into_iter().flatten().any(|it| it["Payload"] == payload);
    if found { Ok(()) } else { Err(format!("no {name} with {payload}: {events}")) }
}

async fn change_key(client: &Client, method: &str, key: &str) -> Result<(), String> {
    let (body, path) = (json!({ "Key": key }), "/v1/operator/keyring");
    let changed = match method {
        "POST" => client.post_json(path, &[], &body).await.map(|_| ()),
        "PUT" => client.put_bytes(path, &[], Bytes::from(body.to_string())).await.map(|_| ()),
        _ => client.delete_json(path, &[], &body).await.map(|_| ()),
    };
    changed.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_and_a_real_serf_share_members_events_deaths_goodbyes_and_keys() {
    let mut cluster = TestCluster::start_with(3, &[format!("-encrypt={FIRST_KEY}")]).await;
    let (client, server) = (cluster.client.client(), cluster.servers[0].client());
    let keyring = cluster.directory.path().join("serf.keyring");
    std::fs::write(&keyring, format!("[\"{FIRST_KEY}\"]")).expect("a file");
    let keyring_flag = format!("-keyring-file={}", keyring.display());
    let more = [keyring_flag.as_str(), "-tag", "role=web"];
    let serf = SerfAgent::start(&program(), cluster.directory.path(), "serf-1", &next_address(), &more);
    let door = format!("{}:{LAN}", cluster.client.address);
    eventually("serf joins a client agent", NEWS, async || serf.run("join", &[&door])).await;

    for name in ["s1", "s2", "s3", "c1"] {
        let seen = eventually("serf sees the agents", NEWS, async || serf.sees(name, "alive")).await;
        assert_eq!(seen.tags["dc"], "dc1");
        assert_eq!(seen.tags["role"], if name == "c1" { "node" } else { "consul" });
        eventually("agents see each other", NEWS, || shows(&client, name, 1, &[])).await;
    }
    // By each one's own pool, not by what the servers tell: a start once left two pools side by side.
    for one in cluster.servers.iter().chain([&cluster.client]).map(lictor_tests::Agent::client) {
        eventually("there is one pool", NEWS, async || {
            let own = get(&one, "/v1/agent/self", &[]).await?["Stats"]["serf_lan"]["members"].clone();
            if own == "5" { Ok(()) } else { Err(format!("{own} members in the pool of this agent")) }
        })
        .await;
    }
    let tags = eventually("the agents see serf", NEWS, || shows(&server, "serf-1", 1, &[])).await;
    assert_eq!(tags["role"], "web");
    is_no_node(&server, "serf-1").await.expect("what is no agent of the datacenter is no node");
    for name in ["s1.dc1", "s2.dc1", "s3.dc1"] {
        eventually("servers know each other over WAN", NEWS, || shows(&server, name, 1, &[("wan", "1")])).await;
    }

    client.put_bytes("/v1/event/fire/deploy", &[], Bytes::from_static(b"v1")).await.expect("an event");
    eventually("serf handles our event", NEWS, async || match serf.events() {
        events if events.contains("user consul:event:deploy ") => Ok(()),
        events => Err(events),
    })
    .await;
    serf.run("event", &["-coalesce=false", "restart", "from theirs"]).expect("serf takes an event");
    for one in [&client, &server] {
        eventually("its event is listed", NEWS, || lists_event(one, "restart", "ZnJvbSB0aGVpcnM=")).await;
        eventually("our event is listed", NEWS, || lists_event(one, "deploy", "djE=")).await;
    }

    // Both pools take another key, serf too; nobody is lost.
    eventually("the key is installed", NEWS, || change_key(&client, "POST", SECOND_KEY)).await;
    eventually("it is used", NEWS, || change_key(&client, "PUT", SECOND_KEY)).await;
    eventually("the old one is removed", NEWS, || change_key(&client, "DELETE", FIRST_KEY)).await;
    let keys = get(&client, "/v1/operator/keyring", &[]).await.expect("the keys");
    let counts: Vec<&Value> = keys.as_array().into_iter().flatten().map(|it| &it["Keys"][SECOND_KEY]).collect();
    assert_eq!(counts, [&json!(3), &json!(5)], "{keys}");
    assert!(std::fs::read_to_string(&keyring).expect("a keyring").contains(SECOND_KEY));
    let unknown = change_key(&client, "PUT", FIRST_KEY).await.expect_err("it was removed");
    assert!(unknown.contains("Requested key is not in the keyring"), "{unknown}");

    // A member that dies is critical in the catalog and failed to serf; it comes back with the keys that it kept.
    cluster.client.kill();
    eventually("the catalog knows", DEATH, || serf_health(&server, "c1", "critical")).await;
    eventually("serf sees it failed", DEATH, async || serf.sees("c1", "failed")).await;
    cluster.client.start();
    eventually("the catalog knows it lives", DEATH, || serf_health(&server, "c1", "passing")).await;
    eventually("serf sees it again", DEATH, async || serf.sees("c1", "alive")).await;

    serf.run("leave", &[]).expect("serf leaves");
    eventually("the agents see it gone", NEWS, || shows(&server, "serf-1", 3, &[])).await;
    client.put_bytes("/v1/agent/leave", &[], Bytes::new()).await.expect("the client agent leaves");
    eventually("a member that left is no node", NEWS, || is_no_node(&server, "c1")).await;
    eventually("and is shown as left", NEWS, || shows(&server, "c1", 3, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_finds_servers_by_gossip_alone_and_gossip_kills_nobody_who_keeps_a_session() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (first, second) = (next_address(), next_address());
    let ports: [String; 2] = ["-server-port=9300".into(), "-serf-lan-port=9301".into()];
    let data = |name: &str| format!("-data-dir={}", directory.path().join(name).display());
    let mut server = Agent::new(
        directory.path(),
        "s1",
        first.clone(),
        &[&ports[..], &["-server".into(), "-bootstrap-expect=1".into(), data("s1")]].concat(),
    );
    server.start();
    // The port of RPC is told by gossip: nothing of the client's own configuration names it.
    let join = format!("-retry-join={first}:9301");
    let mut client = Agent::new(directory.path(), "c1", second.clone(), &[join, data("c1")]);
    client.start();
    eventually("the client knows a leader", DEATH, || client.leader()).await;
    let (ours, theirs) = (client.client(), server.client());
    eventually("it is a living node", NEWS, || serf_health(&theirs, "c1", "passing")).await;

    // Somebody in the pool, who may say anything there, says that the client has left.
    let serf = SerfAgent::start(&program(), directory.path(), "serf-1", &next_address(), &[]);
    eventually("serf joins", NEWS, async || serf.run("join", &[&format!("{first}:9301")])).await;
    eventually("serf sees it", NEWS, async || serf.sees("c1", "alive")).await;
    client.pause(true);
    eventually("serf calls it failed", DEATH, async || serf.sees("c1", "failed")).await;
    client.pause(false);
    eventually("who is back is alive", DEATH, async || serf.sees("c1", "alive")).await;
    eventually("and passing", DEATH, || serf_health(&theirs, "c1", "passing")).await;
    serf.run("force-leave", &["c1"]).expect("serf says so");
    eventually("it refutes", DEATH, || shows(&theirs, "c1", 1, &[])).await;
    serf_health(&theirs, "c1", "passing").await.expect("it lives");
    assert!(ours.put_bytes("/v1/kv/a", &[], Bytes::from_static(b"1")).await.is_ok());

    // Joined by hand, through the API.
    let address = format!("{}:{PORT}", serf.address);
    let joined = ours.put_bytes(&format!("/v1/agent/join/{address}"), &[], Bytes::new()).await;
    assert!(joined.is_ok(), "{joined:?}");
    let refused = ours.put_bytes(&format!("/v1/agent/join/{second}:1"), &[], Bytes::new()).await;
    assert!(refused.expect_err("nobody is there").to_string().contains("Failed to join"));
}

/// A real Consul in client mode; ends with this value.
struct ConsulClient(Child);

impl Drop for ConsulClient {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_consul_agent_is_a_node_of_our_datacenter_and_hears_our_events() {
    let cluster = TestCluster::start(1).await;
    let program = lictor_tests::debian::CONSUL.program(&cache()).unwrap_or_else(|error| panic!("{error}"));
    let (address, directory) = (next_address(), cluster.directory.path());
    let log = std::fs::File::create(directory.join("consul.log")).expect("a log file");
    let mut command = Command::new(&program);
    command
        .args(["agent", "-node=consul-1", "-log-level=debug"])
        .args([format!("-bind={address}"), format!("-client={address}")])
        .arg(format!("-data-dir={}", directory.join("consul").display()))
        .arg(format!("-retry-join={}", cluster.servers[0].address))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    let mut consul = ConsulClient(command.spawn().expect("Consul starts"));
    let server = cluster.servers[0].client();
    eventually("its node is in our catalog", DEATH, || serf_health(&server, "consul-1", "passing")).await;
    let node = get(&server, "/v1/catalog/node/consul-1", &[]).await.expect("the node");
    assert_eq!(node["Node"]["Address"], address.as_str());
    eventually("it sees our agents", NEWS, async || {
        let mut members = Command::new(&program);
        members.args(["members", &format!("-http-addr={address}:8500")]);
        let text = tools::captured(&mut members, NEWS)?;
        if text.contains("c1") && text.contains("s1") { Ok(()) } else { Err(text) }
    })
    .await;

    // An event of ours is one of its own: it has the fields, and keeps what is meant for it.
    for (name, node) in [("meant", "^consul-"), ("other", "^web-")] {
        let path = format!("/v1/event/fire/{name}");
        server.put_bytes(&path, &[("node", node)], Bytes::from_static(b"payload")).await.expect("an event");
    }
    let log = || std::fs::read_to_string(directory.join("consul.log")).unwrap_or_default();
    eventually("Consul handles our event", NEWS, async || match log() {
        text if text.contains("new event: event_name=meant") => Ok(()),
        text => Err(text.lines().filter(|it| it.contains("event")).collect::<Vec<_>>().join("\n")),
    })
    .await;
    assert!(!log().contains("event_name=other"));

    let killed = consul.0.kill();
    assert!(killed.is_ok(), "{killed:?}");
    eventually("its death is seen", DEATH, || serf_health(&server, "consul-1", "critical")).await;
    let forced = server.put_bytes("/v1/agent/force-leave/consul-1", &[], Bytes::new()).await;
    assert!(forced.is_ok(), "{forced:?}");
    eventually("it is no node", Duration::from_secs(30), || is_no_node(&server, "consul-1")).await;
}
