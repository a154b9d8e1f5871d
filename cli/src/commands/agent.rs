//! `lictor agent`: one agent, client or server, until a signal.

mod rarer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use lictor_agent::agent::{Agent, AgentIdentity, CONSUL_VERSION, LICTOR_VERSION};
use lictor_agent::config::{Config, Flags, Host};
use lictor_agent::doors::Doors;
use lictor_agent::orders::{Done, Order};
use lictor_agent::reload;
use lictor_runtime::metrics::Gauge;
use lictor_runtime::{Resolver, SystemClock, SystemRng};
use lictor_server::boot::{self, RunningAgent, ServerDeps};
use lictor_types::Refusal;

use rarer::RarerFlags;

use super::watch::agent::Watches;
use crate::arguments::go_bool;
use crate::logging::{self, Dial, Level};
use crate::output::{Failure, Output};
use crate::runtime::{AGENT_BLOCKING_THREADS, Heard, Signals, Stop, Watched, of_watched_threads};

/// How long a stop may take: handing on the lead, ending requests, closing the log.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long leaving the cluster may take, the time that a server serves on not counted.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
/// When this release was built, as far as anybody is told: builds are reproducible.
const BUILD_MOMENT: &str = "1970-01-01 00:00:01 +0000 UTC";
/// The width of the names in the banner.
const BANNER_WIDTH: usize = 18;

/// What an agent is told on the command line: Consul's flags, and a few of ours.
#[derive(Args, Default)]
pub(crate) struct AgentFlags {
    /// File or directory of configuration, HCL or JSON; may be given several times, later ones win.
    #[arg(long, visible_alias = "config-dir", value_name = "PATH")]
    config_file: Vec<PathBuf>,
    /// `hcl` or `json` for every file, whatever its extension.
    #[arg(long, value_name = "FORMAT")]
    config_format: Option<String>,
    /// Configuration in HCL, after the files; may be given several times.
    #[arg(long, value_name = "HCL")]
    hcl: Vec<String>,
    /// A single server in memory, on loopback.
    #[arg(long)]
    dev: bool,
    /// Run as a server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    server: Option<bool>,
    /// Start a cluster of this one server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    bootstrap: Option<bool>,
    /// How many servers start the cluster.
    #[arg(long, value_name = "COUNT")]
    bootstrap_expect: Option<u32>,
    /// The datacenter.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Name of the node; the host's without one.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Id of the node, a UUID; kept in the data directory without one.
    #[arg(long, value_name = "UUID")]
    node_id: Option<String>,
    /// Meta of the node; may be given several times.
    #[arg(long, value_name = "KEY:VALUE")]
    node_meta: Vec<String>,
    /// Where what must survive a restart is kept.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Address of the server port and gossip.
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Address of HTTP and DNS.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Address that others dial.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Address of WAN gossip that others are told.
    #[arg(long, value_name = "ADDRESS")]
    advertise_wan: Option<String>,
    /// Host and port that other servers dial (ours).
    #[arg(long, value_name = "HOST:PORT")]
    advertise_server_address: Option<String>,
    /// Port of plain HTTP; -1 turns it off.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    http_port: Option<i64>,
    /// Port of HTTPS; -1 turns it off.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    https_port: Option<i64>,
    /// Port of DNS; -1 turns it off.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    dns_port: Option<i64>,
    /// Port of gRPC; not served.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    grpc_port: Option<i64>,
    /// Port of gRPC over TLS; not served.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    grpc_tls_port: Option<i64>,
    /// Port of raft, RPC and login.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    server_port: Option<i64>,
    /// Port of LAN gossip; -1 for an agent without.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    serf_lan_port: Option<i64>,
    /// Port of WAN gossip, of servers; -1 for none.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = port)]
    serf_wan_port: Option<i64>,
    /// Host of another agent to join, tried again until it answers; may be given several times.
    #[arg(long, visible_alias = "join", value_name = "HOST")]
    retry_join: Vec<String>,
    /// Host of a server of another datacenter to join over WAN; may be given several times.
    #[arg(long, visible_alias = "join-wan", value_name = "HOST")]
    retry_join_wan: Vec<String>,
    /// Address that LAN gossip listens on, where it is not the bind address.
    #[arg(long, value_name = "ADDRESS")]
    serf_lan_bind: Option<String>,
    /// Address that WAN gossip listens on, where it is not the bind address.
    #[arg(long, value_name = "ADDRESS")]
    serf_wan_bind: Option<String>,
    /// Time between two rounds over all of them.
    #[arg(long, value_name = "DURATION")]
    retry_interval: Option<String>,
    /// Rounds before the agent gives up; 0 for ever.
    #[arg(long, value_name = "COUNT")]
    retry_max: Option<u32>,
    /// Host and server port of a server (ours); may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    server_address: Vec<String>,
    /// Key of gossip in base64, or "off"; better in a file, as others see the arguments of a process.
    #[arg(long, value_name = "KEY")]
    encrypt: Option<String>,
    /// DNS domain.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Second DNS domain.
    #[arg(long, value_name = "NAME")]
    alt_domain: Option<String>,
    /// DNS server for other domains; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    recursor: Vec<String>,
    /// trace, debug, info, warn or error.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log lines are JSON objects.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    log_json: Option<bool>,
    /// The web UI.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    ui: Option<bool>,
    /// Checks that run programs, of files and of the API.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    enable_script_checks: Option<bool>,
    /// Checks of files that run programs.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    enable_local_script_checks: Option<bool>,
    /// No effect: node ids are random.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    disable_host_node_id: Option<bool>,
    /// Changed gossip keys are not kept in the data directory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    disable_keyring_file: Option<bool>,
    /// An agent that left joins again when it starts, by what it remembers.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    rejoin: Option<bool>,
    /// File that gets the process id.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<String>,
    /// File with the proof for a client's first certificate (ours).
    #[arg(long, value_name = "FILE")]
    login_token_file: Option<String>,
    /// Threads that work (ours); as many as cores without one.
    #[arg(long, value_name = "COUNT")]
    worker_threads: Option<usize>,
    #[command(flatten)]
    rarer: RarerFlags,
}

impl AgentFlags {
    /// The flags as the configuration takes them.
    fn into_flags(self) -> Flags {
        let mut fragments = self.hcl;
        let switches = [
            ("disable_host_node_id", self.disable_host_node_id),
            ("disable_keyring_file", self.disable_keyring_file),
            ("rejoin_after_leave", self.rejoin),
        ];
        fragments.extend(switches.iter().filter_map(|(key, value)| Some(format!("{key} = {}", (*value)?))));
        let texts = [
            ("advertise_addr_wan", self.advertise_wan),
            ("serf_lan", self.serf_lan_bind),
            ("serf_wan", self.serf_wan_bind),
        ];
        fragments.extend(texts.into_iter().filter_map(|(key, value)| Some(format!("{key} = {:?}", value?))));
        fragments.extend(self.retry_join_wan.iter().map(|entry| format!("retry_join_wan = [{entry:?}]")));
        Flags {
            config_paths: self.config_file,
            config_format: self.config_format,
            fragments,
            dev: self.dev,
            server: self.server,
            bootstrap: self.bootstrap,
            bootstrap_expect: self.bootstrap_expect,
            datacenter: self.datacenter,
            node: self.node,
            node_id: self.node_id,
            node_meta: self.node_meta,
            data_dir: self.data_dir,
            bind: self.bind,
            client: self.client,
            advertise: self.advertise,
            advertise_server_address: self.advertise_server_address,
            http_port: self.http_port,
            https_port: self.https_port,
            dns_port: self.dns_port,
            grpc_port: self.grpc_port,
            grpc_tls_port: self.grpc_tls_port,
            server_port: self.server_port,
            serf_lan_port: self.serf_lan_port,
            serf_wan_port: self.serf_wan_port,
            retry_join: self.retry_join,
            retry_interval: self.retry_interval,
            retry_max: self.retry_max,
            server_addresses: self.server_address,
            encrypt: self.encrypt,
            domain: self.domain,
            alt_domain: self.alt_domain,
            recursors: self.recursor,
            log_level: self.log_level,
            log_json: self.log_json,
            ui: self.ui,
            enable_script_checks: self.enable_script_checks,
            enable_local_script_checks: self.enable_local_script_checks,
            pid_file: self.pid_file,
            login_token_file: self.login_token_file,
            more: self.rarer.into_keys(),
        }
    }
}

/// A port as Consul writes it.
fn port(text: &str) -> Result<i64, String> {
    let port = text.parse().ok().filter(|port| (-1..=i64::from(u16::MAX)).contains(port));
    port.ok_or_else(|| "write a port from 0 to 65535, or -1 for off".into())
}

pub(super) fn run(flags: AgentFlags) -> Result<Output, Failure> {
    let workers = flags.worker_threads;
    let flags = flags.into_flags();
    let config = Config::load(&flags, &Host::of_this_machine()).map_err(|error| Failure::of(&error))?;
    let level = logging::begin(Level::of_config(&config.log.level), config.log.json)?;
    println!("==> Starting Consul agent...");
    let pid_file = config.pid_file.clone().map(PidFile::write).transpose()?;
    let Watched { runtime, stalled, watch } = of_watched_threads(workers, AGENT_BLOCKING_THREADS)?;
    let result = runtime.block_on(serve(config, Reloader { flags, level }, stalled));
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(watch);
    drop(pid_file);
    result
}

/// The file with our process id, removed at the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> Result<Self, Failure> {
        std::fs::write(&path, std::process::id().to_string())
            .map_err(Failure::because(format!("cannot write the pid file {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Whoever reads it finds no such process; there is nothing better to do at the very end.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts an agent of this configuration on this machine.
async fn start(config: Config) -> Result<RunningAgent, Failure> {
    let deps = ServerDeps {
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
        resolver: Resolver::from_system(),
        state_base: boot::state_base(),
    };
    boot::run_agent(config, deps).await.map_err(|error| Failure::of(&error))
}

async fn serve(config: Config, reloader: Reloader, stalled: Arc<AtomicUsize>) -> Result<Output, Failure> {
    let mut signals = Signals::take()?;
    let shown = config.clone();
    let running = tokio::select! {
        started = start(config) => started?,
        _ = signals.stop() => return Ok(Output::default()),
    };
    running.agent.figures.metrics.collect(move |gauges| {
        gauges.push(Gauge { name: "runtime.stalled_threads", value: stalled.load(Ordering::Relaxed) as f64 });
    });
    println!("{}", banner(&shown, &running.agent.identity, &running.doors).join("\n"));
    let ending = until_the_end(&running, &mut signals, &reloader).await;
    let (leaves, told, result) = match ending {
        Ending::Signal(stop) => {
            let leaves = leaves(&shown, stop);
            tracing::info!(?stop, leaves, "the agent stops");
            (leaves, None, Ok(Output::default()))
        }
        Ending::Ordered(told) => (true, Some(told), Ok(Output::default())),
        Ending::Broken(reason) => (false, None, Err(Failure::new(reason))),
    };
    let end = async {
        if leaves {
            running.leave(LEAVE_LIMIT).await;
        }
        if let Some(told) = told {
            // Nobody waits for the answer any more: they have given up.
            let _ = told.send(Ok(()));
        }
        running.stop(STOP_LIMIT).await;
    };
    tokio::select! {
        () = end => {}
        _ = signals.stop() => tracing::warn!("a second signal: the agent ends at once"),
    }
    result
}

/// What a reload reads and sets beside the agent.
struct Reloader {
    flags: Flags,
    level: Dial,
}

impl Reloader {
    /// Reads the configuration again; one that cannot be used changes nothing.
    async fn reload(&self, running: &RunningAgent, watches: &mut Watches) -> Result<(), Refusal> {
        let agent: &Agent = &running.agent;
        tracing::info!("Reloading configuration...");
        let reloaded = reload::reload(agent, self.flags.clone(), Host::of_this_machine()).await;
        let reloaded = reloaded
            .inspect_err(|refusal| tracing::error!(%refusal, "the configuration was not reloaded: nothing changed"))?;
        let set = self.level.set(Level::of_config(&reloaded.log_level));
        set.map_err(|failure| Refusal::failed(failure.to_string()))?;
        running.reconfigure();
        watches.set(&agent.config.load().watches, &running.doors.http);
        if reloaded.need_restart.is_empty() {
            tracing::info!("the configuration was reloaded");
        } else {
            let keys = reloaded.need_restart.join(", ");
            tracing::warn!("the configuration was reloaded, but these need a restart to take effect: {keys}");
        }
        Ok(())
    }
}

/// Why an agent ends.
enum Ending {
    Signal(Stop),
    /// Somebody had it leave, and is told when it has.
    Ordered(Done),
    Broken(String),
}

/// Serves until there is a reason to end; meanwhile carries out the other orders.
async fn until_the_end(running: &RunningAgent, signals: &mut Signals, reloader: &Reloader) -> Ending {
    let mut fatal = running.fatal();
    let Some(mut orders) = running.agent.orders.take() else {
        return Ending::Broken("somebody else takes the orders of this agent".into());
    };
    let mut watches = Watches::default();
    watches.set(&running.agent.config.load().watches, &running.doors.http);
    loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Stop(stop) => return Ending::Signal(stop),
                Heard::Reload => {
                    // It has told the log; whoever sent a signal reads no answer.
                    let _ = reloader.reload(running, &mut watches).await;
                }
            },
            broken = fatal.wait_for(Option::is_some) => {
                let reason = broken.ok().and_then(|reason| reason.clone());
                return Ending::Broken(reason.unwrap_or_else(|| "the agent ended by itself".into()));
            }
            Some(order) = orders.recv() => match order {
                Order::Leave(told) => return Ending::Ordered(told),
                Order::Reload(told) => {
                    let reloaded = reloader.reload(running, &mut watches).await;
                    // Nobody waits for the answer any more: the log has it too.
                    let _ = told.send(reloaded);
                }
            },
        }
    }
}

/// Whether a signal makes an agent of this configuration leave, as Consul has it.
fn leaves(config: &Config, stop: Stop) -> bool {
    match stop {
        Stop::Interrupt => !config.skip_leave_on_interrupt,
        Stop::Terminate => config.leave_on_terminate,
    }
}

/// What Consul prints before its log.
fn banner(config: &Config, identity: &AgentIdentity, doors: &Doors) -> Vec<String> {
    let port = |listeners: &[std::net::SocketAddr]| listeners.first().map_or(-1, |listener| i32::from(listener.port()));
    let mut addresses: Vec<String> = Vec::new();
    for listener in [&doors.http, &doors.https, &doors.dns].into_iter().flatten() {
        let address = listener.ip().to_string();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let (http, https, dns) = (port(&doors.http), port(&doors.https), port(&doors.dns));
    let gossip = |port: Option<u16>| port.map_or(-1, i32::from);
    let (lan, wan) = (gossip(config.ports.serf_lan), gossip(config.ports.serf_wan));
    let segment = if config.server { "<all>" } else { "" };
    let policy = if config.acl.default_allow { "allow" } else { "deny" };
    let verified = "Verify Incoming: true, Verify Outgoing: true (Verify Hostname: true), Min Version: TLSv1_3";
    let lines = [
        ("Version", format!("'{CONSUL_VERSION}' (Lictor '{LICTOR_VERSION}')")),
        ("Build Date", format!("'{BUILD_MOMENT}'")),
        ("Node ID", format!("'{}'", identity.node_id)),
        ("Node name", format!("'{}'", identity.node_name)),
        ("Datacenter", format!("'{}' (Segment: '{segment}')", config.datacenter)),
        (
            "Server",
            format!("{} (Bootstrap: {})", config.server, config.server && config.bootstrap_expect == 1 && !config.dev),
        ),
        (
            "Client Addr",
            format!("[{}] (HTTP: {http}, HTTPS: {https}, gRPC: -1, gRPC-TLS: -1, DNS: {dns})", addresses.join(" ")),
        ),
        ("Cluster Addr", format!("{} (LAN: {lan}, WAN: {wan})", identity.address)),
        ("Gossip Encryption", config.gossip.is_encrypted().to_string()),
        ("Auto-Encrypt-TLS", "false".to_owned()),
        ("ACL Enabled", config.acl.enabled.to_string()),
        ("ACL Default Policy", policy.to_owned()),
        ("HTTPS TLS", format!("Verify Incoming: {}", config.https_tls.verify_incoming)),
        ("Internal RPC TLS", verified.to_owned()),
    ];
    let mut shown: Vec<String> =
        lines.into_iter().map(|(name, value)| format!("{name:>BANNER_WIDTH$}: {value}")).collect();
    shown.extend(["".to_owned(), "==> Log data will now stream in as it occurs:".to_owned(), "".to_owned()]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { name: "here".into(), ..Host::default() }
    }

    #[test]
    fn a_client_leaves_at_either_signal_and_a_server_at_none_unless_told() {
        let config = |fragment: &str| {
            let base = "bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\"\n";
            let flags = AgentFlags { hcl: vec![base.into(), fragment.into()], ..AgentFlags::default() };
            Config::load(&flags.into_flags(), &host()).unwrap()
        };
        let told = |fragment: &str| [Stop::Interrupt, Stop::Terminate].map(|stop| leaves(&config(fragment), stop));
        assert_eq!(told("server = false"), [true, true]);
        assert_eq!(told("server = true"), [false, false]);
        assert_eq!(told("server = true\nleave_on_terminate = true"), [false, true]);
        assert_eq!(told("server = true\nskip_leave_on_interrupt = false"), [true, false]);
        assert_eq!(told("skip_leave_on_interrupt = true\nleave_on_terminate = false"), [false, false]);
    }

    #[test]
    fn the_banner_tells_what_consuls_tells() {
        let config = Config::load(&AgentFlags { dev: true, ..AgentFlags::default() }.into_flags(), &host()).unwrap();
        let identity = AgentIdentity::new(&config, "40e4a748-2192-161a-0510-9bf59fe950b5".into());
        let doors = Doors {
            http: vec!["127.0.0.1:8500".parse().unwrap()],
            https: Vec::new(),
            dns: vec!["127.0.0.1:8600".parse().unwrap()],
        };
        let banner = banner(&config, &identity, &doors);
        for line in [
            "        Build Date: '1970-01-01 00:00:01 +0000 UTC'",
            "           Node ID: '40e4a748-2192-161a-0510-9bf59fe950b5'",
            "         Node name: 'here'",
            "        Datacenter: 'dc1' (Segment: '<all>')",
            "            Server: true (Bootstrap: false)",
            "       Client Addr: [127.0.0.1] (HTTP: 8500, HTTPS: -1, gRPC: -1, gRPC-TLS: -1, DNS: 8600)",
            "      Cluster Addr: 127.0.0.1 (LAN: 8301, WAN: 8302)",
            "ACL Default Policy: allow",
            "==> Log data will now stream in as it occurs:",
        ] {
            assert!(banner.iter().any(|shown| shown == line), "{line:?} is not in {banner:#?}");
        }
        assert!(banner[0].starts_with("           Version: '1.21.4'"), "{}", banner[0]);
    }

    #[test]
    fn flags_without_effect_are_known_to_the_configuration() {
        let flags = AgentFlags {
            dev: true,
            disable_host_node_id: Some(true),
            disable_keyring_file: Some(false),
            rejoin: Some(true),
            advertise_wan: Some("10.0.0.1".into()),
            ..AgentFlags::default()
        };
        Config::load(&flags.into_flags(), &host()).unwrap();
    }

    #[test]
    fn every_flag_of_consuls_agent_is_taken() {
        // What `consul agent -help` of 1.8 and of 1.22 lists, with a value that each takes.
        let flags = "-advertise=127.0.0.1 -advertise-wan=127.0.0.1 -allow-write-http-from=127.0.0.0/8 -alt-domain=x \
            -auto-reload-config -bind=127.0.0.1 -bootstrap=false -bootstrap-expect=1 -check_output_max_size=100 \
            -client=127.0.0.1 -config-format=hcl -data-dir=/d -datacenter=dc1 -default-query-time=10s -dev \
            -disable-host-node-id -disable-keyring-file -dns-port=1 -domain=x -enable-local-script-checks \
            -enable-script-checks -encrypt=off -grpc-port=2 -grpc-tls-port=3 -hcl=log_json=true -http-port=4 \
            -https-port=5 -join=a -join-wan=b -log-file=/l -log-json -log-level=info -log-rotate-bytes=1 \
            -log-rotate-duration=1s -log-rotate-max-files=-1 -max-query-time=20s -node=n \
            -node-id=40e4a748-2192-161a-0510-9bf59fe950b5 -node-meta=a:b -non-voting-server -pid-file=/p \
            -primary-gateway=g -protocol=3 -raft-protocol=3 -read-replica -recursor=127.0.0.1 -rejoin \
            -retry-interval=1s -retry-interval-wan=1s -retry-join=a -retry-join-wan=b -retry-max=1 -retry-max-wan=1 \
            -segment= -serf-lan-allowed-cidrs=127.0.0.0/8 -serf-lan-bind=127.0.0.1 -serf-lan-port=6 \
            -serf-wan-allowed-cidrs=127.0.0.0/8 -serf-wan-bind=127.0.0.1 -serf-wan-port=7 -server -server-port=8 \
            -syslog -ui -ui-content-path=/x -ui-dir=/y";
        let arguments = ["lictor", "agent"].into_iter().chain(flags.split_whitespace()).map(Into::into).collect();
        let parsed = crate::arguments::parse(arguments);
        let crate::arguments::Parsed::Command { command, .. } = parsed else {
            let crate::arguments::Parsed::Wrong(text) = parsed else { panic!("no command") };
            panic!("{text}");
        };
        let super::super::Command::Agent(flags) = *command else { panic!("another command") };
        let config = Config::load(&flags.into_flags(), &host()).unwrap();
        assert_eq!(config.http.allow_write_from.len() + config.gossip.allowed_lan.len(), 2);
        assert_eq!((config.gossip.retry_max_wan, config.check_settings.output_max_size), (1, 100));
        assert_eq!(config.limits.max_query_time, Duration::from_secs(20));
        let ignored: Vec<&str> = config.ignored.iter().map(|it| it.key.as_str()).collect();
        for key in ["log_file", "enable_syslog", "primary_gateways", "ui_config.enabled", "ports.grpc", "protocol"] {
            assert!(ignored.contains(&key), "{key} is not in {ignored:?}");
        }
        assert!(
            config.warnings.iter().any(|it| it.starts_with("flags: log_file has no effect")),
            "{:?}",
            config.warnings
        );
    }

    #[test]
    fn the_process_id_stays_in_its_file_as_long_as_the_agent_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = PidFile::write(path.clone()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());
    }
}
