//! `lictor operator raft` and `lictor operator autopilot`: who is in raft, and how the leader looks after them.

use std::fmt::Write as _;

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::arguments::go_bool;
use crate::output::{Failure, Output};
use crate::table::{LIST_GAP, columns};

const AUTOPILOT: &str = "/v1/operator/autopilot/configuration";

/// What to do with the servers of raft.
#[derive(Subcommand)]
pub(crate) enum RaftCommand {
    /// Lists the servers in raft
    ListPeers(ListPeersFlags),
    /// Takes a server out of raft for ever
    RemovePeer(RemovePeerFlags),
    /// Hands the lead to another server
    TransferLeader(TransferLeaderFlags),
}

/// What to do with how the leader looks after the servers.
#[derive(Subcommand)]
pub(crate) enum AutopilotCommand {
    /// Shows the configuration
    GetConfig(GetConfigFlags),
    /// Changes the configuration
    SetConfig(SetConfigFlags),
    /// Shows how the servers are
    State(StateFlags),
}

/// Of which cluster.
#[derive(Args)]
pub(crate) struct ListPeersFlags {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which server.
#[derive(Args)]
pub(crate) struct RemovePeerFlags {
    /// Its address, HOST:PORT of the server port.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Its raft id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    api: ApiFlags,
}

/// To which server.
#[derive(Args)]
pub(crate) struct TransferLeaderFlags {
    /// Its raft id; without it the one that is furthest.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which cluster.
#[derive(Args)]
pub(crate) struct GetConfigFlags {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to change.
#[derive(Args, Default)]
pub(crate) struct SetConfigFlags {
    /// Whether failed servers are taken out of raft.
    #[arg(long, value_name = "true|false", value_parser = go_bool)]
    cleanup_dead_servers: Option<bool>,
    /// How far behind a healthy server may be.
    #[arg(long, value_name = "COUNT")]
    max_trailing_logs: Option<u64>,
    /// How long ago a healthy server may have been heard of.
    #[arg(long, value_name = "DURATION")]
    last_contact_threshold: Option<String>,
    /// How long a new server must be healthy before it votes.
    #[arg(long, value_name = "DURATION")]
    server_stabilization_time: Option<String>,
    /// Failed servers are taken out only while at least so many voters remain.
    #[arg(long, value_name = "COUNT")]
    min_quorum: Option<u64>,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which cluster, and how to print it.
#[derive(Args)]
pub(crate) struct StateFlags {
    /// How to print it.
    #[arg(long, value_enum, default_value = "pretty")]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run_raft(command: RaftCommand) -> Result<Output, Failure> {
    match command {
        RaftCommand::ListPeers(flags) => list_peers(&Api::connect(&flags.api)?, flags.format).await,
        RaftCommand::RemovePeer(flags) => {
            let api = Api::connect(&flags.api)?;
            remove_peer(&api, flags.id.as_deref(), flags.address.as_deref()).await
        }
        RaftCommand::TransferLeader(flags) => {
            let query: Vec<(&str, &str)> = flags.id.as_deref().map(|id| ("id", id)).into_iter().collect();
            let api = Api::connect(&flags.api)?;
            let asked = api.client().put_bytes("/v1/operator/raft/transfer-leader", &query, Bytes::new()).await;
            asked.map_err(Failure::because("Error transfering leadership"))?;
            Ok(Output::line("Success"))
        }
    }
}

pub(super) async fn run_autopilot(command: AutopilotCommand) -> Result<Output, Failure> {
    match command {
        AutopilotCommand::GetConfig(flags) => get_config(&Api::connect(&flags.api)?, flags.format).await,
        AutopilotCommand::SetConfig(flags) => set_config(&Api::connect(&flags.api)?, &flags).await,
        AutopilotCommand::State(flags) => state(&Api::connect(&flags.api)?, flags.format).await,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    servers: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    leader: bool,
    protocol_version: String,
    voter: bool,
    #[serde(default)]
    last_index: u64,
}

async fn list_peers(api: &Api, format: Format) -> Result<Output, Failure> {
    let asked = api.get::<Value>("/v1/operator/raft/configuration", &[]).await;
    let (answer, _) = asked.map_err(Failure::because("Error getting peers"))?;
    if format == Format::Json {
        return Output::json(&answer, 2);
    }
    let Configuration { servers } =
        Deserialize::deserialize(answer).map_err(Failure::because("Error getting peers"))?;
    let head = ["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"];
    let mut rows = vec![head.map(str::to_owned)];
    let leader_index = servers.iter().find(|it| it.leader).map(|it| it.last_index);
    for server in servers {
        let trails = match leader_index {
            _ if server.leader => "-".to_owned(),
            Some(leader) => {
                let behind = leader.saturating_sub(server.last_index);
                format!("{behind} {}", if behind == 1 { "commit" } else { "commits" })
            }
            None => "-".to_owned(),
        };
        rows.push([
            server.node,
            server.id,
            server.address,
            if server.leader { "leader" } else { "follower" }.to_owned(),
            server.voter.to_string(),
            server.protocol_version,
            server.last_index.to_string(),
            trails,
        ]);
    }
    Ok(Output::lines(columns(&rows, LIST_GAP)))
}

async fn remove_peer(api: &Api, id: Option<&str>, address: Option<&str>) -> Result<Output, Failure> {
    let (name, value) = match (id, address) {
        (Some(id), None) => ("id", id),
        (None, Some(address)) => ("address", address),
        (Some(_), Some(_)) => return Err(Failure::new("Error removing peer: cannot specify both id and address")),
        (None, None) => {
            return Err(Failure::new("Error removing peer: an address or id is required for the peer to remove"));
        }
    };
    let removed = api.client().delete("/v1/operator/raft/peer", &[(name, value)]).await;
    removed.map_err(Failure::because("Error removing peer"))?;
    Ok(Output::line(format!("Removed peer with {name} {value:?}")))
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Autopilot {
    cleanup_dead_servers: bool,
    last_contact_threshold: String,
    max_trailing_logs: u64,
    min_quorum: u64,
    server_stabilization_time: String,
    #[serde(default, skip_serializing)]
    modify_index: u64,
}

async fn get_config(api: &Api, format: Format) -> Result<Output, Failure> {
    let asked = api.get::<Autopilot>(AUTOPILOT, &[]).await;
    let (config, _) = asked.map_err(Failure::because("Error querying Autopilot configuration"))?;
    if format == Format::Json {
        return Output::json(&config, 2);
    }
    Ok(Output::lines([
        format!("CleanupDeadServers = {}", config.cleanup_dead_servers),
        format!("LastContactThreshold = {}", config.last_contact_threshold),
        format!("MaxTrailingLogs = {}", config.max_trailing_logs),
        format!("MinQuorum = {}", config.min_quorum),
        format!("ServerStabilizationTime = {}", config.server_stabilization_time),
        "RedundancyZoneTag = \"\"".to_owned(),
        "DisableUpgradeMigration = false".to_owned(),
        "UpgradeVersionTag = \"\"".to_owned(),
    ]))
}

async fn set_config(api: &Api, flags: &SetConfigFlags) -> Result<Output, Failure> {
    let asked = api.get::<Autopilot>(AUTOPILOT, &[]).await;
    let (mut config, _) = asked.map_err(Failure::because("Error querying Autopilot configuration"))?;
    config.cleanup_dead_servers = flags.cleanup_dead_servers.unwrap_or(config.cleanup_dead_servers);
    config.max_trailing_logs = flags.max_trailing_logs.unwrap_or(config.max_trailing_logs);
    config.min_quorum = flags.min_quorum.unwrap_or(config.min_quorum);
    let text = |told: &Option<String>, known: String| told.clone().unwrap_or(known);
    config.last_contact_threshold = text(&flags.last_contact_threshold, config.last_contact_threshold);
    config.server_stabilization_time = text(&flags.server_stabilization_time, config.server_stabilization_time);
    let cas = config.modify_index.to_string();
    let set = api.client().put_json::<_, bool>(AUTOPILOT, &[("cas", &cas)], &config).await;
    let failed = "Error setting Autopilot configuration";
    if set.map_err(Failure::because(failed))? {
        Ok(Output::line("Configuration updated!"))
    } else {
        Err(Failure::new("Configuration could not be atomically updated, please try again"))
    }
}

async fn state(api: &Api, format: Format) -> Result<Output, Failure> {
    let asked = api.get::<Value>("/v1/operator/autopilot/state", &[]).await;
    let (state, _) = asked.map_err(Failure::because("Error querying Autopilot state"))?;
    if format == Format::Json {
        return Output::json(&state, 4);
    }
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = String::new();
    // Writing to a text cannot fail.
    let mut line = |name: &str, value: &Value| {
        let _infallible = writeln!(text, "{:<30}{}", format!("{name}:"), shown(value));
    };
    line("Healthy", &state["Healthy"]);
    line("Failure Tolerance", &state["FailureTolerance"]);
    line("Optimistic Failure Tolerance", &state["OptimisticFailureTolerance"]);
    line("Leader", &state["Leader"]);
    text.push_str("Voters:\n");
    for voter in state["Voters"].as_array().into_iter().flatten() {
        let _infallible = writeln!(text, "   {}", shown(voter));
    }
    text.push_str("Servers:\n");
    for (id, server) in state["Servers"].as_object().into_iter().flatten() {
        let _infallible = writeln!(text, "   {id}");
        for (name, field) in [
            ("Name", "Name"),
            ("Address", "Address"),
            ("Version", "Version"),
            ("Status", "Status"),
            ("Node Type", "NodeType"),
            ("Node Status", "NodeStatus"),
            ("Healthy", "Healthy"),
            ("Last Contact", "LastContact"),
            ("Last Term", "LastTerm"),
            ("Last Index", "LastIndex"),
        ] {
            let _infallible = writeln!(text, "      {:<19}{}", format!("{name}:"), shown(&server[field]));
        }
        let meta = server["Meta"].as_object().filter(|meta| !meta.is_empty());
        if let Some(meta) = meta {
            text.push_str("      Meta\n");
            for (key, value) in meta {
                let _infallible = writeln!(text, "         {key:?}: {:?}", shown(value));
            }
        }
    }
    Ok(Output { bytes: text.into_bytes(), ..Output::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn peers_are_listed_in_consuls_columns() {
        let answer = r#"{"Servers":[
            {"ID":"a1","Node":"s1","Address":"10.0.0.1:8300","Leader":true,"ProtocolVersion":"3","Voter":true,"LastIndex":9},
            {"ID":"b2","Node":"s2","Address":"10.0.0.2:8300","Leader":false,"ProtocolVersion":"3","Voter":false,"LastIndex":8}
        ],"Index":9}"#;
        let fake = Fake::answering(&[("GET /v1/operator/raft/configuration", 200, answer)]).await;
        let shown = String::from_utf8(list_peers(&fake.api(), Format::Pretty).await.unwrap().bytes).unwrap();
        let expected = "Node  ID  Address        State     Voter  RaftProtocol  Commit Index  Trails Leader By\n\
                        s1    a1  10.0.0.1:8300  leader    true   3             9             -\n\
                        s2    b2  10.0.0.2:8300  follower  false  3             8             1 commit\n";
        assert_eq!(shown, expected);
    }

    #[tokio::test]
    async fn a_peer_is_removed_by_id_or_address_and_not_by_both_or_neither() {
        let fake = Fake::answering(&[("DELETE /v1/operator/raft/peer?id=a1", 200, "")]).await;
        let api = fake.api();
        assert_eq!(remove_peer(&api, Some("a1"), None).await.unwrap().bytes, b"Removed peer with id \"a1\"\n");
        assert!(remove_peer(&api, None, None).await.unwrap_err().to_string().contains("required"));
        assert!(remove_peer(&api, Some("a"), Some("b")).await.unwrap_err().to_string().contains("both"));
    }

    #[tokio::test]
    async fn a_change_keeps_what_it_does_not_name_and_is_made_at_the_index_that_was_read() {
        let known = r#"{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,
            "ServerStabilizationTime":"10s","RedundancyZoneTag":"","DisableUpgradeMigration":false,
            "UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":7}"#;
        let fake = Fake::answering(&[
            ("GET /v1/operator/autopilot/configuration", 200, known),
            ("PUT /v1/operator/autopilot/configuration?cas=7", 200, "true"),
        ])
        .await;
        let flags = SetConfigFlags { min_quorum: Some(3), ..SetConfigFlags::default() };
        assert_eq!(set_config(&fake.api(), &flags).await.unwrap().bytes, b"Configuration updated!\n");
        let body: Value = serde_json::from_str(&fake.last_body()).unwrap();
        assert_eq!((&body["MinQuorum"], &body["ServerStabilizationTime"]), (&Value::from(3), &Value::from("10s")));
    }
}
