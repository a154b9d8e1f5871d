//! One run of a check that looks for itself: it connects somewhere, or has a program run.
//!
//! Invariants
//! - Link-local addresses are never dialled; a redirect is followed only where the definition asks for it.
//! - No more of what is found is kept than the limit of the check, and no more of a body is read than that needs.
//! - A run ends within its limit; what it started, programs too, ends with it.

mod connect;
mod docker;
mod grpc;
mod http;
mod process;
mod script;
mod tcp;
mod udp;
mod unit;

use std::time::Duration;

use lictor_runtime::Resolver;
use lictor_types::CheckStatus;

use super::definition::CheckDefinition;
use connect::Tls;
use grpc::{GrpcProbe, PingProbe};
use http::HttpProbe;

/// What a run found.
pub(super) type Finding = (CheckStatus, String);

/// A check that looks for itself.
#[derive(Clone)]
pub(super) enum Probe {
    /// Asks for a URL.
    Http(Box<HttpProbe>),
    /// Connects.
    Tcp {
        /// As it was written.
        address: String,
        /// A handshake too.
        tls: Option<Tls>,
    },
    /// Sends an empty packet.
    Udp(String),
    /// Asks gRPC's health service.
    Grpc(GrpcProbe),
    /// Pings over HTTP/2.
    Ping(PingProbe),
    /// Has a program run.
    Script(Vec<String>),
    /// Has a program run in a container.
    Docker {
        /// Its id or name.
        container: String,
        /// What is run.
        command: Vec<String>,
    },
    /// Asks the service manager for a unit.
    Unit(String),
}

impl Probe {
    /// The probe of a definition; none for a check that others tell of: its owner, or those it is an alias of.
    pub(super) fn of(definition: &CheckDefinition) -> Option<Self> {
        let tls = Tls { skip_verify: definition.tls_skip_verify, server_name: definition.tls_server_name.clone() };
        Some(match definition.kind() {
            "http" => Self::Http(Box::new(HttpProbe::of(definition, tls)?)),
            "tcp" => Self::Tcp { address: definition.tcp.clone(), tls: definition.tcp_use_tls.then_some(tls) },
            "udp" => Self::Udp(definition.udp.clone()),
            "grpc" => Self::Grpc(GrpcProbe::of(&definition.grpc, definition.grpc_use_tls.then_some(tls))),
            "h2ping" => {
                let tls = definition.h2ping_use_tls.unwrap_or(true).then_some(tls);
                Self::Ping(PingProbe { address: definition.h2ping.clone(), tls })
            }
            "script" => Self::Script(definition.script_args.clone()),
            "docker" => Self::Docker {
                container: definition.docker_container_id.clone(),
                command: docker::command(&definition.shell, &definition.script_args),
            },
            "os_service" => Self::Unit(definition.os_service.clone()),
            _ => return None,
        })
    }

    /// How long a run may take when the definition does not say.
    pub(super) fn default_limit(&self) -> Duration {
        match self {
            Self::Script(_) | Self::Docker { .. } => Duration::from_secs(30),
            _ => Duration::from_secs(10),
        }
    }

    /// Runs it once, no longer than `limit`. At most `kept` bytes of what it finds are kept.
    pub(super) async fn run(&self, resolver: &Resolver, limit: Duration, kept: usize) -> Finding {
        let run = tokio::time::timeout(limit, self.unlimited(resolver, limit, kept)).await;
        let found = run.unwrap_or_else(|_| Err(self.too_slow(limit)));
        found.unwrap_or_else(|problem| (CheckStatus::Critical, problem))
    }

    async fn unlimited(&self, resolver: &Resolver, limit: Duration, kept: usize) -> Result<Finding, String> {
        match self {
            Self::Http(probe) => probe.run(resolver, kept).await,
            Self::Tcp { address, tls } => tcp::run(address, tls.as_ref(), resolver).await,
            Self::Udp(address) => udp::run(address, limit, resolver).await,
            Self::Grpc(probe) => probe.run(resolver).await,
            Self::Ping(probe) => probe.run(resolver).await,
            Self::Script(arguments) => script::run(arguments, kept).await,
            Self::Docker { container, command } => docker::run(container, command, kept).await,
            Self::Unit(unit) => unit::run(unit).await,
        }
    }

    fn too_slow(&self, limit: Duration) -> String {
        let limit = lictor_types::duration::format(limit);
        match self {
            Self::Http(probe) => format!("{}: context deadline exceeded after {limit}", probe.name()),
            Self::Tcp { address, .. } => format!("dial tcp {address}: i/o timeout after {limit}"),
            Self::Udp(address) => format!("dial udp {address}: i/o timeout after {limit}"),
            Self::Grpc(probe) => format!("gRPC check {}: context deadline exceeded after {limit}", probe.written),
            Self::Ping(probe) => format!("HTTP2 ping of {}: no answer within {limit}", probe.address),
            Self::Script(_) | Self::Docker { .. } => format!("Timed out ({limit}) running check"),
            Self::Unit(unit) => format!("the service manager did not tell of {unit} within {limit}"),
        }
    }
}

/// Bytes of output that a check keeps; `most` is what the agent allows.
pub(super) fn output_limit(definition: &CheckDefinition, most: usize) -> usize {
    match usize::try_from(definition.output_max_size) {
        Ok(size) if size > 0 => size.min(most),
        _ => most,
    }
}
