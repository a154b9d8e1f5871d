//! A thousand agents: they join, register a service with checks each, lose all servers at once and are healthy again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_agent::config::{Config, Flags, Host};
use lictor_runtime::{Resolver, SystemClock, SystemRng};
use lictor_server::boot::{self, RunningAgent, ServerDeps};
use lictor_tests::{TestCluster, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{client_of, get};

/// Agents that are started or asked at a time.
const AT_ONCE: usize = 32;
/// How long all of them may take to be there.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long after the restart of all servers everything may take to be healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// More agents than this do without gossip, which is tried at that size in virtual time.
const GOSSIP_MAX: usize = 1_000;
/// By now every member that the servers have not heard of since their restart would count as failed.
const UNHEARD_AFTER: Duration = Duration::from_secs(25);
/// How long the agents are watched at rest.
const REST: Duration = Duration::from_secs(15);

/// `LICTOR_AGENTS`, or a thousand.
fn count() -> usize {
    std::env::var("LICTOR_AGENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

/// Addresses that no other test takes.
fn address(number: usize) -> String {
    format!("127.{}.{}.{}", 192 + number / 250, std::process::id() % 256, number % 250 + 1)
}

struct Agents {
    running: Vec<RunningAgent>,
    resident_before: u64,
}

/// This process' memory that is its own, and its processor time so far.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the kernel tells");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    // The 14th and 15th of the whole line, in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().map(|text| text.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

async fn start(cluster: &TestCluster, number: usize, count: usize) -> RunningAgent {
    let own = address(number);
    let flags = Flags {
        node: Some(format!("a{number}")),
        bind: Some(own.clone()),
        client: Some(own),
        data_dir: Some(cluster.directory.path().join(format!("a{number}")).display().to_string()),
        server_addresses: cluster.servers.iter().map(|it| format!("{}:8300", it.address)).collect(),
        dns_port: Some(-1),
        serf_lan_port: (count > GOSSIP_MAX).then_some(-1),
        ..Flags::default()
    };
    let config = Config::load(&flags, &Host::default()).expect("a configuration");
    let deps = ServerDeps {
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
        resolver: Resolver::from_system(),
        state_base: Some(cluster.directory.path().join("state")),
    };
    boot::run_agent(config, deps).await.expect("the agent starts")
}

async fn start_all(cluster: &TestCluster, count: usize) -> Agents {
    let resident_before = resident();
    let mut running = Vec::with_capacity(count);
    for first in (0..count).step_by(AT_ONCE) {
        let some = (first..count.min(first + AT_ONCE)).map(|number| start(cluster, number, count));
        running.extend(join_all(some).await);
    }
    Agents { running, resident_before }
}

/// All of these at once, on this task.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for (future, output) in pinned.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *output = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(pinned.drain(..).filter_map(|(_, output)| output).collect())
    })
    .await
}

/// Registers a service with a TTL and a TCP check at every agent, through its own door.
async fn register_all(count: usize) {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.expect("one runs").expect("it registers");
        }
        tasks.spawn(async move {
            let own = address(number);
            let client = client_of(&own);
            let definition = json!({
                "ID": format!("web-{number}"), "Name": format!("web-{}", number % 20), "Port": 8500,
                "Checks": [
                    { "CheckID": format!("ttl-{number}"), "TTL": "10m", "Status": "passing" },
                    { "CheckID": format!("tcp-{number}"), "TCP": format!("{own}:8500"), "Interval": "10s" },
                ],
            });
            let body = Bytes::from(definition.to_string());
            client.put_bytes("/v1/agent/service/register", &[], body).await.expect("a registration");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("it registers");
    }
}

/// How many checks of the catalog have this status, of those that the agents have.
async fn checks(cluster: &TestCluster, status: &str) -> Result<usize, String> {
    let mut last = "no server runs".to_owned();
    for server in cluster.servers.iter().filter(|it| it.is_running()) {
        match get(&server.client(), &format!("/v1/health/state/{status}"), &[]).await {
            Ok(checks) => {
                let of_agents = |it: &&Value| it["Node"].as_str().is_some_and(|node| node.starts_with('a'));
                return Ok(checks.as_array().into_iter().flatten().filter(of_agents).count());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn all_pass(cluster: &TestCluster, wanted: usize) -> Result<(), String> {
    let passing = checks(cluster, "passing").await?;
    if passing == wanted { Ok(()) } else { Err(format!("{passing} of {wanted} checks pass")) }
}

/// Datadog, March 2023: tens of thousands of nodes came back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_are_healthy_again_within_a_minute_of_the_restart_of_all_servers() {
    let (count, begin) = (count(), Instant::now());
    let mut cluster = TestCluster::start(3).await;
    let agents = start_all(&cluster, count).await;
    eventually("every agent is a living node", START_LIMIT, || all_pass(&cluster, count)).await;
    println!("{count} agents joined after {:.1} s", begin.elapsed().as_secs_f64());

    let registering = Instant::now();
    register_all(count).await;
    eventually("every check passes", START_LIMIT, || all_pass(&cluster, 3 * count)).await;
    println!("{count} services with two checks each after {:.1} s", registering.elapsed().as_secs_f64());

    // At rest.
    let (at, used) = (Instant::now(), processor_time());
    tokio::time::sleep(REST).await;
    let share = (processor_time() - used).as_secs_f64() / at.elapsed().as_secs_f64() / count as f64;
    let each = resident().saturating_sub(agents.resident_before) / count as u64;
    println!("each agent: {} kB of its own memory, {:.4} % of a core at rest", each / 1000, share * 100.0);

    let leads = |cluster: &TestCluster| -> usize {
        cluster.servers.iter().map(|it| it.log().matches("cluster leadership acquired").count()).sum()
    };
    let before = leads(&cluster);
    cluster.servers.iter_mut().for_each(lictor_tests::Agent::kill);
    let restart = Instant::now();
    cluster.servers.iter_mut().for_each(lictor_tests::Agent::start);
    eventually("everything is healthy again", HEALTHY_WITHIN, || all_pass(&cluster, 3 * count)).await;
    // The servers remember that all was well: every agent must reach them again too, and none may fail for not being heard.
    for first in (0..count).step_by(AT_ONCE) {
        let written = join_all((first..count.min(first + AT_ONCE)).map(|number| async move {
            let client = client_of(&address(number));
            client.put_bytes(&format!("/v1/kv/after/{number}"), &[], Bytes::from_static(b"1")).await
        }));
        let written = written.await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }
    let healthy = restart.elapsed();
    assert!(healthy < HEALTHY_WITHIN, "{healthy:?}");
    while restart.elapsed() < UNHEARD_AFTER {
        assert_eq!(checks(&cluster, "critical").await, Ok(0), "{:?} after the restart", restart.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("healthy again {:.1} s after the restart of all servers", healthy.as_secs_f64());
    let leads = leads(&cluster) - before;
    assert!(leads <= 1, "{leads} leads since the restart");

    let stopping = agents.running.into_iter().map(|agent| agent.stop(Duration::from_secs(5)));
    join_all(stopping).await;
}
