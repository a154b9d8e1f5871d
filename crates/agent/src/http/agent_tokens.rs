//! `/v1/agent/token`: the tokens that this agent asks with, replaced while it runs.

use axum::response::Response;
use lictor_types::refusal::RefusalKind;
use lictor_types::{Credential, Refusal, Requirement, Resource};
use serde::Deserialize;

use super::body::JsonBody;
use super::caller::{Caller, Tail};
use super::decode::{self, Names};
use super::failure::Answered;
use crate::tokens::TokenKind;

/// Kinds of tokens that Consul's agents have and ours have no use for.
const OF_NO_USE: [&str; 5] =
    ["agent_recovery", "agent_master", "acl_agent_master_token", "replication", "acl_replication_token"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TokenBody {
    token: String,
}

/// `PUT /v1/agent/token/KIND`.
pub(super) async fn update(caller: Caller, Tail(name): Tail, body: JsonBody) -> Answered {
    let agent = &caller.door.agent;
    if !agent.identity.acl_enabled {
        return Err(Refusal::new(RefusalKind::Unauthorized, "ACL support disabled").into());
    }
    caller.require(Requirement::write(Resource::Agent, agent.identity.node_name.as_str())).await?;
    let TokenBody { token } = decode::decode(&body.0, Names::AnyCase)?;
    if OF_NO_USE.contains(&name.as_str()) {
        let text =
            format!("Token {name:?} is not used here: there is no recovery by a local token, and no replication");
        return Err(Refusal::bad_request(text).into());
    }
    let Some(kind) = TokenKind::named(&name) else {
        return Err(Refusal::not_found(format!("Token {name:?} is unknown")).into());
    };
    agent.local.replace_token(kind, Credential::new(token)).await?;
    tracing::info!(token = kind.name(), "Updated agent's ACL token");
    Ok(Response::default())
}

#[cfg(test)]
mod tests {
    use lictor_types::Answer;

    use crate::http::double::{Tested, at};

    #[tokio::test]
    async fn a_token_is_replaced_by_whoever_may_write_the_agent() {
        let off = Tested::answering(at(1, Answer::Keys(Vec::new())));
        let got = off.call("PUT", "/v1/agent/token/default", "{}").await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (401, "ACL support disabled"));
        let on = Tested::guarded(at(1, Answer::Keys(Vec::new())));
        let put = async |name: &str| {
            let got = on.call("PUT", &format!("/v1/agent/token/{name}"), "{\"Token\": \"new\"}").await;
            (got.status.as_u16(), got.body)
        };
        assert_eq!(put("other").await, (404, "Token \"other\" is unknown".into()));
        assert_eq!(put("replication").await.0, 400);
        assert_eq!(put("acl_token").await, (200, String::new()));
        on.double.forbidden.lock().push("n1".into());
        assert_eq!(put("default").await.0, 403);
        let tokens: Vec<String> =
            on.double.asked.lock().operations.iter().map(|(token, _)| token.secret.clone()).collect();
        assert!(tokens.contains(&"new".to_owned()), "{tokens:?}");
    }
}
