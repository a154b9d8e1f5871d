//! `/v1/agent`: what this agent is and whom it knows.

use std::collections::BTreeMap;

use lictor_filter::rows;
use lictor_types::member::PROTOCOLS;
use lictor_types::rpc::{Operation, Report, Status};
use lictor_types::{Member, Refusal, Requirement, Resource};
use serde::Serialize;
use serde_json::{Value, json};

use super::agent_stats;
use super::caller::{Caller, mark_filtered};
use super::choice;
use super::failure::{Answered, Failure};
use crate::agent::{Agent, CONSUL_VERSION, LICTOR_VERSION};
use crate::pools;

/// When this release was built, as far as the API tells; builds are reproducible, so it is no moment of the machine.
const BUILD_DATE: &str = "1970-01-01T00:00:01Z";

/// A member as Consul's API shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemberJson<'a> {
    name: &'a str,
    addr: &'a str,
    port: u16,
    tags: &'a BTreeMap<String, String>,
    status: u8,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        let [protocol_min, protocol_max, protocol_cur, delegate_min, delegate_max, delegate_cur] =
            member.protocols.unwrap_or(PROTOCOLS);
        Self {
            name: member.name.as_str(),
            addr: &member.address,
            port: member.port,
            tags: &member.tags,
            status: member.status.number(),
            protocol_min,
            protocol_max,
            protocol_cur,
            delegate_min,
            delegate_max,
            delegate_cur,
        }
    }
}

/// `GET /v1/agent/members`, those whose nodes the caller may read: as this agent's own pool knows them, and those without
/// gossip as the servers do; with `?wan`, the servers of all datacenters.
pub(super) async fn members(caller: Caller) -> Answered {
    let chosen = choice::filter(&caller.params, rows::member)?;
    let members = known_members(&caller).await?;
    let requirements = members.iter().map(|member| Requirement::read(Resource::Node, member.name.as_str())).collect();
    let denials = caller.denials(requirements).await?;
    let shown: Vec<MemberJson<'_>> = members
        .iter()
        .zip(&denials)
        .filter(|(member, denial)| denial.is_none() && chosen.as_ref().is_none_or(|it| it.matches(member)))
        .map(|(member, _)| member.into())
        .collect();
    let mut response = caller.json(&shown)?;
    mark_filtered(&mut response, denials.iter().any(Option::is_some) && !caller.credential.is_anonymous());
    Ok(response)
}

async fn known_members(caller: &Caller) -> Result<Vec<Member>, Failure> {
    let pools = &caller.door.agent.pools;
    if caller.params.has("wan") {
        return Ok(pools.wan_members().await);
    }
    let mut members: BTreeMap<_, _> =
        pools.members().await.into_iter().map(|member| (member.name.clone(), member)).collect();
    let told = match members.is_empty() {
        true => caller.operate(Operation::Members).await,
        false => caller.operate_soon(Operation::Members).await,
    };
    match told {
        Ok(Report::Members(told)) => {
            for member in told {
                members.entry(member.name.clone()).or_insert(member);
            }
        }
        Ok(_) => return Err(Failure::unexpected_answer()),
        // Who gossips knows the others without a server.
        Err(failure) if members.is_empty() => return Err(failure),
        Err(Failure(refusal)) => tracing::debug!(%refusal, "the servers do not tell of members without gossip"),
    }
    Ok(members.into_values().collect())
}

/// `GET /v1/agent/version`.
pub(super) async fn version(caller: Caller) -> Answered {
    #[derive(Serialize)]
    struct Version {
        #[serde(rename = "SHA")]
        sha: &'static str,
        #[serde(rename = "BuildDate")]
        build_date: &'static str,
        #[serde(rename = "HumanVersion")]
        human_version: &'static str,
        #[serde(rename = "FIPS")]
        fips: &'static str,
    }
    caller.json(&Version { sha: "", build_date: BUILD_DATE, human_version: CONSUL_VERSION, fips: "" })
}

/// `GET /v1/agent/self`.
pub(super) async fn this(caller: Caller) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::read(Resource::Agent, agent.identity.node_name.as_str())).await?;
    // Without servers an agent can still say who it is.
    let status = match caller.operate_soon(Operation::Status).await {
        Ok(Report::Status(status)) => Ok(status),
        Ok(_) => return Err(Failure::unexpected_answer()),
        Err(Failure(refusal)) => Err(refusal),
    };
    let mut description = description(agent, &status, &agent.pools.wan_members().await);
    if let (true, Ok(status)) = (agent.identity.server, &status)
        && let Some(log) = &status.log
    {
        description["Stats"]["raft"] = agent_stats::of_raft(status, log);
    }
    for (name, pool) in [("serf_lan", agent.pools.lan()), ("serf_wan", agent.pools.wan())] {
        // A pool that has stopped has nothing to tell.
        if let Some(pool) = pool
            && let Ok((stats, coordinate)) = pool.with_core(|core, _| (core.stats(), core.coordinate())).await
        {
            description["Stats"][name] =
                stats.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
            if name == "serf_lan" {
                description["Coord"] = serde_json::to_value(pools::as_coordinate(&coordinate)).unwrap_or_default();
            }
        }
    }
    caller.json(&description)
}

fn description(agent: &Agent, status: &Result<Status, Refusal>, wan: &[Member]) -> Value {
    let identity = &agent.identity;
    let config = agent.config.load();
    json!({
        "Config": {
            "Datacenter": identity.datacenter,
            "PrimaryDatacenter": identity.datacenter,
            "NodeName": identity.node_name,
            "NodeID": identity.node_id,
            "Revision": "",
            "Server": identity.server,
            "Version": CONSUL_VERSION,
            "BuildDate": BUILD_DATE,
        },
        "DebugConfig": {
            "ACLsEnabled": identity.acl_enabled,
            "ACLDefaultPolicy": if identity.default_allow { "allow" } else { "deny" },
            "AdvertiseAddrLAN": identity.address,
            "BindAddr": config.addresses.bind.to_string(),
            "Bootstrap": identity.bootstrap_expect == 1,
            "BootstrapExpect": identity.bootstrap_expect,
            "ConnectEnabled": true,
            "DNSDomain": identity.domain,
            "DNSPort": port(identity.dns_port),
            "DNSAllowStale": config.dns.allow_stale,
            "Datacenter": identity.datacenter,
            "DevMode": identity.dev,
            "HTTPPort": port(identity.http_port),
            "HTTPSPort": port(identity.https_port),
            "GRPCPort": -1,
            "GRPCTLSPort": -1,
            "KVMaxValueSize": config.limits.kv_max_value_size,
            "LeaveOnTerm": config.leave_on_terminate,
            "NodeID": identity.node_id,
            "NodeName": identity.node_name,
            "RaftProtocol": 3,
            "SerfPortLAN": identity.serf_lan_port,
            "ServerMode": identity.server,
            "ServerPort": identity.server_port,
            "TaggedAddresses": identity.tagged_addresses(),
            "Version": CONSUL_VERSION,
        },
        "Coord": null,
        "Member": MemberJson::from(&identity.member()),
        "Stats": {
            "agent": agent_stats::of_agent(agent),
            "build": { "version": CONSUL_VERSION, "revision": "", "prerelease": "", "lictor": LICTOR_VERSION },
            "consul": agent_stats::of_servers(agent, status, wan),
            "runtime": agent_stats::of_runtime(),
        },
        "Meta": agent.local.node().meta,
        "xDS": { "SupportedProxies": {}, "Port": -1, "Ports": { "Plaintext": -1, "TLS": -1 } },
    })
}

/// Consul shows a port that is off as -1.
fn port(port: Option<u16>) -> i32 {
    port.map_or(-1, i32::from)
}
