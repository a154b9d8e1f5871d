//! `lictor intention`: which service may call which.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Format, key_value};
use crate::api::{Api, ApiFlags};
use crate::input;
use crate::output::{Failure, Output};
use crate::table::{LIST_GAP, columns};

const EXACT: &str = "/v1/connect/intentions/exact";
/// The exit code of a check that could not be done: 1 says that the call is denied.
const NOT_CHECKED: u8 = 2;
/// The exit code of a list without rows, as Consul's.
const NONE: u8 = 2;

/// What to do with intentions.
#[derive(Subcommand)]
pub(crate) enum IntentionCommand {
    /// Says whether one service may call another now
    Check(EndsFlags),
    /// Makes an intention
    Create(CreateFlags),
    /// Removes an intention
    Delete(EndsFlags),
    /// Shows an intention
    Get(EndsFlags),
    /// Lists all intentions
    List(ListFlags),
    /// Lists the intentions that matter to a service, in the order they are asked
    Match(MatchFlags),
}

/// Of which call.
#[derive(Args)]
pub(crate) struct EndsFlags {
    /// The calling service.
    #[arg(value_name = "SRC")]
    source: String,
    /// The called service.
    #[arg(value_name = "DST")]
    destination: String,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to say of which call.
#[derive(Args, Default)]
pub(crate) struct CreateFlags {
    /// SRC and DST; with -file, files with intentions in JSON, `-` for the standard input.
    #[arg(value_name = "SRC DST", required = true)]
    names: Vec<String>,
    /// The call is allowed; so it is without -deny.
    #[arg(long, conflicts_with = "deny")]
    allow: bool,
    /// The call is denied.
    #[arg(long)]
    deny: bool,
    /// Read the intentions from files.
    #[arg(long)]
    file: bool,
    /// Replace what was said of the same call before.
    #[arg(long)]
    replace: bool,
    /// Meta of the intention; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which agent.
#[derive(Args)]
pub(crate) struct ListFlags {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which service, at which end.
#[derive(Args)]
pub(crate) struct MatchFlags {
    /// The service.
    #[arg(value_name = "SRC|DST")]
    name: String,
    /// It calls.
    #[arg(long, conflicts_with = "destination")]
    source: bool,
    /// It is called; so it is without -source.
    #[arg(long)]
    destination: bool,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// An intention, as far as people read and write it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Row {
    #[serde(rename = "SourceNS", skip_serializing_if = "String::is_empty")]
    source_ns: String,
    source_name: String,
    #[serde(rename = "DestinationNS", skip_serializing_if = "String::is_empty")]
    destination_ns: String,
    destination_name: String,
    source_type: String,
    action: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(skip_serializing)]
    precedence: u32,
    #[serde(skip_serializing)]
    created_at: String,
}

impl Row {
    fn source(&self) -> String {
        in_namespace(&self.source_ns, &self.source_name)
    }

    fn destination(&self) -> String {
        in_namespace(&self.destination_ns, &self.destination_name)
    }

    fn shown(&self) -> String {
        format!("{} => {} ({})", self.source(), self.destination(), self.action)
    }
}

fn in_namespace(namespace: &str, name: &str) -> String {
    if matches!(namespace, "" | "default") { name.to_owned() } else { format!("{namespace}/{name}") }
}

pub(super) async fn run(command: IntentionCommand) -> Result<Output, Failure> {
    match command {
        IntentionCommand::Check(flags) => check(&Api::connect(&flags.api)?, &flags).await,
        IntentionCommand::Create(flags) => create(&Api::connect(&flags.api)?, &flags).await,
        IntentionCommand::Delete(flags) => delete(&Api::connect(&flags.api)?, &flags).await,
        IntentionCommand::Get(flags) => get(&Api::connect(&flags.api)?, &flags).await,
        IntentionCommand::List(flags) => list(&Api::connect(&flags.api)?, flags.format).await,
        IntentionCommand::Match(flags) => matching(&Api::connect(&flags.api)?, &flags).await,
    }
}

impl EndsFlags {
    fn query(&self) -> [(&str, &str); 2] {
        [("source", &self.source), ("destination", &self.destination)]
    }
}

async fn check(api: &Api, flags: &EndsFlags) -> Result<Output, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Checked {
        allowed: bool,
    }
    let (Checked { allowed }, _) = api
        .get("/v1/connect/intentions/check", &flags.query())
        .await
        .map_err(|error| Failure::because("Error checking the connection")(error).with_code(NOT_CHECKED))?;
    Ok(if allowed { Output::line("Allowed") } else { Output::line("Denied").with_code(1) })
}

async fn create(api: &Api, flags: &CreateFlags) -> Result<Output, Failure> {
    let rows = rows_of(flags).map_err(Failure::because("Error"))?;
    let mut lines = Vec::new();
    for row in &rows {
        let (source, destination) = (row.source(), row.destination());
        let query = [("source", source.as_str()), ("destination", destination.as_str())];
        let before: Option<Row> = api.find(EXACT, &query).await.map_err(Failure::because(format!(
            "Error looking up intention with source {source:?} and destination {destination:?}"
        )))?;
        if before.is_some() && !flags.replace {
            return Err(Failure::new(format!(
                "Error creating intention {:?}: there is one with the same source and destination; replace it with -replace",
                row.shown()
            )));
        }
        let _: bool = api
            .client()
            .put_json(EXACT, &query, row)
            .await
            .map_err(Failure::because(format!("Error creating intention {:?}", row.shown())))?;
        if before.is_none() {
            lines.push(format!("Created: {}", row.shown()));
        }
    }
    Ok(Output::lines(lines))
}

fn rows_of(flags: &CreateFlags) -> Result<Vec<Row>, Failure> {
    if flags.file {
        return flags
            .names
            .iter()
            .map(|name| {
                let bytes = if name == "-" { input::standard_input()? } else { input::file(Path::new(name))? };
                serde_json::from_slice(&bytes).map_err(Failure::because(name))
            })
            .collect();
    }
    let [source, destination] = flags.names.as_slice() else {
        return Err(Failure::new("Must specify two arguments: source and destination"));
    };
    Ok(vec![Row {
        source_name: source.clone(),
        destination_name: destination.clone(),
        source_type: "consul".into(),
        action: if flags.deny { "deny" } else { "allow" }.into(),
        meta: flags.meta.iter().cloned().collect(),
        ..Row::default()
    }])
}

async fn delete(api: &Api, flags: &EndsFlags) -> Result<Output, Failure> {
    api.client().delete(EXACT, &flags.query()).await.map_err(Failure::because("Error deleting the intention"))?;
    Ok(Output::line("Intention deleted."))
}

async fn get(api: &Api, flags: &EndsFlags) -> Result<Output, Failure> {
    let found: Option<Row> =
        api.find(EXACT, &flags.query()).await.map_err(Failure::because("Error reading the intention"))?;
    let Some(row) = found else {
        return Err(Failure::new(format!(
            "Intention with source {:?} and destination {:?} not found.",
            flags.source, flags.destination
        )));
    };
    let mut rows = vec![
        ["Source:".to_owned(), row.source()],
        ["Destination:".to_owned(), row.destination()],
        ["Action:".to_owned(), row.action],
    ];
    if !row.description.is_empty() {
        rows.push(["Description:".to_owned(), row.description]);
    }
    rows.extend(row.meta.into_iter().map(|(key, value)| [format!("Meta[{key}]:"), value]));
    rows.push(["Created At:".to_owned(), row.created_at]);
    Ok(Output::lines(columns(&rows, LIST_GAP)))
}

async fn list(api: &Api, format: Format) -> Result<Output, Failure> {
    let (answer, _): (Value, _) = api
        .get("/v1/connect/intentions", &[])
        .await
        .map_err(Failure::because("Failed to retrieve the intentions list"))?;
    if format == Format::Json {
        return Output::json(&answer, 2);
    }
    let intentions: Vec<Row> =
        Deserialize::deserialize(answer).map_err(Failure::because("Failed to retrieve the intentions list"))?;
    if intentions.is_empty() {
        return Ok(Output::remark("There are no intentions.").with_code(NONE));
    }
    // Intentions of config entries have no id; Consul's column for it stays, so that the others keep their place.
    let mut rows = vec![["ID", "Source", "Action", "Destination", "Precedence"].map(str::to_owned)];
    rows.extend(
        intentions.into_iter().map(|row| {
            [String::new(), row.source(), row.action.clone(), row.destination(), row.precedence.to_string()]
        }),
    );
    Ok(Output::lines(columns(&rows, LIST_GAP)))
}

async fn matching(api: &Api, flags: &MatchFlags) -> Result<Output, Failure> {
    let by = if flags.source { "source" } else { "destination" };
    let (answer, _): (Value, _) = api
        .get("/v1/connect/intentions/match", &[("by", by), ("name", &flags.name)])
        .await
        .map_err(Failure::because("Error matching the connection"))?;
    if flags.format == Format::Json {
        return Output::json(&answer, 2);
    }
    let matched: BTreeMap<String, Vec<Row>> =
        Deserialize::deserialize(answer).map_err(Failure::because("Error matching the connection"))?;
    Ok(Output::lines(matched.values().flatten().map(Row::shown)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    const ASKED: &str = "GET /v1/connect/intentions/exact?source=web&destination=api";
    const FOUND: &str = r#"{"SourceNS":"default","SourceName":"web","DestinationNS":"default","DestinationName":"api",
        "Action":"deny","Precedence":9,"Meta":{"why":"test"},"CreatedAt":"2026-01-02T03:04:05Z"}"#;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    fn ends() -> EndsFlags {
        EndsFlags { source: "web".into(), destination: "api".into(), api: ApiFlags::default() }
    }

    fn deny() -> CreateFlags {
        CreateFlags { names: vec!["web".into(), "api".into()], deny: true, ..CreateFlags::default() }
    }

    #[tokio::test]
    async fn a_new_intention_is_told_and_an_old_one_only_replaced_when_asked() {
        let set = ("PUT /v1/connect/intentions/exact?source=web&destination=api", 200, "true");
        let fake = Fake::answering(&[set]).await;
        assert_eq!(text(create(&fake.api(), &deny()).await.unwrap()), "Created: web => api (deny)\n");
        let body: serde_json::Value = serde_json::from_str(&fake.last_body()).unwrap();
        assert_eq!(body["Action"], "deny");
        assert_eq!(body["SourceType"], "consul");

        let fake = Fake::answering(&[set, (ASKED, 200, FOUND)]).await;
        let refused = create(&fake.api(), &deny()).await.unwrap_err().to_string();
        assert!(refused.contains("\"web => api (deny)\"") && refused.contains("-replace"), "{refused}");
        let replace = CreateFlags { replace: true, ..deny() };
        assert_eq!(create(&fake.api(), &replace).await.unwrap(), Output::default());

        let one = CreateFlags { names: vec!["web".into()], ..CreateFlags::default() };
        let refused = create(&fake.api(), &one).await.unwrap_err().to_string();
        assert_eq!(refused, "Error: Must specify two arguments: source and destination");
    }

    #[tokio::test]
    async fn a_check_ends_with_its_answer() {
        let asked = "GET /v1/connect/intentions/check?source=web&destination=api";
        for (status, body, shown, code) in
            [(200, r#"{"Allowed":true}"#, "Allowed\n", 0), (200, r#"{"Allowed":false}"#, "Denied\n", 1)]
        {
            let fake = Fake::answering(&[(asked, status, body)]).await;
            let output = check(&fake.api(), &ends()).await.unwrap();
            assert_eq!((output.code, text(output)), (code, shown.to_owned()));
        }
        let fake = Fake::answering(&[(asked, 403, "Permission denied")]).await;
        let failure = check(&fake.api(), &ends()).await.unwrap_err();
        assert_eq!(failure, Failure::new(failure.to_string()).with_code(2));
    }

    #[tokio::test]
    async fn an_intention_is_shown_line_by_line() {
        let fake = Fake::answering(&[(ASKED, 200, FOUND)]).await;
        assert_eq!(
            text(get(&fake.api(), &ends()).await.unwrap()),
            "Source:       web\nDestination:  api\nAction:       deny\nMeta[why]:    test\n\
             Created At:   2026-01-02T03:04:05Z\n"
        );
        let fake = Fake::answering(&[]).await;
        let absent = get(&fake.api(), &ends()).await.unwrap_err().to_string();
        assert_eq!(absent, "Intention with source \"web\" and destination \"api\" not found.");
    }
}
