//! Configuration: files, fragments and flags in, one validated [`Config`] out.
//!
//! Key names are Consul's; ours beside them are `server_addresses`, `advertise_server_address`, `seal_key_file`,
//! `login`, `login_token_file`, `limits.dns_max_queries_per_client`, and `encrypt = "off"`. Later sources win: scalars are replaced, lists are appended, maps are merged.
//!
//! Invariants
//! - Every mistake in every source is reported at once, each with the file and the key it is in.
//! - No key is ignored in silence: it has an effect, or is listed in [`without_effect`] with the reason, or is an error.
//! - What an absent key means depends on `bind_addr`: on loopback what it means in Consul, elsewhere the safe choice.

mod build;
mod flags;
mod gossip;
pub mod hcl;
mod host;
mod http;
mod join;
mod keys;
mod merged;
mod problem;
mod source;
mod tree;
mod watch;
mod without_effect;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lictor_types::{Credential, Locality, NodeName};

use crate::dns::Strategy;
use crate::local::{CheckDefinition, ServiceDefinition, SidecarPorts};

pub use flags::Flags;
pub use gossip::{GossipConfig, GossipEncryption, GossipKey, PoolConfig};
pub use host::Host;
pub use http::{Block, HttpConfig};
pub(crate) use join::gossip_address;
pub use problem::{ConfigErrors, ConfigProblem};
pub use watch::{HttpHandler, WatchDefinition, WatchTarget};
pub use without_effect::{Notice, WITHOUT_EFFECT, WithoutEffect};

/// The configuration of one agent, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// It runs as a server.
    pub server: bool,
    /// It is the single in-memory agent of `-dev`.
    pub dev: bool,
    /// How many servers start the cluster; 0 for one that only joins.
    pub bootstrap_expect: u32,
    /// The datacenter it is in.
    pub datacenter: String,
    /// Its name in the catalog.
    pub node_name: NodeName,
    /// Its node id, when the configuration names one; else the one kept in the data directory.
    pub node_id: Option<String>,
    /// Node meta for the catalog.
    pub node_meta: BTreeMap<String, String>,
    /// Where the node is, for the catalog.
    pub locality: Option<Locality>,
    /// Where it keeps what must survive a restart; none keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// Where it listens and what it tells others.
    pub addresses: Addresses,
    /// Its ports.
    pub ports: Ports,
    /// Who owns its Unix sockets.
    pub unix_sockets: UnixSockets,
    /// How it finds the others.
    pub join: Join,
    /// How it takes part in gossip.
    pub gossip: GossipConfig,
    /// Certificates for the server port, and of the peers there.
    pub rpc_tls: TlsFiles,
    /// Certificates for HTTPS.
    pub https_tls: TlsFiles,
    /// Access control.
    pub acl: AclConfig,
    /// A call between services that no intention speaks of is allowed.
    pub default_intention_allow: bool,
    /// DNS.
    pub dns: DnsConfig,
    /// Instances that this agent registers.
    pub services: Vec<ServiceDefinition>,
    /// Checks that this agent runs.
    pub checks: Vec<CheckDefinition>,
    /// Views that this agent follows.
    pub watches: Vec<WatchDefinition>,
    /// How checks are run and told.
    pub check_settings: CheckSettings,
    /// Logging.
    pub log: LogConfig,
    /// Timing.
    pub performance: Performance,
    /// Limits.
    pub limits: Limits,
    /// What the HTTP API adds and refuses.
    pub http: HttpConfig,
    /// How figures are named.
    pub telemetry: Telemetry,
    /// SIGTERM leaves the cluster on purpose.
    pub leave_on_terminate: bool,
    /// SIGINT does not leave the cluster on purpose.
    pub skip_leave_on_interrupt: bool,
    /// How the first leader looks after the servers of raft.
    pub autopilot: Autopilot,
    /// The shortest TTL that a session may have.
    pub session_ttl_min: Duration,
    /// Nobody is told where nodes are in the space of round-trip times.
    pub disable_coordinates: bool,
    /// How the log of raft is kept short.
    pub raft: RaftLog,
    /// A file that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// The key that secrets in the replicated state are sealed with.
    pub seal_key_file: Option<PathBuf>,
    /// How pods prove who they are; read again at every login.
    pub kubernetes_login_file: Option<PathBuf>,
    /// A client's proof for its first certificate.
    pub login_token_file: Option<PathBuf>,
    /// What is allowed and worth a second look; for the log at every start.
    pub warnings: Vec<String>,
    /// Keys that were taken and change nothing.
    pub ignored: Vec<IgnoredKey>,
}

/// A key that was taken and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    /// Where it is.
    pub file: String,
    /// The key, with the keys above it.
    pub key: String,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// Where an agent listens and what it tells others.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The server port and gossip listen here.
    pub bind: IpAddr,
    /// What others dial.
    pub advertise: IpAddr,
    /// `host:port` that other servers dial, when it is not `advertise` and the server port.
    pub advertise_server: Option<String>,
    /// Plain HTTP listens here; empty when it is off.
    pub http: Vec<SocketAddr>,
    /// Plain HTTP listens on these Unix sockets too.
    pub http_sockets: Vec<PathBuf>,
    /// HTTPS listens here; empty when it is off.
    pub https: Vec<SocketAddr>,
    /// DNS listens here; empty when it is off.
    pub dns: Vec<SocketAddr>,
}

/// Who owns Unix sockets, and who may use them; what is absent is as the operating system makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixSockets {
    /// The id of a user.
    pub user: Option<u32>,
    /// The id of a group.
    pub group: Option<u32>,
    /// The bits of a file's mode.
    pub mode: Option<u32>,
}

/// The ports of an agent; none is off, 0 lets the operating system choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Plain HTTP.
    pub http: Option<u16>,
    /// HTTPS.
    pub https: Option<u16>,
    /// DNS.
    pub dns: Option<u16>,
    /// Raft, RPC and login.
    pub server: u16,
    /// LAN gossip.
    pub serf_lan: Option<u16>,
    /// WAN gossip, of servers.
    pub serf_wan: Option<u16>,
    /// Those of proxies that are registered without one.
    pub sidecars: SidecarPorts,
}

/// How an agent finds the servers.
#[derive(Clone, Debug)]
pub struct Join {
    /// `host:port` of server ports: `server_addresses`, then the hosts of `retry_join` with our own server port.
    pub servers: Vec<String>,
    /// The entries of `retry_join` and `start_join` as they were written.
    pub retry_join: Vec<String>,
    /// Between two rounds over all of them.
    pub retry_interval: Duration,
    /// Rounds before the agent gives up; 0 for ever.
    pub retry_max: u32,
}

/// Certificate files of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that signs servers.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Clients must show a certificate.
    pub verify_incoming: bool,
}

/// Access control.
#[derive(Clone, Debug)]
pub struct AclConfig {
    /// Tokens are asked for.
    pub enabled: bool,
    /// What no rule speaks of is allowed.
    pub default_allow: bool,
    /// The token that may do everything, made at the first start.
    pub initial_management: Option<Credential>,
    /// Used where a request carries no token.
    pub default_token: Credential,
    /// Used for the agent's own node; the default token when absent.
    pub agent_token: Credential,
    /// Used for DNS; the default token when absent.
    pub dns_token: Credential,
    /// Used for services and checks of files; the default token when absent.
    pub registration_token: Credential,
    /// Tokens that are set through the API survive a restart.
    pub persist_tokens: bool,
}

/// DNS answers.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Our domain, with a dot at its end.
    pub domain: String,
    /// A second domain, with a dot at its end.
    pub alt_domain: Option<String>,
    /// Servers for every other domain.
    pub recursors: Vec<SocketAddr>,
    /// How one of them is chosen.
    pub recursor_strategy: Strategy,
    /// How long one of them may take.
    pub recursor_timeout: Duration,
    /// Time to live of nodes.
    pub node_ttl: Duration,
    /// Time to live of services by name; a name may end in `*`.
    pub service_ttl: BTreeMap<String, Duration>,
    /// Instances in state warning are left out.
    pub only_passing: bool,
    /// Any server may answer.
    pub allow_stale: bool,
    /// How old the answer of any server may be; an older one is asked for again.
    pub max_stale: Duration,
    /// Names are written in full.
    pub disable_compression: bool,
    /// The meta of a node goes along with its addresses, as text.
    pub node_meta_txt: bool,
    /// UDP questions of one source in a second that are answered; 0 for no limit.
    pub max_queries_per_client: u32,
    /// A cut answer says so.
    pub enable_truncate: bool,
    /// Answers in a plain UDP reply.
    pub udp_answer_limit: usize,
    /// Addresses in any reply; 0 for no limit but the transport's.
    pub a_record_limit: usize,
    /// The numbers of the SOA record.
    pub soa: Soa,
}

impl Default for DnsConfig {
    /// What absent keys mean.
    fn default() -> Self {
        Self {
            domain: "consul.".into(),
            alt_domain: None,
            recursors: Vec::new(),
            recursor_strategy: Strategy::Sequential,
            recursor_timeout: Duration::from_secs(2),
            node_ttl: Duration::ZERO,
            service_ttl: BTreeMap::new(),
            only_passing: false,
            allow_stale: true,
            max_stale: Duration::from_secs(87_600 * 3600),
            disable_compression: false,
            node_meta_txt: true,
            max_queries_per_client: 10_000,
            enable_truncate: false,
            udp_answer_limit: 3,
            a_record_limit: 0,
            soa: Soa { refresh: 3600, retry: 600, expire: 86400, min_ttl: 0 },
        }
    }
}

/// The numbers of the SOA record, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Refresh.
    pub refresh: u32,
    /// Retry.
    pub retry: u32,
    /// Expire.
    pub expire: u32,
    /// Minimum time to live, which is that of negative answers.
    pub min_ttl: u32,
}

/// How checks are run and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// How long an output that changed without its status may wait before it is told to the servers.
    pub update_interval: Duration,
    /// Bytes of output that a check keeps at most.
    pub output_max_size: usize,
    /// Only the status of a check is kept.
    pub discard_output: bool,
    /// Between two looks for instances that have been critical for too long.
    pub reap_interval: Duration,
    /// Checks of files may have programs run.
    pub scripts_of_files: bool,
    /// Checks of the API may have programs run, and those of files too.
    pub scripts_of_api: bool,
}

impl Default for CheckSettings {
    /// What absent keys mean.
    fn default() -> Self {
        Self {
            update_interval: Duration::from_secs(300),
            output_max_size: 4096,
            discard_output: false,
            reap_interval: Duration::from_secs(30),
            scripts_of_files: false,
            scripts_of_api: false,
        }
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// Lines are JSON objects.
    pub json: bool,
}

/// Timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Performance {
    /// Scales raft's timers.
    pub raft_multiplier: u32,
    /// How long a request waits for a leader or a server before it fails.
    pub rpc_hold_timeout: Duration,
    /// How long a leaving agent goes on serving.
    pub leave_drain_time: Duration,
}

/// How figures are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// What every name begins with.
    pub metrics_prefix: String,
    /// Names of gauges do not hold the node's name. On unless it is turned off: dashboards expect it so.
    pub disable_hostname: bool,
}

/// How the first leader looks after the servers of raft; later it is what the API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autopilot {
    /// Failed servers are taken out of raft.
    pub cleanup_dead_servers: bool,
    /// A server that was not heard of for longer is not healthy.
    pub last_contact_threshold: Duration,
    /// A server whose log is behind by more entries is not healthy.
    pub max_trailing_logs: u64,
    /// Failed servers are taken out only while at least so many voters remain.
    pub min_quorum: u64,
    /// How long a new server must be healthy before it votes.
    pub server_stabilization_time: Duration,
}

/// How the log of raft is kept short; what is absent is as servers choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftLog {
    /// Entries between two snapshots.
    pub snapshot_threshold: Option<u32>,
    /// Entries that are kept behind a snapshot for followers that lag.
    pub trailing_logs: Option<u32>,
}

/// Limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Open HTTP connections of one client address; 0 for no limit.
    pub http_max_conns_per_client: usize,
    /// Bytes of the largest value in the key/value store.
    pub kv_max_value_size: usize,
    /// Bytes of the largest transaction.
    pub txn_max_req_len: usize,
    /// How often a client asks its servers in a second; none for any number.
    pub rpc_rate: Option<f64>,
    /// How often it may do so at once.
    pub rpc_max_burst: u32,
    /// How long a blocking query waits that does not say.
    pub default_query_time: Duration,
    /// How long a blocking query may wait.
    pub max_query_time: Duration,
    /// How old an answer about catalog and health may be where a reader says nothing of it; zero for the leader's own.
    pub discovery_max_stale: Duration,
}

impl Config {
    /// Reads every source that `flags` names, merges them in order, and validates the result.
    ///
    /// # Errors
    /// Everything that is wrong in any of them.
    pub fn load(flags: &Flags, host: &Host) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut sources = source::read_all(flags, &mut problems);
        let all_read = problems.is_empty();
        sources.push(flags.as_source());
        let mut merged = serde_json::Map::new();
        let mut ignored = Vec::new();
        for mut source in sources {
            tree::rename(&mut source, &mut warnings);
            tree::check(&mut source, &mut warnings, &mut ignored, &mut problems);
            tree::merge(&mut merged, source.root);
        }
        // What the rest lacks or contradicts may stand in the source that could not be read: nobody can tell.
        if !all_read {
            return Err(ConfigErrors(problems));
        }
        let built = build::build(&merged, flags.dev, host, &mut warnings, &mut problems);
        match built {
            Some(config) if problems.is_empty() => Ok(Self { warnings, ignored, ..config }),
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// Whether the agent talks to its own machine only.
    pub fn on_loopback(&self) -> bool {
        self.addresses.bind.is_loopback()
    }
}
