//! `/v1/operator/raft` and `/v1/operator/autopilot`: who is in raft, and how the leader looks after them.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use lictor_types::autopilot::{AutopilotConfig, AutopilotSet, AutopilotState, ServerHealth};
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Answer, Command, Consistency, Index, Query, duration};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::{Ask, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// The version of raft's protocol that Consul's clients know.
const PROTOCOL_VERSION: &str = "3";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftConfiguration<'a> {
    servers: Vec<RaftServerJson<'a>>,
    index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftServerJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    leader: bool,
    protocol_version: &'static str,
    voter: bool,
    last_index: u64,
}

/// `GET /v1/operator/raft/configuration`: the servers in raft as the leader knows them; with `stale`, as the asked
/// server does, which knows no `LastIndex` but its own.
pub(super) async fn configuration(ask: Ask) -> Answered {
    let stale = ask.freshness.consistency == Consistency::Stale;
    let operation = if stale { Operation::RaftPeersHere } else { Operation::RaftPeers };
    let Report::RaftPeers(peers) = ask.operate(operation).await? else { return Err(Failure::unexpected_answer()) };
    let servers = peers.servers.iter().map(|it| RaftServerJson {
        id: &it.server.id,
        node: it.server.name.as_str(),
        address: &it.server.address,
        leader: it.leader,
        protocol_version: PROTOCOL_VERSION,
        voter: it.voter,
        last_index: it.last_index,
    });
    ask.json(&RaftConfiguration { servers: servers.collect(), index: peers.index })
}

/// `DELETE /v1/operator/raft/peer?id=|address=`: takes a server out of raft for ever.
pub(super) async fn remove_peer(order: Order) -> Answered {
    let (id, address) = (order.params.text("id"), order.params.text("address"));
    let operation = match (id, address) {
        (Some(id), None) => Operation::RemoveServer(id.to_owned()),
        (None, Some(address)) => Operation::RemoveServerAt(address.to_owned()),
        (None, None) => {
            return Err(Failure::bad_request(
                "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
            ));
        }
        (Some(_), Some(_)) => return Err(Failure::bad_request("Must specify only one of ?id or ?address")),
    };
    match order.operate(operation).await? {
        Report::Done => Ok(http::Response::default()),
        _ => Err(Failure::unexpected_answer()),
    }
}

/// `POST /v1/operator/raft/transfer-leader?id=`.
pub(super) async fn transfer_leader(order: Order) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Done {
        success: bool,
    }
    let operation = match order.params.text("id") {
        Some(id) => Operation::TransferLeaderTo(id.to_owned()),
        None => Operation::TransferLeader,
    };
    match order.operate(operation).await? {
        Report::Done => order.json(&Done { success: true }),
        _ => Err(Failure::unexpected_answer()),
    }
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigurationJson {
    cleanup_dead_servers: bool,
    #[serde(with = "duration::optional")]
    last_contact_threshold: Option<Duration>,
    max_trailing_logs: u64,
    min_quorum: u64,
    #[serde(with = "duration::optional")]
    server_stabilization_time: Option<Duration>,
    redundancy_zone_tag: String,
    disable_upgrade_migration: bool,
    upgrade_version_tag: String,
    create_index: u64,
    modify_index: u64,
}

impl From<&AutopilotConfig> for ConfigurationJson {
    fn from(config: &AutopilotConfig) -> Self {
        Self {
            cleanup_dead_servers: config.cleanup_dead_servers,
            last_contact_threshold: Some(Duration::from_millis(config.last_contact_threshold_millis)),
            max_trailing_logs: config.max_trailing_logs,
            min_quorum: config.min_quorum,
            server_stabilization_time: Some(Duration::from_millis(config.server_stabilization_millis)),
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
            create_index: config.create_index.0,
            modify_index: config.modify_index.0,
        }
    }
}

/// `GET /v1/operator/autopilot/configuration`.
pub(super) async fn autopilot_configuration(ask: Ask) -> Answered {
    let (_, Answer::Autopilot(config)) = ask.read_now(Query::Autopilot).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.json(&ConfigurationJson::from(&config))
}

/// `PUT /v1/operator/autopilot/configuration`: replaces it whole, as Consul does; with `cas`, only at that index.
pub(super) async fn set_autopilot_configuration(order: Order, body: JsonBody) -> Answered {
    let told: ConfigurationJson = decode::decode(&body.0, Names::SnakeToo)?;
    if !told.redundancy_zone_tag.is_empty() || !told.upgrade_version_tag.is_empty() || told.disable_upgrade_migration {
        return Err(Failure::bad_request(
            "RedundancyZoneTag, DisableUpgradeMigration and UpgradeVersionTag are Consul Enterprise's and not served: \
             leave them out",
        ));
    }
    let millis = |time: Option<Duration>| time.unwrap_or_default().as_millis() as u64;
    let config = AutopilotConfig {
        cleanup_dead_servers: told.cleanup_dead_servers,
        last_contact_threshold_millis: millis(told.last_contact_threshold),
        max_trailing_logs: told.max_trailing_logs,
        min_quorum: told.min_quorum,
        server_stabilization_millis: millis(told.server_stabilization_time),
        ..AutopilotConfig::default()
    };
    let cas = order.params.number("cas")?.map(Index);
    let applied = order.write(Command::AutopilotSet(AutopilotSet { config, cas })).await?;
    order.json(&applied)
}

async fn state_of(ask: &Ask) -> Result<AutopilotState, Failure> {
    match ask.operate(Operation::AutopilotState).await? {
        Report::Autopilot(state) => Ok(*state),
        _ => Err(Failure::unexpected_answer()),
    }
}

fn last_contact(server: &ServerHealth) -> String {
    duration::format(Duration::from_millis(server.last_contact_millis.unwrap_or_default()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthJson<'a> {
    healthy: bool,
    failure_tolerance: u32,
    servers: Vec<ServerHealthJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerHealthJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    serf_status: &'a str,
    version: &'a str,
    leader: bool,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    voter: bool,
    stable_since: String,
}

/// `GET /v1/operator/autopilot/health`: 429 with the same body when a server is not healthy.
pub(super) async fn health(ask: Ask) -> Answered {
    let state = state_of(&ask).await?;
    let servers = state.servers.iter().map(|it| ServerHealthJson {
        id: &it.server.id,
        name: it.server.name.as_str(),
        address: &it.server.address,
        serf_status: &it.member_status,
        version: &it.version,
        leader: it.leader,
        last_contact: last_contact(it),
        last_term: it.last_term,
        last_index: it.last_index,
        healthy: it.healthy,
        voter: it.voter,
        stable_since: it.stable_since.to_rfc3339(),
    });
    let status = if state.healthy { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    let servers = servers.collect();
    ask.json_with(status, &HealthJson { healthy: state.healthy, failure_tolerance: state.failure_tolerance, servers })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateJson<'a> {
    healthy: bool,
    failure_tolerance: u32,
    optimistic_failure_tolerance: u32,
    servers: BTreeMap<&'a str, ServerStateJson<'a>>,
    leader: &'a str,
    voters: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerStateJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    node_status: &'a str,
    version: &'a str,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    stable_since: String,
    status: &'static str,
    meta: BTreeMap<String, String>,
    node_type: &'static str,
}

/// What Consul has no field for.
fn meta(server: &ServerHealth) -> BTreeMap<String, String> {
    let differs = server.differs_at.map(|index| ("state-differs-at-index".to_owned(), index.to_string()));
    differs.into_iter().collect()
}

/// `GET /v1/operator/autopilot/state`.
pub(super) async fn state(ask: Ask) -> Answered {
    let state = state_of(&ask).await?;
    let servers = state.servers.iter().map(|it| {
        let kind = if it.voter { "voter" } else { "non-voter" };
        let server = ServerStateJson {
            id: &it.server.id,
            name: it.server.name.as_str(),
            address: &it.server.address,
            node_status: &it.member_status,
            version: &it.version,
            last_contact: last_contact(it),
            last_term: it.last_term,
            last_index: it.last_index,
            healthy: it.healthy,
            stable_since: it.stable_since.to_rfc3339(),
            status: if it.leader { "leader" } else { kind },
            meta: meta(it),
            node_type: if it.voter { "voter" } else { "staging" },
        };
        (it.server.id.as_str(), server)
    });
    ask.json(&StateJson {
        healthy: state.healthy,
        failure_tolerance: state.failure_tolerance,
        optimistic_failure_tolerance: state.failure_tolerance,
        servers: servers.collect(),
        leader: state.servers.iter().find(|it| it.leader).map_or("", |it| &it.server.id),
        voters: state.servers.iter().filter(|it| it.voter).map(|it| it.server.id.as_str()).collect(),
    })
}
