//! `/v1/agent/services` and `/v1/agent/service`: the instances that this agent holds.

use std::collections::BTreeMap;

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use lictor_filter::rows;
use lictor_types::ports::ServicePort;
use lictor_types::service::{ConnectProxy, ServiceAddress, ServiceConnect, Weights};
use lictor_types::{
    Answer, Block, Consistency, Freshness, Index, Locality, NodeService, Query, Refusal, Requirement, Resource,
    ServiceId,
};
use serde::Serialize;
use tokio::time::Instant;

use super::body::JsonBody;
use super::caller::{Caller, Tail, mark_filtered};
use super::choice;
use super::decode;
use super::failure::{Answered, Failure, text};
use crate::local::ServiceDefinition;

/// An instance as the agent's API shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AgentService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<&'a [ServicePort]>,
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    socket_path: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: &'a BTreeMap<String, ServiceAddress>,
    weights: Weights,
    enable_tag_override: bool,
    /// Of all the rest; only where one instance is shown.
    #[serde(skip_serializing_if = "str::is_empty")]
    content_hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'a ConnectProxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<&'a ServiceConnect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<&'a Locality>,
    datacenter: &'a str,
}

impl<'a> AgentService<'a> {
    pub(super) fn of(service: &'a NodeService, datacenter: &'a str) -> Self {
        Self {
            kind: &service.kind,
            id: service.id_text(),
            service: service.name.as_str(),
            tags: &service.tags,
            meta: &service.meta,
            port: service.port,
            ports: service.ports.as_deref(),
            address: &service.address,
            socket_path: &service.socket_path,
            tagged_addresses: &service.tagged_addresses,
            weights: service.weights,
            enable_tag_override: service.enable_tag_override,
            content_hash: "",
            proxy: Some(&service.proxy).filter(|_| !service.kind.is_empty()),
            connect: Some(&service.connect).filter(|connect| connect.native),
            locality: service.locality.as_ref(),
            datacenter,
        }
    }
}

/// `GET /v1/agent/services`.
pub(super) async fn list(caller: Caller) -> Answered {
    let chosen = choice::filter(&caller.params, rows::service)?;
    let services = caller.door.agent.local.services();
    let requirements =
        services.values().map(|service| Requirement::read(Resource::Service, service.name.as_str())).collect();
    let denials = caller.denials(requirements).await?;
    let datacenter = &caller.door.agent.identity.datacenter;
    let shown: BTreeMap<&str, AgentService<'_>> = services
        .values()
        .zip(&denials)
        .filter(|(service, denial)| denial.is_none() && chosen.as_ref().is_none_or(|it| it.matches(service)))
        .map(|(service, _)| (service.id_text(), AgentService::of(service, datacenter)))
        .collect();
    let mut response = caller.json(&shown)?;
    mark_filtered(&mut response, denials.iter().any(Option::is_some) && !caller.credential.is_anonymous());
    Ok(response)
}

/// `GET /v1/agent/service/ID`; with `merge-central-config` as the servers' config entries complete it.
pub(super) async fn one(caller: Caller, Tail(id): Tail) -> Answered {
    if id.is_empty() {
        return Err(Failure::bad_request("Missing service ID"));
    }
    const X_CONSUL_CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");
    let agent = &caller.door.agent;
    let known = caller.params.text("hash");
    let deadline = Instant::now() + caller.params.wait(&caller.door.limits())?;
    let merged = caller.params.flag("merge-central-config")?;
    // Before the first look: a change between the look and the wait wakes us.
    let mut changed = agent.local.changed();
    loop {
        let Some(service) = find(&caller, &id) else {
            return Ok(text(StatusCode::NOT_FOUND, format!("unknown service ID: {id}")));
        };
        // At every turn: rights may be lost meanwhile.
        caller.require(Requirement::read(Resource::Service, service.name.as_str())).await?;
        let (index, service) = if merged { completed(&caller, service, None).await? } else { (Index(0), service) };
        let shown = AgentService::of(&service, &agent.identity.datacenter);
        let hash = content_hash(&shown)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if known == Some(hash.as_str()) && !left.is_zero() {
            let block = Block { after: index, wait_millis: left.as_millis() as u64 };
            // At the deadline it is shown as it is; that the agent ends shows in the connection.
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(left) => {}
                read = completed(&caller, service.clone(), Some(block)), if merged => drop(read?),
            }
            continue;
        }
        let mut response = caller.json(&AgentService { content_hash: &hash, ..shown })?;
        if let Ok(value) = HeaderValue::try_from(hash.as_str()) {
            response.headers_mut().insert(X_CONSUL_CONTENT_HASH, value);
        }
        return Ok(response);
    }
}

/// An instance as the config entries complete it, and the index of those; with `block`, when they have changed.
async fn completed(
    caller: &Caller,
    service: NodeService,
    block: Option<Block>,
) -> Result<(Index, NodeService), Failure> {
    let freshness = Freshness { consistency: Consistency::Default, block };
    let query = Query::Completed(Box::new(service));
    let read = caller.door.agent.datacenter.read(&caller.credential, query, freshness).await?;
    match read.answer {
        Answer::Completed(service) => Ok((read.index, *service)),
        _ => Err(Failure::unexpected_answer()),
    }
}

/// Sixteen digits that change when anything that is shown changes.
fn content_hash(shown: &AgentService<'_>) -> Result<String, Failure> {
    let bytes = serde_json::to_vec(shown).map_err(|error| Failure(Refusal::failed(error.to_string())))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    Ok(digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The instance with this id.
pub(super) fn find(caller: &Caller, id: &str) -> Option<NodeService> {
    caller.door.agent.local.service(&id.parse().ok()?)
}

/// `PUT /v1/agent/service/register`.
pub(super) async fn register(caller: Caller, body: JsonBody) -> Answered {
    let value = decode::parse(&body.0)?;
    let definition = ServiceDefinition::parse(&value)
        .map_err(|error| Refusal::bad_request(format!("Request decode failed: {error}")))?;
    definition.validate()?;
    caller.require(Requirement::write(Resource::Service, definition.name.as_str())).await?;
    if let Some(sidecar) = definition.sidecar() {
        caller.require(Requirement::write(Resource::Service, sidecar.name.as_str())).await?;
    }
    if let Some(before) = find(&caller, definition.id_text())
        && before.name.as_str() != definition.name
    {
        caller.require(Requirement::write(Resource::Service, before.name.as_str())).await?;
    }
    let replace = caller.params.flag("replace-existing-checks")?;
    caller.door.agent.local.register_service(definition, replace, caller.credential.clone()).await?;
    Ok(Response::default())
}

/// `PUT /v1/agent/service/deregister/ID`.
pub(super) async fn deregister(caller: Caller, Tail(id): Tail) -> Answered {
    let service = known(&caller, &id)?;
    caller.require(Requirement::write(Resource::Service, service.name.as_str())).await?;
    let id = ServiceId::try_from(id).map_err(|error| Refusal::bad_request(error.to_string()))?;
    caller.door.agent.local.deregister_service(&id).await?;
    Ok(Response::default())
}

/// `PUT /v1/agent/service/maintenance/ID?enable=BOOL&reason=TEXT`.
pub(super) async fn maintenance(caller: Caller, Tail(id): Tail) -> Answered {
    let enable = maintenance_enabled(&caller)?;
    let service = known(&caller, &id)?;
    caller.require(Requirement::write(Resource::Service, service.name.as_str())).await?;
    let reason = caller.params.get("reason").unwrap_or_default();
    let id = ServiceId::try_from(id).map_err(|error| Refusal::bad_request(error.to_string()))?;
    caller.door.agent.local.set_service_maintenance(&id, enable, reason, caller.credential.clone()).await?;
    Ok(Response::default())
}

/// `PUT /v1/agent/maintenance?enable=BOOL&reason=TEXT`: the whole node.
pub(super) async fn node_maintenance(caller: Caller) -> Answered {
    let enable = maintenance_enabled(&caller)?;
    let agent = &caller.door.agent;
    caller.require(Requirement::write(Resource::Node, agent.identity.node_name.as_str())).await?;
    let reason = caller.params.get("reason").unwrap_or_default();
    agent.local.set_node_maintenance(enable, reason, caller.credential.clone()).await?;
    Ok(Response::default())
}

fn maintenance_enabled(caller: &Caller) -> Result<bool, Refusal> {
    let Some(text) = caller.params.text("enable") else {
        return Err(Refusal::bad_request("Missing value for enable"));
    };
    let invalid = |_| Refusal::bad_request(format!("Invalid value for enable: {text:?}"));
    caller.params.flag("enable").map_err(invalid)
}

/// The instance with this id, or Consul's words for one that is not there.
fn known(caller: &Caller, id: &str) -> Result<NodeService, Refusal> {
    if id.is_empty() {
        return Err(Refusal::bad_request("Missing service ID"));
    }
    let unknown = || {
        let words = "Ensure that the service ID is passed, not the service name.";
        Refusal::not_found(format!("Unknown service ID {id:?}. {words}"))
    };
    find(caller, id).ok_or_else(unknown)
}
