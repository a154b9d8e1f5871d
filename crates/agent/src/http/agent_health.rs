//! `/v1/agent/health/service`: how an instance of this agent is, told by the HTTP status, for load balancers.

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lictor_types::{CheckStatus, HealthCheck, Requirement, Resource};
use serde::Serialize;

use super::agent_services::AgentService;
use super::caller::{Caller, Tail};
use super::failure::{Answered, Failure, text};
use crate::local::ServiceHealth;

/// An instance with its checks and those of the node, and the worst of them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info<'a> {
    aggregated_status: &'static str,
    service: Option<AgentService<'a>>,
    checks: Option<&'a [HealthCheck]>,
}

impl<'a> Info<'a> {
    fn of(health: &'a ServiceHealth, datacenter: &'a str) -> Self {
        let service = Some(AgentService::of(&health.service, datacenter));
        Self { aggregated_status: health.status, service, checks: Some(&health.checks) }
    }
}

fn status_code(status: &str) -> StatusCode {
    match status {
        "passing" => StatusCode::OK,
        "warning" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `GET /v1/agent/health/service/id/ID`.
pub(super) async fn by_id(caller: Caller, headers: HeaderMap, Tail(id): Tail) -> Answered {
    let as_text = wants_text(&caller, &headers);
    if id.is_empty() {
        return Err(Failure::bad_request("Missing serviceID"));
    }
    let Some(health) = caller.door.agent.local.service_health(&id) else {
        let nobody = Info { aggregated_status: CheckStatus::Critical.as_str(), service: None, checks: None };
        return shown(&caller, as_text, StatusCode::NOT_FOUND, &format!("ServiceId {id} not found"), &nobody);
    };
    caller.require(Requirement::read(Resource::Service, health.service.name.as_str())).await?;
    let info = Info::of(&health, &caller.door.agent.identity.datacenter);
    shown(&caller, as_text, status_code(health.status), health.status, &info)
}

/// `GET /v1/agent/health/service/name/NAME`: the worst of its instances decides.
pub(super) async fn by_name(caller: Caller, headers: HeaderMap, Tail(name): Tail) -> Answered {
    let as_text = wants_text(&caller, &headers);
    if name.is_empty() {
        return Err(Failure::bad_request("Missing service Name"));
    }
    caller.require(Requirement::read(Resource::Service, name.as_str())).await?;
    let found = caller.door.agent.local.service_health_by_name(&name);
    let datacenter = &caller.door.agent.identity.datacenter;
    let infos: Vec<Info<'_>> = found.iter().map(|health| Info::of(health, datacenter)).collect();
    let badness = |status: &&str| ["passing", "warning", "critical"].iter().position(|word| word == status);
    // What is none of the words, maintenance, is the worst.
    let worst = found.iter().map(|health| health.status).max_by_key(|status| badness(status).unwrap_or(usize::MAX));
    match worst {
        None => shown(&caller, as_text, StatusCode::NOT_FOUND, &format!("ServiceName {name} Not Found"), &infos),
        Some(worst) => shown(&caller, as_text, status_code(worst), worst, &infos),
    }
}

/// Whether text is asked for, by the header or by `?format=text`.
fn wants_text(caller: &Caller, headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.starts_with("text/plain")) || caller.params.get("format") == Some("text")
}

fn shown<T: Serialize>(caller: &Caller, as_text: bool, status: StatusCode, reason: &str, info: &T) -> Answered {
    const X_CONSUL_REASON: HeaderName = HeaderName::from_static("x-consul-reason");
    let mut response: Response = if as_text { text(status, reason) } else { caller.json_with(status, info)? };
    // A name may hold what a header cannot; the body says it all the same.
    if let Ok(reason) = HeaderValue::from_str(reason) {
        response.headers_mut().insert(X_CONSUL_REASON, reason);
    }
    Ok(response)
}
