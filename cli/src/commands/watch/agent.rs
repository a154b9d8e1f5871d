//! The `watches` of an agent's configuration, followed over the agent's own HTTP API.
//!
//! Invariants
//! - A watch has one handler under way at a time; changes meanwhile are seen when it has ended, only the last one of them.
//! - A program that takes longer than [`PROGRAM_LIMIT`] is killed.
//! - A reload that leaves the watches as they are leaves them running.

use std::net::SocketAddr;
use std::time::Duration;

use lictor_agent::config::{HttpHandler, WatchDefinition};
use lictor_agent::local::{CheckDefinition, ask_url};
use lictor_client::{Client, ClientSettings};
use lictor_runtime::{Resolver, Tasks};
use tokio::sync::oneshot;

use super::follow::{Follower, Shown};
use super::handler;
use super::view::View;
use crate::api::Api;
use crate::output::Failure;

/// How long a program may run.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// The watches that run.
#[derive(Default)]
pub(crate) struct Watches {
    definitions: Vec<WatchDefinition>,
    tasks: Option<Tasks>,
}

impl Watches {
    /// Follows these from now on, through the first of these listeners of plain HTTP.
    pub(crate) fn set(&mut self, definitions: &[WatchDefinition], listeners: &[SocketAddr]) {
        if self.definitions == definitions {
            return;
        }
        self.stop();
        self.definitions = definitions.to_vec();
        let Some(address) = listeners.first() else {
            tracing::error!("watches are not followed: they are read over plain HTTP, and ports.http is off");
            return;
        };
        let tasks = Tasks::new();
        for definition in definitions {
            match follower(definition, *address) {
                Ok(follower) => tasks.spawn(follow(definition.clone(), follower)),
                Err(failure) => tracing::error!(kind = definition.kind, %failure, "a watch cannot be followed"),
            }
        }
        self.tasks = Some(tasks);
    }

    fn stop(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.cancel();
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.stop();
    }
}

fn follower(definition: &WatchDefinition, mut address: SocketAddr) -> Result<Follower, Failure> {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let client = Client::new(ClientSettings {
        address: format!("http://{address}"),
        token: given(&definition.token),
        datacenter: given(&definition.datacenter),
        ..ClientSettings::default()
    });
    let api = Api::of(client.map_err(Failure::because("cannot ask this agent"))?);
    Ok(Follower::new(api, View::of_definition(definition)?, |words| tracing::error!("{words}")))
}

async fn follow(definition: WatchDefinition, mut follower: Follower) {
    let resolver = Resolver::from_system();
    loop {
        let shown = follower.next().await;
        let (handled, name) = match &definition.http_handler_config {
            Some(handler) => (tell(handler, &shown, &resolver).await, handler.path.clone()),
            None => {
                let (program, shell) = program(&definition);
                let name = program.join(" ");
                (run(program, shell, shown).await, name)
            }
        };
        if let Err(reason) = handled {
            tracing::error!(kind = definition.kind, handler = name, reason, "Failed to run watch handler");
        }
    }
}

fn program(definition: &WatchDefinition) -> (Vec<String>, bool) {
    if definition.handler.is_empty() {
        (definition.args.clone(), false)
    } else {
        (vec![definition.handler.clone()], true)
    }
}

/// Runs the program on a thread of its own, as long as it takes: it must not hold up what serves requests.
async fn run(program: Vec<String>, shell: bool, shown: Shown) -> Result<(), String> {
    let (told, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("watch-handler".into()).spawn(move || {
        // Nobody waits any more when the watch has ended meanwhile.
        let _ = told.send(handler::run_quietly(&program, shell, shown.index, &shown.json, PROGRAM_LIMIT));
    });
    thread.map_err(|error| format!("no thread for it: {error}"))?;
    let output =
        ended.await.map_err(|_| "its thread ended early".to_owned())?.map_err(|failure| failure.to_string())?;
    tracing::debug!(output, "watch handler output");
    Ok(())
}

async fn tell(handler: &HttpHandler, shown: &Shown, resolver: &Resolver) -> Result<(), String> {
    let mut header = handler.header.clone();
    header.insert("X-Consul-Index".into(), vec![shown.index.to_string()]);
    header.entry("Content-Type".into()).or_insert_with(|| vec!["application/json".into()]);
    let method = if handler.method.is_empty() { "POST" } else { &handler.method };
    let request = CheckDefinition {
        http: handler.path.clone(),
        method: method.to_owned(),
        header,
        body: shown.json.clone(),
        tls_skip_verify: handler.tls_skip_verify,
        ..CheckDefinition::default()
    };
    ask_url(&request, resolver, handler.limit()).await
}
