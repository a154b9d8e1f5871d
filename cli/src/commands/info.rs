//! `lictor info`: figures of an agent.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// Of which agent.
#[derive(Args)]
pub(crate) struct InfoFlags {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    stats: BTreeMap<String, BTreeMap<String, Value>>,
}

pub(super) async fn run(flags: InfoFlags) -> Result<Output, Failure> {
    show(&Api::connect(&flags.api)?, flags.format).await
}

async fn show(api: &Api, format: Format) -> Result<Output, Failure> {
    let (AgentSelf { stats }, _) =
        api.get("/v1/agent/self", &[]).await.map_err(Failure::because("Error querying agent"))?;
    if format == Format::Json {
        return Output::json(&stats, 2);
    }
    let mut lines = Vec::new();
    for (group, figures) in stats {
        lines.push(format!("{group}:"));
        lines.extend(figures.into_iter().map(|(name, figure)| match figure {
            Value::String(text) => format!("\t{name} = {text}"),
            other => format!("\t{name} = {other}"),
        }));
    }
    Ok(Output::lines(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn figures_are_shown_in_their_groups() {
        let answer = r#"{"Config":{},"Stats":{"raft":{"state":"Leader","term":2},"agent":{"checks":"0"}}}"#;
        let fake = Fake::answering(&[("GET /v1/agent/self", 200, answer)]).await;
        let shown = show(&fake.api(), Format::Pretty).await.unwrap().bytes;
        let as_json = show(&fake.api(), Format::Json).await.unwrap().bytes;
        assert!(String::from_utf8(as_json).unwrap().contains("\"state\": \"Leader\""));
        assert_eq!(shown, b"agent:\n\tchecks = 0\nraft:\n\tstate = Leader\n\tterm = 2\n");
    }
}
