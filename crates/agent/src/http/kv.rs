//! `/v1/kv`: the key/value store.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use lictor_types::command::KvCommand;
use lictor_types::kv::KEY_BYTES_MAX;
use lictor_types::query::KeysQuery;
use lictor_types::{Answer, Command, Index, KvEntry, KvVerb, Query, Refusal};

use super::body::ValueBody;
use super::caller::{Ask, Meta, Order, Tail};
use super::failure::{Answered, Failure, text};
use super::params::Params;

/// `GET /v1/kv/KEY`: one entry; everything under it with `recurse`; only names with `keys`; the bare value with `raw`.
pub(super) async fn get(ask: Ask, Tail(key): Tail) -> Answered {
    if ask.params.has("keys") {
        return keys(ask, key).await;
    }
    if ask.params.has("recurse") {
        let (meta, Answer::KvEntries(entries)) = ask.read(Query::KvList(key)).await? else {
            return Err(Failure::unexpected_answer());
        };
        return entries_or_absent(&ask, meta, entries);
    }
    check_key(&key)?;
    let (meta, Answer::KvEntry(entry)) = ask.read(Query::KvGet(key)).await? else {
        return Err(Failure::unexpected_answer());
    };
    entries_or_absent(&ask, meta, entry.into_iter().collect())
}

fn entries_or_absent(ask: &Ask, meta: Meta, mut entries: Vec<KvEntry>) -> Answered {
    if entries.is_empty() {
        return Ok(Ask::absent(meta));
    }
    if ask.params.has("raw") {
        return Ok(meta.onto(raw(entries.swap_remove(0).value)));
    }
    ask.answer(meta, &entries)
}

/// A value as it is; no browser may take it for a page of ours.
fn raw(value: Vec<u8>) -> Response {
    let mut response = Response::new(Bytes::from(value).into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("content-security-policy"), HeaderValue::from_static("sandbox"));
    response
}

async fn keys(ask: Ask, prefix: String) -> Answered {
    // Consul has long taken the second spelling too.
    let separator = ask.params.get("separator").or_else(|| ask.params.get("seperator")).unwrap_or_default().to_owned();
    let at_root = prefix.is_empty();
    let (meta, Answer::Keys(keys)) = ask.read(Query::KvKeys(KeysQuery { prefix, separator })).await? else {
        return Err(Failure::unexpected_answer());
    };
    if keys.is_empty() && !at_root { Ok(Ask::absent(meta)) } else { ask.answer(meta, &keys) }
}

/// `PUT /v1/kv/KEY`: stores the body; with `cas`, only if the entry is at that index; with `acquire` or `release`, only if
/// that session can take or give back the lock.
pub(super) async fn put(order: Order, Tail(key): Tail, body: ValueBody) -> Answered {
    check_key(&key)?;
    if let Some(refused) = conflicting(&order.params, &["cas", "acquire", "release"]) {
        return Ok(refused);
    }
    let flags = order.params.number("flags")?.unwrap_or_default();
    let verb = match order.params.number("cas")? {
        Some(index) => KvVerb::Cas(Index(index)),
        None => match (order.params.get("acquire"), order.params.get("release")) {
            (Some(session), _) => KvVerb::Lock(session.into()),
            (None, Some(session)) => KvVerb::Unlock(session.into()),
            (None, None) => KvVerb::Set,
        },
    };
    let command = KvCommand { verb, key, value: body.0.into(), flags };
    let applied = order.write(Command::Kv(command)).await?;
    order.json(&applied)
}

/// `DELETE /v1/kv/KEY`: removes an entry, everything under it with `recurse`, or only at an index with `cas`.
pub(super) async fn delete(order: Order, Tail(key): Tail) -> Answered {
    let recurse = order.params.has("recurse");
    if !recurse {
        check_key(&key)?;
    }
    if let Some(refused) = conflicting(&order.params, &["recurse", "cas"]) {
        return Ok(refused);
    }
    let verb = match order.params.number("cas")? {
        _ if recurse => {
            if may_take_more_than_meant(&key) {
                tracing::warn!(
                    prefix = key,
                    "a recursive delete of a prefix without \"/\" at its end: it takes every key that begins so, not only \
                     those below it"
                );
            }
            KvVerb::DeleteTree
        }
        Some(index) => KvVerb::DeleteCas(Index(index)),
        None => KvVerb::Delete,
    };
    let applied = order.write(Command::Kv(KvCommand { verb, key, value: Vec::new(), flags: 0 })).await?;
    order.json(&applied)
}

/// Whether a prefix reaches beyond a folder. Fly.io, 4 June 2024: "node-1" was deleted, and "node-10" with it.
fn may_take_more_than_meant(prefix: &str) -> bool {
    !prefix.is_empty() && !prefix.ends_with('/')
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::bad_request("Missing key name"));
    }
    check_key_length(key)
}

pub(super) fn check_key_length(key: &str) -> Result<(), Refusal> {
    if key.len() > KEY_BYTES_MAX {
        let length = key.len();
        return Err(Refusal::bad_request(format!(
            "the key is {length} bytes long, at most {KEY_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

/// Consul's answer to parameters that exclude each other.
fn conflicting(params: &Params, names: &[&str]) -> Option<Response> {
    let given = names.iter().filter(|name| params.has(name)).count();
    (given > 1).then(|| text(StatusCode::BAD_REQUEST, format!("Conflicting flags: {}\n", params.encode())))
}
