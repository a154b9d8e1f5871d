//! `lictor connect`: the mesh.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// What of the mesh.
#[derive(Subcommand)]
pub(crate) enum ConnectCommand {
    /// Shows the mesh's certificate authority
    #[command(subcommand)]
    Ca(CaCommand),
}

/// What of the authority.
#[derive(Subcommand)]
pub(crate) enum CaCommand {
    /// Shows the roots that workloads trust
    Roots(RootsFlags),
    /// Shows how the authority signs
    GetConfig(GetConfigFlags),
    /// Sets how the authority signs
    SetConfig(SetConfigFlags),
}

/// How to ask.
#[derive(Args)]
pub(crate) struct GetConfigFlags {
    #[command(flatten)]
    api: ApiFlags,
}

/// What to set.
#[derive(Args)]
pub(crate) struct SetConfigFlags {
    /// File with the configuration as JSON, as get-config shows it; - for standard input.
    #[arg(long, value_name = "FILE")]
    config_file: PathBuf,
    #[command(flatten)]
    api: ApiFlags,
}

/// How to show them.
#[derive(Args)]
pub(crate) struct RootsFlags {
    /// Only the certificates, as PEM.
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(command: ConnectCommand) -> Result<Output, Failure> {
    let ConnectCommand::Ca(command) = command;
    match command {
        CaCommand::Roots(flags) => roots(&Api::connect(&flags.api)?, flags.pem).await,
        CaCommand::GetConfig(flags) => get_config(&Api::connect(&flags.api)?).await,
        CaCommand::SetConfig(flags) => {
            let named = flags.config_file.display().to_string();
            let text = if named == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(&flags.config_file)
            };
            let text = text.map_err(Failure::because(format!("-config-file {named}")))?;
            let wanted: Value =
                serde_json::from_str(&text).map_err(Failure::because(format!("-config-file {named}")))?;
            set_config(&Api::connect(&flags.api)?, &wanted).await
        }
    }
}

async fn get_config(api: &Api) -> Result<Output, Failure> {
    let failed = Failure::because("Error querying CA configuration");
    let (found, _): (Value, _) = api.get("/v1/connect/ca/configuration", &[]).await.map_err(failed)?;
    Output::json(&found, 2)
}

async fn set_config(api: &Api, wanted: &Value) -> Result<Output, Failure> {
    let bytes = serde_json::to_vec(wanted).map_err(Failure::because("Error setting CA configuration"))?;
    let set = api.client().put_bytes("/v1/connect/ca/configuration", &[], bytes.into()).await;
    set.map_err(Failure::because("Error setting CA configuration"))?;
    Ok(Output::line("Configuration updated!"))
}

async fn roots(api: &Api, pem: bool) -> Result<Output, Failure> {
    let failed = Failure::because("Error reading the CA roots");
    let (roots, _): (Value, _) = api.get("/v1/connect/ca/roots", &[]).await.map_err(failed)?;
    if !pem {
        return Output::json(&roots, 4);
    }
    let certificates = roots["Roots"].as_array().into_iter().flatten();
    Ok(Output::lines(certificates.filter_map(|root| root["RootCert"].as_str()).map(str::trim_end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn the_configuration_is_shown_and_set() {
        let answer = r#"{"Provider":"consul"}"#;
        let fake = Fake::answering(&[
            ("GET /v1/connect/ca/configuration", 200, answer),
            ("PUT /v1/connect/ca/configuration", 200, ""),
        ])
        .await;
        assert_eq!(get_config(&fake.api()).await.unwrap().bytes, b"{\n  \"Provider\": \"consul\"\n}\n");
        let wanted: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(set_config(&fake.api(), &wanted).await.unwrap().bytes, b"Configuration updated!\n");
        assert_eq!(fake.last_body(), answer);
    }

    #[tokio::test]
    async fn roots_are_shown_whole_or_as_certificates() {
        let answer = r#"{"TrustDomain":"t","Roots":[{"RootCert":"one\n"},{"RootCert":"two\n"}]}"#;
        let fake = Fake::answering(&[("GET /v1/connect/ca/roots", 200, answer)]).await;
        assert_eq!(roots(&fake.api(), true).await.unwrap().bytes, b"one\ntwo\n");
        let whole: Value = serde_json::from_slice(&roots(&fake.api(), false).await.unwrap().bytes).unwrap();
        assert_eq!(whole, serde_json::from_str::<Value>(answer).unwrap());
    }
}
