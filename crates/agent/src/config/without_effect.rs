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
    /// The value, as JSON, that says what happens anyway; it needs no word. Empty where there is none.
    pub anyway: &'static str,
}

impl WithoutEffect {
    /// The same, where `value` says what happens anyway.
    const fn unless(self, value: &'static str) -> Self {
        Self { anyway: value, ..self }
    }
}

const fn quiet(key: &'static str, reason: &'static str) -> WithoutEffect {
    WithoutEffect { key, notice: Notice::Quiet, reason, anyway: "" }
}

const fn warn(key: &'static str, reason: &'static str) -> WithoutEffect {
    WithoutEffect { key, notice: Notice::Warn, reason, anyway: "" }
}

/// All of them.
pub const WITHOUT_EFFECT: &[WithoutEffect] = &[
    quiet("$schema", "it is for editors"),
    quiet("acl.down_policy", "tokens are resolved by the server that answers, so no agent caches them"),
    warn("acl.enable_key_list_policy", "it is not served yet").unless("false"),
    warn("acl.enable_token_replication", "replication between datacenters is not served yet").unless("false"),
    quiet("acl.msp_disable_bootstrap", "it is a setting of Consul Enterprise"),
    quiet("acl.policy_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl.role_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    quiet("acl.token_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    warn("acl.tokens.agent_recovery", "it is not served yet"),
    quiet("acl.tokens.managed_service_provider", "it is a setting of Consul Enterprise"),
    warn("acl.tokens.replication", "replication between datacenters is not served yet"),
    warn("acl_datacenter", "replication between datacenters is not served yet"),
    quiet("acl_enforce_version_8", "there is one version of the rules"),
    quiet("acl_ttl", "tokens are resolved by the server that answers, so no agent caches them"),
    warn("addresses.grpc", "the gRPC port is not served"),
    warn("addresses.grpc_tls", "the gRPC port is not served"),
    warn("advertise_addr_ipv4", "a node tells one address: set advertise_addr"),
    warn("advertise_addr_ipv6", "a node tells one address: set advertise_addr"),
    warn("advertise_addr_wan_ipv4", "a node tells one address: set advertise_addr_wan"),
    warn("advertise_addr_wan_ipv6", "a node tells one address: set advertise_addr_wan"),
    quiet("ae_interval", "how often an agent compares follows the number of nodes"),
    warn("audit", "audit logs are not served yet"),
    warn("auto_config", "clients get their first certificate by login; see login_token_file"),
    warn("auto_encrypt", "clients get their first certificate by login; see login_token_file"),
    warn("auto_reload_config", "files are read at the start and at a reload: send SIGHUP, or run `lictor reload`")
        .unless("false"),
    quiet("autopilot.disable_upgrade_migration", "it is a setting of Consul Enterprise"),
    quiet("autopilot.redundancy_zone_tag", "it is a setting of Consul Enterprise"),
    quiet("autopilot.upgrade_version_tag", "it is a setting of Consul Enterprise"),
    quiet("build_date", "it is the program's own; test helpers write it"),
    quiet("cache", "agents hold no cache"),
    quiet("check_deregister_interval_min", "it is a minute"),
    quiet("cloud", "there is no such service"),
    warn("config_entries", "entries are written through the API"),
    quiet("connect.ca_config", "the mesh has its own authority with fixed lifetimes"),
    warn("connect.ca_provider", "the mesh has its own authority"),
    warn("connect.enable_mesh_gateway_wan_federation", "mesh gateways are not served yet"),
    quiet("connect.enable_serverless_plugin", "there is none"),
    warn("connect.enabled", "the mesh is always on").unless("true"),
    quiet("connect.test_ca_leaf_root_change_spread", "it is for tests"),
    quiet("disable_anonymous_signature", "nothing is ever sent home"),
    quiet("disable_host_node_id", "the node id is random and kept in the data directory"),
    quiet("disable_http_unprintable_char_filter", "such paths are always refused"),
    quiet("disable_remote_exec", "there is no remote execution").unless("true"),
    quiet("disable_update_check", "nothing looks for updates"),
    quiet("dns_config.cache_max_age", "agents hold no cache"),
    quiet("dns_config.prefer_namespace", "there are no namespaces"),
    quiet("dns_config.use_cache", "agents hold no cache"),
    quiet("enable_acl_replication", "replication between datacenters is not served yet"),
    warn("enable_agent_tls_for_checks", "checks do not show the agent's certificate"),
    quiet("enable_central_service_config", "config entries are always merged for readers who ask for it"),
    quiet("enable_debug", "profiles are not served").unless("false"),
    warn("enable_syslog", "logs go to the standard output").unless("false"),
    quiet("experiments", "there are none"),
    quiet("http_config.max_header_bytes", "the head of a request has 32 KiB"),
    quiet("http_config.use_cache", "agents hold no cache"),
    quiet("license_path", "there is no licence"),
    quiet("limits.https_handshake_timeout", "a handshake has 5 s"),
    quiet("limits.request_limits", "requests are limited by connection and by size"),
    quiet("limits.rpc_client_timeout", "a request has its hold time"),
    quiet("limits.rpc_handshake_timeout", "a handshake has 5 s"),
    quiet("limits.rpc_max_conns_per_client", "agents keep one connection"),
    warn("log_file", "logs go to the standard output"),
    quiet("log_rotate_bytes", "logs go to the standard output"),
    quiet("log_rotate_duration", "logs go to the standard output"),
    quiet("log_rotate_max_files", "logs go to the standard output"),
    warn("non_voting_server", "every server votes").unless("false"),
    quiet("partition", "it is a setting of Consul Enterprise"),
    quiet("peering", "peerings are not served yet"),
    quiet("performance.grpc_keepalive_interval", "the gRPC port is not served"),
    quiet("performance.grpc_keepalive_timeout", "the gRPC port is not served"),
    quiet("ports.expose_max_port", "a proxy says itself which ports it opens for checks"),
    quiet("ports.expose_min_port", "a proxy says itself which ports it opens for checks"),
    warn("ports.grpc", "the gRPC port is not served").unless("-1"),
    warn("ports.grpc_tls", "the gRPC port is not served").unless("-1"),
    warn("primary_gateways", "mesh gateways are not served yet"),
    quiet("primary_gateways_interval", "mesh gateways are not served yet"),
    quiet("protocol", "both ends agree on the protocol by themselves"),
    quiet("raft_logstore", "there is one store for the log"),
    quiet("raft_prevote_disabled", "a candidate always asks first whether it could win").unless("false"),
    quiet("raft_protocol", "there is one version"),
    quiet("raft_snapshot_interval", "snapshots follow the size of the log"),
    warn("read_replica", "every server votes").unless("false"),
    quiet("reporting", "nothing is ever sent home"),
    quiet("revision", "it is the program's own; test helpers write it"),
    quiet("rpc", "it is for tests"),
    quiet("segment", "it is a setting of Consul Enterprise"),
    quiet("segments", "network segments are a Consul Enterprise feature; test helpers write an empty list of them"),
    quiet("server_name", "certificates name servers by their datacenter"),
    quiet("server_rejoin_age_max", "a removed server never comes back under its id"),
    quiet("snapshot_agent", "it is a setting of Consul Enterprise"),
    quiet("sync_coordinate_interval_min", "how often coordinates are told follows the number of nodes"),
    quiet("sync_coordinate_rate_target", "how often coordinates are told follows the number of nodes"),
    quiet("syslog_facility", "logs go to the standard output"),
    quiet("telemetry.circonus_api_app", "figures are served and never pushed"),
    warn("telemetry.circonus_api_token", "figures are served and never pushed: let Prometheus ask for them"),
    quiet("telemetry.circonus_api_url", "figures are served and never pushed"),
    quiet("telemetry.circonus_broker_id", "figures are served and never pushed"),
    quiet("telemetry.circonus_broker_select_tag", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_display_name", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_force_metric_activation", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_id", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_instance_id", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_search_tag", "figures are served and never pushed"),
    quiet("telemetry.circonus_check_tags", "figures are served and never pushed"),
    quiet("telemetry.circonus_submission_interval", "figures are served and never pushed"),
    warn("telemetry.circonus_submission_url", "figures are served and never pushed: let Prometheus ask for them"),
    quiet("telemetry.disable_compat_1.9", "there are no names of that time"),
    quiet("telemetry.disable_per_tenancy_usage_metrics", "there is one tenant"),
    warn("telemetry.dogstatsd_addr", "figures are served and never pushed: let Prometheus ask for them"),
    quiet("telemetry.dogstatsd_tags", "figures are served and never pushed"),
    quiet("telemetry.enable_host_metrics", "/v1/agent/host tells of the host"),
    quiet("telemetry.enable_service_metrics", "figures of services are always served"),
    quiet("telemetry.filter_default", "every figure is served; choose where they are read"),
    quiet("telemetry.prefix_filter", "every figure is served; choose where they are read"),
    quiet("telemetry.prometheus_retention_time", "metrics are always served for Prometheus"),
    quiet("telemetry.retry_failed_connection", "figures are served and never pushed"),
    warn("telemetry.statsd_address", "figures are served and never pushed: let Prometheus ask for them"),
    warn("telemetry.statsite_address", "figures are served and never pushed: let Prometheus ask for them"),
    warn("tls.defaults.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.defaults.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.defaults.tls_min_version", "our own parts speak TLS 1.3"),
    quiet("tls.defaults.use_auto_cert", "clients get their first certificate by login; see login_token_file")
        .unless("false"),
    quiet("tls.defaults.verify_outgoing", "our own parts always verify each other").unless("true"),
    quiet("tls.defaults.verify_server_hostname", "the name of a server is always verified").unless("true"),
    quiet("tls.grpc", "the gRPC port is not served"),
    warn("tls.https.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.https.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.https.tls_min_version", "TLS 1.2 and 1.3 are spoken"),
    quiet("tls.https.use_auto_cert", "give tls.https a cert_file and a key_file").unless("false"),
    quiet("tls.https.verify_outgoing", "our own parts always verify each other").unless("true"),
    quiet("tls.https.verify_server_hostname", "the name of a server is always verified").unless("true"),
    warn("tls.internal_rpc.ca_path", "give one ca_file; it may hold several certificates"),
    quiet("tls.internal_rpc.tls_cipher_suites", "TLS 1.3 chooses"),
    quiet("tls.internal_rpc.tls_min_version", "our own parts speak TLS 1.3"),
    quiet("tls.internal_rpc.use_auto_cert", "clients get their first certificate by login; see login_token_file")
        .unless("false"),
    quiet("tls.internal_rpc.verify_incoming", "our own parts always verify each other").unless("true"),
    quiet("tls.internal_rpc.verify_outgoing", "our own parts always verify each other").unless("true"),
    quiet("tls.internal_rpc.verify_server_hostname", "the name of a server is always verified").unless("true"),
    quiet("tls_prefer_server_cipher_suites", "TLS 1.3 chooses"),
    quiet("translate_wan_addrs", "there is one datacenter yet"),
    quiet("ui_config.content_path", "there is no web UI yet"),
    quiet("ui_config.dashboard_url_templates", "there is no web UI yet"),
    quiet("ui_config.dir", "there is no web UI yet"),
    warn("ui_config.enabled", "there is no web UI yet").unless("false"),
    quiet("ui_config.hcp_enabled", "there is no web UI yet"),
    quiet("ui_config.metrics_provider", "there is no web UI yet"),
    quiet("ui_config.metrics_provider_files", "there is no web UI yet"),
    quiet("ui_config.metrics_provider_options_json", "there is no web UI yet"),
    quiet("ui_config.metrics_proxy", "there is no web UI yet"),
    quiet("use_streaming_backend", "there is one way to watch"),
    quiet("version", "it is the program's own; test helpers write it"),
    quiet("version_metadata", "it is the program's own; test helpers write it"),
    quiet("version_prerelease", "it is the program's own; test helpers write it"),
    quiet("xds", "the gRPC port is not served"),
];
