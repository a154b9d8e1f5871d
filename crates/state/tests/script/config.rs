//! The words about config entries, gateways and virtual addresses.

use lictor_types::config_entry::{ConfigEntryDelete, ConfigEntryKey, ConfigEntrySet};
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

/// What an instance says as a proxy, beyond what it stands before.
pub(super) fn proxy(service: &NodeService) -> String {
    let mut shown = serde_json::to_value(&service.proxy).unwrap();
    let fields = shown.as_object_mut().unwrap();
    fields.remove("DestinationServiceName");
    fields.retain(|_, value| !matches!(value.to_string().as_str(), "{}" | "\"\"" | "null"));
    shown.to_string()
}
