//! `/v1/txn`: several operations, all or none.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use lictor_types::refusal::RefusalKind;
use lictor_types::transaction::{
    CheckOperation, KvOperation, NodeOperation, OPERATIONS_MAX, RowVerb, ServiceOperation, TransactionError,
    TransactionKvVerb, TransactionOperation, TransactionOutcome, TransactionResult,
};
use lictor_types::{
    Answer, Command, HealthCheck, Index, Locality, Node, NodeName, NodeService, Query, Refusal, Transaction, json,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::TransactionBody;
use super::caller::{Ask, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};
use super::kv::check_key_length;

/// One operation as it is sent; the one that is there counts.
#[derive(Deserialize, Default)]
#[serde(rename = "TxnOp", default)]
struct OperationBody {
    #[serde(rename = "KV")]
    kv: Option<KvBody>,
    #[serde(rename = "Node")]
    node: Option<NodeBody>,
    #[serde(rename = "Service")]
    service: Option<ServiceBody>,
    #[serde(rename = "Check")]
    check: Option<CheckBody>,
    #[serde(rename = "Session")]
    session: Option<SessionBody>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnKVOp", default)]
struct KvBody {
    verb: String,
    key: String,
    #[serde(with = "json::base64_or_null")]
    value: Vec<u8>,
    flags: u64,
    index: u64,
    session: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnNodeOp", default)]
struct NodeBody {
    verb: String,
    node: NodeRow,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnNode", default)]
struct NodeRow {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
    create_index: u64,
    modify_index: u64,
    locality: Option<Locality>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnServiceOp", default)]
struct ServiceBody {
    verb: String,
    node: String,
    service: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnCheckOp", default)]
struct CheckBody {
    verb: String,
    check: Option<HealthCheck>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", rename = "TxnSessionOp", default)]
struct SessionBody {
    verb: String,
    session: SessionRow,
}

#[derive(Deserialize, Default)]
#[serde(rename = "TxnSession", default)]
struct SessionRow {
    #[serde(rename = "ID")]
    id: String,
}

/// What a transaction gets: one of the two is null.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    results: Option<Vec<TransactionResult>>,
    errors: Option<Vec<TransactionError>>,
}

/// `PUT /v1/txn`. One that only looks passes no log, and is as fresh as it asks to be.
pub(super) async fn put(ask: Ask, order: Order, body: TransactionBody) -> Answered {
    let bodies: Vec<OperationBody> = decode::decode(&body.0, Names::AnyCase).map_err(|refusal| {
        let what = refusal.text.trim_start_matches("Request decode failed: ");
        Refusal::bad_request(format!("Failed to parse body: {what}"))
    })?;
    if bodies.len() > OPERATIONS_MAX {
        let text = format!("Transaction contains too many operations ({} > {OPERATIONS_MAX})", bodies.len());
        return Err(Refusal::new(RefusalKind::TooLarge, text).into());
    }
    let limit = order.door.limits.value_bytes;
    for body in bodies.iter().filter_map(|body| body.kv.as_ref()) {
        if body.value.len() > limit {
            let text = format!("Value for key {:?} is too large ({} > {limit} bytes)", body.key, body.value.len());
            return Err(Refusal::new(RefusalKind::TooLarge, text).into());
        }
        check_key_length(&body.key)?;
    }
    let datacenter = &order.door.agent.identity.datacenter;
    let (mut operations, mut errors) = (Vec::with_capacity(bodies.len()), Vec::new());
    for (at, body) in bodies.into_iter().enumerate() {
        match operation(body, datacenter)? {
            Ok(operation) => operations.push(operation),
            Err(what) => errors.push(TransactionError { op_index: at as u64, what }),
        }
    }
    if !errors.is_empty() {
        return shown(&order, TransactionOutcome { results: Vec::new(), errors });
    }
    if operations.iter().all(TransactionOperation::is_read) {
        let (meta, Answer::Transaction(outcome)) = ask.read_now(Query::Transaction(operations)).await? else {
            return Err(Failure::unexpected_answer());
        };
        return Ok(meta.onto_without_index(shown(&order, outcome)?));
    }
    let outcome = order.transact(Command::Transaction(Transaction::new(operations))).await?;
    shown(&order, outcome)
}

fn shown(order: &Order, outcome: TransactionOutcome) -> Result<Response, Failure> {
    let TransactionOutcome { results, errors } = outcome;
    if errors.is_empty() {
        order.json_with(StatusCode::OK, &Shown { results: Some(results), errors: None })
    } else {
        order.json_with(StatusCode::CONFLICT, &Shown { results: None, errors: Some(errors) })
    }
}

/// The operation, or why it makes none, in the words of the answer.
fn operation(body: OperationBody, datacenter: &str) -> Result<Result<TransactionOperation, String>, Refusal> {
    match body {
        OperationBody { kv: Some(it), .. } => Ok(kv(it)),
        OperationBody { node: Some(it), .. } => Ok(node(it, datacenter)),
        OperationBody { service: Some(it), .. } => service(it),
        OperationBody { check: Some(it), .. } => Ok(check(it)),
        OperationBody { session: Some(it), .. } => Ok(session(it)),
        _ => Ok(Err("unknown operation type".into())),
    }
}

fn kv(it: KvBody) -> Result<TransactionOperation, String> {
    let verb = TransactionKvVerb::from_word(&it.verb).ok_or_else(|| format!("unknown KV verb {:?}", it.verb))?;
    let KvBody { verb: _, key, value, flags, index, session } = it;
    Ok(TransactionOperation::Kv(KvOperation { verb, key, value, flags, index: Index(index), session }))
}

fn row_verb(noun: &str, word: &str) -> Result<RowVerb, String> {
    RowVerb::from_word(word).ok_or_else(|| format!("unknown {noun} verb {word:?}"))
}

fn node_name(text: &str) -> Result<NodeName, String> {
    if text.is_empty() { Err("Must provide node".into()) } else { text.parse().map_err(|error| format!("{error}")) }
}

fn node(it: NodeBody, datacenter: &str) -> Result<TransactionOperation, String> {
    let verb = row_verb("node", &it.verb)?;
    let NodeRow {
        id,
        node,
        address,
        datacenter: named,
        tagged_addresses,
        meta,
        create_index: _,
        modify_index,
        locality,
    } = it.node;
    if !named.is_empty() && !named.eq_ignore_ascii_case(datacenter) {
        return Err("No path to datacenter".into());
    }
    // One that is read may be named by its id alone.
    let name = if node.is_empty() && verb == RowVerb::Get { node_name(&id)? } else { node_name(&node)? };
    let node = Node {
        id,
        name,
        address,
        datacenter: datacenter.into(),
        tagged_addresses,
        meta,
        create_index: Index(0),
        modify_index: Index(modify_index),
        locality,
    };
    Ok(TransactionOperation::Node(NodeOperation { verb, node }))
}

fn service(it: ServiceBody) -> Result<Result<TransactionOperation, String>, Refusal> {
    let verb = match row_verb("service", &it.verb) {
        Ok(verb) => verb,
        Err(what) => return Ok(Err(what)),
    };
    let node = match node_name(&it.node) {
        Ok(node) => node,
        Err(what) => return Ok(Err(what)),
    };
    let mut row = it.service;
    let id = decode::text_field(&row, "ID").to_owned();
    if decode::text_field(&row, "Service").is_empty() {
        // What is read or removed is named by its id; the name is not looked at.
        if matches!(verb, RowVerb::Set | RowVerb::Cas) || id.is_empty() {
            return Ok(Err("Must provide service name (Service.Service) when service ID is provided".into()));
        }
        if let Some(object) = row.as_object_mut() {
            object.retain(|key, _| !key.eq_ignore_ascii_case("Service"));
            object.insert("Service".into(), Value::String(id));
        }
    }
    let service: NodeService = decode::from_value(row, Names::AnyCase).map_err(|refusal| {
        let what = refusal.text.trim_start_matches("Request decode failed: ");
        Refusal::bad_request(format!("Failed to parse body: {what}"))
    })?;
    Ok(Ok(TransactionOperation::Service(Box::new(ServiceOperation { verb, node, service }))))
}

fn check(it: CheckBody) -> Result<TransactionOperation, String> {
    let verb = row_verb("check", &it.verb)?;
    let mut check = it.check.ok_or("unknown operation type")?;
    let node = check.node.clone().ok_or("Must provide node")?;
    check.fill_kind();
    if check.check_id.is_none() {
        check.check_id = check.name.parse().ok();
    }
    Ok(TransactionOperation::Check(Box::new(CheckOperation { verb, node, check })))
}

fn session(it: SessionBody) -> Result<TransactionOperation, String> {
    match it.verb.as_str() {
        "delete" => Ok(TransactionOperation::SessionDelete(it.session.id)),
        other => Err(format!("unknown session verb {other:?}")),
    }
}
