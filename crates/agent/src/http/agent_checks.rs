//! `/v1/agent/checks` and `/v1/agent/check`: the checks that this agent runs or is told.

use std::collections::BTreeMap;

use axum::response::Response;
use lictor_filter::rows;
use lictor_types::{CheckId, CheckStatus, HealthCheck, Refusal, Requirement, Resource};
use serde::Deserialize;

use super::agent_services::find as find_service;
use super::body::JsonBody;
use super::caller::{Caller, Tail, mark_filtered};
use super::choice;
use super::decode::{self, Names};
use super::failure::{Answered, Failure};
use crate::local::CheckDefinition;

/// What seeing a check needs; changing it needs the same to write.
fn resource(caller: &Caller, service_name: &str) -> (Resource, String) {
    if service_name.is_empty() {
        (Resource::Node, caller.door.agent.identity.node_name.as_str().to_owned())
    } else {
        (Resource::Service, service_name.to_owned())
    }
}

async fn require_write(caller: &Caller, service_name: &str) -> Result<(), Failure> {
    let (resource, name) = resource(caller, service_name);
    caller.require(Requirement::write(resource, name)).await
}

/// `GET /v1/agent/checks`.
pub(super) async fn list(caller: Caller) -> Answered {
    let chosen = choice::filter(&caller.params, rows::check)?;
    let checks = caller.door.agent.local.checks();
    let needed = |check: &HealthCheck| {
        let (resource, name) = resource(&caller, &check.service_name);
        Requirement::read(resource, name)
    };
    let denials = caller.denials(checks.values().map(needed).collect()).await?;
    let shown: BTreeMap<CheckId, HealthCheck> = checks
        .into_iter()
        .zip(&denials)
        .filter(|((_, check), denial)| denial.is_none() && chosen.as_ref().is_none_or(|it| it.matches(check)))
        .map(|(row, _)| row)
        .collect();
    let mut response = caller.json(&shown)?;
    mark_filtered(&mut response, denials.iter().any(Option::is_some) && !caller.credential.is_anonymous());
    Ok(response)
}

/// `PUT /v1/agent/check/register`.
pub(super) async fn register(caller: Caller, body: JsonBody) -> Answered {
    let value = decode::parse(&body.0)?;
    let definition = CheckDefinition::parse(&value)
        .map_err(|error| Refusal::bad_request(format!("Request decode failed: {error}")))?;
    definition.validate_alone()?;
    let service_name = if definition.service_id.is_empty() {
        String::new()
    } else {
        let id = &definition.service_id;
        let absent = || Refusal::not_found(format!("ServiceID {id:?} does not exist"));
        find_service(&caller, id).ok_or_else(absent)?.name.into()
    };
    require_write(&caller, &service_name).await?;
    if let Some(before) = find(&caller, definition.id_text())
        && before.service_name != service_name
    {
        require_write(&caller, &before.service_name).await?;
    }
    caller.door.agent.local.register_check(definition, caller.credential.clone()).await?;
    Ok(Response::default())
}

fn find(caller: &Caller, id: &str) -> Option<HealthCheck> {
    caller.door.agent.local.check(&id.parse().ok()?)
}

/// The check with this id, if the caller may change it.
async fn changeable(caller: &Caller, id: &str) -> Result<CheckId, Failure> {
    if id.is_empty() {
        return Err(Failure::bad_request("Missing check ID"));
    }
    let unknown = || {
        let words = "Ensure that the check ID is passed, not the check name.";
        Refusal::not_found(format!("Unknown check ID {id:?}. {words}"))
    };
    let check = find(caller, id).ok_or_else(unknown)?;
    require_write(caller, &check.service_name).await?;
    Ok(CheckId::try_from(id.to_owned()).map_err(|error| Refusal::bad_request(error.to_string()))?)
}

/// `PUT /v1/agent/check/deregister/ID`.
pub(super) async fn deregister(caller: Caller, Tail(id): Tail) -> Answered {
    let id = changeable(&caller, &id).await?;
    caller.door.agent.local.deregister_check(&id).await?;
    Ok(Response::default())
}

/// `PUT /v1/agent/check/pass/ID`.
pub(super) async fn pass(caller: Caller, Tail(id): Tail) -> Answered {
    noted(caller, &id, CheckStatus::Passing).await
}

/// `PUT /v1/agent/check/warn/ID`.
pub(super) async fn warn(caller: Caller, Tail(id): Tail) -> Answered {
    noted(caller, &id, CheckStatus::Warning).await
}

/// `PUT /v1/agent/check/fail/ID`.
pub(super) async fn fail(caller: Caller, Tail(id): Tail) -> Answered {
    noted(caller, &id, CheckStatus::Critical).await
}

async fn noted(caller: Caller, id: &str, status: CheckStatus) -> Answered {
    let note = caller.params.get("note").unwrap_or_default().to_owned();
    told(&caller, id, status, note).await
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Update {
    status: String,
    output: String,
}

/// `PUT /v1/agent/check/update/ID`.
pub(super) async fn update(caller: Caller, Tail(id): Tail, body: JsonBody) -> Answered {
    let Update { status, output } = decode::decode(&body.0, Names::AnyCase)?;
    let status = status.parse::<CheckStatus>().map_err(Refusal::bad_request)?;
    told(&caller, &id, status, output).await
}

async fn told(caller: &Caller, id: &str, status: CheckStatus, output: String) -> Answered {
    let id = changeable(caller, id).await?;
    caller.door.agent.local.set_ttl(&id, status, &output).await?;
    Ok(Response::default())
}
