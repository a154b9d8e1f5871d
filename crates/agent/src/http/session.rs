//! `/v1/session`: what locks are held by.

use std::time::Duration;

use axum::response::Response;
use lictor_types::check::SERF_HEALTH;
use lictor_types::rpc::{Operation, Report};
use lictor_types::session::{LOCK_DELAY_DEFAULT, ServiceCheck, SessionBehavior, SessionDestroy};
use lictor_types::{Answer, Command, Index, NodeName, Query, Refusal, Session, duration};
use serde_json::Value;

use super::body::JsonBody;
use super::caller::{Ask, Order, Tail};
use super::catalog::node_in_path;
use super::decode;
use super::failure::{Answered, Failure};

/// A lock-delay below this is seconds, from it on nanoseconds, as in Consul.
const LOCK_DELAY_SECONDS_BELOW: f64 = 1000.0;

/// `PUT /v1/session/create`.
pub(super) async fn create(order: Order, body: JsonBody) -> Answered {
    let value = if body.0.is_empty() { Value::Null } else { decode::parse(&body.0)? };
    let identity = &order.door.agent.identity;
    if let Some(named) = text(&value, "Datacenter")?.filter(|named| !named.eq_ignore_ascii_case(&identity.datacenter)) {
        tracing::debug!(datacenter = named, "a session for another datacenter");
        return Err(Refusal::failed("No path to datacenter").into());
    }
    let session = session_of(&value, order.door.agent.rng.uuid(), &identity.node_name)?;
    let created = [("ID", session.id.clone())];
    order.write(Command::SessionCreate(session)).await?;
    order.json(&std::collections::BTreeMap::from(created))
}

/// The session that a body asks for. Unknown fields are skipped here, and here alone, as Consul does.
fn session_of(body: &Value, id: String, this_node: &NodeName) -> Result<Session, Refusal> {
    let node = match text(body, "Node")? {
        Some("") => return Err(Refusal::failed("Must provide Node")),
        Some(name) => name.parse().map_err(|error| wrong("Node", &error))?,
        None => this_node.clone(),
    };
    let behavior = match text(body, "Behavior")?.unwrap_or_default() {
        "" | "release" => SessionBehavior::Release,
        "delete" => SessionBehavior::Delete,
        other => return Err(Refusal::failed(format!("Invalid Behavior setting '{other}'"))),
    };
    Ok(Session {
        id,
        name: text(body, "Name")?.unwrap_or_default().into(),
        node,
        lock_delay: lock_delay(body)?.as_nanos() as u64,
        behavior,
        ttl: text(body, "TTL")?.unwrap_or_default().into(),
        node_checks: node_checks(body)?,
        service_checks: service_checks(body)?,
        create_index: Index(0),
        modify_index: Index(0),
    })
}

fn wrong(field: &str, what: &dyn std::fmt::Display) -> Refusal {
    Refusal::bad_request(format!("Request decode failed: {field}: {what}"))
}

/// The field `name` in any case; null is none.
fn given<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    decode::field(body, name).filter(|value| !value.is_null())
}

fn text<'a>(body: &'a Value, name: &str) -> Result<Option<&'a str>, Refusal> {
    match given(body, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(name, &format_args!("a text is needed, not {other}"))),
    }
}

fn list<'a>(body: &'a Value, name: &str) -> Result<Option<&'a [Value]>, Refusal> {
    match given(body, name) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(wrong(name, &format_args!("a list is needed, not {other}"))),
    }
}

fn lock_delay(body: &Value) -> Result<Duration, Refusal> {
    match given(body, "LockDelay") {
        None => Ok(LOCK_DELAY_DEFAULT),
        Some(Value::String(text)) => duration::parse(text)
            .map_err(|_| Refusal::bad_request(format!("Request decode failed: time: invalid duration {text:?}"))),
        Some(Value::Number(number)) => match number.as_f64().unwrap_or_default() {
            number if number < 0.0 => Err(wrong("LockDelay", &"it must not be below 0")),
            number if number < LOCK_DELAY_SECONDS_BELOW => Ok(Duration::from_secs_f64(number)),
            number => Ok(Duration::from_nanos(number as u64)),
        },
        Some(other) => Err(wrong("LockDelay", &format_args!("a duration or a number is needed, not {other}"))),
    }
}

/// `NodeChecks`, and the older `Checks` that means the same; with neither the node's own health. A list that is empty
/// asks for a session that no check ends.
fn node_checks(body: &Value) -> Result<Vec<String>, Refusal> {
    let mut checks: Vec<String> = Vec::new();
    let mut is_given = false;
    for name in ["NodeChecks", "Checks"] {
        if let Some(items) = list(body, name)? {
            is_given = true;
            for item in items {
                let check = item.as_str().ok_or_else(|| wrong(name, &"a list of check ids is needed"))?;
                if !checks.iter().any(|known| known == check) {
                    checks.push(check.into());
                }
            }
        }
    }
    Ok(if is_given { checks } else { vec![SERF_HEALTH.into()] })
}

fn service_checks(body: &Value) -> Result<Vec<ServiceCheck>, Refusal> {
    let items = list(body, "ServiceChecks")?.unwrap_or_default();
    let check = |item: &Value| match decode::text_field(item, "ID") {
        "" => Err(wrong("ServiceChecks", &"each needs an ID")),
        id => Ok(ServiceCheck { id: id.into(), namespace: String::new() }),
    };
    items.iter().map(check).collect()
}

fn id_in_path(id: String) -> Result<String, Refusal> {
    if id.is_empty() { Err(Refusal::bad_request("Missing session")) } else { Ok(id) }
}

/// `PUT /v1/session/destroy/ID`: `true`, also when there is none.
pub(super) async fn destroy(order: Order, Tail(id): Tail) -> Answered {
    let id = id_in_path(id)?;
    let applied = order.write(Command::SessionDestroy(SessionDestroy { id, authorized_node: None })).await?;
    order.json(&applied)
}

/// `PUT /v1/session/renew/ID`: the session, in a list.
pub(super) async fn renew(order: Order, Tail(id): Tail) -> Answered {
    let id = id_in_path(id)?;
    match order.operate(Operation::RenewSession(id.clone())).await? {
        Report::Session(Some(session)) => order.json(&[session]),
        Report::Session(None) => Err(Refusal::not_found(format!("Session id '{id}' not found")).into()),
        _ => Err(Failure::unexpected_answer()),
    }
}

/// `GET /v1/session/info/ID`: a list, empty when there is none.
pub(super) async fn info(ask: Ask, Tail(id): Tail) -> Answered {
    let id = id_in_path(id)?;
    sessions(&ask, Query::Session(id)).await
}

/// `GET /v1/session/node/NODE`.
pub(super) async fn node(ask: Ask, Tail(node): Tail) -> Answered {
    sessions(&ask, Query::NodeSessions(node_in_path(node)?)).await
}

/// `GET /v1/session/list`.
pub(super) async fn list_all(ask: Ask) -> Answered {
    sessions(&ask, Query::Sessions).await
}

async fn sessions(ask: &Ask, query: Query) -> Result<Response, Failure> {
    let (meta, Answer::Sessions(sessions)) = ask.read(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &sessions)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(body: Value) -> Result<Session, String> {
        session_of(&body, "id".into(), &"n1".parse().unwrap()).map_err(|refusal| refusal.text)
    }

    #[test]
    fn a_body_that_says_nothing_gets_consuls_defaults() {
        for body in [Value::Null, json!({}), json!({"Unknown": 1, "TTL": null})] {
            let session = of(body).unwrap();
            assert_eq!((session.node.as_str(), session.lock_delay), ("n1", 15_000_000_000));
            assert_eq!(
                (session.node_checks, session.behavior),
                (vec!["serfHealth".to_owned()], SessionBehavior::Release)
            );
        }
    }

    #[test]
    fn a_lock_delay_is_a_duration_or_seconds_below_a_thousand_or_nanoseconds() {
        for (delay, nanos) in [
            (json!("90s"), 90_000_000_000),
            (json!(30), 30_000_000_000),
            (json!(1.5), 1_500_000_000),
            (json!(1000), 1000),
            (json!(15_000_000_000_u64), 15_000_000_000),
            (json!(0), 0),
        ] {
            assert_eq!(of(json!({"LockDelay": delay})).unwrap().lock_delay, nanos, "{delay}");
        }
        assert!(
            of(json!({"LockDelay": "soon"})).unwrap_err().starts_with("Request decode failed: time: invalid duration")
        );
        assert!(of(json!({"LockDelay": -1})).is_err());
    }

    #[test]
    fn checks_are_taken_by_their_old_and_their_new_name() {
        let checks = |body| of(body).unwrap().node_checks;
        assert_eq!(checks(json!({"NodeChecks": []})), Vec::<String>::new());
        assert_eq!(checks(json!({"checks": ["a"]})), ["a"]);
        assert_eq!(checks(json!({"NodeChecks": ["b"], "Checks": ["a", "b"]})), ["b", "a"]);
        let session = of(json!({"ServiceChecks": [{"ID": "service:web"}]})).unwrap();
        assert_eq!(
            (session.service_checks[0].id.as_str(), session.node_checks[0].as_str()),
            ("service:web", "serfHealth")
        );
        assert_eq!(of(json!({"Behavior": "keep"})).unwrap_err(), "Invalid Behavior setting 'keep'");
    }
}
