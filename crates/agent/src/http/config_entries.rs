//! `/v1/config`: config entries.
//!
//! `service-intentions` is read and written through its own commands: it is the one truth of `connect/intentions` too.

use std::collections::BTreeMap;

use lictor_types::command::{IntentionsDelete, IntentionsSet};
use lictor_types::config_entry::{ConfigEntryDelete, ConfigEntryKey, ConfigEntrySet, is_intentions};
use lictor_types::{Answer, Command, ConfigEntry, ConfigKind, Index, Query, Refusal, ServiceIntentions};
use serde_json::Value;

use super::body::JsonBody;
use super::caller::{Ask, Order, Tail};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// Consul's words before what is wrong with a body.
fn undecodable(problem: impl std::fmt::Display) -> Refusal {
    Refusal::bad_request(format!("Request decoding failed: {problem}"))
}

/// `PUT /v1/config`: sets an entry; with `cas`, only if it is at that index.
pub(super) async fn put(order: Order, body: JsonBody) -> Answered {
    let value: Value = serde_json::from_slice(&body.0).map_err(undecodable)?;
    let Some(kind) = decode::field(&value, "Kind") else {
        return Err(undecodable("Payload does not contain a kind/Kind key at the top level").into());
    };
    let Some(kind) = kind.as_str() else {
        return Err(undecodable("Kind value in payload is not a string").into());
    };
    let cas = order.params.number("cas")?.map(Index);
    let command = if is_intentions(kind) {
        Command::IntentionsSet(IntentionsSet { entry: intentions(value)?, cas })
    } else {
        let kind: ConfigKind = kind.parse().map_err(undecodable)?;
        let entry = ConfigEntry::parse(kind, &value).map_err(undecodable)?;
        Command::ConfigEntrySet(Box::new(ConfigEntrySet { entry, cas }))
    };
    let applied = order.write(command).await?;
    order.json(&applied)
}

fn intentions(mut value: Value) -> Result<ServiceIntentions, Refusal> {
    if let Some(entry) = value.as_object_mut() {
        entry.retain(|key, _| !key.eq_ignore_ascii_case("Kind"));
    }
    let entry: ServiceIntentions = decode::from_value(value, Names::SnakeToo).map_err(|refusal| Refusal {
        text: refusal.text.replacen("Request decode failed", "Request decoding failed", 1),
        ..refusal
    })?;
    if entry.name.is_empty() {
        return Err(Refusal::failed("Name is required"));
    }
    Ok(entry)
}

/// `GET /v1/config/KIND` and `GET /v1/config/KIND/NAME`.
pub(super) async fn get(ask: Ask, Tail(path): Tail) -> Answered {
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    if kind.is_empty() {
        return Err(Refusal::not_found("Must provide either a kind or both kind and name").into());
    }
    if is_intentions(kind) {
        return get_intentions(&ask, name).await;
    }
    let kind: ConfigKind = kind.parse().map_err(Refusal::failed)?;
    if name.is_empty() {
        let (meta, Answer::ConfigEntries(entries)) = ask.read_chosen(Query::ConfigEntries(kind)).await? else {
            return Err(Failure::unexpected_answer());
        };
        return ask.answer(meta, &entries);
    }
    let key = ConfigEntryKey { kind, name: name.to_owned() };
    let (meta, Answer::ConfigEntry(entry)) = ask.read(Query::ConfigEntry(key)).await? else {
        return Err(Failure::unexpected_answer());
    };
    match entry {
        Some(entry) => ask.answer(meta, &entry),
        None => Ok(meta.onto(absent(kind.as_str(), name))),
    }
}

fn absent(kind: &str, name: &str) -> axum::response::Response {
    super::failure::text(http::StatusCode::NOT_FOUND, format!("Config entry not found for {kind:?} / {name:?}"))
}

async fn get_intentions(ask: &Ask, name: &str) -> Answered {
    if name.is_empty() {
        let (meta, Answer::ServiceIntentionsList(entries)) = ask.read_chosen(Query::ServiceIntentionsList).await?
        else {
            return Err(Failure::unexpected_answer());
        };
        return ask.answer(meta, &entries);
    }
    let (meta, Answer::ServiceIntentions(entry)) = ask.read(Query::ServiceIntentions(name.to_owned())).await? else {
        return Err(Failure::unexpected_answer());
    };
    match entry {
        Some(entry) => ask.answer(meta, &entry),
        None => Ok(meta.onto(absent(ServiceIntentions::KIND, name))),
    }
}

/// `DELETE /v1/config/KIND/NAME`: `{}`; with `cas`, whether it took effect.
pub(super) async fn delete(order: Order, Tail(path): Tail) -> Answered {
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    if kind.is_empty() || name.is_empty() {
        return Err(Refusal::not_found("Must provide both a kind and name to delete").into());
    }
    let cas = order.params.number("cas")?.map(Index);
    let name = name.to_owned();
    let command = if is_intentions(kind) {
        Command::IntentionsDelete(IntentionsDelete { name, cas })
    } else {
        let kind: ConfigKind = kind.parse().map_err(Refusal::bad_request)?;
        Command::ConfigEntryDelete(ConfigEntryDelete { key: ConfigEntryKey { kind, name }, cas })
    };
    let applied = order.write(command).await?;
    if cas.is_some() { order.json(&applied) } else { order.json(&BTreeMap::<String, String>::new()) }
}
