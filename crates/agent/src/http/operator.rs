//! `/v1/operator`: what operators of the cluster do.

use std::time::Duration;

use lictor_types::NodeName;
use lictor_types::duration;
use lictor_types::rpc::{CreateJoinToken, Operation, Report};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::Order;
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// How long a join token is valid that does not say.
const JOIN_TOKEN_VALID: Duration = Duration::from_secs(3600);
/// How long a join token may be valid.
const JOIN_TOKEN_VALID_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct JoinTokenBody {
    services: Vec<String>,
    node: Option<NodeName>,
    #[serde(rename = "TTL", with = "duration::optional")]
    ttl: Option<Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JoinTokenMade {
    #[serde(rename = "SecretID")]
    secret_id: String,
    #[serde(rename = "TTL")]
    ttl: String,
}

/// `PUT /v1/operator/join-token`, our own: makes a single-use join token; body
/// `{"Services":["web"],"Node":"web-1","TTL":"10m"}` or none.
pub(super) async fn create_join_token(order: Order, body: JsonBody) -> Answered {
    let JoinTokenBody { services, node, ttl } =
        if body.0.is_empty() { JoinTokenBody::default() } else { decode::decode(&body.0, Names::SnakeToo)? };
    let valid = ttl.unwrap_or(JOIN_TOKEN_VALID);
    if valid < Duration::from_secs(1) || valid > JOIN_TOKEN_VALID_MAX {
        return Err(Failure::bad_request(format!(
            "TTL {} is not between 1s and {}",
            duration::format(valid),
            duration::format(JOIN_TOKEN_VALID_MAX)
        )));
    }
    let wanted = CreateJoinToken { services, valid_seconds: valid.as_secs(), node };
    let Report::JoinToken(secret) = order.operate(Operation::CreateJoinToken(wanted)).await? else {
        return Err(Failure::unexpected_answer());
    };
    order.json(&JoinTokenMade { secret_id: secret.secret, ttl: duration::format(valid) })
}
