//! `/v1/agent/connect/authorize`: whether a client with this certificate may call a service, for proxies that ask an agent.

use axum::response::Response;
use http::HeaderValue;
use lictor_identity::SpiffeId;
use lictor_types::intention::{Action, decide};
use lictor_types::query::IntentionMatch;
use lictor_types::{Answer, Intention, Query, Refusal, Requirement, Resource};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::Ask;
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AuthorizeBody {
    target: String,
    #[serde(rename = "ClientCertURI")]
    client_cert_uri: String,
    client_cert_serial: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decision {
    authorized: bool,
    reason: String,
}

/// `POST /v1/agent/connect/authorize`.
pub(super) async fn authorize(ask: Ask, body: JsonBody) -> Answered {
    let body: AuthorizeBody = decode::decode(&body.0, Names::AnyCase)?;
    if body.target.is_empty() {
        return Err(Failure::bad_request("Target service must be specified"));
    }
    let invalid = || Refusal::bad_request("ClientCertURI not a valid Connect identifier");
    let source = match body.client_cert_uri.parse::<SpiffeId>().map_err(|_| invalid())? {
        SpiffeId::Service { service, .. } => service.as_str().to_owned(),
        _ => return Err(Failure::bad_request("ClientCertURI must identify a service")),
    };
    tracing::debug!(serial = body.client_cert_serial, source, target = body.target, "asked whether a call is allowed");
    ask.require(Requirement::write(Resource::Service, body.target.as_str())).await?;
    let query = Query::IntentionMatch(IntentionMatch { by_source: false, name: body.target.clone() });
    let (meta, Answer::Intentions(intentions)) = ask.read_now(query).await? else {
        return Err(Failure::unexpected_answer());
    };
    if meta.filtered {
        return Err(Refusal::permission_denied(format!("'intention:read' on {:?} is needed", body.target)).into());
    }
    let (authorized, reason) = match decide(&intentions, &source, &body.target) {
        Some(intention) => (intention.source.action == Action::Allow, reason(intention)),
        None => (ask.door.agent.config.load().default_intention_allow, "Default intention policy".to_owned()),
    };
    let mut response: Response = ask.json(&Decision { authorized, reason })?;
    // Intentions are read anew for every question.
    response.headers_mut().insert("x-cache", HeaderValue::from_static("MISS"));
    Ok(response)
}

fn reason(intention: &Intention) -> String {
    let source = &intention.source;
    let action = if source.action == Action::Allow { "ALLOW" } else { "DENY" };
    format!(
        "Matched L4 intention: default/{} => default/{} (Precedence: {}, Action: {action})",
        source.name, intention.destination, source.precedence
    )
}

#[cfg(test)]
mod tests {
    use lictor_types::{Index, SourceIntention, Timestamp};

    use super::*;
    use crate::http::double::{Tested, at};

    fn intention(source: &str, action: Action) -> Intention {
        let source = SourceIntention {
            name: source.into(),
            action,
            precedence: 9,
            kind: SourceIntention::consul_type(),
            description: String::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        let meta = std::collections::BTreeMap::new();
        Intention { destination: "db".into(), source, create_index: Index(1), modify_index: Index(1), meta }
    }

    #[tokio::test]
    async fn intentions_decide_and_then_the_default() {
        let known = vec![intention("web", Action::Allow), intention("bad", Action::Deny)];
        let tested = Tested::guarded(at(3, Answer::Intentions(known)));
        let uri = |service: &str| {
            format!("spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/{service}")
        };
        let ask = async |target: &str, uri: &str| {
            let body =
                serde_json::json!({"Target": target, "ClientCertURI": uri, "ClientCertSerial": "01"}).to_string();
            let got = tested.call("POST", "/v1/agent/connect/authorize", &body).await;
            (got.status.as_u16(), got.body)
        };
        let (status, body) = ask("db", &uri("web")).await;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("\"Authorized\":true") && body.contains("Matched L4 intention: default/web"), "{body}");
        assert!(ask("db", &uri("bad")).await.1.contains("\"Authorized\":false"));
        assert!(ask("db", &uri("other")).await.1.contains("Default intention policy"));
        assert_eq!(ask("", &uri("web")).await, (400, "Target service must be specified".into()));
        assert_eq!(ask("db", "x").await, (400, "ClientCertURI not a valid Connect identifier".into()));
        tested.double.forbidden.lock().push("db".into());
        assert_eq!(ask("db", &uri("web")).await.0, 403);
    }
}
