//! `/v1/connect`: roots of the mesh CA, and intentions.

use std::collections::BTreeMap;

use axum::response::IntoResponse;
use http::header;
use lictor_types::command::{IntentionDelete, IntentionUpsert};
use lictor_types::intention::{Action, decide};
use lictor_types::query::{IntentionMatch, IntentionQuery};
use lictor_types::{Answer, CaRoots, Command, Intention, Query, Refusal, SourceIntention};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::JsonBody;
use super::caller::{Ask, Meta, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};
use super::params::Params;

/// Names in one `match`.
const MATCH_NAMES_MAX: usize = 32;

/// The roots of the mesh CA.
///
/// # Errors
/// 500 before the first leader has made them.
pub(super) async fn read_roots(ask: &Ask) -> Result<(Meta, CaRoots), Failure> {
    let (meta, Answer::CaRoots(roots)) = ask.read(Query::CaRoots).await? else {
        return Err(Failure::unexpected_answer());
    };
    let absent = || Refusal::failed("CA is uninitialized and unable to sign certificates yet: no leader has made it");
    Ok((meta, roots.ok_or_else(absent)?))
}

/// `GET /v1/connect/ca/roots`, and the same under `agent`; with `pem`, only the certificates.
pub(super) async fn roots(ask: Ask) -> Answered {
    let (meta, roots) = read_roots(&ask).await?;
    if ask.params.flag("pem")? {
        let pem: String = roots.roots.iter().map(|root| format!("{}\n", root.root_cert.trim_end())).collect();
        return Ok(meta.onto(([(header::CONTENT_TYPE, "application/pem-certificate-chain")], pem).into_response()));
    }
    ask.answer(meta, &roots)
}

/// `GET /v1/connect/intentions`.
pub(super) async fn intentions(ask: Ask) -> Answered {
    let (meta, Answer::Intentions(intentions)) = ask.read_chosen(Query::Intentions).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &intentions)
}

/// `GET /v1/connect/intentions/exact`.
pub(super) async fn exact(ask: Ask) -> Answered {
    let (source, destination) = ends(&ask.params)?;
    let query = Query::IntentionExact(IntentionQuery { source, destination });
    let (meta, Answer::Intention(intention)) = ask.read(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    match intention {
        Some(intention) => ask.answer(meta, &intention),
        None => Err(Refusal::not_found("Intention not found").into()),
    }
}

/// What `PUT connect/intentions/exact` takes: an intention as it is shown, of which this much counts.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IntentionBody {
    description: String,
    #[serde(rename = "SourceNS")]
    source_ns: String,
    source_name: String,
    #[serde(rename = "DestinationNS")]
    destination_ns: String,
    destination_name: String,
    source_type: String,
    action: Option<Action>,
    permissions: Vec<Value>,
    meta: BTreeMap<String, String>,
}

/// `PUT /v1/connect/intentions/exact`.
pub(super) async fn set_exact(order: Order, body: JsonBody) -> Answered {
    let (source, destination) = ends(&order.params)?;
    let body: IntentionBody = decode::decode(&body.0, Names::AnyCase)?;
    for (name, expected) in [(&body.source_name, &source), (&body.destination_name, &destination)] {
        if !name.is_empty() && name != expected {
            return Err(Failure::bad_request(format!("the body names {name:?}, the query string {expected:?}")));
        }
    }
    for namespace in [&body.source_ns, &body.destination_ns] {
        if !namespace.is_empty() && namespace != "default" {
            return Err(Failure::bad_request(format!(
                "namespace {namespace:?} does not exist; there is only \"default\""
            )));
        }
    }
    if !body.source_type.is_empty() && body.source_type != "consul" {
        return Err(Refusal::failed("SourceType must be set to 'consul'").into());
    }
    if !body.permissions.is_empty() {
        return Err(Failure::bad_request("Permissions are not supported yet; use Action"));
    }
    if !body.meta.is_empty() {
        return Err(Failure::bad_request("Meta is not supported here; set it in the service-intentions config entry"));
    }
    let Some(action) = body.action else {
        return Err(Failure::bad_request("Action must be set to 'allow' or 'deny'"));
    };
    let source = SourceIntention {
        name: source,
        action,
        precedence: 0,
        kind: SourceIntention::consul_type(),
        description: body.description,
        created_at: lictor_types::Timestamp(0),
        updated_at: lictor_types::Timestamp(0),
    };
    order.write(Command::IntentionUpsert(IntentionUpsert { destination, source })).await?;
    order.json(&true)
}

/// `DELETE /v1/connect/intentions/exact`.
pub(super) async fn delete_exact(order: Order) -> Answered {
    let (source, destination) = ends(&order.params)?;
    order.write(Command::IntentionDelete(IntentionDelete { destination, source })).await?;
    order.json(&true)
}

/// `GET /v1/connect/intentions/match`: by name, the intentions that may matter to it. Blocks when one name is asked.
pub(super) async fn matching(ask: Ask) -> Answered {
    let by_source = match required(&ask.params, "by")? {
        "source" => true,
        "destination" => false,
        _ => return Err(Failure::bad_request("'by' parameter must be one of 'source' or 'destination'")),
    };
    let names = ask.params.all("name").map(service_name).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(missing("name").into());
    }
    if names.len() > MATCH_NAMES_MAX {
        return Err(Failure::bad_request(format!(
            "{} names are asked for, at most {MATCH_NAMES_MAX} are",
            names.len()
        )));
    }
    let mut answered: Option<Meta> = None;
    let mut matched: BTreeMap<String, Vec<Intention>> = BTreeMap::new();
    let alone = names.len() == 1;
    for name in names {
        let query = Query::IntentionMatch(IntentionMatch { by_source, name: name.clone() });
        let (meta, answer) = if alone { ask.read(query).await? } else { ask.read_now(query).await? };
        let Answer::Intentions(intentions) = answer else { return Err(Failure::unexpected_answer()) };
        answered = Some(answered.map_or(meta, |before| before.with(meta)));
        matched.insert(name, intentions);
    }
    let meta = answered.ok_or_else(Failure::unexpected_answer)?;
    ask.answer(meta, &matched)
}

/// `GET /v1/connect/intentions/check`: whether a call would be allowed.
pub(super) async fn check(ask: Ask) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Checked {
        allowed: bool,
    }
    let (source, destination) = ends(&ask.params)?;
    if !matches!(ask.params.text("source-type"), None | Some("consul")) {
        return Err(Failure::bad_request("'source-type' must be 'consul'"));
    }
    let query = Query::IntentionMatch(IntentionMatch { by_source: false, name: destination.clone() });
    let (meta, Answer::Intentions(intentions)) = ask.read_now(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    if meta.filtered {
        return Err(Refusal::permission_denied(format!("'intention:read' on {destination:?} is needed")).into());
    }
    let default = ask.door.agent.config.load().default_intention_allow;
    let allowed = decide(&intentions, &source, &destination).map_or(default, |it| it.source.action == Action::Allow);
    ask.json(&Checked { allowed })
}

/// Source and destination of an exact intention.
fn ends(params: &Params) -> Result<(String, String), Refusal> {
    Ok((service_name(required(params, "source")?)?, service_name(required(params, "destination")?)?))
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Refusal> {
    params.text(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Refusal {
    Refusal::bad_request(format!("required query parameter '{name}' not set"))
}

/// The name in `[[partition/]namespace/]name`; there is only `default` of the first two.
fn service_name(text: &str) -> Result<String, Refusal> {
    let mut parts = text.rsplit('/');
    let name = parts.next().unwrap_or_default();
    let scope: Vec<_> = parts.collect();
    if name.is_empty() || scope.len() > 2 || scope.iter().any(|part| *part != "default") {
        return Err(Refusal::bad_request(format!(
            "{text:?} does not name a service: write a name or \"default/NAME\" (namespaces are an Enterprise feature)"
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_or_without_the_default_namespace() {
        for (text, name) in [
            ("web", Some("web")),
            ("default/web", Some("web")),
            ("default/default/*", Some("*")),
            ("other/web", None),
            ("", None),
            ("default/", None),
            ("a/b/c/d", None),
        ] {
            assert_eq!(service_name(text).ok().as_deref(), name, "{text}");
        }
    }
}
