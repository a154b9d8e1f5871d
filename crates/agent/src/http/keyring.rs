//! `/v1/operator/keyring`: the keys of gossip, listed and changed at every member of both pools.

use lictor_types::keyring::{KeyringAnswer, KeyringOperation, KeyringRequest};
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Credential, Refusal};
use serde::Deserialize;

use axum::response::Response;

use super::body::JsonBody;
use super::caller::{Caller, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// Members that an answer may be relayed through.
const RELAY_FACTOR_MAX: u8 = 5;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KeyBody {
    key: String,
}

/// `GET /v1/operator/keyring`: the keys that are installed, and at how many members.
pub(super) async fn list(order: Order) -> Answered {
    let relay_factor = relay_factor(&order)?;
    let local_only = order.params.text("local-only").map(|text| go_bool("local-only", text)).transpose()?;
    let asked = KeyringRequest {
        operation: KeyringOperation::List,
        key: Credential::anonymous(),
        relay_factor,
        local_only: local_only.unwrap_or_default(),
    };
    let answers = ask(&order, asked).await?;
    order.json(&answers)
}

/// `POST /v1/operator/keyring`: adds the key of the body to those that are understood.
pub(super) async fn install(order: Order, body: JsonBody) -> Answered {
    change(order, body, KeyringOperation::Install).await
}

/// `PUT /v1/operator/keyring`: encrypts with the key of the body from now on.
pub(super) async fn make_primary(order: Order, body: JsonBody) -> Answered {
    change(order, body, KeyringOperation::Use).await
}

/// `DELETE /v1/operator/keyring`: takes the key of the body out.
pub(super) async fn remove(order: Order, body: JsonBody) -> Answered {
    change(order, body, KeyringOperation::Remove).await
}

async fn change(order: Order, body: JsonBody, operation: KeyringOperation) -> Answered {
    let KeyBody { key } = decode::decode(&body.0, Names::AnyCase)?;
    let relay_factor = relay_factor(&order)?;
    if let Some(text) = order.params.text("local-only")
        && go_bool("local-only", text)?
    {
        return Err(Failure::bad_request("Invalid use of local-only: local-only can only be set for list requests"));
    }
    if key.is_empty() {
        return Err(Failure::bad_request("Key is missing: a gossip key in base64, as `keygen` makes one"));
    }
    ask(&order, KeyringRequest { operation, key: Credential::new(key), relay_factor, local_only: false }).await?;
    Ok(Response::default())
}

/// What the pools answered; a refusal in Consul's words if one of them did not do it.
async fn ask(caller: &Caller, asked: KeyringRequest) -> Result<Vec<KeyringAnswer>, Failure> {
    let Report::Keyring(answers) = caller.operate(Operation::Keyring(asked)).await? else {
        return Err(Failure::unexpected_answer());
    };
    let told = |it: &KeyringAnswer| {
        let pool = if it.wan { "WAN" } else { "LAN" };
        let of_members: String = it.messages.iter().map(|(node, text)| format!("; {node}: {text}")).collect();
        format!("\t* {} ({pool}) error: {}{of_members}\n", it.datacenter, it.error)
    };
    let problems: Vec<String> = answers.iter().filter(|it| !it.error.is_empty()).map(told).collect();
    match problems.len() {
        0 => Ok(answers),
        1 => Err(Refusal::failed(format!("1 error occurred:\n{}\n", problems.concat())).into()),
        count => Err(Refusal::failed(format!("{count} errors occurred:\n{}\n", problems.concat())).into()),
    }
}

fn relay_factor(caller: &Caller) -> Result<u8, Refusal> {
    let Some(text) = caller.params.text("relay-factor") else { return Ok(0) };
    let number: i64 = text.parse().map_err(|_| {
        Refusal::bad_request(format!("Error parsing relay factor: strconv.Atoi: parsing {text:?}: invalid syntax"))
    })?;
    u8::try_from(number)
        .ok()
        .filter(|number| *number <= RELAY_FACTOR_MAX)
        .ok_or_else(|| Refusal::bad_request("Invalid relay-factor: relay factor must be in range: [0, 5]"))
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

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use lictor_types::Answer;

    use crate::http::double::{Tested, at};

    const KEY: &str = r#"{"Key":"pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="}"#;

    #[tokio::test]
    async fn without_keys_the_keyring_is_empty_and_says_so() {
        let door = Tested::answering(at(1, Answer::Keys(Vec::new())));
        let got = door.get("/v1/operator/keyring").await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            got.body,
            "2 errors occurred:\n\t* dc1 (WAN) error: Keyring is empty (encryption not enabled)\n\t* dc1 (LAN) error: \
             Keyring is empty (encryption not enabled)\n\n"
        );
        for method in ["POST", "PUT", "DELETE"] {
            let got = door.call(method, "/v1/operator/keyring", KEY).await;
            assert!(got.body.contains("No keyring to modify"), "{method}: {}", got.body);
        }
    }

    #[tokio::test]
    async fn keys_are_listed_and_changed_and_a_member_that_could_not_is_an_error() {
        let door = Tested::answering(at(1, Answer::Keys(Vec::new())));
        *door.double.encrypted.lock() = true;
        let got = door.get("/v1/operator/keyring").await;
        assert_eq!(
            got.body,
            "[{\"WAN\":true,\"Datacenter\":\"dc1\",\"Segment\":\"\",\"Keys\":{\"K\":1},\"PrimaryKeys\":{\"K\":1},\"NumNodes\":1},\
             {\"WAN\":false,\"Datacenter\":\"dc1\",\"Segment\":\"\",\"Keys\":{\"K\":1},\"PrimaryKeys\":{\"K\":1},\"NumNodes\":1}]"
        );
        for method in ["POST", "PUT"] {
            let got = door.call(method, "/v1/operator/keyring", KEY).await;
            assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, ""), "{method}");
        }
        let got = door.call("DELETE", "/v1/operator/keyring", KEY).await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(got.body.contains("1/2 nodes reported success"), "{}", got.body);
        assert!(!got.body.contains("pUqJ"), "an error shows no key: {}", got.body);
    }

    #[tokio::test]
    async fn wrong_parameters_are_named() {
        let door = Tested::answering(at(1, Answer::Keys(Vec::new())));
        for (path, words) in [
            ("?relay-factor=x", "Error parsing relay factor: "),
            ("?relay-factor=6", "Invalid relay-factor: "),
            ("?local-only=x", "Error parsing local-only: "),
        ] {
            let got = door.get(&format!("/v1/operator/keyring{path}")).await;
            assert_eq!(got.status, StatusCode::BAD_REQUEST, "{path}");
            assert!(got.body.starts_with(words), "{}", got.body);
        }
        let got = door.call("PUT", "/v1/operator/keyring?local-only=true", KEY).await;
        assert!(got.body.starts_with("Invalid use of local-only"), "{}", got.body);
    }
}
