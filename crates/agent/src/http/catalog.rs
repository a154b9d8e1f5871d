//! `/v1/catalog`: nodes and services, without their health.

use std::collections::BTreeMap;

use lictor_types::query::ServiceQuery;
use lictor_types::service::NodeServices;
use lictor_types::{
    Answer, CheckId, Command, Deregistration, Node, NodeName, NodeService, Query, Refusal, Registration, ServiceId,
    ServiceName,
};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::{Ask, Caller, Order, Tail};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};
use super::params::Params;

/// `PUT /v1/catalog/register`.
pub(super) async fn register(order: Order, body: JsonBody) -> Answered {
    let value = decode::parse(&body.0)?;
    if decode::text_field(&value, "Node").is_empty() {
        return Err(Refusal::failed("Must provide node").into());
    }
    if decode::field(&value, "Service").is_some_and(|it| it.is_object() && decode::text_field(it, "Service").is_empty())
    {
        return Err(Refusal::failed("Must provide service name (Service.Service) when service ID is provided").into());
    }
    let mut registration: Registration = decode::from_value(value, Names::AnyCase)?;
    check_datacenter(&order, &registration.datacenter)?;
    registration.datacenter.clone_from(&order.door.agent.identity.datacenter);
    for check in registration.check.iter_mut().chain(&mut registration.checks) {
        check.fill_kind();
    }
    if registration.address.is_empty() && !registration.skip_node_update {
        return Err(Refusal::failed("Must provide address if SkipNodeUpdate is not set").into());
    }
    let applied = order.write(Command::Register(Box::new(registration))).await?;
    order.json(&applied)
}

/// What `catalog/deregister` takes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", rename = "Deregistration", default)]
struct DeregistrationBody {
    node: String,
    address: String,
    datacenter: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(rename = "CheckID")]
    check_id: String,
}

impl Default for DeregistrationBody {
    fn default() -> Self {
        let empty = String::new;
        Self { node: empty(), address: empty(), datacenter: empty(), service_id: empty(), check_id: empty() }
    }
}

/// `PUT /v1/catalog/deregister`: an instance, a check, or with neither the whole node.
pub(super) async fn deregister(order: Order, body: JsonBody) -> Answered {
    let DeregistrationBody { node, address: _, datacenter, service_id, check_id } =
        decode::decode(&body.0, Names::AnyCase)?;
    if node.is_empty() {
        return Err(Refusal::failed("Must provide node").into());
    }
    check_datacenter(&order, &datacenter)?;
    let deregistration = Deregistration {
        node: name(node)?,
        service_id: optional(service_id, ServiceId::try_from)?,
        check_id: optional(check_id, CheckId::try_from)?,
        authorized_service: None,
    };
    order.write(Command::Deregister(deregistration)).await?;
    order.json(&true)
}

pub(super) fn check_datacenter(order: &Order, named: &str) -> Result<(), Refusal> {
    if named.is_empty() || named.eq_ignore_ascii_case(&order.door.agent.identity.datacenter) {
        Ok(())
    } else {
        Err(Refusal::failed("No path to datacenter"))
    }
}

fn optional<T, E: std::fmt::Display>(
    text: String,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| Refusal::bad_request(error.to_string()))
}

fn name(text: String) -> Result<NodeName, Refusal> {
    NodeName::try_from(text).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// The node that a path names.
pub(super) fn node_in_path(text: String) -> Result<NodeName, Refusal> {
    if text.is_empty() { Err(Refusal::bad_request("Missing node name")) } else { name(text) }
}

/// The service that a path names.
pub(super) fn service_in_path(text: String) -> Result<ServiceName, Refusal> {
    if text.is_empty() {
        return Err(Refusal::bad_request("Missing service name"));
    }
    ServiceName::try_from(text).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// Every `node-meta=key:value`; a row must have them all.
pub(super) fn node_meta(params: &Params) -> BTreeMap<String, String> {
    let split = |pair: &str| {
        pair.split_once(':')
            .map_or_else(|| (pair.to_owned(), String::new()), |(key, value)| (key.to_owned(), value.to_owned()))
    };
    params.all("node-meta").filter(|pair| !pair.is_empty()).map(split).collect()
}

/// `GET /v1/catalog/datacenters`.
pub(super) async fn datacenters(caller: Caller) -> Answered {
    caller.json(&[&caller.door.agent.identity.datacenter])
}

/// `GET /v1/catalog/nodes`.
pub(super) async fn nodes(ask: Ask) -> Answered {
    let (meta, Answer::Nodes(nodes)) = ask.read_chosen(Query::Nodes(node_meta(&ask.params))).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &nodes)
}

/// `GET /v1/catalog/services`.
pub(super) async fn services(ask: Ask) -> Answered {
    let (meta, Answer::Services(services)) = ask.read_chosen(Query::Services(node_meta(&ask.params))).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &services)
}

/// `GET /v1/catalog/service/NAME`.
pub(super) async fn service(ask: Ask, Tail(service): Tail) -> Answered {
    service_nodes(ask, service, false).await
}

/// `GET /v1/catalog/connect/NAME`: the instances that serve NAME over mutual TLS.
pub(super) async fn connect(ask: Ask, Tail(service): Tail) -> Answered {
    service_nodes(ask, service, true).await
}

async fn service_nodes(ask: Ask, service: String, connect: bool) -> Answered {
    let query = ServiceQuery {
        service: service_in_path(service)?,
        tags: tags(&ask.params),
        node_meta: node_meta(&ask.params),
        passing: false,
        connect,
    };
    let (meta, Answer::ServiceNodes(rows)) = ask.read_chosen(Query::ServiceNodes(query)).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &rows)
}

/// Every `tag`; an instance must have them all.
pub(super) fn tags(params: &Params) -> Vec<String> {
    params.all("tag").filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// `GET /v1/catalog/node/NODE`: `null` for a node that nobody knows.
pub(super) async fn node(ask: Ask, Tail(node): Tail) -> Answered {
    let (meta, Answer::NodeServices(found)) = ask.read_chosen(Query::NodeServices(node_in_path(node)?)).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &found)
}

/// `GET /v1/catalog/node-services/NODE`: as `node`, with the instances in a list.
pub(super) async fn node_services(ask: Ask, Tail(node): Tail) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        node: Option<Node>,
        services: Vec<NodeService>,
    }
    let (meta, Answer::NodeServices(found)) = ask.read_chosen(Query::NodeServices(node_in_path(node)?)).await? else {
        return Err(Failure::unexpected_answer());
    };
    let listed = found.map_or(Listed { node: None, services: Vec::new() }, |NodeServices { node, services }| Listed {
        node: Some(node),
        services: services.into_values().collect(),
    });
    ask.answer(meta, &listed)
}
