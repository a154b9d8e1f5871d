//! Consul's keys that are taken and change nothing, each with the reason: a user's files load as they are.

/// How loudly a key without effect is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nobody misses it: not a word.
    Quiet,
    /// Somebody may count on it: a warning at every start.
    Warn,
}

/// A key that is taken and changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct WithoutEffect {
    /// The key, with the keys above it; all below it are taken too.
    pub key: &'static str,
    /// How loudly it is spoken of.
    pub notice: Notice,
    /// Why it changes nothing.
    pub reason: &'static str,
}

const fn quiet(key: &'static str, reason: &'static str) -> WithoutEffect {
    WithoutEffect { key, notice: Notice::Quiet, reason }
}

const fn warn(key: &'static str, reason: &'static str) -> WithoutEffect {
    WithoutEffect { key, notice: Notice::Warn, reason }
}

/// All of them.
pub const WITHOUT_EFFECT: &[WithoutEffect] = &[
    quiet("$schema", "it is for editors"),
    quiet("acl.down_policy", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl.policy_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl.role_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl.token_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl_enforce_version_8", "there is one version of the rules"),
    warn("acl.enable_key_list_policy", "it is not served yet"),
    warn("acl.enable_token_replication", "replication between datacenters is not served yet"),
    warn("acl.tokens.agent_recovery", "it is not served yet"),
    warn("acl.tokens.replication", "replication between datacenters is not served yet"),
    warn("acl_datacenter", "replication between datacenters is not served yet"),
    warn("addresses.grpc", "the gRPC port is not served"),
    warn("addresses.grpc_tls", "the gRPC port is not served"),
    warn("auto_config", "clients get their first certificate by login; see login_token_file"),
    warn("auto_encrypt", "clients get their first certificate by login; see login_token_file"),
    quiet("auto_reload_config", "files are read at the start and at a reload"),
    quiet("cache", "agents hold no cache"),
    quiet("cloud", "there is no such service"),
    warn("config_entries", "entries are written through the API"),
    quiet("connect.ca_config", "the mesh has its own authority with fixed lifetimes"),
    warn("connect.ca_provider", "the mesh has its own authority"),
    warn("connect.enable_mesh_gateway_wan_federation", "mesh gateways are not served yet"),
    quiet("disable_anonymous_signature", "nothing is ever sent home"),
    quiet("disable_host_node_id", "the node id is random and kept in the data directory"),
    quiet("disable_http_unprintable_char_filter", "such paths are always refused"),
    quiet("disable_remote_exec", "there is no remote execution"),
    quiet("disable_update_check", "nothing looks for updates"),
    quiet("dns_config.cache_max_age", "agents hold no cache"),
    quiet("dns_config.prefer_namespace", "there are no namespaces"),
    quiet("dns_config.use_cache", "agents hold no cache"),
    quiet("enable_acl_replication", "replication between datacenters is not served yet"),
    warn("enable_agent_tls_for_checks", "checks do not show the agent's certificate"),
    quiet("enable_central_service_config", "config entries are always merged for readers who ask for it"),
    quiet("enable_debug", "profiles are not served"),
    warn("enable_syslog", "logs go to the standard output"),
    quiet("experiments", "there are none"),
    quiet("http_config.max_header_bytes", "the head of a request has 32 KiB"),
    quiet("http_config.use_cache", "agents hold no cache"),
    quiet("limits.https_handshake_timeout", "a handshake has 5 s"),
    quiet("limits.request_limits", "requests are limited by connection and by size"),
    quiet("limits.rpc_client_timeout", "a request has its hold time"),
    quiet("limits.rpc_handshake_timeout", "a handshake has 5 s"),
    quiet("limits.rpc_max_conns_per_client", "agents keep one connection"),
    warn("log_file", "logs go to the standard output"),
    quiet("log_rotate_bytes", "logs go to the standard output"),
    quiet("log_rotate_duration", "logs go to the standard output"),
    quiet("log_rotate_max_files", "logs go to the standard output"),
    quiet("peering", "peerings are not served yet"),
    quiet("performance.grpc_keepalive_interval", "the gRPC port is not served"),
    quiet("performance.grpc_keepalive_timeout", "the gRPC port is not served"),
    quiet("protocol", "both ends agree on the protocol by themselves"),
    quiet("raft_logstore", "there is one store for the log"),
    quiet("raft_protocol", "there is one version"),
    quiet("raft_snapshot_interval", "snapshots follow the size of the log"),
    quiet("raft_snapshot_threshold", "snapshots follow the size of the log"),
    quiet("raft_trailing_logs", "snapshots follow the size of the log"),
    quiet("read_replica", "every server votes"),
    quiet("reporting", "nothing is ever sent home"),
    quiet("rpc", "it is for tests"),
    quiet("segments", "network segments are a Consul Enterprise feature; test helpers write an empty list of them"),
    quiet("server_rejoin_age_max", "a removed server never comes back under its id"),
    quiet("syslog_facility", "logs go to the standard output"),
    warn("telemetry.circonus_api_token", "figures are served and never pushed: let Prometheus ask for them"),
    quiet("telemetry.disable_compat_1.9", "there are no names of that time"),
    warn("telemetry.dogstatsd_addr", "figures are served and never pushed: let Prometheus ask for them"),
    quiet("telemetry.dogstatsd_tags", "figures are served and never pushed"),
    quiet("telemetry.enable_host_metrics", "/v1/agent/host tells of the host"),
    quiet("telemetry.filter_default", "every figure is served; choose where they are read"),
    quiet("telemetry.prefix_filter", "every figure is served; choose where they are read"),
    quiet("telemetry.prometheus_retention_time", "metrics are always served for Prometheus"),
    quiet("telemetry.retry_failed_connection", "figures are served and never pushed"),
    warn("telemetry.statsd_address", "figures are served and never pushed: let Prometheus ask for them"),
    warn("telemetry.statsite_address", "figures are served and never pushed: let Prometheus ask for them"),
    warn("tls.defaults.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.defaults.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.defaults.tls_min_version", "our own parts speak TLS 1.3"),
    quiet("tls.grpc", "the gRPC port is not served"),
    warn("tls.https.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.https.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.https.tls_min_version", "TLS 1.2 and 1.3 are spoken"),
    warn("tls.internal_rpc.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.internal_rpc.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.internal_rpc.tls_min_version", "our own parts speak TLS 1.3"),
    quiet("translate_wan_addrs", "there is one datacenter yet"),
    quiet("ui_config.content_path", "the UI is under /ui/"),
    quiet("ui_config.dashboard_url_templates", "the UI shows no dashboards"),
    quiet("ui_config.dir", "the UI is part of the program"),
    quiet("ui_config.metrics_provider", "the UI shows no metrics"),
    quiet("ui_config.metrics_proxy", "the UI shows no metrics"),
    quiet("version", "it is the program's own; test helpers write it"),
    quiet("use_streaming_backend", "there is one way to watch"),
    quiet("xds", "the gRPC port is not served"),
];
