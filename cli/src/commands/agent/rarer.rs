//! Consul's flags that few set. Each is a key of the configuration, which says what it does, or why it does nothing.

use clap::Args;
use serde_json::Value;

use crate::arguments::go_bool;

/// The rarer flags of an agent.
#[derive(Args, Default)]
pub(super) struct RarerFlags {
    /// Block of addresses that may write over HTTP; may be given several times.
    #[arg(long, value_name = "CIDR")]
    allow_write_http_from: Vec<String>,
    /// Block of addresses that members of LAN gossip may have; may be given several times.
    #[arg(long, value_name = "CIDR")]
    serf_lan_allowed_cidrs: Vec<String>,
    /// Block of addresses that members of WAN gossip may have; may be given several times.
    #[arg(long, value_name = "CIDR")]
    serf_wan_allowed_cidrs: Vec<String>,
    /// Time between two rounds over the servers to join over WAN.
    #[arg(long, value_name = "DURATION")]
    retry_interval_wan: Option<String>,
    /// Rounds over the servers to join over WAN before the agent gives up; 0 for ever.
    #[arg(long, value_name = "COUNT")]
    retry_max_wan: Option<u32>,
    /// How long a blocking query waits that does not say.
    #[arg(long, value_name = "DURATION")]
    default_query_time: Option<String>,
    /// How long a blocking query may wait.
    #[arg(long, value_name = "DURATION")]
    max_query_time: Option<String>,
    /// Bytes of output that a check keeps at most.
    #[arg(long = "check_output_max_size", value_name = "BYTES")]
    check_output_max_size: Option<u32>,
    /// No effect: files are read at the start and at a reload.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    auto_reload_config: Option<bool>,
    /// No effect: logs go to the standard output.
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
    /// No effect: logs go to the standard output.
    #[arg(long, value_name = "BYTES")]
    log_rotate_bytes: Option<u64>,
    /// No effect: logs go to the standard output.
    #[arg(long, value_name = "DURATION")]
    log_rotate_duration: Option<String>,
    /// No effect: logs go to the standard output.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    log_rotate_max_files: Option<i64>,
    /// No effect: logs go to the standard output.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    syslog: Option<bool>,
    /// No effect: both ends agree on the protocol by themselves.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    protocol: Option<i64>,
    /// No effect: there is one version.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    raft_protocol: Option<i64>,
    /// No effect: every server votes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    read_replica: Option<bool>,
    /// No effect: every server votes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    non_voting_server: Option<bool>,
    /// No effect: mesh gateways are not served yet.
    #[arg(long, value_name = "ADDRESS")]
    primary_gateway: Vec<String>,
    /// No effect: network segments are a feature of Consul Enterprise.
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    /// No effect: there is no web UI yet.
    #[arg(long, value_name = "PATH")]
    ui_content_path: Option<String>,
    /// No effect: there is no web UI yet.
    #[arg(long, value_name = "DIRECTORY")]
    ui_dir: Option<String>,
}

impl RarerFlags {
    /// The keys that the flags stand for.
    pub(super) fn into_keys(self) -> Vec<(&'static str, Value)> {
        let texts = |values: Vec<String>| (!values.is_empty()).then(|| Value::from(values));
        let keys = [
            ("http_config.allow_write_http_from", texts(self.allow_write_http_from)),
            ("serf_lan_allowed_cidrs", texts(self.serf_lan_allowed_cidrs)),
            ("serf_wan_allowed_cidrs", texts(self.serf_wan_allowed_cidrs)),
            ("retry_interval_wan", self.retry_interval_wan.map(Value::from)),
            ("retry_max_wan", self.retry_max_wan.map(Value::from)),
            ("default_query_time", self.default_query_time.map(Value::from)),
            ("max_query_time", self.max_query_time.map(Value::from)),
            ("check_output_max_size", self.check_output_max_size.map(Value::from)),
            ("auto_reload_config", self.auto_reload_config.map(Value::from)),
            ("log_file", self.log_file.map(Value::from)),
            ("log_rotate_bytes", self.log_rotate_bytes.map(Value::from)),
            ("log_rotate_duration", self.log_rotate_duration.map(Value::from)),
            ("log_rotate_max_files", self.log_rotate_max_files.map(Value::from)),
            ("enable_syslog", self.syslog.map(Value::from)),
            ("protocol", self.protocol.map(Value::from)),
            ("raft_protocol", self.raft_protocol.map(Value::from)),
            ("read_replica", self.read_replica.map(Value::from)),
            ("non_voting_server", self.non_voting_server.map(Value::from)),
            ("primary_gateways", texts(self.primary_gateway)),
            ("segment", self.segment.filter(|name| !name.is_empty()).map(Value::from)),
            ("ui_config.content_path", self.ui_content_path.map(Value::from)),
            ("ui_config.dir", self.ui_dir.map(Value::from)),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
