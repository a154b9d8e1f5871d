//! Every key that has an effect, with the kind of its value.

/// The kind of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from 0.
    Count,
    /// A number, -1 for no limit.
    Number,
    /// A port; -1 is off.
    Port,
    /// A Go duration.
    Duration,
    /// Texts, or one text.
    Texts,
    /// Texts by name.
    TextMap,
    /// Durations by name.
    DurationMap,
    /// Keys of its own.
    Object(&'static [(&'static str, Kind)]),
    /// Definitions of services, checks or watches; looked at when they are built.
    Definitions,
}

use Kind::{Count, Definitions, Duration, DurationMap, Flag, Number, Object, Port, Text, TextMap, Texts};

const TLS: Kind = Object(&[("ca_file", Text), ("cert_file", Text), ("key_file", Text), ("verify_incoming", Flag)]);

/// Our own parts always verify each other.
const INTERNAL_TLS: Kind = Object(&[("ca_file", Text), ("cert_file", Text), ("key_file", Text)]);

/// How a pool behaves.
const GOSSIP: Kind = Object(&[
    ("gossip_interval", Duration),
    ("gossip_nodes", Count),
    ("probe_interval", Duration),
    ("probe_timeout", Duration),
    ("retransmit_mult", Count),
    ("suspicion_mult", Count),
]);

/// The root.
pub(super) const KEYS: &[(&str, Kind)] = &[
    (
        "acl",
        Object(&[
            ("default_policy", Text),
            ("enable_token_persistence", Flag),
            ("enabled", Flag),
            (
                "tokens",
                Object(&[
                    ("agent", Text),
                    ("config_file_service_registration", Text),
                    ("default", Text),
                    ("dns", Text),
                    ("initial_management", Text),
                ]),
            ),
        ]),
    ),
    ("addresses", Object(&[("dns", Text), ("http", Text), ("https", Text)])),
    ("advertise_addr", Text),
    ("advertise_addr_wan", Text),
    ("advertise_reconnect_timeout", Duration),
    ("advertise_server_address", Text),
    ("alt_domain", Text),
    (
        "autopilot",
        Object(&[
            ("cleanup_dead_servers", Flag),
            ("last_contact_threshold", Duration),
            ("max_trailing_logs", Count),
            ("min_quorum", Count),
            ("server_stabilization_time", Duration),
        ]),
    ),
    ("bind_addr", Text),
    ("bootstrap", Flag),
    ("bootstrap_expect", Count),
    ("check_output_max_size", Count),
    ("check_reap_interval", Duration),
    ("check_update_interval", Duration),
    ("checks", Definitions),
    ("client_addr", Text),
    ("connect", Object(&[])),
    ("data_dir", Text),
    ("datacenter", Text),
    ("default_intention_policy", Text),
    ("default_query_time", Duration),
    ("disable_coordinates", Flag),
    ("discard_check_output", Flag),
    ("discovery_max_stale", Duration),
    (
        "dns_config",
        Object(&[
            ("a_record_limit", Count),
            ("allow_stale", Flag),
            ("disable_compression", Flag),
            ("enable_additional_node_meta_txt", Flag),
            ("enable_truncate", Flag),
            ("max_stale", Duration),
            ("node_ttl", Duration),
            ("only_passing", Flag),
            ("recursor_strategy", Text),
            ("recursor_timeout", Duration),
            ("service_ttl", DurationMap),
            ("soa", Object(&[("expire", Count), ("min_ttl", Count), ("refresh", Count), ("retry", Count)])),
            ("udp_answer_limit", Count),
        ]),
    ),
    ("disable_keyring_file", Flag),
    ("domain", Text),
    ("enable_local_script_checks", Flag),
    ("enable_script_checks", Flag),
    ("encrypt", Text),
    ("encrypt_verify_incoming", Flag),
    ("encrypt_verify_outgoing", Flag),
    ("gossip_lan", GOSSIP),
    ("gossip_wan", GOSSIP),
    (
        "http_config",
        Object(&[("allow_write_http_from", Texts), ("block_endpoints", Texts), ("response_headers", TextMap)]),
    ),
    ("leave_on_terminate", Flag),
    (
        "limits",
        Object(&[
            ("dns_max_queries_per_client", Count),
            ("http_max_conns_per_client", Count),
            ("kv_max_value_size", Count),
            ("rpc_max_burst", Count),
            ("rpc_rate", Number),
            ("txn_max_req_len", Count),
        ]),
    ),
    ("locality", Object(&[("region", Text), ("zone", Text)])),
    ("log_json", Flag),
    ("log_level", Text),
    ("login", Object(&[("kubernetes", Object(&[("config_file", Text)]))])),
    ("login_token_file", Text),
    ("max_query_time", Duration),
    ("node_id", Text),
    ("node_meta", TextMap),
    ("node_name", Text),
    (
        "performance",
        Object(&[("leave_drain_time", Duration), ("raft_multiplier", Count), ("rpc_hold_timeout", Duration)]),
    ),
    ("pid_file", Text),
    (
        "ports",
        Object(&[
            ("dns", Port),
            ("http", Port),
            ("https", Port),
            ("serf_lan", Port),
            ("serf_wan", Port),
            ("server", Port),
            ("sidecar_max_port", Port),
            ("sidecar_min_port", Port),
        ]),
    ),
    ("primary_datacenter", Text),
    ("raft_snapshot_threshold", Count),
    ("raft_trailing_logs", Count),
    ("reconnect_timeout", Duration),
    ("reconnect_timeout_wan", Duration),
    ("recursors", Texts),
    ("rejoin_after_leave", Flag),
    ("retry_interval", Duration),
    ("retry_interval_wan", Duration),
    ("retry_join", Texts),
    ("retry_join_wan", Texts),
    ("retry_max", Count),
    ("retry_max_wan", Count),
    ("seal_key_file", Text),
    ("serf_lan", Text),
    ("serf_lan_allowed_cidrs", Texts),
    ("serf_wan", Text),
    ("serf_wan_allowed_cidrs", Texts),
    ("server", Flag),
    ("server_addresses", Texts),
    ("services", Definitions),
    ("session_ttl_min", Duration),
    ("skip_leave_on_interrupt", Flag),
    ("telemetry", Object(&[("disable_hostname", Flag), ("metrics_prefix", Text)])),
    ("tls", Object(&[("defaults", TLS), ("https", TLS), ("internal_rpc", INTERNAL_TLS)])),
    ("unix_sockets", Object(&[("group", Text), ("mode", Text), ("user", Text)])),
    ("ui_config", Object(&[])),
    ("watches", Definitions),
];

/// Old names of keys, and where each lives now.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("acl_agent_master_token", "acl.tokens.agent_recovery"),
    ("acl_agent_token", "acl.tokens.agent"),
    ("acl_default_policy", "acl.default_policy"),
    ("acl_down_policy", "acl.down_policy"),
    ("acl_enable_key_list_policy", "acl.enable_key_list_policy"),
    ("acl_master_token", "acl.tokens.initial_management"),
    ("acl_replication_token", "acl.tokens.replication"),
    ("acl_token", "acl.tokens.default"),
    ("acl.tokens.agent_master", "acl.tokens.agent_recovery"),
    ("acl.tokens.master", "acl.tokens.initial_management"),
    ("ca_file", "tls.defaults.ca_file"),
    ("ca_path", "tls.defaults.ca_path"),
    ("cert_file", "tls.defaults.cert_file"),
    ("key_file", "tls.defaults.key_file"),
    ("serf_lan_bind", "serf_lan"),
    ("serf_wan_bind", "serf_wan"),
    ("start_join", "retry_join"),
    ("start_join_wan", "retry_join_wan"),
    ("tls_cipher_suites", "tls.defaults.tls_cipher_suites"),
    ("tls_min_version", "tls.defaults.tls_min_version"),
    ("ui", "ui_config.enabled"),
    ("ui_content_path", "ui_config.content_path"),
    ("ui_dir", "ui_config.dir"),
    ("verify_incoming", "tls.defaults.verify_incoming"),
    ("verify_incoming_https", "tls.https.verify_incoming"),
    ("verify_incoming_rpc", "tls.internal_rpc.verify_incoming"),
    ("verify_outgoing", "tls.defaults.verify_outgoing"),
    ("verify_server_hostname", "tls.internal_rpc.verify_server_hostname"),
];

/// Keys that are the singular of a list: one definition, or several blocks of that name.
pub(super) const SINGULAR: &[(&str, &str)] = &[("check", "checks"), ("service", "services")];
