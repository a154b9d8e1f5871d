//! The catalog tells the truth: agents register and deregister at random while agents and servers are killed, stopped and
//! started, as real processes. What is answered holds at once for every reader, by HTTP and by DNS; after the last fault the
//! catalog is what the agents hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_runtime::{Rng, SeededRng};
use lictor_tests::process::next_address;
use lictor_tests::{Agent, TestCluster, dns, eventually};
use serde_json::{Value, json};

use crate::get;

/// How long it goes on, unless `LICTOR_TRUTH_SECONDS` says.
const LENGTH: Duration = Duration::from_secs(45);
/// After the last fault the catalog is right within this: an interval of comparison, and an election.
const HEALED_WITHIN: Duration = Duration::from_secs(130);
/// An answer that comes sooner says that the servers were told.
const TOLD_WITHIN: Duration = Duration::from_secs(7);
/// Agents.
const AGENTS: usize = 4;
/// Instances that each may have.
const INSTANCES: u16 = 6;
/// The service that all register instances of.
const SERVICE: &str = "web";

/// An instance is known by its port, which no other has.
fn port(agent: usize, instance: u16) -> u16 {
    20_000 + u16::try_from(agent).expect("few agents") * 100 + instance
}

struct World {
    rng: SeededRng,
    cluster: TestCluster,
    agents: Vec<Agent>,
    /// The ports that were acknowledged to be there, and those whose end was. What was not acknowledged is in neither.
    held: BTreeMap<u16, bool>,
    checked: usize,
}

impl World {
    async fn start(seed: u64) -> Self {
        let cluster = TestCluster::start(3).await;
        let mut agents = Vec::new();
        for number in 0..AGENTS {
            let mut arguments: Vec<String> =
                cluster.doors.iter().map(|address| format!("-server-address={address}:8300")).collect();
            arguments.push(format!("-data-dir={}", cluster.directory.path().join(format!("a{number}")).display()));
            // A stale answer may be of the moment before: that is what it says. The promise is of the others.
            arguments.push("-hcl=dns_config { allow_stale = false }".into());
            let mut agent = Agent::new(cluster.directory.path(), &format!("a{number}"), next_address(), &arguments);
            agent.start();
            agents.push(agent);
        }
        for agent in &agents {
            eventually("an agent knows the leader", HEALED_WITHIN, || agent.leader()).await;
        }
        Self { rng: SeededRng::new(seed), cluster, agents, held: BTreeMap::new(), checked: 0 }
    }

    fn any(&self, below: usize) -> usize {
        usize::try_from(self.rng.below(below as u64)).expect("a small number")
    }

    /// Registers or deregisters an instance. An answer counts; none leaves it open which.
    async fn change(&mut self, registers: bool) {
        let (agent, instance) = (self.any(AGENTS), self.any(INSTANCES.into()) as u16);
        let (port, client) = (port(agent, instance), self.agents[agent].client());
        if !self.agents[agent].is_running() {
            return;
        }
        let begin = Instant::now();
        let done = if registers {
            let definition = json!({ "ID": format!("web-{port}"), "Name": SERVICE, "Port": port });
            client.put_bytes("/v1/agent/service/register", &[], Bytes::from(definition.to_string())).await
        } else if self.held.get(&port) == Some(&true) {
            client.put_bytes(&format!("/v1/agent/service/deregister/web-{port}"), &[], Bytes::new()).await
        } else {
            return;
        };
        // After its limit an agent answers though no server was told; then the catalog follows later.
        if done.is_ok() && begin.elapsed() < TOLD_WITHIN {
            self.held.insert(port, registers);
            self.look(agent, port).await;
        } else {
            self.held.remove(&port);
        }
    }

    /// Asks another agent by HTTP and by DNS for an instance whose change was just acknowledged.
    async fn look(&mut self, changed: usize, port: u16) {
        let reader = (changed + 1 + self.any(AGENTS - 1)) % AGENTS;
        if !self.agents[reader].is_running() {
            return;
        }
        let wanted = self.held[&port];
        if let Ok(ports) = by_http(&self.agents[reader]).await {
            assert_eq!(ports.contains(&port), wanted, "HTTP at a{reader} tells {ports:?} of {port}");
            self.checked += 1;
        }
        if let Ok(ports) = by_dns(&self.agents[reader]).await {
            // A node that was away for long is not handed out by DNS until it is known to be back.
            let is_away = wanted && !ports.contains(&port) && !self.passes(reader, changed).await;
            if is_away {
                return;
            }
            assert_eq!(ports.contains(&port), wanted, "DNS at a{reader} tells {ports:?} of {port}");
            self.checked += 1;
        }
    }

    /// Whether the reader is told that the other agent's node passes.
    async fn passes(&self, reader: usize, agent: usize) -> bool {
        let checks = get(&self.agents[reader].client(), &format!("/v1/health/node/a{agent}"), &[]).await;
        checks.is_ok_and(|checks| checks.as_array().into_iter().flatten().all(|it| it["Status"] == "passing"))
    }

    /// Something goes wrong, or right again. Never more than one server at a time.
    async fn fault(&mut self) {
        let (agent, server) = (self.any(AGENTS), self.any(3));
        match self.rng.below(4) {
            0 if self.agents[agent].is_running() => self.agents[agent].kill(),
            0 | 1 => {
                if !self.agents[agent].is_running() {
                    self.agents[agent].start();
                }
            }
            2 => {
                self.cluster.servers[server].kill();
                self.cluster.servers[server].start();
            }
            _ => {
                self.cluster.servers[server].pause(true);
                tokio::time::sleep(Duration::from_millis(self.rng.below(3_000))).await;
                self.cluster.servers[server].pause(false);
            }
        }
    }

    /// The ports that the agents themselves hold.
    async fn local_ports(&self) -> Result<Vec<u16>, String> {
        let mut ports = Vec::new();
        for agent in &self.agents {
            let services = get(&agent.client(), "/v1/agent/services", &[]).await?;
            let of_web = services.as_object().into_iter().flatten().map(|(_, service)| service);
            ports.extend(of_web.filter_map(|it| it["Port"].as_u64()).filter_map(|it| u16::try_from(it).ok()));
        }
        ports.sort_unstable();
        Ok(ports)
    }
}

async fn by_http(agent: &Agent) -> Result<Vec<u16>, String> {
    let rows = get(&agent.client(), &format!("/v1/health/service/{SERVICE}"), &[]).await?;
    let ports = rows.as_array().into_iter().flatten().filter_map(|row: &Value| row["Service"]["Port"].as_u64());
    let mut ports: Vec<u16> = ports.filter_map(|it| u16::try_from(it).ok()).collect();
    ports.sort_unstable();
    Ok(ports)
}

/// What passes, which is all: no instance has a check.
async fn by_dns(agent: &Agent) -> Result<Vec<u16>, String> {
    let door: SocketAddr = format!("{}:8600", agent.address).parse().expect("an address");
    let name = format!("{SERVICE}.service.consul");
    let asked = tokio::task::spawn_blocking(move || dns::srv_ports(door, &name)).await;
    asked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_the_catalog_tells_what_was_acknowledged_and_heals() {
    let length = std::env::var("LICTOR_TRUTH_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = length.map_or(LENGTH, Duration::from_secs);
    let seed = std::env::var("LICTOR_TRUTH").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let mut world = World::start(seed).await;
    let begin = Instant::now();
    while begin.elapsed() < length {
        match world.rng.below(20) {
            0 => world.fault().await,
            1..=12 => world.change(true).await,
            _ => world.change(false).await,
        }
    }
    assert!(world.checked > 100, "only {} looks", world.checked);
    for agent in &mut world.agents {
        if !agent.is_running() {
            agent.start();
        }
    }
    let healing = Instant::now();
    eventually("the catalog is what the agents hold", HEALED_WITHIN, async || {
        let (local, known) = (world.local_ports().await?, by_http(&world.agents[0]).await?);
        if local == known { Ok(()) } else { Err(format!("agents hold {local:?}, the catalog {known:?}")) }
    })
    .await;
    // What was acknowledged last is what there is; of the others either is right.
    let there = by_http(&world.agents[0]).await.expect("the catalog");
    for (port, wanted) in &world.held {
        assert_eq!(there.contains(port), *wanted, "{port} in {there:?}");
    }
    println!("{} looks; healed {:.1} s after the last fault", world.checked, healing.elapsed().as_secs_f64());
}
