//! `/v1/config`: config entries. One kind is here, `service-intentions`.

use std::collections::BTreeMap;

use lictor_types::command::{IntentionsDelete, IntentionsSet};
use lictor_types::{Answer, Command, Index, Query, Refusal, ServiceIntentions};

use super::body::JsonBody;
use super::caller::{Ask, Order, Tail};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// `PUT /v1/config`: sets an entry; with `cas`, only if it is at that index.
pub(super) async fn put(order: Order, body: JsonBody) -> Answered {
    let decoding = |refusal: Refusal| Refusal {
        text: refusal.text.replacen("Request decode failed", "Request decoding failed", 1),
        ..refusal
    };
    let mut value = decode::parse(&body.0).map_err(decoding)?;
    let kind = decode::text_field(&value, "Kind").to_owned();
    if !is_intentions(&kind) {
        return Err(Failure::bad_request(format!("invalid config entry kind: {kind}")));
    }
    if let Some(entry) = value.as_object_mut() {
        entry.retain(|key, _| !key.eq_ignore_ascii_case("Kind"));
    }
    let entry: ServiceIntentions = decode::from_value(value, Names::SnakeToo).map_err(decoding)?;
    if entry.name.is_empty() {
        return Err(Refusal::failed("Name is required").into());
    }
    let cas = order.params.number("cas")?.map(Index);
    let applied = order.write(Command::IntentionsSet(IntentionsSet { entry, cas })).await?;
    order.json(&applied)
}

/// `GET /v1/config/KIND` and `GET /v1/config/KIND/NAME`.
pub(super) async fn get(ask: Ask, Tail(path): Tail) -> Answered {
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    if kind.is_empty() {
        return Err(Refusal::not_found("Must provide either a kind or both kind and name").into());
    }
    if !is_intentions(kind) {
        return Err(Refusal::failed(format!("invalid config entry kind: {kind}")).into());
    }
    if name.is_empty() {
        let (meta, Answer::ServiceIntentionsList(entries)) = ask.read(Query::ServiceIntentionsList).await? else {
            return Err(Failure::unexpected_answer());
        };
        return ask.answer(meta, &entries);
    }
    let (meta, Answer::ServiceIntentions(entry)) = ask.read(Query::ServiceIntentions(name.to_owned())).await? else {
        return Err(Failure::unexpected_answer());
    };
    match entry {
        Some(entry) => ask.answer(meta, &entry),
        None => Err(Refusal::not_found(format!("Config entry not found for {kind:?} / {name:?}")).into()),
    }
}

/// `DELETE /v1/config/KIND/NAME`: `{}`; with `cas`, whether it took effect.
pub(super) async fn delete(order: Order, Tail(path): Tail) -> Answered {
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    if kind.is_empty() || name.is_empty() {
        return Err(Refusal::not_found("Must provide both a kind and name to delete").into());
    }
    if !is_intentions(kind) {
        return Err(Failure::bad_request(format!("invalid config entry kind: {kind}")));
    }
    let cas = order.params.number("cas")?.map(Index);
    let applied = order.write(Command::IntentionsDelete(IntentionsDelete { name: name.to_owned(), cas })).await?;
    if cas.is_some() { order.json(&applied) } else { order.json(&BTreeMap::<String, String>::new()) }
}

/// Consul takes `ServiceIntentions` and `service_intentions` for `service-intentions`.
fn is_intentions(kind: &str) -> bool {
    kind.replace(['-', '_'], "").eq_ignore_ascii_case("serviceintentions")
}
