//! Everything that runs: what is started in which order, and what is stopped in which.
//!
//! ```text
//! start   samples ─> 3 servers ─> a leader ─> client agent ─> the intention ─> 2 sidecars ─> web has called api
//! stop    sidecar of web ─> sidecar of api ─> samples ─> client agent ─> servers
//! ```
//!
//! Why the others wait for a leader: their logins need one, and a login that fails is tried again with growing pauses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all, try_join_all};
use lictor_agent::config::{Config, Flags, Host};
use lictor_agent::session::Proof;
use lictor_client::{Client, ClientError, ClientSettings};
use lictor_identity::loopback::LoopbackMaterial;
use lictor_runtime::{Rng, Tasks};
use lictor_server::boot::{RunningAgent, ServerDeps, run_agent};
use lictor_server::material;
use lictor_sidecar::{ServiceCheck, ServiceSpec, Sidecar, SidecarParts, SidecarSettings, UpstreamSpec};
use lictor_types::{Credential, Freshness, Query};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::home::Home;
use super::loopback;
use super::plan::{Plan, SERVERS};
use super::sample::Sample;
use crate::output::Failure;

/// Between two looks at something that is not ready yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long open calls between the samples may last at the end.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long a sidecar may take to leave, the drain included.
const SIDECAR_STOP_LIMIT: Duration = Duration::from_millis(1500);
/// How long an agent may take to stop. Nobody else uses these servers, so nobody is hurt by a short one.
const AGENT_STOP_LIMIT: Duration = Duration::from_millis(1000);
/// Where intentions are read and written.
const EXACT: &str = "/v1/connect/intentions/exact";
/// The intention of the samples.
const WEB_TO_API: [(&str, &str); 2] = [("source", "web"), ("destination", "api")];

/// What the start has found out.
pub(super) struct Found {
    /// The leader, as `host:port` of its server port.
    pub(super) leader: String,
    /// Whether an intention allows `web` to call `api`.
    pub(super) allowed: bool,
}

/// Everything that runs.
pub(super) struct Datacenter {
    deps: ServerDeps,
    stage: &'static str,
    samples: Tasks,
    servers: Vec<RunningAgent>,
    client: Option<RunningAgent>,
    /// Those that call before those that are called.
    sidecars: Vec<Sidecar>,
}

impl Datacenter {
    /// Nothing yet.
    pub(super) fn new(deps: ServerDeps) -> Self {
        Self {
            deps,
            stage: "about to start",
            samples: Tasks::new(),
            servers: Vec::new(),
            client: None,
            sidecars: Vec::new(),
        }
    }

    /// What the start is at, for people.
    pub(super) fn stage(&self) -> &'static str {
        self.stage
    }

    /// Starts everything and waits until `web` has called `api`. What is running when it fails is there to be stopped.
    ///
    /// # Errors
    /// Something cannot be started.
    pub(super) async fn start(&mut self, plan: &Plan, home: &Home) -> Result<Found, Failure> {
        self.stage = "starting web and api";
        for (sample, port) in [(Sample::Api, plan.api), (Sample::Web(loopback(plan.upstream)), plan.web)] {
            let listener = TcpListener::bind(loopback(port)).await;
            let listener = listener.map_err(Failure::because(format!("cannot listen on port {port}")))?;
            sample.serve(listener, &self.samples);
        }
        self.stage = "starting the servers";
        let servers = (1..=SERVERS).map(|number| server(plan, home, number)).collect::<Result<Vec<_>, _>>()?;
        // What they share is made before they look for it, so that none waits for another.
        let shared =
            material::loopback(&servers[0], self.deps.state_base.as_deref(), self.deps.clock.now(), &*self.deps.rng)
                .map_err(|error| Failure::of(&error))?;
        let starting = servers.into_iter().map(|config| run_agent(config, self.deps.clone()));
        self.servers = try_join_all(starting).await.map_err(|error| Failure::of(&error))?;
        self.stage = "waiting for a leader";
        let management = Credential::new(home.token());
        let first = Arc::clone(&self.servers[0].agent.datacenter);
        until(|| first.read(&management, Query::CaRoots, Freshness::default())).await;
        self.stage = "starting the client agent";
        let client = run_agent(client(plan, home)?, self.deps.clone()).await;
        self.client = Some(client.map_err(|error| Failure::of(&error))?);

        self.stage = "waiting for the client agent";
        let api = api(plan.http)?;
        let allowed = until(|| allow_unless_decided(&api)).await;
        self.stage = "starting the sidecars";
        for settings in sidecars(plan, home, &*self.deps.rng, &shared)? {
            let ServerDeps { clock, rng, resolver, .. } = self.deps.clone();
            let sidecar = Sidecar::start(settings, SidecarParts { clock, rng, resolver }).await;
            self.sidecars.push(sidecar.map_err(|error| Failure::of(&error))?);
        }
        for started in join_all(self.sidecars.iter().map(Sidecar::started)).await {
            started.map_err(Failure::new)?;
        }
        self.stage = "waiting for the checks of web and api";
        for service in ["web", "api"] {
            until(|| passing(&api, service)).await;
        }
        // A call before that would be refused, rightly, and the sidecar would say so.
        self.stage = "waiting until web's sidecar knows api";
        join_all(self.sidecars.iter().map(Sidecar::reachable)).await;
        if allowed {
            self.stage = "waiting for the first call from web to api";
            let web = self::api(plan.web)?;
            until(|| web.get_bytes("/api", &[])).await;
        }
        let leader = until(|| leader(&api)).await;
        Ok(Found { leader, allowed })
    }

    /// Waits until a part cannot go on, and tells which and why.
    pub(super) async fn trouble(&self) -> String {
        type Trouble<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;
        let agents = self.servers.iter().chain(&self.client).map(|agent| -> Trouble<'_> {
            let name = agent.agent.identity.node_name.clone();
            let mut fatal = agent.fatal();
            Box::pin(async move {
                let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
                format!("{name}: {}", reason.unwrap_or_else(|| "the agent ended by itself".into()))
            })
        });
        let sidecars = self.sidecars.iter().map(|sidecar| -> Trouble<'_> { Box::pin(sidecar.broken()) });
        select_all(agents.chain(sidecars)).await.0
    }

    /// Stops what runs, within a few seconds.
    pub(super) async fn stop(self) {
        // One after the other: a called one that goes first leaves its caller without instances, which is worth a warning
        // anywhere but here.
        for sidecar in self.sidecars {
            sidecar.stop(SIDECAR_STOP_LIMIT).await;
        }
        if !self.samples.stop(AGENT_STOP_LIMIT).await {
            tracing::warn!("web and api did not end in time");
        }
        if let Some(client) = self.client {
            client.leave(AGENT_STOP_LIMIT).await;
            client.stop(AGENT_STOP_LIMIT).await;
        }
        // Nobody is left to take the lead, and whoever tried to hand it on would only wait.
        join_all(self.servers.into_iter().map(|server| server.stop_with_the_cluster(AGENT_STOP_LIMIT))).await;
    }
}

/// Tries until it works. The start as a whole has a limit.
async fn until<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => tracing::debug!(%error, "not ready yet"),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn api(port: u16) -> Result<Client, Failure> {
    let settings = ClientSettings { address: format!("http://{}", loopback(port)), ..ClientSettings::default() };
    Client::new(settings).map_err(|error| Failure::of(&error))
}

/// Lets `web` call `api`, unless an earlier time with the same data has decided on it. Returns whether it may.
async fn allow_unless_decided(api: &Client) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Decided {
        action: String,
    }
    match api.get_json::<Decided>(EXACT, &WEB_TO_API).await {
        Ok((Decided { action }, _)) => Ok(action == "allow"),
        Err(error) if error.is_not_found() => {
            let _: bool = api.put_json(EXACT, &WEB_TO_API, &json!({ "Action": "allow" })).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

async fn passing(api: &Client, service: &str) -> Result<(), String> {
    let path = format!("/v1/health/service/{service}");
    let found = api.get_json::<Vec<serde_json::Value>>(&path, &[("passing", "true")]).await;
    let (instances, _) = found.map_err(|error| error.to_string())?;
    if instances.is_empty() { Err(format!("no check of {service} passes yet")) } else { Ok(()) }
}

async fn leader(api: &Client) -> Result<String, String> {
    let (leader, _) = api.get_json::<String>("/v1/status/leader", &[]).await.map_err(|error| error.to_string())?;
    if leader.is_empty() { Err("there is no leader".into()) } else { Ok(leader) }
}

/// What all agents here are told.
fn agent(plan: &Plan, home: &Home, name: &str, tokens: &str) -> Flags {
    let acl = format!("acl {{ enabled = true default_policy = \"deny\" tokens {{ {tokens} }} }}");
    Flags {
        node: Some(name.into()),
        datacenter: Some("dc1".into()),
        bind: Some("127.0.0.1".into()),
        // All in one process, which knows itself.
        serf_lan_port: Some(-1),
        serf_wan_port: Some(-1),
        client: Some("127.0.0.1".into()),
        data_dir: Some(home.of_agent(name).display().to_string()),
        server_addresses: plan.servers.iter().map(|port| loopback(*port).to_string()).collect(),
        fragments: vec![acl],
        ..Flags::default()
    }
}

fn server(plan: &Plan, home: &Home, number: usize) -> Result<Config, Failure> {
    let tokens = format!("initial_management = {0:?} agent = {0:?}", home.token());
    let flags = Flags {
        server: Some(true),
        bootstrap_expect: u32::try_from(SERVERS).ok(),
        server_port: Some(plan.servers[number - 1].into()),
        http_port: Some(-1),
        dns_port: Some(-1),
        ..agent(plan, home, &format!("server-{number}"), &tokens)
    };
    Config::load(&flags, &Host::default()).map_err(|error| Failure::of(&error))
}

fn client(plan: &Plan, home: &Home) -> Result<Config, Failure> {
    let flags = Flags {
        http_port: Some(plan.http.into()),
        dns_port: Some(plan.dns.into()),
        ..agent(plan, home, "client", &format!("default = {:?}", home.token()))
    };
    Config::load(&flags, &Host::default()).map_err(|error| Failure::of(&error))
}

/// The sidecar of `web`, then that of `api`.
fn sidecars(
    plan: &Plan,
    home: &Home,
    rng: &dyn Rng,
    shared: &LoopbackMaterial,
) -> Result<[SidecarSettings; 2], Failure> {
    let name = |name: &str| name.parse().map_err(Failure::because("a sample's name"));
    let settings = |service: &str, port: u16, inbound: u16, upstreams: Vec<UpstreamSpec>| {
        Ok(SidecarSettings {
            node: format!("{service}-1").parse().map_err(Failure::because("a sample's node"))?,
            // A name in the catalog belongs to one node id: this makes the sidecar of a later time the same node.
            node_id: Some(home.kept_uuid(&format!("{service}-node-id"), rng)?.to_string()),
            node_meta: BTreeMap::new(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            datacenter: "dc1".into(),
            server_addresses: plan.servers.iter().map(|port| loopback(*port).to_string()).collect(),
            ca_pem: shared.server_ca_pem.clone(),
            login_token: Proof::Secret(shared.join_token.to_string()),
            services: vec![ServiceSpec {
                name: name(service)?,
                port,
                inbound_address: loopback(inbound),
                check: ServiceCheck::Tcp,
            }],
            upstreams,
            local_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            health_address: None,
            http_address: None,
            dns_address: None,
            drain_limit: DRAIN_LIMIT,
        })
    };
    let upstream = UpstreamSpec { service: name("api")?, local: loopback(plan.upstream) };
    Ok([
        settings("web", plan.web, plan.web_inbound, vec![upstream])?,
        settings("api", plan.api, plan.api_inbound, Vec::new())?,
    ])
}

#[cfg(test)]
mod tests {
    use lictor_runtime::{Clock, SystemRng};

    use super::*;

    #[test]
    fn configurations_are_valid_deny_by_default_and_warn_of_nothing() {
        let (plan, home) = (Plan::new(0, None, None), Home::open(None, 0, &SystemRng).unwrap());
        let mut configs: Vec<Config> = (1..=SERVERS).map(|number| server(&plan, &home, number).unwrap()).collect();
        assert!(
            configs.iter().all(|config| config.acl.initial_management.is_some() && config.addresses.http.is_empty())
        );
        configs.push(client(&plan, &home).unwrap());
        for config in configs {
            assert!(config.on_loopback() && config.acl.enabled && !config.acl.default_allow);
            assert!(!config.default_intention_allow);
            assert_eq!(config.warnings, Vec::<String>::new());
        }
        let now = lictor_runtime::SystemClock.now();
        let shared = LoopbackMaterial::open(&home.certificates(), "dc1", "consul", now, &SystemRng).unwrap();
        for settings in sidecars(&plan, &home, &SystemRng, &shared).unwrap() {
            assert_eq!(settings.validate(), Ok(()));
        }
        home.leave().unwrap();
    }
}
