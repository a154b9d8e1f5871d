//! The figures of `/v1/agent/self`: texts by name in groups, as `consul info` prints them.

use std::collections::BTreeSet;

use lictor_types::rpc::{LogFigures, Status};
use lictor_types::{HealthCheck, Member, Refusal};
use serde_json::{Value, json};

use crate::agent::Agent;

/// The toolchain that made this program.
const TOOLCHAIN: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
/// The version of raft that Consul's clients look for.
const RAFT_PROTOCOL: &str = "3";

/// What the agent holds itself.
pub(super) fn of_agent(agent: &Agent) -> Value {
    let checks = agent.local.checks();
    let of_kinds = |kinds: &[&str]| counted(checks.values(), kinds).to_string();
    json!({
        "check_monitors": of_kinds(&["script", "docker"]),
        "check_ttls": of_kinds(&["ttl"]),
        "checks": checks.len().to_string(),
        "services": agent.local.services().len().to_string(),
    })
}

fn counted<'c>(checks: impl Iterator<Item = &'c HealthCheck>, kinds: &[&str]) -> usize {
    checks.filter(|check| kinds.contains(&check.kind.as_str())).count()
}

/// What the agent knows of the servers. `wan` are the servers of all datacenters, as far as it knows them.
pub(super) fn of_servers(agent: &Agent, status: &Result<Status, Refusal>, wan: &[Member]) -> Value {
    let identity = &agent.identity;
    let mut stats = json!({ "server": identity.server.to_string() });
    let known = status.as_ref().map_or(0, |status| status.peers.len());
    stats["known_servers"] = known.to_string().into();
    if let (true, Ok(status)) = (identity.server, status) {
        stats["bootstrap"] = (identity.bootstrap_expect == 1 && !identity.dev).to_string().into();
        stats["leader"] = status.is_leader.to_string().into();
        stats["leader_addr"] = status.leader.clone().unwrap_or_default().into();
        stats["known_datacenters"] = datacenters(&identity.datacenter, wan).to_string().into();
    }
    stats
}

/// How many datacenters there are, ours among them.
fn datacenters(own: &str, wan: &[Member]) -> usize {
    let others = wan.iter().filter_map(|member| member.tags.get("dc")).map(String::as_str);
    others.chain([own]).collect::<BTreeSet<_>>().len()
}

/// How far the log of this server is.
pub(super) fn of_raft(status: &Status, log: &LogFigures) -> Value {
    let suffrage = |voter: bool| if voter { "Voter" } else { "Nonvoter" };
    let members: Vec<String> = status
        .servers
        .iter()
        .map(|it| format!("{{Suffrage:{} ID:{} Address:{}}}", suffrage(it.voter), it.server.id, it.server.address))
        .collect();
    let others = status.servers.iter().filter(|it| it.voter).count().saturating_sub(1);
    let contact = match log.state.as_str() {
        "Leader" => "0".to_owned(),
        _ if status.leader.is_none() => "never".to_owned(),
        _ => lictor_types::duration::format(std::time::Duration::from_millis(log.contact_millis)),
    };
    json!({
        "applied_index": log.applied.to_string(),
        "commit_index": log.committed.to_string(),
        "fsm_pending": log.pending.to_string(),
        "last_contact": contact,
        "last_log_index": log.last.to_string(),
        "last_log_term": log.applied_term.to_string(),
        "last_snapshot_index": log.snapshot.to_string(),
        "latest_configuration": format!("[{}]", members.join(" ")),
        "num_peers": others.to_string(),
        "protocol_version": RAFT_PROTOCOL,
        "protocol_version_max": RAFT_PROTOCOL,
        "protocol_version_min": RAFT_PROTOCOL,
        "state": log.state,
        "term": log.term.to_string(),
    })
}

/// What the program runs on. What Go counts as goroutines are tasks here.
pub(super) fn of_runtime() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let runtime = tokio::runtime::Handle::current().metrics();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "arch": architecture,
        "cpu_count": processors.to_string(),
        "goroutines": runtime.num_alive_tasks().to_string(),
        "max_procs": runtime.num_workers().to_string(),
        "os": std::env::consts::OS,
        "version": TOOLCHAIN,
    })
}

#[cfg(test)]
mod tests {
    use lictor_types::CheckStatus;
    use lictor_types::rpc::{RaftServer, ServerAddress};

    use super::*;

    #[test]
    fn raft_is_told_in_consuls_words() {
        let server = |name: &str, voter| RaftServer {
            server: ServerAddress { id: name.into(), name: name.parse().unwrap(), address: format!("{name}:8300") },
            voter,
        };
        let servers = vec![server("s1", true), server("s2", true), server("s3", false)];
        let status = Status { leader: Some("s1:8300".into()), servers, ..Status::default() };
        let log =
            LogFigures { state: "Follower".into(), term: 2, last: 9, contact_millis: 12, ..LogFigures::default() };
        let told = of_raft(&status, &log);
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let shown = [text("state"), text("term"), text("last_log_index"), text("num_peers")];
        assert_eq!(shown, ["Follower", "2", "9", "1"]);
        assert_eq!(text("last_contact"), "12ms");
        assert!(text("latest_configuration").contains("{Suffrage:Nonvoter ID:s3 Address:s3:8300}"));
        let leading = LogFigures { state: "Leader".into(), ..log.clone() };
        assert_eq!(of_raft(&status, &leading)["last_contact"], "0");
        assert_eq!(of_raft(&Status::default(), &log)["last_contact"], "never");
    }

    #[test]
    fn checks_are_counted_by_their_kinds() {
        let check = |kind: &str| HealthCheck {
            kind: kind.into(),
            ..HealthCheck::new("c".parse().unwrap(), "c", CheckStatus::Passing, "")
        };
        let checks = ["ttl", "ttl", "script", "docker", "http"].map(check);
        assert_eq!(counted(checks.iter(), &["ttl"]), 2);
        assert_eq!(counted(checks.iter(), &["script", "docker"]), 2);
    }

    #[tokio::test]
    async fn the_runtime_counts_its_tasks() {
        let told = of_runtime();
        assert!(told["cpu_count"].as_str().unwrap().parse::<usize>().unwrap() > 0);
        assert!(told["version"].as_str().unwrap().starts_with("rust1."), "{told}");
    }
}
