//! The words about config entries, gateways and virtual addresses.

use lictor_types::config_entry::{ConfigEntryDelete, ConfigEntryKey, ConfigEntrySet};
use lictor_types::discovery_chain::{ChainAnswer, ChainNode, ChainQuery, ChainTarget, CompiledChain};
use lictor_types::gateway::GatewayService;
use lictor_types::query::ServiceQuery;
use lictor_types::{Answer, Command, ConfigEntry, Index, NodeService, Query, VirtualAddressesSet};

use super::Arguments;

fn key(arguments: &Arguments<'_>) -> ConfigEntryKey {
    ConfigEntryKey { kind: arguments.word(1).parse().unwrap(), name: arguments.word(2).into() }
}

pub(super) fn query_of(arguments: &Arguments<'_>, line: &str) -> Option<Query> {
    let first = arguments.word(1);
    Some(match arguments.word(0) {
        "config-entry" => Query::ConfigEntry(key(arguments)),
        "config-entries" => Query::ConfigEntries(first.parse().unwrap()),
        "gateway-services" => Query::GatewayServices(first.parse().unwrap()),
        "ingress" => Query::HealthIngress(ServiceQuery::all(first.parse().unwrap())),
        "virtual" => Query::VirtualAddress(first.parse().unwrap()),
        "at-address" => Query::AddressNames(first.into()),
        // chain SERVICE [protocol=P] [timeout=SECONDS] [gateway=MODE], as dc1 calls it
        "chain" => Query::DiscoveryChain(ChainQuery {
            service: first.parse().unwrap(),
            datacenter: "dc1".into(),
            protocol: arguments.named.get("protocol").copied().unwrap_or_default().into(),
            connect_timeout_nanos: arguments.number("timeout").unwrap_or_default() * 1_000_000_000,
            mesh_gateway: arguments.named.get("gateway").copied().unwrap_or_default().into(),
        }),
        "exported" => Query::ExportedServices,
        "complete" => Query::Completed(serde_json::from_str(&line["complete ".len()..]).unwrap()),
        _ => return None,
    })
}

pub(super) fn command_of(line: &str) -> Option<Command> {
    let (verb, rest) = line.split_once(' ')?;
    let arguments = Arguments::new(line);
    let cas = arguments.number("cas").map(Index);
    match verb {
        // config [cas=N] ENTRY
        "config" => {
            let written: serde_json::Value = serde_json::from_str(&rest[rest.find('{')?..]).unwrap();
            let entry = ConfigEntry::parse(written["Kind"].as_str()?.parse().unwrap(), &written).unwrap();
            Some(Command::ConfigEntrySet(Box::new(ConfigEntrySet { entry, cas })))
        }
        "unconfig" => Some(Command::ConfigEntryDelete(ConfigEntryDelete { key: key(&arguments), cas })),
        "virtual-ips" => {
            let addresses = arguments.list("are");
            Some(Command::VirtualAddressesSet(VirtualAddressesSet { service: arguments.word(1).into(), addresses }))
        }
        _ => None,
    }
}

pub(super) fn rows(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::ConfigEntry(entry) => entry.iter().map(|it| entry_row(it)).collect(),
        Answer::ConfigEntries(entries) => entries.iter().map(entry_row).collect(),
        Answer::GatewayServices(rows) => rows.iter().map(linked).collect(),
        Answer::VirtualAddress(row) => row
            .iter()
            .map(|it| {
                let manual = it.manual.join(",");
                format!("{} {} manual={manual} @{}/{}", it.service, it.address(), it.create_index, it.modify_index)
            })
            .collect(),
        Answer::Completed(it) => vec![proxy(it)],
        Answer::AddressNames(it) => {
            let nodes = it.nodes.iter().map(|name| format!("node {name}"));
            nodes.chain(it.services.iter().map(|name| format!("service {name}"))).collect()
        }
        Answer::DiscoveryChain(Some(ChainAnswer::Compiled(it))) => chain(it),
        Answer::DiscoveryChain(Some(ChainAnswer::Broken(problem))) => vec![format!("broken: {problem}")],
        Answer::DiscoveryChain(None) => vec!["no authority yet".into()],
        Answer::ExportedServices(rows) => {
            rows.iter().map(|row| format!("{} to {}", row.service, row.peers.join(","))).collect()
        }
        _ => Vec::new(),
    }
}

fn entry_row(entry: &ConfigEntry) -> String {
    let body = serde_json::to_string(&entry.body).unwrap();
    format!("{}/{} {body} @{}/{}", entry.kind, entry.name, entry.create_index, entry.modify_index)
}

fn linked(row: &GatewayService) -> String {
    let wildcard = if row.from_wildcard { " by wildcard" } else { "" };
    let port = if row.port == 0 { String::new() } else { format!(" :{} {}", row.port, row.protocol) };
    format!("{} {} before {}{port}{wildcard} @{}", row.gateway_kind, row.gateway, row.service, row.modify_index)
}

/// A chain: what holds for all of it, then its steps, then its targets, each as JSON.
fn chain(chain: &CompiledChain) -> Vec<String> {
    let mut head = serde_json::to_value(chain).unwrap();
    let fields = head.as_object_mut().unwrap();
    for name in ["Nodes", "Targets", "Namespace", "Partition", "Datacenter"] {
        fields.remove(name);
    }
    fields.retain(|_, value| !value.is_null());
    let node = |(key, node): (&String, &ChainNode)| {
        let mut shown = serde_json::to_value(node).unwrap();
        let fields = shown.as_object_mut().unwrap();
        fields.retain(|name, _| name != "Type" && name != "Name");
        format!("{key} {shown}")
    };
    let target = |(key, target): (&String, &ChainTarget)| {
        let mut shown = serde_json::to_value(target).unwrap();
        let fields = shown.as_object_mut().unwrap();
        fields.retain(|name, value| {
            !matches!(name.as_str(), "ID" | "Namespace" | "Partition" | "Name")
                && value.as_object().is_none_or(|it| !it.is_empty())
        });
        format!("target {key} {shown}")
    };
    let nodes = chain.nodes.iter().map(node);
    std::iter::once(head.to_string()).chain(nodes).chain(chain.targets.iter().map(target)).collect()
}

/// What an instance says as a proxy, beyond what it stands before.
pub(super) fn proxy(service: &NodeService) -> String {
    let mut shown = serde_json::to_value(&service.proxy).unwrap();
    let fields = shown.as_object_mut().unwrap();
    fields.remove("DestinationServiceName");
    fields.retain(|_, value| !matches!(value.to_string().as_str(), "{}" | "\"\"" | "null"));
    shown.to_string()
}
