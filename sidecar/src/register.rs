//! The pod's services in the catalog: each with its sidecar proxy, under the checks of the application.
//!
//! Invariants
//! - A service is registered only when its inbound port is open, and withdrawn before that port closes.
//! - "Registered" means that the servers were asked afterwards and have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::local::{CheckDefinition, Local, ServiceDefinition};
use lictor_types::service::{ConnectProxy, KIND_CONNECT_PROXY, Upstream as CatalogUpstream};
use lictor_types::{Answer, Credential, Freshness, NodeName, Query, Refusal, ServiceId};

use crate::follow::{Asker, retry_pause};
use crate::settings::{ServiceCheck, ServiceSpec, UpstreamSpec};

/// Between two looks at the application: what decides how soon a dead one gets no more calls.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one look may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the servers may take to answer whether they have us.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// What is registered.
pub(crate) struct Registrations {
    pub(crate) node: NodeName,
    /// The address that others dial.
    pub(crate) address: IpAddr,
    /// Where the application listens.
    pub(crate) local_address: IpAddr,
    /// Each service with the port that the mesh dials it on.
    pub(crate) services: Vec<(ServiceSpec, u16)>,
    pub(crate) upstreams: Vec<UpstreamSpec>,
}

impl Registrations {
    /// Registers everything, and returns when the catalog has it.
    pub(crate) async fn register(&self, local: &Arc<Local>, asker: &Asker) {
        let mut failures = 0;
        loop {
            match self.try_register(local, asker).await {
                Ok(()) => return,
                Err(refusal) => {
                    tracing::warn!(node = %self.node, %refusal, attempt = failures + 1,
                        "the catalog does not have our services yet; trying again");
                    tokio::time::sleep(retry_pause(failures, &*asker.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn try_register(&self, local: &Arc<Local>, asker: &Asker) -> Result<(), Refusal> {
        for definition in self.definitions() {
            let id: Result<ServiceId, _> = definition.id_text().parse();
            // The agent keeps the catalog in step by itself; only what it does not know yet is told to it.
            if id.is_ok_and(|id| local.service(&id).is_none()) {
                // Without a token of its own: it is told with the agent's, which another login replaces.
                local.register_service(definition, true, Credential::anonymous()).await?;
            }
        }
        self.confirm(asker).await
    }

    /// Asks the servers whether they have it all.
    async fn confirm(&self, asker: &Asker) -> Result<(), Refusal> {
        let token = asker.token();
        let read = asker.datacenter.read(&token, Query::NodeServices(self.node.clone()), Freshness::default());
        let read = tokio::time::timeout(CONFIRM_LIMIT, read).await;
        let read = read.map_err(|_| Refusal::failed(format!("no answer within {} s", CONFIRM_LIMIT.as_secs())))??;
        let there: BTreeSet<String> = match read.answer {
            Answer::NodeServices(found) => found.map(|node| node.services.into_keys().collect()).unwrap_or_default(),
            _ => return Err(Refusal::failed("a server answered something else than the services of our node")),
        };
        match self.definitions().iter().find(|definition| !there.contains(definition.id_text())) {
            None => Ok(()),
            Some(missing) => Err(Refusal::failed(format!("{:?} is not in the catalog", missing.id_text()))),
        }
    }

    /// Takes everything back, proxies first: they are what others dial.
    pub(crate) async fn withdraw(&self, local: &Arc<Local>) {
        for definition in self.definitions().iter().rev() {
            let Ok(id) = definition.id_text().parse::<ServiceId>() else { continue };
            if local.service(&id).is_none() {
                continue;
            }
            if let Err(refusal) = local.deregister_service(&id).await {
                tracing::warn!(id = %id, %refusal, "cannot withdraw from the catalog");
            }
        }
    }

    /// Each service, followed by its proxy.
    fn definitions(&self) -> Vec<ServiceDefinition> {
        self.services.iter().flat_map(|(spec, port)| [self.service(spec), self.proxy(spec, *port)]).collect()
    }

    fn service(&self, spec: &ServiceSpec) -> ServiceDefinition {
        ServiceDefinition {
            id: spec.name.to_string(),
            name: spec.name.to_string(),
            address: self.address.to_string(),
            port: spec.port,
            check: Some(self.check(spec, "application")),
            ..ServiceDefinition::default()
        }
    }

    fn proxy(&self, spec: &ServiceSpec, port: u16) -> ServiceDefinition {
        let name = format!("{}-sidecar-proxy", spec.name);
        ServiceDefinition {
            kind: KIND_CONNECT_PROXY.into(),
            id: name.clone(),
            name,
            address: self.address.to_string(),
            port,
            // Of the application, not of the proxy: callers look at the proxy's instance, and a proxy without its
            // application serves nobody. That the proxy itself is there is what the node's health says.
            check: Some(self.check(spec, "application behind the proxy")),
            proxy: ConnectProxy {
                destination_service_name: spec.name.to_string(),
                destination_service_id: spec.name.to_string(),
                local_service_address: self.local_address.to_string(),
                local_service_port: spec.port,
                upstreams: self.upstreams.iter().map(catalog_upstream).collect(),
                ..ConnectProxy::default()
            },
            ..ServiceDefinition::default()
        }
    }

    fn check(&self, spec: &ServiceSpec, what: &str) -> CheckDefinition {
        let application = SocketAddr::new(self.local_address, spec.port);
        let check = CheckDefinition {
            name: format!("{}: {what}", spec.name),
            interval: Some(CHECK_INTERVAL),
            timeout: Some(CHECK_TIMEOUT),
            ..CheckDefinition::default()
        };
        match &spec.check {
            ServiceCheck::Tcp => CheckDefinition { tcp: application.to_string(), ..check },
            ServiceCheck::Http(path) => CheckDefinition { http: format!("http://{application}{path}"), ..check },
        }
    }
}

fn catalog_upstream(spec: &UpstreamSpec) -> CatalogUpstream {
    CatalogUpstream {
        destination_type: "service".into(),
        local_bind_address: spec.local.ip().to_string(),
        local_bind_port: spec.local.port(),
        ..CatalogUpstream::new(spec.service.to_string())
    }
}
