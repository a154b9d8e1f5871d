//! `lictor join-token`: proofs for the first certificate of clients and sidecars.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// What to do with join tokens.
#[derive(Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Makes a token that lets one client or sidecar join, once
    Create(CreateFlags),
}

/// What the token is for.
#[derive(Args, Default)]
pub(crate) struct CreateFlags {
    /// A service that who joins may be; may be given several times. Without one it joins as a client agent.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// The only node name that who joins may take. Without one it may take any that is free.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// How long the token may wait to be used, for example 10m.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How to print it: the secret alone, or all that was answered.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "SecretID")]
    secret_id: String,
}

pub(super) async fn run(JoinTokenCommand::Create(flags): JoinTokenCommand) -> Result<Output, Failure> {
    create(&Api::connect(&flags.api)?, &flags).await
}

async fn create(api: &Api, flags: &CreateFlags) -> Result<Output, Failure> {
    let mut wanted = Map::from_iter([("Services".to_owned(), json!(flags.service))]);
    if let Some(node) = &flags.node {
        wanted.insert("Node".into(), json!(node));
    }
    if let Some(ttl) = &flags.ttl {
        wanted.insert("TTL".into(), json!(ttl));
    }
    let made: Value = api
        .client()
        .put_json("/v1/operator/join-token", &[], &wanted)
        .await
        .map_err(Failure::because("Error creating the join token"))?;
    if flags.format == Format::Json {
        return Output::json(&made, 2);
    }
    let Made { secret_id } = Made::deserialize(made).map_err(Failure::because("Error creating the join token"))?;
    Ok(Output::line(secret_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn the_token_alone_is_printed() {
        let fake =
            Fake::answering(&[("PUT /v1/operator/join-token", 200, r#"{"SecretID":"s3cret","TTL":"10m"}"#)]).await;
        let flags = CreateFlags {
            service: vec!["web".into()],
            node: Some("web-1".into()),
            ttl: Some("10m".into()),
            ..CreateFlags::default()
        };
        assert_eq!(create(&fake.api(), &flags).await.unwrap().bytes, b"s3cret\n");
        assert_eq!(fake.last_body(), r#"{"Node":"web-1","Services":["web"],"TTL":"10m"}"#);
    }
}
