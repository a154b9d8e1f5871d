//! `/v1/health`: nodes and services with what their checks found.

use lictor_types::query::{ServiceQuery, StateQuery};
use lictor_types::{Answer, Query};

use super::caller::{Ask, Tail};
use super::catalog::{node_in_path, node_meta, service_in_path, tags};
use super::failure::{Answered, Failure};

/// `GET /v1/health/service/NAME`.
pub(super) async fn service(ask: Ask, Tail(service): Tail) -> Answered {
    instances(ask, service, false).await
}

/// `GET /v1/health/connect/NAME`: the instances that serve NAME over mutual TLS.
pub(super) async fn connect(ask: Ask, Tail(service): Tail) -> Answered {
    instances(ask, service, true).await
}

async fn instances(ask: Ask, service: String, connect: bool) -> Answered {
    let query = ServiceQuery {
        service: service_in_path(service)?,
        tags: tags(&ask.params),
        node_meta: node_meta(&ask.params),
        passing: ask.params.flag("passing")?,
        connect,
    };
    let (meta, Answer::CheckServiceNodes(rows)) = ask.read_chosen(Query::HealthService(query)).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer_shared(meta, &rows)
}

/// `GET /v1/health/node/NODE`.
pub(super) async fn node(ask: Ask, Tail(node): Tail) -> Answered {
    let query = Query::HealthNode(node_in_path(node)?);
    checks_of(ask, query).await
}

/// `GET /v1/health/checks/NAME`.
pub(super) async fn checks(ask: Ask, Tail(service): Tail) -> Answered {
    let query = ServiceQuery { node_meta: node_meta(&ask.params), ..ServiceQuery::all(service_in_path(service)?) };
    checks_of(ask, Query::HealthChecks(query)).await
}

/// `GET /v1/health/state/STATE`.
pub(super) async fn state(ask: Ask, Tail(state): Tail) -> Answered {
    if state.is_empty() {
        return Err(Failure::bad_request("Missing check state"));
    }
    let query = StateQuery { state, node_meta: node_meta(&ask.params) };
    checks_of(ask, Query::HealthState(query)).await
}

async fn checks_of(ask: Ask, query: Query) -> Answered {
    let (meta, Answer::Checks(checks)) = ask.read_chosen(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &checks)
}
