//! What config entries say of one another: from a service over its router, its splitters and its resolvers to what answers
//! in the end. An entry that breaks a chain is refused, in Consul's words.
//!
//! Invariants
//! - All services of one chain speak one protocol, and one that is routed or split speaks HTTP.
//! - No chain leads back to itself, none is longer than [`DEPTH_MAX`], and no subset is named that is not there.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::config_entry::{ConfigEntry, ConfigKind, DEFAULT_PROTOCOL};
use lictor_types::intention::WILDCARD;
use serde_json::Value;

use crate::tables::config_entries::ConfigEntries;

/// Splitters behind one another.
const DEPTH_MAX: usize = 32;
/// Redirects behind one another.
const REDIRECTS_MAX: usize = 64;

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
        Walk::begin(entries, service)?;
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
/// named.
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
            let chain = Walk::begin(entries, service)?;
            // A plain listener may stand before any service that is only resolved.
            let is_plain = expected == DEFAULT_PROTOCOL && !chain.is_routed;
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

/// A chain that holds.
struct Chain {
    protocol: String,
    is_routed: bool,
}

/// On the way through one chain.
struct Walk<'a> {
    entries: &'a ConfigEntries,
    service: &'a str,
    protocol: Option<String>,
    is_routed: bool,
    /// Splitters that were gone through.
    split: BTreeSet<String>,
    /// Splitters that we are in.
    within: Vec<String>,
    /// Instances that were found: service and subset.
    resolved: BTreeSet<(String, String)>,
}

impl<'a> Walk<'a> {
    fn begin(entries: &'a ConfigEntries, service: &'a str) -> Result<Chain, String> {
        let mut walk = Self {
            entries,
            service,
            protocol: None,
            is_routed: false,
            split: BTreeSet::new(),
            within: Vec::new(),
            resolved: BTreeSet::new(),
        };
        walk.whole()?;
        let protocol = walk.protocol.unwrap_or_else(|| DEFAULT_PROTOCOL.into());
        if walk.is_routed && !is_http(&protocol) {
            return Err(format!(
                "discovery chain {service:?} uses a protocol {protocol:?} that does not permit advanced routing or \
                 splitting behavior"
            ));
        }
        Ok(Chain { protocol, is_routed: walk.is_routed })
    }

    fn whole(&mut self) -> Result<(), String> {
        let entries = self.entries;
        if let Some(router) = entries.get(ConfigKind::ServiceRouter, self.service) {
            self.is_routed = true;
            self.record(self.service)?;
            for route in router.rows("Routes") {
                let destination = &route["Destination"];
                let service = or(text(destination, "Service"), self.service);
                match text(destination, "ServiceSubset") {
                    "" => self.split_or_resolve(service)?,
                    subset => self.resolve(service, subset, false)?,
                }
            }
        }
        self.split_or_resolve(self.service)
    }

    fn record(&mut self, service: &str) -> Result<(), String> {
        let protocol = protocol_of(self.entries, service);
        match &self.protocol {
            Some(known) if *known != protocol => Err(format!(
                "discovery chain {:?} uses inconsistent protocols; service {service:?} has {protocol:?} which is not {known:?}",
                self.service
            )),
            Some(_) => Ok(()),
            None => {
                self.protocol = Some(protocol);
                Ok(())
            }
        }
    }

    fn split_or_resolve(&mut self, service: &str) -> Result<(), String> {
        if self.split(service)? { Ok(()) } else { self.resolve(service, "", false) }
    }

    /// Goes through the splitter of a service; false when it has none.
    fn split(&mut self, service: &str) -> Result<bool, String> {
        let entries = self.entries;
        let Some(splitter) = entries.get(ConfigKind::ServiceSplitter, service) else { return Ok(false) };
        let key = service.to_ascii_lowercase();
        if self.within.contains(&key) {
            let way: Vec<String> = self.within.iter().chain([&key]).map(|name| format!("splitter:{name}")).collect();
            return Err(format!("detected circular reference: [{}]", way.join(" -> ")));
        }
        if self.within.len() == DEPTH_MAX {
            return Err(format!(
                "discovery chain {:?} has more than {DEPTH_MAX} splitters behind one another",
                self.service
            ));
        }
        self.is_routed = true;
        if !self.split.insert(key.clone()) {
            return Ok(true);
        }
        self.within.push(key);
        for split in splitter.rows("Splits") {
            let (target, subset) = (or(text(split, "Service"), service), text(split, "ServiceSubset"));
            let may_split_again = subset.is_empty() && !target.eq_ignore_ascii_case(service);
            if !(may_split_again && self.split(target)?) {
                self.resolve(target, subset, false)?;
            }
        }
        self.within.pop();
        Ok(true)
    }

    /// Follows redirects to the instances that are meant in the end.
    fn resolve(&mut self, service: &str, subset: &str, is_failover: bool) -> Result<(), String> {
        let entries = self.entries;
        let (mut service, mut subset) = (service, subset);
        let (mut seen, mut way) = (BTreeSet::new(), Vec::new());
        loop {
            self.record(service)?;
            let shown = if subset.is_empty() { service.to_owned() } else { format!("{subset}.{service}") };
            let is_new = seen.insert(shown.to_ascii_lowercase());
            way.push(shown);
            if !is_new || way.len() > REDIRECTS_MAX {
                return Err(format!("detected circular resolver redirect: [{}]", way.join(" -> ")));
            }
            let Some(resolver) = entries.get(ConfigKind::ServiceResolver, service) else {
                return if subset.is_empty() { Ok(()) } else { Err(no_subset(service, subset)) };
            };
            let redirect = resolver.field("Redirect");
            if redirect.is_object() {
                if !text(redirect, "Peer").is_empty() {
                    return Ok(());
                }
                let target = or(text(redirect, "Service"), service);
                // A subset is one of the service that named it.
                let kept = if target.eq_ignore_ascii_case(service) { subset } else { "" };
                let target_subset = or(text(redirect, "ServiceSubset"), kept);
                if !target.eq_ignore_ascii_case(service) || target_subset != subset {
                    (service, subset) = (target, target_subset);
                    continue;
                }
            }
            let default = resolver.field("DefaultSubset").as_str().unwrap_or_default();
            if subset.is_empty() && !default.is_empty() {
                subset = default;
                continue;
            }
            if !subset.is_empty() && resolver.field("Subsets").get(subset).is_none() {
                return Err(no_subset(service, subset));
            }
            self.check_external(service, resolver)?;
            let is_new = self.resolved.insert((service.to_ascii_lowercase(), subset.to_owned()));
            return if is_failover || !is_new { Ok(()) } else { self.fail_over(resolver, service, subset) };
        }
    }

    fn check_external(&self, service: &str, resolver: &ConfigEntry) -> Result<(), String> {
        let is_external = self.entries.service_defaults(service).is_some_and(|it| it.field("ExternalSNI").is_string());
        if !is_external {
            return Ok(());
        }
        for (name, words) in [("Redirect", "redirects"), ("Subsets", "subsets"), ("Failover", "failover")] {
            if resolver.field(name).is_object() {
                return Err(format!(
                    "service {service:?} has an external SNI set; cannot define {words} for external services"
                ));
            }
        }
        Ok(())
    }

    /// Follows what stands in when the instances fail; that itself has nothing that stands in.
    fn fail_over(&mut self, resolver: &'a ConfigEntry, service: &str, subset: &str) -> Result<(), String> {
        let failover = resolver.field("Failover");
        let chosen = failover.get(subset).or_else(|| failover.get(WILDCARD));
        let Some(chosen) = chosen else { return Ok(()) };
        let targets = chosen["Targets"].as_array().map_or(&[][..], Vec::as_slice);
        let targets = if targets.is_empty() { std::slice::from_ref(chosen) } else { targets };
        for target in targets.iter().filter(|target| text(target, "Peer").is_empty()) {
            let to = or(text(target, "Service"), service);
            let kept = if to.eq_ignore_ascii_case(service) { subset } else { "" };
            let to_subset = or(text(target, "ServiceSubset"), kept);
            if !to.eq_ignore_ascii_case(service) || to_subset != subset {
                self.resolve(to, to_subset, true)?;
            }
        }
        Ok(())
    }
}

fn no_subset(service: &str, subset: &str) -> String {
    format!("service {service:?} does not have a subset named {subset:?}")
}
