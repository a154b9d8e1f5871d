//! `lictor connect`: the mesh.

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
    let ConnectCommand::Ca(CaCommand::Roots(flags)) = command;
    roots(&Api::connect(&flags.api)?, flags.pem).await
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
    async fn roots_are_shown_whole_or_as_certificates() {
        let answer = r#"{"TrustDomain":"t","Roots":[{"RootCert":"one\n"},{"RootCert":"two\n"}]}"#;
        let fake = Fake::answering(&[("GET /v1/connect/ca/roots", 200, answer)]).await;
        assert_eq!(roots(&fake.api(), true).await.unwrap().bytes, b"one\ntwo\n");
        let whole: Value = serde_json::from_slice(&roots(&fake.api(), false).await.unwrap().bytes).unwrap();
        assert_eq!(whole, serde_json::from_str::<Value>(answer).unwrap());
    }
}
