//! `lictor session`: sessions, which hold locks for as long as they live.

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::{Args, Subcommand};
use lictor_client::encode_path;
use lictor_types::duration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::table::{DETAIL_GAP, LIST_GAP, columns};

/// What to do with sessions.
#[derive(Subcommand)]
pub(crate) enum SessionCommand {
    /// Makes a session and prints its id
    Create(Box<CreateFlags>),
    /// Ends a session; what it held is released or deleted, as it was made to
    Destroy(OneFlags),
    /// Lists the sessions of the datacenter
    List(ListFlags),
    /// Lists the sessions of a node
    Node(NodeFlags),
    /// Shows a session
    Read(ReadFlags),
    /// Has a session with a TTL live for another TTL
    Renew(OneFlags),
}

/// What kind of session.
#[derive(Args, Default)]
pub(crate) struct CreateFlags {
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// The node it belongs to; the agent's own without one.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// It ends when it is not renewed for so long, 10s to 86400s; without one it has no TTL.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// What becomes of the keys it holds when it ends: `release` or `delete`.
    #[arg(long, value_name = "BEHAVIOR")]
    behavior: Option<String>,
    /// How long nobody may take a lock that a session lost; 15s without one.
    #[arg(long, value_name = "DURATION")]
    lock_delay: Option<String>,
    /// Id of a check of the node; the session ends when it is critical. May be given several times; serfHealth without one.
    #[arg(long = "node-check", value_name = "ID")]
    node_checks: Vec<String>,
    /// Id of a check of a service on the node. May be given several times.
    #[arg(long = "service-check", value_name = "ID")]
    service_checks: Vec<String>,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which session.
#[derive(Args)]
pub(crate) struct OneFlags {
    /// Its id.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which session, and how to show it.
#[derive(Args)]
pub(crate) struct ReadFlags {
    /// Its id.
    #[arg(value_name = "ID")]
    id: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which node, and how to show them.
#[derive(Args)]
pub(crate) struct NodeFlags {
    /// Name of the node.
    #[arg(value_name = "NODE")]
    node: String,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// How to show them.
#[derive(Args)]
pub(crate) struct ListFlags {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// A session, as far as it is shown.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    lock_delay: u64,
    behavior: String,
    #[serde(rename = "TTL")]
    ttl: String,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<BTreeMap<String, String>>>,
    create_index: u64,
    modify_index: u64,
}

impl Row {
    fn checks(&self) -> String {
        let of_services = self.service_checks.iter().flatten().filter_map(|check| check.get("ID").cloned());
        let all: Vec<String> = self.node_checks.iter().flatten().cloned().chain(of_services).collect();
        all.join(",")
    }

    fn lock_delay(&self) -> String {
        duration::format(std::time::Duration::from_nanos(self.lock_delay))
    }
}

/// What is sent to make one.
#[derive(Serialize)]
struct ServiceCheck {
    #[serde(rename = "ID")]
    id: String,
}

pub(super) async fn run(command: SessionCommand) -> Result<Output, Failure> {
    match command {
        SessionCommand::Create(flags) => create(&Api::connect(&flags.api)?, &flags).await,
        SessionCommand::Destroy(flags) => destroy(&Api::connect(&flags.api)?, &flags.id).await,
        SessionCommand::List(flags) => list(&Api::connect(&flags.api)?, "/v1/session/list", flags.format).await,
        SessionCommand::Node(flags) => {
            let path = format!("/v1/session/node/{}", encode_path(&flags.node));
            list(&Api::connect(&flags.api)?, &path, flags.format).await
        }
        SessionCommand::Read(flags) => read(&Api::connect(&flags.api)?, &flags.id, flags.format).await,
        SessionCommand::Renew(flags) => renew(&Api::connect(&flags.api)?, &flags.id).await,
    }
}

async fn create(api: &Api, flags: &CreateFlags) -> Result<Output, Failure> {
    let texts = [
        ("Name", &flags.name),
        ("Node", &flags.node),
        ("TTL", &flags.ttl),
        ("Behavior", &flags.behavior),
        ("LockDelay", &flags.lock_delay),
    ];
    let mut body: Map<String, Value> =
        texts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))).collect();
    if !flags.node_checks.is_empty() {
        body.insert("NodeChecks".into(), json!(flags.node_checks));
    }
    if !flags.service_checks.is_empty() {
        let checks: Vec<ServiceCheck> = flags.service_checks.iter().map(|id| ServiceCheck { id: id.clone() }).collect();
        body.insert("ServiceChecks".into(), json!(checks));
    }
    let made = api.client().put_json("/v1/session/create", &[], &body).await;
    let made: Row = made.map_err(Failure::because("Error creating session"))?;
    Ok(Output::line(made.id))
}

async fn destroy(api: &Api, id: &str) -> Result<Output, Failure> {
    let path = format!("/v1/session/destroy/{}", encode_path(id));
    let ended = api.client().put_bytes(&path, &[], Bytes::new()).await;
    ended.map_err(Failure::because("Error destroying session"))?;
    Ok(Output::line(format!("Session {id} destroyed")))
}

async fn renew(api: &Api, id: &str) -> Result<Output, Failure> {
    let path = format!("/v1/session/renew/{}", encode_path(id));
    let renewed: Result<Vec<Row>, _> = api.client().put_json(&path, &[], &()).await;
    match renewed {
        Ok(rows) => {
            let ttl = rows.into_iter().next().unwrap_or_default().ttl;
            let words = if ttl.is_empty() { "it has no TTL".to_owned() } else { format!("it lives for another {ttl}") };
            Ok(Output::line(format!("Session {id} renewed: {words}")))
        }
        Err(error) if error.is_not_found() => Err(Failure::new(format!("No session exists with id: {id}"))),
        Err(error) => Err(Failure::because("Error renewing session")(error)),
    }
}

async fn list(api: &Api, path: &str, format: Format) -> Result<Output, Failure> {
    let failed = || Failure::because("Error listing sessions");
    let (answer, _): (Value, _) = api.get(path, &[]).await.map_err(failed())?;
    if format == Format::Json {
        return Output::json(&answer, 2);
    }
    let rows: Vec<Row> = Deserialize::deserialize(&answer).map_err(Failure::because("Error listing sessions"))?;
    if rows.is_empty() {
        return Ok(Output::remark("No sessions exist."));
    }
    let mut cells = vec![["ID", "Name", "Node", "Behavior", "TTL", "LockDelay", "Checks"].map(str::to_owned)];
    cells.extend(rows.into_iter().map(|row| {
        let (lock_delay, checks) = (row.lock_delay(), row.checks());
        [row.id, row.name, row.node, row.behavior, row.ttl, lock_delay, checks]
    }));
    Ok(Output::lines(columns(&cells, LIST_GAP)))
}

async fn read(api: &Api, id: &str, format: Format) -> Result<Output, Failure> {
    let path = format!("/v1/session/info/{}", encode_path(id));
    let failed = Failure::because("Error reading session");
    let (found, _): (Vec<Value>, _) = api.get(&path, &[]).await.map_err(failed)?;
    let Some(found) = found.first() else {
        return Err(Failure::new(format!("No session exists with id: {id}")));
    };
    if format == Format::Json {
        return Output::json(found, 2);
    }
    let row: Row = Deserialize::deserialize(found).map_err(Failure::because("Error reading session"))?;
    let rows = [
        ["ID".to_owned(), row.id.clone()],
        ["Name".to_owned(), row.name.clone()],
        ["Node".to_owned(), row.node.clone()],
        ["Behavior".to_owned(), row.behavior.clone()],
        ["TTL".to_owned(), row.ttl.clone()],
        ["LockDelay".to_owned(), row.lock_delay()],
        ["Checks".to_owned(), row.checks()],
        ["CreateIndex".to_owned(), row.create_index.to_string()],
        ["ModifyIndex".to_owned(), row.modify_index.to_string()],
    ];
    Ok(Output::lines(columns(&rows, DETAIL_GAP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    const ONE: &str = r#"[{"ID":"adf4","Name":"job","Node":"n1","LockDelay":15000000000,"Behavior":"release","TTL":"30s",
        "NodeChecks":["serfHealth"],"ServiceChecks":[{"ID":"web","Namespace":""}],"CreateIndex":7,"ModifyIndex":7}]"#;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[tokio::test]
    async fn sessions_are_listed_and_shown() {
        let fake = Fake::answering(&[
            ("GET /v1/session/list", 200, ONE),
            ("GET /v1/session/node/n2", 200, "[]"),
            ("GET /v1/session/info/adf4", 200, ONE),
            ("GET /v1/session/info/none", 200, "[]"),
        ])
        .await;
        assert_eq!(
            text(list(&fake.api(), "/v1/session/list", Format::Pretty).await.unwrap()),
            "ID    Name  Node  Behavior  TTL  LockDelay  Checks\nadf4  job   n1    release   30s  15s        serfHealth,web\n"
        );
        assert!(text(list(&fake.api(), "/v1/session/list", Format::Json).await.unwrap()).contains("\"ID\": \"adf4\""));
        let none = list(&fake.api(), "/v1/session/node/n2", Format::Pretty).await.unwrap();
        assert_eq!((none.bytes.len(), none.remark.as_str()), (0, "No sessions exist.\n"));
        let shown = text(read(&fake.api(), "adf4", Format::Pretty).await.unwrap());
        assert!(shown.contains("LockDelay        15s\n") && shown.contains("ModifyIndex      7\n"), "{shown}");
        let unknown = read(&fake.api(), "none", Format::Pretty).await.unwrap_err().to_string();
        assert_eq!(unknown, "No session exists with id: none");
    }

    #[tokio::test]
    async fn a_session_is_made_renewed_and_ended() {
        let fake = Fake::answering(&[
            ("PUT /v1/session/create", 200, r#"{"ID":"adf4"}"#),
            ("PUT /v1/session/renew/adf4", 200, ONE),
            ("PUT /v1/session/destroy/adf4", 200, "true"),
        ])
        .await;
        let flags = CreateFlags {
            ttl: Some("30s".into()),
            lock_delay: Some("1s".into()),
            service_checks: vec!["web".into()],
            ..CreateFlags::default()
        };
        assert_eq!(text(create(&fake.api(), &flags).await.unwrap()), "adf4\n");
        assert_eq!(fake.last_body(), r#"{"LockDelay":"1s","ServiceChecks":[{"ID":"web"}],"TTL":"30s"}"#);
        let renewed = text(renew(&fake.api(), "adf4").await.unwrap());
        assert_eq!(renewed, "Session adf4 renewed: it lives for another 30s\n");
        assert_eq!(text(destroy(&fake.api(), "adf4").await.unwrap()), "Session adf4 destroyed\n");
        let gone = renew(&fake.api(), "gone").await.unwrap_err().to_string();
        assert_eq!(gone, "No session exists with id: gone");
    }
}
