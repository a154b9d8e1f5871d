//! From merged keys, whose kinds are right by now, to a validated configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lictor_types::session::{TTL_MAX, TTL_MIN};
use lictor_types::{Locality, NodeName};
use serde_json::{Map, Value};

use super::gossip::gossip;
use super::merged::Keys;
use super::{
    AclConfig, Addresses, Autopilot, CheckSettings, Config, ConfigProblem, DnsConfig, Host, HttpConfig, Join, Limits,
    LogConfig, Performance, Ports, RaftLog, Soa, Telemetry, TlsFiles, UnixSockets, WatchDefinition, join,
};
use crate::dns::Strategy;
use crate::local::{CheckDefinition, ServiceDefinition, not_in_dns, validate_pairs};

/// Bytes of the longest output of a check that may be configured.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// The largest value in the key/value store that may be configured: what one RPC message carries, with room around it.
const KV_VALUE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Views that one agent follows: each may have a program running.
const WATCHES_MAX: usize = 64;
/// The shortest time that blocking queries may be told to wait.
const QUERY_TIME_MIN: Duration = Duration::from_secs(1);
/// The longest: a parked reader is a connection and a watch.
const QUERY_TIME_MAX: Duration = Duration::from_secs(3600);
/// The fewest entries of raft between two snapshots: every one of them writes the whole state.
const SNAPSHOT_ENTRIES_MIN: u32 = 16;
/// The shortest TTL that sessions may be allowed to have.
const SESSION_TTL_LEAST: Duration = Duration::from_secs(1);

/// Builds the configuration and says what is wrong or doubtful in it. None only when something is wrong.
pub(super) fn build(
    root: &Map<String, Value>,
    dev: bool,
    host: &Host,
    warnings: &mut Vec<String>,
    problems: &mut Vec<ConfigProblem>,
) -> Option<Config> {
    let mut keys = Keys { root, warnings, problems };
    let ports = ports(&mut keys);
    let server = keys.flag("server").unwrap_or(dev);
    let addresses = addresses(&mut keys, dev, &ports, host);
    let loopback = addresses.as_ref().is_none_or(|addresses| addresses.bind.is_loopback());
    let acl = acl(&mut keys, loopback);
    let bound = addresses.as_ref().map(|it| (it.bind, it.advertise));
    let default_intention_allow = keys.policy("default_intention_policy").unwrap_or(acl.default_allow);
    let rpc_tls = tls(&mut keys, "internal_rpc");
    let https_tls = tls(&mut keys, "https");
    let datacenter = datacenter(&mut keys);
    let node_name = node_name(&mut keys, host);
    let node_id = node_id(&mut keys);
    let config = Config {
        server,
        dev,
        bootstrap_expect: bootstrap_expect(&mut keys, server, dev),
        datacenter,
        node_name: node_name?,
        node_id,
        node_meta: node_meta(&mut keys),
        locality: locality(&mut keys),
        data_dir: data_dir(&mut keys, dev),
        addresses: addresses?,
        ports,
        unix_sockets: unix_sockets(&mut keys),
        join: join_config(&mut keys, ports.server),
        gossip: gossip(&mut keys, server, bound?, &ports, host),
        rpc_tls,
        https_tls,
        acl,
        default_intention_allow,
        dns: dns(&mut keys),
        services: definitions(&mut keys, "services", ServiceDefinition::from_json),
        checks: definitions(&mut keys, "checks", CheckDefinition::from_json),
        watches: watches(&mut keys),
        check_settings: check_settings(&mut keys),
        log: log(&mut keys, dev),
        performance: performance(&mut keys),
        limits: limits(&mut keys),
        http: http_config(&mut keys),
        telemetry: Telemetry {
            metrics_prefix: keys.text("telemetry.metrics_prefix").unwrap_or_else(|| "consul".into()),
            disable_hostname: keys.flag("telemetry.disable_hostname").unwrap_or(true),
        },
        leave_on_terminate: keys.flag("leave_on_terminate").unwrap_or(!server),
        skip_leave_on_interrupt: keys.flag("skip_leave_on_interrupt").unwrap_or(server),
        autopilot: autopilot(&keys),
        session_ttl_min: session_ttl_min(&mut keys),
        disable_coordinates: keys.flag("disable_coordinates").unwrap_or(false),
        raft: raft(&mut keys),
        pid_file: keys.path("pid_file"),
        seal_key_file: keys.path("seal_key_file"),
        kubernetes_login_file: keys.path("login.kubernetes.config_file"),
        login_token_file: keys.path("login_token_file"),
        warnings: Vec::new(),
        ignored: Vec::new(),
    };
    safety(&mut keys, &config);
    Some(config)
}

fn locality(keys: &mut Keys<'_>) -> Option<Locality> {
    let [region, zone] = ["locality.region", "locality.zone"].map(|key| keys.text(key).unwrap_or_default());
    if region.is_empty() && !zone.is_empty() {
        keys.invalid("locality: zone cannot be set without region".into());
    }
    (!region.is_empty()).then_some(Locality { region, zone })
}

/// Below a second nobody could renew in time.
fn session_ttl_min(keys: &mut Keys<'_>) -> Duration {
    let least = keys.duration("session_ttl_min").unwrap_or(TTL_MIN);
    if !(SESSION_TTL_LEAST..=TTL_MAX).contains(&least) {
        let [shown, from, to] = [least, SESSION_TTL_LEAST, TTL_MAX].map(lictor_types::duration::format);
        keys.invalid(format!("session_ttl_min {shown} must be between {from} and {to}"));
    }
    least
}

/// What users say of the node; the rest of its meta is ours.
fn node_meta(keys: &mut Keys<'_>) -> BTreeMap<String, String> {
    let meta = keys.text_map("node_meta");
    if let Err(problem) = validate_pairs(&meta) {
        keys.invalid(format!("node_meta invalid: {problem}"));
    }
    meta
}

fn raft(keys: &mut Keys<'_>) -> RaftLog {
    let snapshot_threshold = keys.count("raft_snapshot_threshold");
    if snapshot_threshold.is_some_and(|entries| entries < SNAPSHOT_ENTRIES_MIN) {
        keys.invalid(format!("raft_snapshot_threshold must be at least {SNAPSHOT_ENTRIES_MIN} entries"));
    }
    RaftLog { snapshot_threshold, trailing_logs: keys.count("raft_trailing_logs") }
}

/// Consul's defaults.
fn autopilot(keys: &Keys<'_>) -> Autopilot {
    Autopilot {
        cleanup_dead_servers: keys.flag("autopilot.cleanup_dead_servers").unwrap_or(true),
        last_contact_threshold: keys.duration("autopilot.last_contact_threshold").unwrap_or(Duration::from_millis(200)),
        max_trailing_logs: keys.count("autopilot.max_trailing_logs").unwrap_or(250).into(),
        min_quorum: keys.count("autopilot.min_quorum").unwrap_or(0).into(),
        server_stabilization_time: keys
            .duration("autopilot.server_stabilization_time")
            .unwrap_or(Duration::from_secs(10)),
    }
}

fn ports(keys: &mut Keys<'_>) -> Ports {
    let port = |name: &str, default: Option<u16>| match keys.get(&format!("ports.{name}")).and_then(Value::as_i64) {
        None => default,
        Some(port) => u16::try_from(port).ok(),
    };
    let (http, https, dns) = (port("http", Some(8500)), port("https", None), port("dns", Some(8600)));
    let (serf_lan, serf_wan) = (port("serf_lan", Some(8301)), port("serf_wan", Some(8302)));
    let server = port("server", Some(8300));
    let sidecars = port("sidecar_min_port", Some(21000)).zip(port("sidecar_max_port", Some(21255)));
    if server.is_none() {
        keys.invalid("ports.server cannot be off: agents and servers speak through it".into());
    }
    let served = [http, https, dns, server, serf_lan, serf_wan].into_iter().flatten().filter(|port| *port != 0);
    let mut seen = Vec::new();
    for port in served {
        if seen.contains(&port) {
            keys.invalid(format!("port {port} is given to two of http, https, dns, server, serf_lan and serf_wan"));
        }
        seen.push(port);
    }
    let sidecars = sidecars.filter(|(first, last)| *first != 0 && *last != 0);
    if sidecars.is_some_and(|(first, last)| last < first) {
        keys.invalid("sidecar_min_port must be less than sidecar_max_port. To disable, set both to zero.".into());
    }
    Ports { http, https, dns, server: server.unwrap_or(8300), serf_lan, serf_wan, sidecars }
}

fn addresses(keys: &mut Keys<'_>, dev: bool, ports: &Ports, host: &Host) -> Option<Addresses> {
    let bind = match keys.text("bind_addr") {
        None if dev => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => {
            let text = rendered(keys, "bind_addr", text, host);
            one_address(keys, "bind_addr", &text)?
        }
    };
    let bind = if dev && !bind.is_loopback() {
        keys.warnings.push(format!("-dev always binds loopback: bind_addr {bind} is not used"));
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        bind
    };
    let client = keys.text("client_addr").unwrap_or_else(|| "127.0.0.1".into());
    let client = rendered(keys, "client_addr", client, host);
    let mut listeners = |name: &str, port: Option<u16>| -> Vec<SocketAddr> {
        let key = format!("addresses.{name}");
        let (key, text) = match keys.text(&key) {
            Some(text) => {
                let text = rendered(keys, &key, text, host);
                (key, text)
            }
            None => ("client_addr".into(), client.clone()),
        };
        let Some(port) = port else { return Vec::new() };
        text.split_whitespace()
            .filter(|text| name != "http" || socket_path(text).is_none())
            .filter_map(|text| one_address(keys, &key, text))
            .map(|address| SocketAddr::new(address, port))
            .collect()
    };
    let http = listeners("http", ports.http);
    let https = listeners("https", ports.https);
    let dns = listeners("dns", ports.dns);
    let written = keys.text("addresses.http").unwrap_or(client);
    let http_sockets = written.split_whitespace().filter_map(socket_path).filter(|_| ports.http.is_some()).collect();
    let advertise_server = keys.text("advertise_server_address");
    if let Some(address) = &advertise_server
        && let Err(problem) = join::check_server_address("advertise_server_address", address)
    {
        keys.invalid(problem);
    }
    let advertise = advertised(keys, bind, host)?;
    Some(Addresses { bind, advertise, advertise_server, http, http_sockets, https, dns })
}

/// The path of `unix:///path`.
fn socket_path(text: &str) -> Option<PathBuf> {
    text.strip_prefix("unix://").filter(|path| path.starts_with('/')).map(PathBuf::from)
}

fn unix_sockets(keys: &mut Keys<'_>) -> UnixSockets {
    let mut id = |name: &str, file: &str| {
        let key = format!("unix_sockets.{name}");
        let text = keys.text(&key)?;
        let found = text.parse().ok().or_else(|| id_in(&std::fs::read_to_string(file).ok()?, &text));
        if found.is_none() {
            keys.invalid(format!("{key} {text:?} is neither a number nor a name in {file}"));
        }
        found
    };
    let (user, group) = (id("user", "/etc/passwd"), id("group", "/etc/group"));
    let mode = keys.text("unix_sockets.mode").and_then(|text| {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            keys.invalid(format!("unix_sockets.mode {text:?} must be octal, for example \"0660\""));
        }
        mode
    });
    UnixSockets { user, group, mode }
}

/// The id of a name in the text of `/etc/passwd` or `/etc/group`.
fn id_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn advertised(keys: &mut Keys<'_>, bind: IpAddr, host: &Host) -> Option<IpAddr> {
    if let Some(text) = keys.text("advertise_addr") {
        let text = rendered(keys, "advertise_addr", text, host);
        let address = one_address(keys, "advertise_addr", &text)?;
        if address.is_unspecified() {
            keys.invalid("Advertise address cannot be 0.0.0.0, :: or [::]".into());
            return None;
        }
        return Some(address);
    }
    if !bind.is_unspecified() {
        return Some(bind);
    }
    match host.private_addresses.as_slice() {
        [address] => Some(IpAddr::V4(*address)),
        [] => {
            keys.invalid("No private IPv4 address found. Please configure one with 'bind' and/or 'advertise'.".into());
            None
        }
        _ => {
            keys.invalid(
                "Multiple private IPv4 addresses found. Please configure one with 'bind' and/or 'advertise'.".into(),
            );
            None
        }
    }
}

/// A text with its templates filled in; what is wrong with one is said, and the text stays as it is.
pub(super) fn rendered(keys: &mut Keys<'_>, key: &str, text: String, host: &Host) -> String {
    match host.render(&text) {
        Ok(rendered) => rendered,
        Err(problem) => {
            keys.invalid(format!("{key}: {problem}"));
            text
        }
    }
}

fn one_address(keys: &mut Keys<'_>, key: &str, text: &str) -> Option<IpAddr> {
    let reason = match text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => return Some(address),
        Err(_) if text.starts_with("unix:") => "only addresses.http takes unix:///PATH",
        Err(_) if text == "localhost" => return Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Err(_) => "that is no IP address",
    };
    keys.invalid(format!("{key} {text:?}: {reason}; write an IP address, for example \"127.0.0.1\""));
    None
}

fn acl(keys: &mut Keys<'_>, loopback: bool) -> AclConfig {
    let enabled = keys.flag("acl.enabled").unwrap_or(!loopback);
    // With ACLs off everything is allowed, whatever the policy says; readers of this field need not ask twice.
    let default_allow = keys.policy("acl.default_policy").unwrap_or(loopback) || !enabled;
    let default_token = keys.credential("acl.tokens.default").unwrap_or_default();
    AclConfig {
        enabled,
        default_allow,
        initial_management: keys.credential("acl.tokens.initial_management"),
        agent_token: keys.credential("acl.tokens.agent").unwrap_or_else(|| default_token.clone()),
        dns_token: keys.credential("acl.tokens.dns").unwrap_or_else(|| default_token.clone()),
        persist_tokens: keys.flag("acl.enable_token_persistence").unwrap_or(false),
        registration_token: keys.credential("acl.tokens.config_file_service_registration").unwrap_or_default(),
        default_token,
    }
}

fn tls(keys: &mut Keys<'_>, listener: &str) -> TlsFiles {
    let file = |name: &str| {
        keys.path(&format!("tls.{listener}.{name}")).or_else(|| keys.path(&format!("tls.defaults.{name}")))
    };
    let (ca_file, cert_file, key_file) = (file("ca_file"), file("cert_file"), file("key_file"));
    // Our own parts verify each other whatever is said.
    let verify_incoming = listener == "https"
        && keys
            .flag("tls.https.verify_incoming")
            .or_else(|| keys.flag("tls.defaults.verify_incoming"))
            .unwrap_or(false);
    if cert_file.is_some() != key_file.is_some() {
        keys.invalid(format!("tls.{listener}: cert_file and key_file go together; give both or neither"));
    }
    if verify_incoming && ca_file.is_none() {
        keys.invalid(format!("tls.{listener}: verify_incoming set, and no CA certificate given in ca_file"));
    }
    TlsFiles { ca_file, cert_file, key_file, verify_incoming }
}

fn datacenter(keys: &mut Keys<'_>) -> String {
    let datacenter = keys.text("datacenter").unwrap_or_else(|| "dc1".into()).to_ascii_lowercase();
    if datacenter.len() > 63 || !datacenter.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        keys.invalid(
            "datacenter can only contain lowercase alphanumeric, - or _ characters, 63 of them at most.".into(),
        );
    }
    if keys.text("primary_datacenter").is_some_and(|primary| !primary.eq_ignore_ascii_case(&datacenter)) {
        keys.invalid(format!(
            "primary_datacenter must be {datacenter:?}, or absent: replication between datacenters is not served yet"
        ));
    }
    datacenter
}

fn node_name(keys: &mut Keys<'_>, host: &Host) -> Option<NodeName> {
    let name = keys.text("node_name").unwrap_or_else(|| host.name.clone());
    match NodeName::try_from(name.trim().to_owned()) {
        Ok(name) => {
            if let Some(reason) = not_in_dns(name.as_str()) {
                keys.warnings
                    .push(format!("Node name {:?} will not be discoverable via DNS due to {reason}", name.as_str()));
            }
            Some(name)
        }
        Err(error) => {
            keys.invalid(format!("node_name cannot be used: {error}; set node_name, or -node"));
            None
        }
    }
}

fn node_id(keys: &mut Keys<'_>) -> Option<String> {
    let id = keys.text("node_id")?.to_ascii_lowercase();
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    if parts != [8, 4, 4, 4, 12] || !id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        keys.invalid(format!("node_id {id:?} must be a UUID, for example \"40e4a748-2192-161a-0510-9bf59fe950b5\""));
    }
    Some(id)
}

fn bootstrap_expect(keys: &mut Keys<'_>, server: bool, dev: bool) -> u32 {
    let expect = keys.count("bootstrap_expect");
    let bootstrap = keys.flag("bootstrap").unwrap_or(false);
    if bootstrap && expect.is_some_and(|expect| expect > 0) {
        keys.invalid("'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive".into());
    }
    let expect = expect.unwrap_or(u32::from(bootstrap || dev));
    if expect > 0 && !server {
        keys.invalid("'bootstrap' and 'bootstrap_expect' require 'server = true'".into());
    }
    match expect {
        2 => keys.warnings.push("bootstrap_expect = 2: two servers cannot lose one without losing the quorum".into()),
        4.. if expect.is_multiple_of(2) => keys.warnings.push(format!(
            "bootstrap_expect = {expect} is an even number: it tolerates no more failures than one less"
        )),
        _ => {}
    }
    expect
}

fn data_dir(keys: &mut Keys<'_>, dev: bool) -> Option<PathBuf> {
    let data_dir = keys.path("data_dir");
    if dev {
        return None;
    }
    if data_dir.is_none() {
        keys.invalid("data_dir cannot be empty".into());
    }
    data_dir
}

fn join_config(keys: &mut Keys<'_>, server_port: u16) -> Join {
    let mut servers = keys.texts("server_addresses");
    for address in &servers {
        if let Err(problem) = join::check_server_address("server_addresses", address) {
            keys.problems.push(ConfigProblem::Invalid(problem));
        }
    }
    let retry_join = keys.texts("retry_join");
    for entry in &retry_join {
        match join::server_address(entry, server_port) {
            Ok(address) if servers.contains(&address) => {}
            Ok(address) => servers.push(address),
            Err(problem) => keys.invalid(problem),
        }
    }
    Join {
        servers,
        retry_join,
        retry_interval: keys.duration("retry_interval").unwrap_or(Duration::from_secs(30)),
        retry_max: keys.count("retry_max").unwrap_or(0),
    }
}

fn dns(keys: &mut Keys<'_>) -> DnsConfig {
    let domain = |name: String| format!("{}.", name.trim_matches('.').to_ascii_lowercase());
    let recursors = keys.texts("recursors");
    let recursors = recursors.iter().filter_map(|text| recursor(keys, text)).collect();
    let recursor_strategy = match keys.text("dns_config.recursor_strategy").as_deref() {
        None | Some("sequential") => Strategy::Sequential,
        Some("random") => Strategy::Random,
        Some(other) => {
            keys.invalid(format!("dns_config.recursor_strategy {other:?} must be \"sequential\" or \"random\""));
            Strategy::Sequential
        }
    };
    let service_ttl = keys.text_map("dns_config.service_ttl");
    let default = DnsConfig::default();
    let soa = |name: &str, default| keys.count(&format!("dns_config.soa.{name}")).unwrap_or(default);
    DnsConfig {
        domain: domain(keys.text("domain").unwrap_or_else(|| "consul".into())),
        alt_domain: keys.text("alt_domain").map(domain),
        recursors,
        recursor_strategy,
        recursor_timeout: keys.duration("dns_config.recursor_timeout").unwrap_or(default.recursor_timeout),
        node_ttl: keys.duration("dns_config.node_ttl").unwrap_or_default(),
        service_ttl: service_ttl
            .into_iter()
            .filter_map(|(name, text)| Some((name, lictor_types::duration::parse(&text).ok()?)))
            .collect(),
        only_passing: keys.flag("dns_config.only_passing").unwrap_or(false),
        allow_stale: keys.flag("dns_config.allow_stale").unwrap_or(true),
        max_stale: keys.duration("dns_config.max_stale").unwrap_or(default.max_stale),
        disable_compression: keys.flag("dns_config.disable_compression").unwrap_or(false),
        node_meta_txt: keys.flag("dns_config.enable_additional_node_meta_txt").unwrap_or(true),
        max_queries_per_client: keys
            .count("limits.dns_max_queries_per_client")
            .unwrap_or(default.max_queries_per_client),
        enable_truncate: keys.flag("dns_config.enable_truncate").unwrap_or(false),
        udp_answer_limit: keys.count("dns_config.udp_answer_limit").unwrap_or(3) as usize,
        a_record_limit: keys.count("dns_config.a_record_limit").unwrap_or(0) as usize,
        soa: Soa {
            refresh: soa("refresh", default.soa.refresh),
            retry: soa("retry", default.soa.retry),
            expire: soa("expire", default.soa.expire),
            min_ttl: soa("min_ttl", default.soa.min_ttl),
        },
    }
}

fn recursor(keys: &mut Keys<'_>, text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    one_address(keys, "recursors", text).map(|address| SocketAddr::new(address, 53))
}

fn definitions<T>(keys: &mut Keys<'_>, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
    let written = keys.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut definitions = Vec::new();
    for (position, definition) in written.iter().enumerate() {
        match parse(definition) {
            Ok(definition) => definitions.push(definition),
            Err(problem) => {
                let name = definition.get("name").and_then(Value::as_str).unwrap_or("without a name");
                keys.invalid(format!("{key}[{position}] ({name}): {problem}"));
            }
        }
    }
    definitions
}

fn watches(keys: &mut Keys<'_>) -> Vec<WatchDefinition> {
    let watches = definitions(keys, "watches", WatchDefinition::from_json);
    if watches.len() > WATCHES_MAX {
        keys.invalid(format!("watches: there are {}, at most {WATCHES_MAX} are followed", watches.len()));
    }
    watches
}

fn check_settings(keys: &mut Keys<'_>) -> CheckSettings {
    let default = CheckSettings::default();
    let scripts_of_api = keys.flag("enable_script_checks").unwrap_or(false);
    let output_max_size = keys.count("check_output_max_size").map_or(default.output_max_size, |size| size as usize);
    if !(1..=OUTPUT_BYTES_MAX).contains(&output_max_size) {
        keys.invalid(format!("check_output_max_size must be from 1 to {OUTPUT_BYTES_MAX} bytes"));
    }
    let reap_interval = keys.duration("check_reap_interval").unwrap_or(default.reap_interval);
    if reap_interval.is_zero() {
        keys.invalid("check_reap_interval must be more than nothing, for example \"30s\"".into());
    }
    CheckSettings {
        update_interval: keys.duration("check_update_interval").unwrap_or(default.update_interval),
        output_max_size,
        discard_output: keys.flag("discard_check_output").unwrap_or(false),
        reap_interval,
        scripts_of_files: keys.flag("enable_local_script_checks").unwrap_or(false) || scripts_of_api,
        scripts_of_api,
    }
}

/// Who may have programs run on this machine is spelled out, and is never everybody on the network.
fn scripts(keys: &mut Keys<'_>, config: &Config) {
    let settings = config.check_settings;
    let of_services = config.services.iter().flat_map(ServiceDefinition::all_checks);
    let runs_programs = config.checks.iter().cloned().chain(of_services).find(|check| check.runs_programs());
    if let Some(check) = runs_programs.filter(|_| !settings.scripts_of_files) {
        keys.invalid(format!(
            "check {:?} has a program run: Scripts are disabled on this agent; to enable, configure \
             'enable_script_checks' or 'enable_local_script_checks' to true",
            check.id_text()
        ));
    }
    if !settings.scripts_of_api {
        return;
    }
    let beyond = |listener: &&SocketAddr| !listener.ip().is_loopback();
    let listeners = config.addresses.http.iter().chain(&config.addresses.https);
    if !config.acl.enabled && listeners.clone().any(|listener| beyond(&listener)) {
        keys.invalid(
            "enable_script_checks lets whoever reaches the HTTP API run programs here: set acl.enabled = true, or use \
             enable_local_script_checks, which takes programs from files alone"
                .into(),
        );
    } else if !config.acl.enabled {
        keys.warnings.push(
            "enable_script_checks without ACLs: every program on this machine may have others run; \
             enable_local_script_checks takes them from files alone"
                .into(),
        );
    }
}

fn log(keys: &mut Keys<'_>, dev: bool) -> LogConfig {
    let level = keys
        .text("log_level")
        .map_or_else(|| if dev { "DEBUG" } else { "INFO" }.into(), |level| level.to_ascii_uppercase());
    let level = match level.as_str() {
        "ERR" => "ERROR".into(),
        "WARNING" => "WARN".into(),
        "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR" => level,
        _ => {
            keys.invalid(format!("log_level {level:?} must be one of TRACE, DEBUG, INFO, WARN, ERROR"));
            level
        }
    };
    LogConfig { level, json: keys.flag("log_json").unwrap_or(false) }
}

fn performance(keys: &mut Keys<'_>) -> Performance {
    let raft_multiplier = keys.count("performance.raft_multiplier").unwrap_or(1);
    if !(1..=10).contains(&raft_multiplier) {
        keys.invalid(format!("performance.raft_multiplier cannot be {raft_multiplier}. Must be between 1 and 10"));
    }
    Performance {
        raft_multiplier,
        rpc_hold_timeout: keys.duration("performance.rpc_hold_timeout").unwrap_or(Duration::from_secs(7)),
        leave_drain_time: keys.duration("performance.leave_drain_time").unwrap_or(Duration::from_secs(5)),
    }
}

fn limits(keys: &mut Keys<'_>) -> Limits {
    let kv_max_value_size = keys.count("limits.kv_max_value_size").unwrap_or(512 * 1024);
    if u64::from(kv_max_value_size) > KV_VALUE_BYTES_MAX {
        keys.invalid(format!("limits.kv_max_value_size {kv_max_value_size} is more than {KV_VALUE_BYTES_MAX}"));
    }
    let txn_max_req_len = keys.count("limits.txn_max_req_len").unwrap_or(512 * 1024);
    if u64::from(txn_max_req_len) > KV_VALUE_BYTES_MAX {
        keys.invalid(format!("limits.txn_max_req_len {txn_max_req_len} is more than {KV_VALUE_BYTES_MAX}"));
    }
    Limits {
        http_max_conns_per_client: keys.count("limits.http_max_conns_per_client").unwrap_or(200) as usize,
        kv_max_value_size: kv_max_value_size as usize,
        txn_max_req_len: txn_max_req_len as usize,
        rpc_rate: keys.number("limits.rpc_rate").filter(|rate| *rate >= 0.0),
        rpc_max_burst: keys.count("limits.rpc_max_burst").unwrap_or(1000),
        default_query_time: query_time(keys, "default_query_time", 300),
        max_query_time: query_time(keys, "max_query_time", 600),
        discovery_max_stale: keys.duration("discovery_max_stale").unwrap_or_default(),
    }
}

fn query_time(keys: &mut Keys<'_>, key: &str, seconds: u64) -> Duration {
    let time = keys.duration(key).filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(seconds));
    if time < QUERY_TIME_MIN || time > QUERY_TIME_MAX {
        keys.invalid(format!(
            "{key} {} must be between {} and {}",
            lictor_types::duration::format(time),
            lictor_types::duration::format(QUERY_TIME_MIN),
            lictor_types::duration::format(QUERY_TIME_MAX)
        ));
    }
    time
}

fn http_config(keys: &mut Keys<'_>) -> HttpConfig {
    let mut response_headers = Vec::new();
    for (name, value) in keys.text_map("http_config.response_headers") {
        match (name.parse(), value.parse()) {
            (Ok(name), Ok(value)) => response_headers.push((name, value)),
            _ => keys.invalid(format!("http_config.response_headers: {name:?} cannot be a header with this value")),
        }
    }
    let mut allow_write_from = Vec::new();
    for text in keys.texts("http_config.allow_write_http_from") {
        match text.parse() {
            Ok(block) => allow_write_from.push(block),
            Err(problem) => keys.invalid(format!("http_config.allow_write_http_from: {problem}")),
        }
    }
    let block_endpoints = keys.texts("http_config.block_endpoints");
    HttpConfig { response_headers, block_endpoints, allow_write_from }
}

/// What is not safe is refused, or spelled out by the user and warned about.
fn safety(keys: &mut Keys<'_>, config: &Config) {
    let loopback = config.addresses.bind.is_loopback();
    scripts(keys, config);
    let plain = config.addresses.http.iter().filter(|listener| !listener.ip().is_loopback());
    let plain: Vec<String> = plain.map(SocketAddr::to_string).collect();
    if !plain.is_empty() {
        let plain = plain.join(", ");
        if config.acl.enabled || config.dev {
            keys.warnings.push(format!("plain HTTP is served beyond loopback on {plain}: tokens travel in the clear"));
        } else {
            keys.invalid(format!(
                "plain HTTP beyond loopback ({plain}) needs ACLs: set acl.enabled = true, or addresses.http to 127.0.0.1"
            ));
        }
    }
    if !config.addresses.https.is_empty() && config.https_tls.cert_file.is_none() && !loopback {
        keys.invalid("ports.https is on: give tls.https or tls.defaults a cert_file and a key_file".into());
    }
    if loopback {
        if !config.acl.enabled {
            keys.warnings.push(
                "bound to loopback: ACLs are off, as Consul's defaults are; set acl.enabled to turn them on".into(),
            );
        }
        return;
    }
    if !config.acl.enabled {
        keys.warnings
            .push("acl.enabled = false beyond loopback: everybody who reaches this agent may do everything".into());
    } else if config.acl.default_allow {
        keys.warnings.push("acl.default_policy = \"allow\" beyond loopback: what no rule speaks of is allowed".into());
    }
    if config.server {
        server_material(keys, config);
    } else {
        client_material(keys, config);
    }
}

fn server_material(keys: &mut Keys<'_>, config: &Config) {
    if config.rpc_tls.ca_file.is_none() || config.rpc_tls.cert_file.is_none() {
        keys.invalid(format!(
            "a server beyond loopback needs tls.defaults.ca_file, cert_file and key_file; make them with\n  \
             lictor tls ca create\n  lictor tls cert create -server -dc {}",
            config.datacenter
        ));
    }
    if config.seal_key_file.is_none() {
        keys.invalid(
            "a server beyond loopback needs seal_key_file: 32 random bytes in base64, the same on every server of the \
             datacenter; make it with\n  head -c 32 /dev/urandom | base64 > seal.key"
                .into(),
        );
    }
}

fn client_material(keys: &mut Keys<'_>, config: &Config) {
    if config.rpc_tls.ca_file.is_none() {
        keys.invalid(
            "a client beyond loopback needs tls.defaults.ca_file, the authority that signs the servers".into(),
        );
    }
    if config.rpc_tls.cert_file.is_none() && config.login_token_file.is_none() {
        keys.invalid(
            "a client beyond loopback needs a proof for its first certificate: set login_token_file to a file with what \
             `lictor join-token create` printed, or give it a cert_file and a key_file in tls.defaults"
                .into(),
        );
    }
    if config.join.servers.is_empty() {
        keys.warnings.push("no servers are named: set retry_join or server_addresses".into());
    }
}
