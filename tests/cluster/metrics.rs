//! The figures that dashboards of Consul read, scraped from real servers and a client.

use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};

/// For a busy machine to settle.
const LIMIT: Duration = Duration::from_secs(30);
const DAY: f64 = 24.0 * 3600.0;

/// What every agent shows.
const EVERYWHERE: [&str; 6] = [
    "consul_agent_tls_cert_expiry",
    "consul_dns_domain_query_count",
    "consul_dns_ptr_query_count",
    "consul_runtime_alloc_bytes",
    "consul_runtime_num_goroutines",
    "consul_runtime_sys_bytes",
];

/// What a client shows beside that.
const AT_A_CLIENT: [&str; 3] = ["consul_client_rpc", "consul_client_rpc_exceeded", "consul_client_rpc_failed"];

/// What a server shows beside that.
const AT_A_SERVER: [&str; 16] = [
    "consul_catalog_deregister_count",
    "consul_catalog_register_count",
    "consul_kvs_apply_count",
    "consul_members_servers",
    "consul_mesh_active_root_ca_expiry",
    "consul_mesh_active_signing_ca_expiry",
    "consul_raft_apply",
    "consul_raft_commitTime_count",
    "consul_raft_leader_lastContact_count",
    "consul_raft_state_candidate",
    "consul_raft_state_leader",
    "consul_rpc_accept_conn",
    "consul_rpc_request",
    "consul_rpc_request_error",
    "consul_session_ttl_active",
    "consul_txn_apply_count",
];

/// What only the leader knows.
const AT_THE_LEADER: [&str; 3] =
    ["consul_autopilot_failure_tolerance", "consul_autopilot_healthy", "consul_raft_leader_oldestLogAge"];

struct Scraped(String);

impl Scraped {
    async fn of(client: &Client) -> Self {
        let scraped = client.get_bytes("/v1/agent/metrics", &[("format", "prometheus")]).await.expect("figures").0;
        Self(String::from_utf8(scraped.to_vec()).expect("text"))
    }

    fn value(&self, name: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value)
    }

    fn must_have(&self, who: &str, names: &[&str]) {
        for name in names {
            assert!(self.value(name).is_some(), "{who} does not show {name}:\n{}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_clients_show_the_names_that_dashboards_read() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client.client();
    client.put_bytes("/v1/kv/a", &[], Bytes::from_static(b"1")).await.expect("a write");
    let transaction = json!([{"KV": {"Verb": "set", "Key": "b", "Value": "Mg=="}}]);
    client.put_json::<_, Value>("/v1/txn", &[], &transaction).await.expect("a transaction");
    let session = json!({"TTL": "60s", "NodeChecks": []});
    client.put_json::<_, Value>("/v1/session/create", &[], &session).await.expect("a session");
    let leader = cluster.leader().await;
    let at_the_leader = cluster.servers[leader].client();
    eventually("the leader finds every server well", LIMIT, || async {
        let scraped = Scraped::of(&at_the_leader).await;
        let found = (scraped.value("consul_autopilot_healthy"), scraped.value("consul_autopilot_failure_tolerance"));
        if found == (Some(1.0), Some(1.0)) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    for (place, server) in cluster.servers.iter().enumerate() {
        let scraped = Scraped::of(&server.client()).await;
        scraped.must_have(&server.name, &EVERYWHERE);
        scraped.must_have(&server.name, &AT_A_SERVER);
        for name in AT_THE_LEADER {
            assert_eq!(scraped.value(name).is_some(), place == leader, "{name} at {}", server.name);
        }
        assert!(!scraped.0.contains("token_cache"), "no cache of tokens is there to count");
    }
    let scraped = Scraped::of(&at_the_leader).await;
    for (name, least) in [
        ("consul_kvs_apply_count", 1.0),
        ("consul_txn_apply_count", 1.0),
        ("consul_session_ttl_active", 1.0),
        ("consul_raft_state_leader", 1.0),
        ("consul_raft_leader_lastContact_count", 2.0),
        ("consul_rpc_accept_conn", 2.0),
        ("consul_mesh_active_root_ca_expiry", 300.0 * DAY),
        ("consul_mesh_active_signing_ca_expiry", 300.0 * DAY),
        ("consul_agent_tls_cert_expiry", DAY),
    ] {
        assert!(scraped.value(name).is_some_and(|value| value >= least), "{name} is below {least}:\n{}", scraped.0);
    }
    let age = scraped.value("consul_raft_leader_oldestLogAge").expect("an age");
    assert!((0.0..DAY * 1000.0).contains(&age), "{age}");
    let at_the_client = Scraped::of(&client).await;
    at_the_client.must_have("the client", &EVERYWHERE);
    at_the_client.must_have("the client", &AT_A_CLIENT);
    assert!(at_the_client.value("consul_client_rpc").is_some_and(|calls| calls >= 3.0), "{}", at_the_client.0);
    assert!(at_the_client.value("consul_agent_tls_cert_expiry").is_some_and(|left| left > DAY / 2.0));
    assert_eq!(at_the_client.value("consul_client_rpc_exceeded"), Some(0.0));
}
