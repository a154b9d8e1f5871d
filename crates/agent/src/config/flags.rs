//! The command line's part of a configuration, as plain fields; who parses the arguments fills it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::source::Source;
use super::tree::put;

/// What the command line says. Names follow Consul's flags.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `-config-file` and `-config-dir` in the order they were given.
    pub config_paths: Vec<PathBuf>,
    /// `-config-format`: `hcl` or `json` for every file, whatever its extension.
    pub config_format: Option<String>,
    /// `-hcl`: fragments that come after the files.
    pub fragments: Vec<String>,
    /// `-dev`.
    pub dev: bool,
    /// `-server`.
    pub server: Option<bool>,
    /// `-bootstrap`.
    pub bootstrap: Option<bool>,
    /// `-bootstrap-expect`.
    pub bootstrap_expect: Option<u32>,
    /// `-datacenter`.
    pub datacenter: Option<String>,
    /// `-node`.
    pub node: Option<String>,
    /// `-node-id`.
    pub node_id: Option<String>,
    /// `-node-meta`, each `key:value`.
    pub node_meta: Vec<String>,
    /// `-data-dir`.
    pub data_dir: Option<String>,
    /// `-bind`.
    pub bind: Option<String>,
    /// `-client`.
    pub client: Option<String>,
    /// `-advertise`.
    pub advertise: Option<String>,
    /// `-advertise-server-address`.
    pub advertise_server_address: Option<String>,
    /// `-http-port`.
    pub http_port: Option<i64>,
    /// `-https-port`.
    pub https_port: Option<i64>,
    /// `-dns-port`.
    pub dns_port: Option<i64>,
    /// `-grpc-port`.
    pub grpc_port: Option<i64>,
    /// `-grpc-tls-port`.
    pub grpc_tls_port: Option<i64>,
    /// `-server-port`.
    pub server_port: Option<i64>,
    /// `-serf-lan-port`.
    pub serf_lan_port: Option<i64>,
    /// `-serf-wan-port`.
    pub serf_wan_port: Option<i64>,
    /// `-retry-join` and `-join`.
    pub retry_join: Vec<String>,
    /// `-retry-interval`.
    pub retry_interval: Option<String>,
    /// `-retry-max`.
    pub retry_max: Option<u32>,
    /// `-server-address`: `host:port` of servers' ports.
    pub server_addresses: Vec<String>,
    /// `-encrypt`.
    pub encrypt: Option<String>,
    /// `-domain`.
    pub domain: Option<String>,
    /// `-alt-domain`.
    pub alt_domain: Option<String>,
    /// `-recursor`.
    pub recursors: Vec<String>,
    /// `-log-level`.
    pub log_level: Option<String>,
    /// `-log-json`.
    pub log_json: Option<bool>,
    /// `-ui`.
    pub ui: Option<bool>,
    /// `-enable-script-checks`.
    pub enable_script_checks: Option<bool>,
    /// `-enable-local-script-checks`.
    pub enable_local_script_checks: Option<bool>,
    /// `-pid-file`.
    pub pid_file: Option<String>,
    /// `-login-token-file`.
    pub login_token_file: Option<String>,
    /// Keys that other flags stand for, each with the keys above it.
    pub more: Vec<(&'static str, Value)>,
}

impl Flags {
    /// The flags as one more source, the last one.
    pub(super) fn as_source(&self) -> Source {
        let mut root = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                root.insert(key.into(), value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let texts = |values: &[String]| (!values.is_empty()).then(|| Value::from(values.to_vec()));
        set("server", self.server.map(Value::from));
        set("bootstrap", self.bootstrap.map(Value::from));
        set("bootstrap_expect", self.bootstrap_expect.map(Value::from));
        set("datacenter", text(&self.datacenter));
        set("node_name", text(&self.node));
        set("node_id", text(&self.node_id));
        let meta: Map<String, Value> = self
            .node_meta
            .iter()
            .map(|pair| pair.split_once(':').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        set("node_meta", (!meta.is_empty()).then_some(Value::Object(meta)));
        set("data_dir", text(&self.data_dir));
        set("bind_addr", text(&self.bind));
        set("client_addr", text(&self.client));
        set("advertise_addr", text(&self.advertise));
        set("advertise_server_address", text(&self.advertise_server_address));
        let ports: Map<String, Value> = [
            ("http", self.http_port),
            ("https", self.https_port),
            ("dns", self.dns_port),
            ("grpc", self.grpc_port),
            ("grpc_tls", self.grpc_tls_port),
            ("server", self.server_port),
            ("serf_lan", self.serf_lan_port),
            ("serf_wan", self.serf_wan_port),
        ]
        .into_iter()
        .filter_map(|(key, port)| Some((key.to_owned(), Value::from(port?))))
        .collect();
        set("ports", (!ports.is_empty()).then_some(Value::Object(ports)));
        set("retry_join", texts(&self.retry_join));
        set("retry_interval", text(&self.retry_interval));
        set("retry_max", self.retry_max.map(Value::from));
        set("server_addresses", texts(&self.server_addresses));
        set("encrypt", text(&self.encrypt));
        set("domain", text(&self.domain));
        set("alt_domain", text(&self.alt_domain));
        set("recursors", texts(&self.recursors));
        set("log_level", text(&self.log_level));
        set("log_json", self.log_json.map(Value::from));
        set("ui_config", self.ui.map(|enabled| json!({ "enabled": enabled })));
        set("enable_script_checks", self.enable_script_checks.map(Value::from));
        set("enable_local_script_checks", self.enable_local_script_checks.map(Value::from));
        set("pid_file", text(&self.pid_file));
        set("login_token_file", text(&self.login_token_file));
        for (key, value) in &self.more {
            put(&mut root, key, value.clone());
        }
        Source { name: "flags".into(), root }
    }
}
