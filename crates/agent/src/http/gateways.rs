//! Services behind gateways, and the addresses that people give to services of the mesh.

use lictor_types::command::Effect;
use lictor_types::query::ServiceQuery;
use lictor_types::{Answer, Command, Query, Refusal, ServiceName, VirtualAddressesSet};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::{Ask, Order, Tail};
use super::catalog::{node_meta, service_in_path, tags};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// `GET /v1/catalog/gateway-services/GATEWAY`.
pub(super) async fn services(ask: Ask, Tail(gateway): Tail) -> Answered {
    if gateway.is_empty() {
        return Err(Failure::bad_request("Missing gateway name"));
    }
    let gateway = ServiceName::try_from(gateway).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let (meta, Answer::GatewayServices(rows)) = ask.read_chosen(Query::GatewayServices(gateway)).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &rows)
}

/// `GET /v1/health/ingress/SERVICE`: the ingress gateways that let callers of it in.
pub(super) async fn ingress(ask: Ask, Tail(service): Tail) -> Answered {
    let query = ServiceQuery {
        service: service_in_path(service)?,
        tags: tags(&ask.params),
        node_meta: node_meta(&ask.params),
        passing: ask.params.flag("passing")?,
        connect: false,
    };
    let (meta, Answer::CheckServiceNodes(rows)) = ask.read_chosen(Query::HealthIngress(query)).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer_shared(meta, &rows)
}

/// What `PUT internal/service-virtual-ip` takes.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VirtualAddressesBody {
    service: String,
    #[serde(rename = "ManualVIPs")]
    manual: Vec<String>,
}

/// What became of it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Assigned {
    found: bool,
    unassigned_from: Option<Vec<PeeredService>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PeeredService {
    service_name: Named,
    peer: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: String,
}

/// `PUT /v1/internal/service-virtual-ip`.
pub(super) async fn set_virtual_addresses(order: Order, body: JsonBody) -> Answered {
    let VirtualAddressesBody { service, manual } = decode::decode(&body.0, Names::AnyCase)?;
    if service.is_empty() {
        return Err(Failure::bad_request("Missing service name"));
    }
    let command = Command::VirtualAddressesSet(VirtualAddressesSet { service, addresses: manual });
    let (found, names) = match order.effect(command).await? {
        Effect::Unassigned(names) => (true, names),
        _ => (false, Vec::new()),
    };
    let named = |name| PeeredService { service_name: Named { name }, peer: "" };
    let unassigned = names.into_iter().map(named).collect();
    order.json(&Assigned { found, unassigned_from: Some(unassigned).filter(|it: &Vec<_>| !it.is_empty()) })
}
