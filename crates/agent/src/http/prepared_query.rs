//! `/v1/query`: prepared queries.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use lictor_types::prepared_query::{
    PreparedQuery, PreparedQueryDelete, PreparedQueryExecute, PreparedQueryFound, PreparedQuerySet, QueryDns,
};
use lictor_types::{Answer, CheckServiceNode, Command, Query, Refusal};
use serde::Serialize;

use super::body::JsonBody;
use super::caller::{Ask, Meta, Order, Tail};
use super::decode::{self, Names};
use super::failure::{Answered, Failure, text};
use super::read_record::ReadRecord;
use crate::prepared_query::arrange;

/// Characters of a UUID.
const UUID_LENGTH: usize = 36;

/// `GET /v1/query`: all that the caller may read.
pub(super) async fn list(ask: Ask) -> Answered {
    let (meta, queries) = read(&ask, Query::PreparedQueries).await?;
    ask.answer(meta, &queries)
}

/// `POST /v1/query`: stores a new one; its id.
pub(super) async fn create(order: Order, body: JsonBody) -> Answered {
    #[derive(Serialize)]
    struct Created<'a> {
        #[serde(rename = "ID")]
        id: &'a str,
    }
    let mut query: PreparedQuery = decode::decode(&body.0, Names::AnyCase)?;
    if !query.id.is_empty() {
        return Err(Refusal::failed("ID must be empty when creating a new prepared query").into());
    }
    query.id = order.door.agent.rng.uuid();
    let id = query.id.clone();
    order
        .write(Command::PreparedQuerySet(Box::new(PreparedQuerySet { query, create: true, authorized: None })))
        .await?;
    order.json(&Created { id: &id })
}

/// `PUT /v1/query/ID`: stores another in the place of one.
pub(super) async fn update(order: Order, Tail(id): Tail, body: JsonBody) -> Answered {
    if is_verb(&id) {
        return Ok(only_get("PUT"));
    }
    let mut query: PreparedQuery = decode::decode(&body.0, Names::AnyCase)?;
    check_id(&id).map_err(lookup_failed)?;
    query.id = id;
    order
        .write(Command::PreparedQuerySet(Box::new(PreparedQuerySet { query, create: false, authorized: None })))
        .await?;
    Ok(Response::default())
}

/// `DELETE /v1/query/ID`.
pub(super) async fn delete(order: Order, Tail(id): Tail) -> Answered {
    if is_verb(&id) {
        return Ok(only_get("DELETE"));
    }
    check_id(&id).map_err(lookup_failed)?;
    order.write(Command::PreparedQueryDelete(PreparedQueryDelete { id, authorized: None })).await?;
    Ok(Response::default())
}

/// `GET /v1/query/ID`, `GET /v1/query/ID-OR-NAME/execute` and `GET /v1/query/ID-OR-NAME/explain`.
pub(super) async fn get(ask: Ask, Tail(path): Tail) -> Answered {
    if let Some(name) = path.strip_suffix("/execute") {
        return execute(ask, name).await;
    }
    if let Some(name) = path.strip_suffix("/explain") {
        return explain(ask, name).await;
    }
    check_id(&path)?;
    let (meta, queries) = read(&ask, Query::PreparedQuery(path)).await?;
    if queries.is_empty() { Err(Refusal::not_found("Query not found").into()) } else { ask.answer(meta, &queries) }
}

async fn read(ask: &Ask, query: Query) -> Result<(Meta, Vec<PreparedQuery>), Failure> {
    match ask.read(query).await? {
        (meta, Answer::PreparedQueries(queries)) => Ok((meta, queries)),
        _ => Err(Failure::unexpected_answer()),
    }
}

async fn execute(ask: Ask, name: &str) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Executed<'a> {
        service: &'a str,
        nodes: &'a [CheckServiceNode],
        #[serde(rename = "DNS")]
        dns: &'a QueryDns,
        datacenter: &'a str,
        failovers: u32,
        #[serde(flatten)]
        record: ReadRecord,
    }
    let limit = limit(ask.params.text("limit"))?;
    let connect = connect(ask.params.text("connect"))?;
    let query = Query::PreparedQueryExecute(PreparedQueryExecute {
        name: name.to_owned(),
        connect,
        near: ask.params.text("near").map(str::to_owned),
        agent: Some(ask.door.agent.identity.node_name.to_string()),
        client: ask.client.map(|client| client.to_string()),
    });
    let (mut meta, Answer::PreparedQueryFound(mut found)) = ask.read_now(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    // What a query finds is not waited for, so there is no index to wait from.
    meta.index = lictor_types::Index(0);
    let failovers = arrange(&*ask.door.agent.rng, &mut found, limit);
    let PreparedQueryFound { service, dns, rows, .. } = &*found;
    let executed = Executed {
        service: &service.service,
        nodes: rows,
        dns,
        datacenter: &ask.door.agent.identity.datacenter,
        failovers,
        record: ReadRecord::of(&meta),
    };
    ask.answer(meta, &executed)
}

async fn explain(ask: Ask, name: &str) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Explained {
        query: PreparedQuery,
        #[serde(flatten)]
        record: ReadRecord,
    }
    let query = Query::PreparedQueryExplain(name.to_owned());
    let (mut meta, Answer::PreparedQueries(mut queries)) = ask.read_now(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    meta.index = lictor_types::Index(0);
    let Some(query) = queries.pop() else { return Err(Refusal::not_found("Query not found").into()) };
    ask.answer(meta, &Explained { query, record: ReadRecord::of(&meta) })
}

fn limit(text: Option<&str>) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(0) };
    // Less than nothing is no limit, as in Consul.
    let number: i64 = text
        .parse()
        .map_err(|_| Refusal::bad_request(format!("Bad limit: strconv.Atoi: parsing {text:?}: invalid syntax")))?;
    Ok(usize::try_from(number).unwrap_or(0))
}

fn connect(text: Option<&str>) -> Result<bool, Refusal> {
    match text {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(text) => Err(Refusal::bad_request(format!(
            "Error parsing 'connect' value: strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))),
    }
}

/// Consul's words for a text that is no id.
fn check_id(id: &str) -> Result<(), Refusal> {
    if id.len() == UUID_LENGTH {
        return Ok(());
    }
    Err(Refusal::failed("failed prepared query lookup: index error: UUID must be 36 characters"))
}

fn lookup_failed(refusal: Refusal) -> Refusal {
    Refusal { text: format!("Prepared Query lookup failed: {}", refusal.text), ..refusal }
}

fn is_verb(path: &str) -> bool {
    path.ends_with("/execute") || path.ends_with("/explain")
}

fn only_get(method: &str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("method {method} not allowed"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}
