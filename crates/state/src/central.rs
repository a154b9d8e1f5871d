//! What the config entries add to the registration of a proxy or a gateway, as `?merge-central-config` shows it.
//!
//! What an instance says itself always wins; then comes what its service's defaults say, then those of all proxies.

use std::collections::BTreeMap;

use lictor_types::config_entry::{ConfigEntry, ConfigKind, PROXY_DEFAULTS_NAME};
use lictor_types::gateway::is_gateway;
use lictor_types::intention::WILDCARD;
use lictor_types::json::{Opaque, OpaqueList};
use lictor_types::service::{ConnectProxy, KIND_CONNECT_PROXY, Upstream};
use lictor_types::{Index, NodeService};
use serde_json::{Map, Value, json};

use crate::store::Store;

type Config = Map<String, Value>;

/// Settings of a service that go into the configuration of its proxy under another name.
const PROXY_KEYS: [(&str, &str); 4] = [
    ("BalanceInboundConnections", "balance_inbound_connections"),
    ("MaxInboundConnections", "max_inbound_connections"),
    ("LocalConnectTimeoutMs", "local_connect_timeout_ms"),
    ("LocalRequestTimeoutMs", "local_request_timeout_ms"),
];

/// Settings of an upstream that go into its configuration under another name.
const UPSTREAM_KEYS: [(&str, &str); 7] = [
    ("EnvoyListenerJSON", "envoy_listener_json"),
    ("EnvoyClusterJSON", "envoy_cluster_json"),
    ("Protocol", "protocol"),
    ("ConnectTimeoutMs", "connect_timeout_ms"),
    ("Limits", "limits"),
    ("PassiveHealthCheck", "passive_health_check"),
    ("BalanceOutboundConnections", "balance_outbound_connections"),
];

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(it) => !it,
        Value::Number(it) => it.as_f64() == Some(0.0),
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        Value::Object(it) => it.is_empty(),
    }
}

/// Adds to `into` what it does not say itself.
fn fill(into: &mut Config, from: &Config) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => fill(into, from),
            (Some(there), _) if !is_empty(there) => {}
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn fill_opaque(into: &mut Opaque, from: &Value) {
    let Some(from) = from.as_object() else { return };
    let mut config = into.to_map();
    fill(&mut config, from);
    *into = config.into();
}

/// The service whose entries hold for an instance; none for one that no entry completes.
fn subject(service: &NodeService) -> Option<&str> {
    if service.kind == KIND_CONNECT_PROXY {
        return Some(&service.proxy.destination_service_name);
    }
    is_gateway(&service.kind).then_some(service.name.as_str())
}

fn is_service(upstream: &Upstream) -> bool {
    matches!(upstream.destination_type.as_str(), "" | "service")
}

fn mode(object: &Value) -> &str {
    object["Mode"].as_str().unwrap_or_default()
}

/// What the entries say together, before the instance has its word.
struct Defaults<'a> {
    all: Option<&'a ConfigEntry>,
    own: Option<&'a ConfigEntry>,
}

impl<'a> Defaults<'a> {
    fn field(&self, name: &str) -> [&'a Value; 2] {
        [self.own, self.all].map(|entry| entry.map_or(&Value::Null, |entry| entry.field(name)))
    }

    /// The text that the nearest of them says.
    fn text(&self, name: &str) -> &'a str {
        let said = self.field(name).into_iter().filter_map(Value::as_str);
        said.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    fn mesh_gateway(&self) -> &'a str {
        let said = self.field("MeshGateway").into_iter().map(mode);
        said.into_iter().find(|mode| !mode.is_empty()).unwrap_or_default()
    }

    fn proxy_config(&self) -> Config {
        let mut config = self.all.and_then(|entry| entry.field("Config").as_object()).cloned().unwrap_or_default();
        let Some(own) = self.own else { return config };
        let said = PROXY_KEYS.into_iter().chain([("Protocol", "protocol")]);
        for (name, key) in said.filter(|(name, _)| !is_empty(own.field(name))) {
            config.insert(key.into(), own.field(name).clone());
        }
        config
    }

    fn expose(&self) -> Value {
        let [own, all] = self.field("Expose");
        let mut expose = all.as_object().cloned().unwrap_or_default();
        for (key, value) in own.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value)) {
            expose.insert(key.clone(), value.clone());
        }
        Value::Object(expose)
    }

    fn transparent_proxy(&self) -> Config {
        let [own, all] = self.field("TransparentProxy");
        let mut settings = own.as_object().cloned().unwrap_or_default();
        if let Some(all) = all.as_object() {
            fill(&mut settings, all);
        }
        settings
    }

    fn extensions(&self) -> Vec<Value> {
        let [own, all] = self.field("EnvoyExtensions").map(|it| it.as_array().map_or(&[][..], Vec::as_slice));
        all.iter().chain(own).cloned().collect()
    }
}

fn merge_upstream(from: &Value, into: &mut Config) {
    for (name, key) in UPSTREAM_KEYS.into_iter().filter(|(name, _)| !is_empty(&from[*name])) {
        into.insert(key.into(), from[name].clone());
    }
    if !mode(&from["MeshGateway"]).is_empty() {
        into.insert("mesh_gateway".into(), from["MeshGateway"].clone());
    }
}

impl Store {
    /// The last change of any entry that completes an instance.
    pub(crate) fn central_index(&self, service: &NodeService) -> Index {
        let Some(subject) = subject(service) else { return Index(0) };
        let of = |name: &str| self.config_entries.index_of(ConfigKind::ServiceDefaults, name, &self.indexes);
        let general = self.config_entries.index_of(ConfigKind::ProxyDefaults, PROXY_DEFAULTS_NAME, &self.indexes);
        let overridden = self.overrides(subject).into_keys();
        let local = service.proxy.upstreams.iter().map(|it| it.destination_name.clone());
        let upstreams = overridden.chain(local).map(|name: String| of(&name)).max().unwrap_or_default();
        general.max(of(subject)).max(upstreams)
    }

    /// What the defaults of a service say of its upstreams, by name.
    fn overrides(&self, service: &str) -> BTreeMap<String, &Value> {
        let entry = self.config_entries.service_defaults(service);
        let rows = entry.and_then(|entry| entry.field("UpstreamConfig")["Overrides"].as_array());
        let rows = rows.into_iter().flatten().filter(|row| row["Peer"].as_str().unwrap_or_default().is_empty());
        rows.filter_map(|row| Some((row["Name"].as_str()?.to_owned(), row))).collect()
    }

    /// An instance as its entries complete it.
    pub(crate) fn complete(&self, service: &mut NodeService) {
        let Some(subject) = subject(service).map(str::to_owned) else { return };
        let defaults = Defaults {
            all: self.config_entries.proxy_defaults().map(|entry| &**entry),
            own: self.config_entries.service_defaults(&subject).map(|entry| &**entry),
        };
        if defaults.all.is_none() && defaults.own.is_none() && service.proxy.upstreams.is_empty() {
            return;
        }
        let upstreams = self.upstream_configs(&defaults, &subject, &service.proxy);
        let proxy = &mut service.proxy;
        fill_opaque(&mut proxy.config, &Value::Object(defaults.proxy_config()));
        fill_opaque(&mut proxy.expose, &defaults.expose());
        let transparent = defaults.transparent_proxy();
        if !transparent.is_empty() {
            fill_opaque(proxy.transparent_proxy.get_or_insert_default(), &Value::Object(transparent));
        }
        let [_, logs] = defaults.field("AccessLogs");
        if !is_empty(logs) {
            fill_opaque(proxy.access_logs.get_or_insert_default(), logs);
        }
        let extensions = defaults.extensions();
        proxy.envoy_extensions = Some(OpaqueList(extensions)).filter(|list| !list.0.is_empty());
        if proxy.mesh_gateway.text("Mode").is_empty() && !defaults.mesh_gateway().is_empty() {
            proxy.mesh_gateway.set("Mode", defaults.mesh_gateway().into());
        }
        if proxy.mode.is_empty() {
            proxy.mode = defaults.text("Mode").to_owned();
        }
        if proxy.mutual_tls_mode.is_none() && !defaults.text("MutualTLSMode").is_empty() {
            proxy.mutual_tls_mode = Some(defaults.text("MutualTLSMode").to_owned());
        }
        complete_upstreams(proxy, upstreams);
    }

    /// The configuration of each upstream, by name; that of all others under the wildcard.
    fn upstream_configs(
        &self,
        defaults: &Defaults<'_>,
        subject: &str,
        proxy: &ConnectProxy,
    ) -> BTreeMap<String, Config> {
        let is_transparent = [proxy.mode.as_str(), defaults.text("Mode")].contains(&"transparent");
        let local = proxy.upstreams.iter().filter(|it| is_service(it)).map(|it| it.destination_name.clone());
        let mut names: Vec<String> = local.collect();
        if names.is_empty() && !is_transparent {
            return BTreeMap::new();
        }
        let overrides = self.overrides(subject);
        names.extend(overrides.keys().cloned());
        let own_mode = proxy.mesh_gateway.text("Mode");
        let mut general = Config::new();
        if !defaults.mesh_gateway().is_empty() {
            general.insert("mesh_gateway".into(), json!({"Mode": defaults.mesh_gateway()}));
        }
        let protocol = defaults.all.and_then(|entry| entry.field("Config").get("protocol"));
        if let Some(protocol) = protocol.filter(|protocol| !is_empty(protocol)) {
            general.insert("protocol".into(), protocol.clone());
        }
        let upstream_defaults = defaults.own.map_or(&Value::Null, |entry| &entry.field("UpstreamConfig")["Defaults"]);
        let put_own_mode = |config: &mut Config| {
            if !own_mode.is_empty() {
                config.insert("mesh_gateway".into(), json!({"Mode": own_mode}));
            }
        };
        let mut configs = BTreeMap::new();
        for name in names {
            let mut config = general.clone();
            let said = self.config_entries.service_defaults(&name).map(|entry| entry.field("Protocol"));
            if let Some(protocol) = said.filter(|protocol| !is_empty(protocol)) {
                config.insert("protocol".into(), protocol.clone());
            }
            merge_upstream(upstream_defaults, &mut config);
            put_own_mode(&mut config);
            if let Some(own) = overrides.get(&name) {
                merge_upstream(own, &mut config);
            }
            if !config.is_empty() {
                configs.insert(name, config);
            }
        }
        merge_upstream(upstream_defaults, &mut general);
        put_own_mode(&mut general);
        if !general.is_empty() {
            configs.insert(WILDCARD.into(), general);
        }
        configs
    }
}

fn complete_upstreams(proxy: &mut ConnectProxy, mut configs: BTreeMap<String, Config>) {
    for upstream in proxy.upstreams.iter_mut().filter(|it| is_service(it)) {
        let Some(mut config) = configs.remove(&upstream.destination_name) else { continue };
        let gateway = config.remove("mesh_gateway").unwrap_or_default();
        if upstream.mesh_gateway.text("Mode").is_empty() && !mode(&gateway).is_empty() {
            upstream.mesh_gateway.set("Mode", gateway["Mode"].clone());
        }
        fill_opaque(&mut upstream.config, &Value::Object(config));
        upstream.config.remove("mesh_gateway");
    }
    if proxy.mode != "transparent" {
        return;
    }
    let named: Vec<&str> = proxy.upstreams.iter().map(|it| it.destination_name.as_str()).collect();
    let others: Vec<(String, Config)> =
        configs.into_iter().filter(|(name, _)| !named.contains(&name.as_str())).collect();
    for (name, config) in others {
        let gateway = config.get("mesh_gateway").and_then(Value::as_object).cloned().unwrap_or_default();
        proxy.upstreams.push(Upstream {
            config: config.into(),
            mesh_gateway: gateway.into(),
            centrally_configured: Some(true),
            ..Upstream::new(name)
        });
    }
}
