//! `/v1/operator/keyring`: the keys of gossip. There is no gossip yet and so no key: parameters and rights are judged all the
//! same, and the answers are those of a Consul without encryption.

use lictor_types::{Refusal, Requirement, Resource};
use serde::Deserialize;

use super::body::JsonBody;
use super::caller::{Caller, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// Members that an answer may be relayed through.
const RELAY_FACTOR_MAX: i64 = 5;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KeyBody {
    key: String,
}

/// `GET /v1/operator/keyring`: the keys that are installed.
pub(super) async fn list(order: Order) -> Answered {
    check_relay_factor(&order)?;
    if let Some(text) = order.params.text("local-only") {
        go_bool("local-only", text)?;
    }
    order.require(Requirement::read(Resource::Operator, "")).await?;
    Err(without_keys(&order, "Keyring is empty (encryption not enabled)"))
}

/// `POST`, `PUT` and `DELETE /v1/operator/keyring`: installs, uses or removes the key of the body.
pub(super) async fn change(order: Order, body: JsonBody) -> Answered {
    let KeyBody { key } = decode::decode(&body.0, Names::AnyCase)?;
    check_relay_factor(&order)?;
    if let Some(text) = order.params.text("local-only")
        && go_bool("local-only", text)?
    {
        return Err(Failure::bad_request("Invalid use of local-only: local-only can only be set for list requests"));
    }
    order.require(Requirement::write(Resource::Operator, "")).await?;
    if key.is_empty() {
        return Err(Failure::bad_request("Key is missing: a gossip key in base64, as `keygen` makes one"));
    }
    Err(without_keys(&order, "No keyring to modify (encryption not enabled)"))
}

fn check_relay_factor(caller: &Caller) -> Result<(), Refusal> {
    let Some(text) = caller.params.text("relay-factor") else { return Ok(()) };
    let number: i64 = text.parse().map_err(|_| {
        Refusal::bad_request(format!("Error parsing relay factor: strconv.Atoi: parsing {text:?}: invalid syntax"))
    })?;
    if !(0..=RELAY_FACTOR_MAX).contains(&number) {
        return Err(Refusal::bad_request("Invalid relay-factor: relay factor must be in range: [0, 5]"));
    }
    Ok(())
}

fn go_bool(name: &str, text: &str) -> Result<bool, Refusal> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Refusal::bad_request(format!(
            "Error parsing {name}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))),
    }
}

fn without_keys(caller: &Caller, what: &str) -> Failure {
    let datacenter = &caller.door.agent.identity.datacenter;
    Failure(Refusal::failed(format!("1 error occurred:\n\t* {datacenter} (LAN) error: {what}\n\n")))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use lictor_types::Answer;

    use crate::http::double::{Tested, at};

    #[tokio::test]
    async fn without_gossip_the_keyring_is_empty_and_says_so() {
        let door = Tested::answering(at(1, Answer::Keys(Vec::new())));
        let got = door.get("/v1/operator/keyring").await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(got.body.contains("dc1 (LAN) error: Keyring is empty (encryption not enabled)"), "{}", got.body);
        let key = r#"{"Key":"pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="}"#;
        for method in ["POST", "PUT", "DELETE"] {
            let got = door.call(method, "/v1/operator/keyring", key).await;
            assert!(got.body.contains("No keyring to modify"), "{method}: {}", got.body);
        }
        for (path, words) in [
            ("?relay-factor=x", "Error parsing relay factor: "),
            ("?relay-factor=6", "Invalid relay-factor: "),
            ("?local-only=x", "Error parsing local-only: "),
        ] {
            let got = door.get(&format!("/v1/operator/keyring{path}")).await;
            assert_eq!(got.status, StatusCode::BAD_REQUEST, "{path}");
            assert!(got.body.starts_with(words), "{}", got.body);
        }
        let got = door.call("PUT", "/v1/operator/keyring?local-only=true", key).await;
        assert!(got.body.starts_with("Invalid use of local-only"), "{}", got.body);
        door.double.forbidden.lock().push(String::new());
        assert_eq!(door.get("/v1/operator/keyring").await.status, StatusCode::FORBIDDEN);
    }
}
