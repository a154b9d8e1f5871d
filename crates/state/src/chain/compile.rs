//! One chain compiled: the router of a service, the splitters behind it, and the instances that calls end at.
//!
//! Whether entries may be stored and what a reader is told of them is decided here, so that no stored entry has a chain
//! that cannot be read.
//!
//! Invariants
//! - Splitters behind one another are one splitter in the result; it has no more than [`SPLITS_MAX`] splits.
//! - Two spellings of a service are one.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::config_entry::{ConfigEntry, ConfigKind, DEFAULT_PROTOCOL, PROXY_DEFAULTS_NAME};
use lictor_types::discovery_chain::{
    ChainNode, ChainQuery, ChainResolver, ChainRoute, ChainSplit, ChainStep, ChainTarget, CompiledChain, DEFAULT,
};
use lictor_types::intention::WILDCARD;
use lictor_types::json::{Opaque, OpaqueList};
use lictor_types::{ServiceName, duration};
use serde_json::{Value, json};

use super::{is_http, or, protocol_of, text};
use crate::tables::config_entries::ConfigEntries;

/// Splitters behind one another.
const DEPTH_MAX: usize = 32;
/// Redirects behind one another.
const REDIRECTS_MAX: usize = 64;
/// Splits of one splitter, with those of all splitters behind it.
const SPLITS_MAX: usize = 1000;
/// How long a connection may take where no resolver says it.
const CONNECT_TIMEOUT_NANOS: u64 = 5_000_000_000;
/// The datacenter that stands in the words about an entry that is refused.
const ANY_DATACENTER: &str = "dc1";

/// A chain with what was looked at for it.
pub(crate) struct Compiled {
    pub(crate) chain: CompiledChain,
    /// Some entry routes or splits.
    pub(crate) is_routed: bool,
    /// The entries that it follows from, those that are not there too.
    pub(crate) consulted: BTreeSet<(ConfigKind, String)>,
}

/// The chain of `service` by itself, for whether it holds.
pub(super) fn plain(entries: &ConfigEntries, service: &str) -> Result<Compiled, String> {
    let service = ServiceName::try_from(service.to_owned()).map_err(|error| error.to_string())?;
    let query = ChainQuery {
        service,
        datacenter: ANY_DATACENTER.into(),
        protocol: String::new(),
        connect_timeout_nanos: 0,
        mesh_gateway: String::new(),
    };
    compile(entries, &query, "")
}

/// The chain that is asked for; the trust domain is in the names of its targets.
pub(crate) fn compile(entries: &ConfigEntries, query: &ChainQuery, trust_domain: &str) -> Result<Compiled, String> {
    let is_plain = !query.protocol.is_empty() && !is_http(&query.protocol);
    let mut compiler = Compiler {
        entries,
        query,
        trust_domain,
        is_plain,
        protocol: None,
        is_routed: false,
        customized: BTreeMap::new(),
        nodes: BTreeMap::new(),
        targets: BTreeMap::new(),
        splitters: BTreeMap::new(),
        resolvers: BTreeMap::new(),
        within: Vec::new(),
        consulted: BTreeSet::new(),
    };
    let start = compiler.begin()?;
    compiler.finish(start)
}

/// Which instances are meant.
#[derive(Clone, PartialEq, Eq)]
struct Spot<'a> {
    service: &'a str,
    subset: &'a str,
    datacenter: &'a str,
    peer: &'a str,
}

impl<'a> Spot<'a> {
    fn id(&self) -> String {
        let Self { service, subset, datacenter, peer } = self;
        match (peer.is_empty(), subset.is_empty()) {
            (false, _) => format!("{service}.{DEFAULT}.{DEFAULT}.external.{peer}"),
            (true, true) => format!("{service}.{DEFAULT}.{DEFAULT}.{datacenter}"),
            (true, false) => format!("{subset}.{service}.{DEFAULT}.{DEFAULT}.{datacenter}"),
        }
    }

    fn key(&self) -> String {
        self.id().to_ascii_lowercase()
    }

    /// What a redirect or a failover makes of it. A subset is one of the service that named it.
    fn rewritten(&self, by: &'a Value, datacenter: &'a str) -> Self {
        let mut spot = self.clone();
        let service = text(by, "Service");
        if !service.is_empty() && !service.eq_ignore_ascii_case(self.service) {
            (spot.service, spot.subset) = (service, "");
        }
        spot.subset = or(text(by, "ServiceSubset"), spot.subset);
        spot.peer = text(by, "Peer");
        spot.datacenter = if spot.peer.is_empty() { or(datacenter, spot.datacenter) } else { "" };
        spot
    }
}

struct Compiler<'a> {
    entries: &'a ConfigEntries,
    query: &'a ChainQuery,
    trust_domain: &'a str,
    /// The protocol that is asked for can be neither routed nor split.
    is_plain: bool,
    protocol: Option<String>,
    is_routed: bool,
    /// Overrides that had an effect.
    customized: BTreeMap<&'static str, String>,
    nodes: BTreeMap<String, ChainNode>,
    /// Targets that some resolver ends at.
    targets: BTreeMap<String, ChainTarget>,
    /// Nodes of splitters, by the key of their service.
    splitters: BTreeMap<String, String>,
    /// Nodes of resolvers, by the key of their target.
    resolvers: BTreeMap<String, String>,
    /// Splitters that we are in: the keys of their services and their nodes.
    within: Vec<(String, String)>,
    consulted: BTreeSet<(ConfigKind, String)>,
}

impl<'a> Compiler<'a> {
    fn entry(&mut self, kind: ConfigKind, name: &str) -> Option<&'a ConfigEntry> {
        self.consulted.insert((kind, name.to_ascii_lowercase()));
        self.entries.get(kind, name).map(|entry| &**entry)
    }

    fn proxy_defaults(&mut self) -> Option<&'a ConfigEntry> {
        self.entry(ConfigKind::ProxyDefaults, PROXY_DEFAULTS_NAME)
    }

    fn name(&self) -> &'a str {
        self.query.service.as_str()
    }

    fn spot(&self, service: &'a str, subset: &'a str) -> Spot<'a> {
        Spot { service, subset, datacenter: &self.query.datacenter, peer: "" }
    }

    fn node(&mut self, name: String, step: ChainStep, load_balancer: Option<Opaque>) -> String {
        let key = format!("{}:{name}", step.kind());
        self.nodes.insert(key.clone(), ChainNode { name, step, load_balancer });
        key
    }

    /// An entry that the asked for protocol rules out counts as an override that had an effect.
    fn routing(&mut self, kind: ConfigKind, name: &str) -> Option<&'a ConfigEntry> {
        let entry = self.entry(kind, name);
        if entry.is_some() && self.is_plain {
            self.customized.insert("protocol", self.query.protocol.clone());
            return None;
        }
        entry
    }

    fn begin(&mut self) -> Result<String, String> {
        let name = self.name();
        let Some(router) = self.routing(ConfigKind::ServiceRouter, name) else { return self.split_or_resolve(name) };
        self.is_routed = true;
        self.record(name)?;
        let mut routes = Vec::new();
        for route in router.rows("Routes") {
            let destination = &route["Destination"];
            let service = or(text(destination, "Service"), name);
            let next_node = match text(destination, "ServiceSubset") {
                "" => self.split_or_resolve(service)?,
                subset => self.resolve(self.spot(service, subset))?,
            };
            routes.push(ChainRoute { definition: opaque(route), next_node });
        }
        // What no route fits goes on as if there were no router.
        let rest = json!({
            "Match": {"HTTP": {"PathPrefix": "/"}},
            "Destination": {"Service": router.name, "Namespace": DEFAULT, "Partition": DEFAULT},
        });
        let next_node = self.split_or_resolve(name)?;
        routes.push(ChainRoute { definition: opaque(&rest), next_node });
        Ok(self.node(format!("{}.{DEFAULT}.{DEFAULT}", router.name), ChainStep::Router(routes), None))
    }

    fn record(&mut self, service: &str) -> Result<(), String> {
        self.entry(ConfigKind::ServiceDefaults, service);
        self.proxy_defaults();
        let protocol = protocol_of(self.entries, service);
        match &self.protocol {
            Some(known) if *known != protocol => Err(format!(
                "discovery chain {:?} uses inconsistent protocols; service {service:?} has {protocol:?} which is not \
                 {known:?}",
                self.name()
            )),
            Some(_) => Ok(()),
            None => {
                self.protocol = Some(protocol);
                Ok(())
            }
        }
    }

    fn split_or_resolve(&mut self, service: &'a str) -> Result<String, String> {
        match self.split(service)? {
            Some(node) => Ok(node),
            None => self.resolve(self.spot(service, "")),
        }
    }

    /// The node of a service's splitter; none when it has none.
    fn split(&mut self, service: &'a str) -> Result<Option<String>, String> {
        let Some(splitter) = self.routing(ConfigKind::ServiceSplitter, service) else { return Ok(None) };
        let key = service.to_ascii_lowercase();
        if let Some(node) = self.splitters.get(&key) {
            return Ok(Some(node.clone()));
        }
        let name = format!("{service}.{DEFAULT}.{DEFAULT}");
        let node = format!("splitter:{name}");
        if self.within.iter().any(|(inner, _)| *inner == key) {
            let way: Vec<&str> = self.within.iter().map(|(_, node)| node.as_str()).chain([node.as_str()]).collect();
            return Err(format!("detected circular reference: [{}]", way.join(" -> ")));
        }
        if self.within.len() == DEPTH_MAX {
            return Err(format!(
                "discovery chain {:?} has more than {DEPTH_MAX} splitters behind one another",
                self.name()
            ));
        }
        self.is_routed = true;
        self.within.push((key.clone(), node));
        let (mut splits, mut load_balancer) = (Vec::new(), None);
        for split in splitter.rows("Splits") {
            let (target, subset) = (or(text(split, "Service"), service), text(split, "ServiceSubset"));
            let may_split_again = subset.is_empty() && !target.eq_ignore_ascii_case(service);
            let again = if may_split_again { self.split(target)? } else { None };
            match again {
                Some(inner) => splits.extend(self.flattened(split, &inner)),
                None => {
                    let next_node = self.resolve(self.spot(target, subset))?;
                    // One step has one way to share calls: the first that is by hash.
                    let own = self.nodes.get(&next_node).and_then(|node| node.load_balancer.as_ref());
                    load_balancer = load_balancer.or_else(|| own.filter(|it| is_by_hash(it)).cloned());
                    splits.push(ChainSplit { definition: opaque(split), hundredths: share(split), next_node });
                }
            }
            if splits.len() > SPLITS_MAX {
                return Err(format!("discovery chain {:?} has more than {SPLITS_MAX} splits", self.name()));
            }
        }
        self.within.pop();
        let node = self.node(name, ChainStep::Splitter(splits), load_balancer);
        self.splitters.insert(key, node.clone());
        Ok(Some(node))
    }

    /// The splits of the splitter `inner`, as shares of one split.
    fn flattened(&self, outer: &Value, inner: &str) -> Vec<ChainSplit> {
        let Some(ChainNode { step: ChainStep::Splitter(splits), .. }) = self.nodes.get(inner) else {
            return Vec::new();
        };
        let shared = |split: &ChainSplit| {
            let product = u64::from(share(outer)) * u64::from(split.hundredths);
            let hundredths = u32::try_from((product + 5_000) / 10_000).unwrap_or_default();
            let definition = with_headers_of(outer, &split.definition);
            ChainSplit { definition, hundredths, next_node: split.next_node.clone() }
        };
        splits.iter().map(shared).collect()
    }

    /// The node of the resolver that a spot ends at.
    fn resolve(&mut self, spot: Spot<'a>) -> Result<String, String> {
        let (spot, resolver) = self.follow(spot)?;
        let key = spot.key();
        if let Some(node) = self.resolvers.get(&key) {
            return Ok(node.clone());
        }
        let settings = self.end(&spot, resolver)?;
        let target = settings.target.clone();
        let load_balancer = resolver.map(|it| it.field("LoadBalancer")).filter(|it| it.is_object()).map(opaque);
        let node = self.node(target, ChainStep::Resolver(settings), load_balancer);
        self.resolvers.insert(key, node.clone());
        if let Some(resolver) = resolver.filter(|_| spot.peer.is_empty()) {
            self.fail_over(&node, resolver, &spot)?;
        }
        Ok(node)
    }

    /// Follows redirects and default subsets to what is meant in the end, with the resolver that says so.
    fn follow(&mut self, mut spot: Spot<'a>) -> Result<(Spot<'a>, Option<&'a ConfigEntry>), String> {
        let (mut seen, mut way) = (BTreeSet::new(), Vec::new());
        loop {
            way.push(spot.id());
            if !spot.peer.is_empty() {
                // What a peer makes of a service is not ours to know.
                return Ok((spot, None));
            }
            self.record(spot.service)?;
            if !seen.insert(spot.key()) || way.len() > REDIRECTS_MAX {
                return Err(format!("detected circular resolver redirect: [{}]", way.join(" -> ")));
            }
            let Some(resolver) = self.entry(ConfigKind::ServiceResolver, spot.service) else {
                return if spot.subset.is_empty() { Ok((spot, None)) } else { Err(no_subset(&spot)) };
            };
            let redirect = resolver.field("Redirect");
            if redirect.is_object() {
                let redirected = spot.rewritten(redirect, text(redirect, "Datacenter"));
                if redirected.key() != spot.key() {
                    spot = redirected;
                    continue;
                }
            }
            let default = resolver.field("DefaultSubset").as_str().unwrap_or_default();
            if spot.subset.is_empty() && !default.is_empty() {
                spot.subset = default;
                continue;
            }
            if !spot.subset.is_empty() && resolver.field("Subsets").get(spot.subset).is_none() {
                return Err(no_subset(&spot));
            }
            return Ok((spot, Some(resolver)));
        }
    }

    /// Keeps the target that a spot is; what a resolver says of calls to it.
    fn end(&mut self, spot: &Spot<'a>, resolver: Option<&'a ConfigEntry>) -> Result<ChainResolver, String> {
        let nanos = |name: &str| {
            let said = resolver.and_then(|it| it.field(name).as_str()).filter(|text| !text.is_empty());
            said.and_then(|text| duration::parse(text).ok()).map_or(0, |it| it.as_nanos() as u64)
        };
        let mut connect_timeout_nanos = match nanos("ConnectTimeout") {
            0 => CONNECT_TIMEOUT_NANOS,
            said => said,
        };
        let asked = self.query.connect_timeout_nanos;
        if asked != 0 && asked != connect_timeout_nanos {
            connect_timeout_nanos = asked;
            self.customized.insert("connect timeout", asked.to_string());
        }
        let target = self.target(spot, resolver, connect_timeout_nanos)?;
        let own = resolver.map(|it| it.field("PrioritizeByLocality")).filter(|it| it.is_object());
        let general = self.proxy_defaults().map(|it| it.field("PrioritizeByLocality")).filter(|it| it.is_object());
        let settings = ChainResolver {
            is_default: spot.peer.is_empty() && resolver.is_none_or(|it| it.body.is_empty()),
            connect_timeout_nanos,
            request_timeout_nanos: nanos("RequestTimeout"),
            target: target.id.clone(),
            failover: Vec::new(),
            failover_policy: None,
            prioritize_by_locality: own.or(general).map(opaque),
        };
        self.targets.insert(target.id.clone(), target);
        Ok(settings)
    }

    fn target(
        &mut self,
        spot: &Spot<'a>,
        resolver: Option<&'a ConfigEntry>,
        connect_timeout_nanos: u64,
    ) -> Result<ChainTarget, String> {
        let name = if spot.peer.is_empty() {
            let subset = if spot.subset.is_empty() { String::new() } else { format!("{}.", spot.subset) };
            format!("{subset}{}.{DEFAULT}.{}.internal.{}", spot.service, spot.datacenter, self.trust_domain)
        } else {
            // Whose trust domain is not known here.
            String::new()
        };
        let own = self.entry(ConfigKind::ServiceDefaults, spot.service).filter(|_| spot.peer.is_empty());
        let general = self.proxy_defaults();
        let external_sni = own.and_then(|it| it.field("ExternalSNI").as_str()).filter(|sni| !sni.is_empty());
        if external_sni.is_some()
            && let Some(resolver) = resolver
        {
            check_external(spot.service, resolver)?;
        }
        let said =
            |entry: Option<&'a ConfigEntry>| entry.map(|it| text(it.field("MeshGateway"), "Mode")).unwrap_or_default();
        let directly = |entry: Option<&ConfigEntry>| {
            entry.is_some_and(|it| it.field("TransparentProxy")["DialedDirectly"] == true)
        };
        let mut mesh_gateway = or(said(own), said(general)).to_owned();
        let asked = self.query.mesh_gateway.as_str();
        if external_sni.is_some() {
            mesh_gateway.clear();
        } else if !asked.is_empty() && asked != mesh_gateway {
            asked.clone_into(&mut mesh_gateway);
            self.customized.insert("mesh gateway", asked.to_owned());
        }
        let subset = resolver.and_then(|it| it.field("Subsets").get(spot.subset));
        Ok(ChainTarget {
            id: spot.id(),
            service: spot.service.to_owned(),
            subset_name: spot.subset.to_owned(),
            datacenter: spot.datacenter.to_owned(),
            peer: spot.peer.to_owned(),
            mesh_gateway,
            subset: subset.map(opaque).unwrap_or_default(),
            dialed_directly: external_sni.is_none() && (directly(own) || directly(general)),
            connect_timeout_nanos,
            is_external: external_sni.is_some(),
            sni: external_sni.unwrap_or(&name).to_owned(),
            name,
        })
    }

    /// Adds to a resolver's node what stands in when its instances fail; that itself has nothing that stands in.
    fn fail_over(&mut self, node: &str, resolver: &'a ConfigEntry, spot: &Spot<'a>) -> Result<(), String> {
        let failover = resolver.field("Failover");
        let Some(chosen) = failover.get(spot.subset).or_else(|| failover.get(WILDCARD)) else { return Ok(()) };
        let rows = |name: &str| chosen[name].as_array().map_or(&[][..], Vec::as_slice);
        let spots: Vec<Spot<'a>> = match (rows("Datacenters"), rows("Targets")) {
            ([], []) => vec![spot.rewritten(chosen, "")],
            ([], targets) => targets.iter().map(|it| spot.rewritten(it, text(it, "Datacenter"))).collect(),
            (datacenters, _) => {
                let names = datacenters.iter().filter_map(Value::as_str);
                names.map(|datacenter| spot.rewritten(chosen, datacenter)).collect()
            }
        };
        let mut targets = Vec::new();
        for other in spots.into_iter().filter(|other| other.key() != spot.key()) {
            let (end, resolver) = self.follow(other)?;
            targets.push(self.end(&end, resolver)?.target);
        }
        if targets.is_empty() {
            return Ok(());
        }
        let own = Some(&chosen["Policy"]).filter(|policy| !text(policy, "Mode").is_empty());
        let general = self.proxy_defaults().map(|it| it.field("FailoverPolicy")).filter(|it| it.is_object());
        if let Some(ChainNode { step: ChainStep::Resolver(settings), .. }) = self.nodes.get_mut(node) {
            settings.failover = targets;
            settings.failover_policy = own.or(general).map(opaque);
        }
        Ok(())
    }

    fn finish(mut self, start: String) -> Result<Compiled, String> {
        self.remove_unused(&start);
        let mut protocol = self.protocol.take().unwrap_or_else(|| DEFAULT_PROTOCOL.into());
        if self.is_routed && !is_http(&protocol) {
            return Err(format!(
                "discovery chain {:?} uses a protocol {protocol:?} that does not permit advanced routing or splitting \
                 behavior",
                self.name()
            ));
        }
        if !self.query.protocol.is_empty() && self.query.protocol != protocol {
            self.query.protocol.clone_into(&mut protocol);
            self.customized.insert("protocol", protocol.clone());
        }
        let name = self.name();
        let defaults = self.entry(ConfigKind::ServiceDefaults, name);
        let extensions = [self.proxy_defaults(), defaults].into_iter().flatten();
        let extensions = extensions.flat_map(|entry| entry.rows("EnvoyExtensions")).cloned().collect();
        let is_default = match self.nodes.get(&start).map(|node| &node.step) {
            Some(ChainStep::Resolver(resolver)) => {
                let target = self.targets.get(&resolver.target);
                resolver.is_default && target.is_some_and(|target| target.service.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        let chain = CompiledChain {
            service: name.to_owned(),
            datacenter: self.query.datacenter.clone(),
            customization_hash: hash(&self.customized),
            is_default,
            protocol,
            meta: defaults.map(|entry| entry.meta.clone()).unwrap_or_default(),
            envoy_extensions: OpaqueList(extensions),
            start,
            nodes: self.nodes,
            targets: self.targets,
            automatic_addresses: Vec::new(),
            manual_addresses: None,
        };
        Ok(Compiled { chain, is_routed: self.is_routed, consulted: self.consulted })
    }

    /// Splitters that became part of another one go.
    fn remove_unused(&mut self, start: &str) {
        let mut used = BTreeSet::new();
        let mut waiting = vec![start.to_owned()];
        while let Some(key) = waiting.pop() {
            match self.nodes.get(&key).map(|node| &node.step) {
                Some(ChainStep::Router(routes)) => waiting.extend(routes.iter().map(|it| it.next_node.clone())),
                Some(ChainStep::Splitter(splits)) => waiting.extend(splits.iter().map(|it| it.next_node.clone())),
                _ => {}
            }
            used.insert(key);
        }
        self.nodes.retain(|key, _| used.contains(key));
    }
}

fn check_external(service: &str, resolver: &ConfigEntry) -> Result<(), String> {
    for (name, words) in [("Redirect", "redirects"), ("Subsets", "subsets"), ("Failover", "failover")] {
        if resolver.field(name).is_object() {
            return Err(format!(
                "service {service:?} has an external SNI set; cannot define {words} for external services"
            ));
        }
    }
    Ok(())
}

fn no_subset(spot: &Spot<'_>) -> String {
    format!("service {:?} does not have a subset named {:?}", spot.service, spot.subset)
}

fn opaque(value: &Value) -> Opaque {
    value.as_object().cloned().unwrap_or_default().into()
}

/// Hundredths of a split's share.
fn share(split: &Value) -> u32 {
    (split["Weight"].as_f64().unwrap_or_default() * 100.0).round() as u32
}

fn is_by_hash(balancer: &Opaque) -> bool {
    matches!(balancer.text("Policy"), "ring_hash" | "maglev")
}

/// The definition of a split with what the split before it does to headers; its own word wins.
fn with_headers_of(outer: &Value, definition: &Opaque) -> Opaque {
    let mut merged = definition.clone();
    for name in ["RequestHeaders", "ResponseHeaders"] {
        let Some(before) = outer[name].as_object() else { continue };
        let mut headers = before.clone();
        for (key, own) in definition.get(name).and_then(Value::as_object).into_iter().flatten() {
            match (headers.get_mut(key), own) {
                (Some(Value::Object(before)), Value::Object(own)) => before.extend(own.clone()),
                (Some(Value::Array(before)), Value::Array(own)) => before.extend(own.iter().cloned()),
                _ => drop(headers.insert(key.clone(), own.clone())),
            }
        }
        merged.set(name, Value::Object(headers));
    }
    merged
}

/// Eight digits that tell apart the overrides which had an effect; none for none. FNV-1a.
fn hash(customized: &BTreeMap<&'static str, String>) -> String {
    if customized.is_empty() {
        return String::new();
    }
    let bytes = customized.iter().flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b";"].concat());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}
