//! What config entries say of one another: from a service over its router, its splitters and its resolvers to what answers
//! in the end. An entry that breaks a chain is refused, in Consul's words.
//!
//! Invariants
//! - All services of one chain speak one protocol, and one that is routed or split speaks HTTP.
//! - No chain leads back to itself, and no subset is named that is not there.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::config_entry::{ConfigEntry, ConfigKind, DEFAULT_PROTOCOL};
use lictor_types::intention::WILDCARD;
use serde_json::Value;

use crate::tables::config_entries::ConfigEntries;

mod compile;

pub(crate) use compile::compile;

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn or<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

pub(crate) fn is_http(protocol: &str) -> bool {
    matches!(protocol, "http" | "http2" | "grpc")
}

/// The services that an entry of a chain sends requests to, and those that an ingress gateway names.
pub(crate) fn referenced(entry: &ConfigEntry) -> BTreeSet<String> {
    let mut names: Vec<&str> = Vec::new();
    match entry.kind {
        ConfigKind::ServiceRouter => {
            names.extend(entry.rows("Routes").iter().map(|route| text(&route["Destination"], "Service")));
        }
        ConfigKind::ServiceSplitter => names.extend(entry.rows("Splits").iter().map(|it| text(it, "Service"))),
        ConfigKind::ServiceResolver => {
            names.push(text(entry.field("Redirect"), "Service"));
            for failover in entry.field("Failover").as_object().into_iter().flat_map(|it| it.values()) {
                names.push(text(failover, "Service"));
                // What a peer serves is not ours to know.
                let targets = failover["Targets"].as_array().into_iter().flatten();
                names.extend(targets.filter(|it| text(it, "Peer").is_empty()).map(|it| text(it, "Service")));
            }
        }
        ConfigKind::IngressGateway => {
            for listener in entry.rows("Listeners") {
                names.extend(listener["Services"].as_array().into_iter().flatten().map(|it| text(it, "Name")));
            }
        }
        _ => {}
    }
    names.into_iter().filter(|name| !name.is_empty() && *name != WILDCARD).map(str::to_owned).collect()
}

/// The protocol that a service speaks by itself.
pub(crate) fn protocol_of(entries: &ConfigEntries, service: &str) -> String {
    let own = entries.service_defaults(service).map(|it| it.field("Protocol").as_str().unwrap_or_default());
    let general = || {
        let defaults = entries.proxy_defaults()?;
        defaults.field("Config").get("protocol").and_then(Value::as_str).map(str::to_lowercase)
    };
    own.filter(|it| !it.is_empty()).map(str::to_owned).or_else(general).unwrap_or_else(|| DEFAULT_PROTOCOL.into())
}

/// Refuses entries of which some chain does not hold, after a change of one of them.
pub(crate) fn check(entries: &ConfigEntries, kind: ConfigKind, name: &str) -> Result<(), String> {
    let services = match kind {
        ConfigKind::ServiceDefaults
        | ConfigKind::ServiceResolver
        | ConfigKind::ServiceSplitter
        | ConfigKind::ServiceRouter => reaching(entries, name),
        ConfigKind::ProxyDefaults => all(entries),
        ConfigKind::IngressGateway => {
            let Some(gateway) = entries.get(kind, name) else { return Ok(()) };
            return check_ingress(entries, gateway, None);
        }
        _ => return Ok(()),
    };
    for service in &services {
        compile::plain(entries, service)?;
    }
    for gateway in entries.of_kind(ConfigKind::IngressGateway) {
        check_ingress(entries, gateway, Some(&services))?;
    }
    Ok(())
}

const CHAIN: [ConfigKind; 3] = [ConfigKind::ServiceRouter, ConfigKind::ServiceSplitter, ConfigKind::ServiceResolver];

/// Every service that some entry says anything of.
fn all(entries: &ConfigEntries) -> BTreeSet<String> {
    let chains = CHAIN.into_iter().flat_map(|kind| entries.of_kind(kind)).map(|entry| entry.name.to_ascii_lowercase());
    let gateways = entries.of_kind(ConfigKind::IngressGateway).flat_map(|entry| referenced(entry));
    chains.chain(gateways.map(|name| name.to_ascii_lowercase())).collect()
}

/// The services whose chain may lead to `service`, itself included.
fn reaching(entries: &ConfigEntries, service: &str) -> BTreeSet<String> {
    let mut towards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in CHAIN.into_iter().flat_map(|kind| entries.of_kind(kind)) {
        for target in referenced(entry) {
            towards.entry(target.to_ascii_lowercase()).or_default().push(entry.name.to_ascii_lowercase());
        }
    }
    let mut found = BTreeSet::new();
    let mut waiting = vec![service.to_ascii_lowercase()];
    while let Some(name) = waiting.pop() {
        waiting.extend(towards.remove(&name).unwrap_or_default());
        found.insert(name);
    }
    found
}

/// Refuses a gateway that has a listener of another protocol than a service on it; only of these services, if they are
/// named. Who writes the gateway must say their protocol; where one of them changes later, a plain listener may stay
/// before a service that is only resolved.
fn check_ingress(
    entries: &ConfigEntries,
    gateway: &ConfigEntry,
    only: Option<&BTreeSet<String>>,
) -> Result<(), String> {
    for listener in gateway.rows("Listeners") {
        let expected = text(listener, "Protocol");
        for service in listener["Services"].as_array().into_iter().flatten().map(|it| text(it, "Name")) {
            if service == WILDCARD || only.is_some_and(|only| !only.contains(&service.to_ascii_lowercase())) {
                continue;
            }
            let compile::Compiled { chain, is_routed, .. } = compile::plain(entries, service)?;
            let is_plain = only.is_some() && expected == DEFAULT_PROTOCOL && !is_routed;
            if chain.protocol != expected && !is_plain {
                return Err(format!(
                    "service {service:?} has protocol {:?}, which does not match defined listener protocol {expected:?}",
                    chain.protocol
                ));
            }
        }
    }
    Ok(())
}
