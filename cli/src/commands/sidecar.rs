//! `lictor sidecar`: the agent and proxy beside an application, until it is told to leave.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use lictor_agent::agent::{derived_node_id, kept_node_id};
use lictor_agent::config::Host;
use lictor_agent::session::Proof;
use lictor_runtime::fs::RealFs;
use lictor_runtime::{Resolver, SystemClock, SystemRng};
use lictor_sidecar::{DEFAULT_DRAIN_LIMIT, ServiceSpec, Sidecar, SidecarParts, SidecarSettings, UpstreamSpec};
use lictor_types::NodeName;

use super::key_value;
use crate::logging::{self, Level};
use crate::output::{Failure, Output};
use crate::runtime::{SIDECAR_BLOCKING_THREADS, SIDECAR_WORKERS, Signals, of_threads};

/// How long `drain` tries to reach the sidecar, which is in the same pod.
const DRAIN_CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long `drain` waits at most; Kubernetes ends a pod's grace long before.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// The most bytes of its answer that are read.
const DRAIN_REPLY_BYTES_MAX: u64 = 4096;
/// Beyond the drain, for withdrawing from the catalog.
const STOP_SLACK: Duration = Duration::from_secs(3);

/// What systemd and its kind call a machine.
const MACHINE_ID: &str = "/etc/machine-id";

/// What a sidecar is told. In Kubernetes the injector writes it.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct SidecarFlags {
    #[command(subcommand)]
    verb: Option<SidecarVerb>,
    /// The datacenter.
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    datacenter: String,
    /// Host and server port of a server; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    server_address: Vec<String>,
    /// File with the proof of who we are: a ServiceAccount's token, or a join token.
    #[arg(long, value_name = "FILE", required = true)]
    login_token_file: Option<PathBuf>,
    /// A service that the application is, and its port; may be given several times.
    #[arg(long, value_name = "NAME:PORT")]
    service: Vec<String>,
    /// A service that the application calls, and the local port to call it on; may be given several times.
    #[arg(long, value_name = "NAME:PORT")]
    upstream: Vec<String>,
    /// Check a service by a GET of this path instead of a connection; may be given several times.
    #[arg(long, value_name = "NAME:/PATH")]
    check_http: Vec<String>,
    /// File with the server CA; else the variable LICTOR_CA_PEM holds it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Name of the catalog node; by default <pod>.<namespace>, outside Kubernetes the host's name.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Id of the catalog node, a UUID; by default the pod's uid, outside Kubernetes the one in -data-dir.
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    node_id: Option<String>,
    /// Outside Kubernetes: where the node's id is kept, so that a sidecar that starts again is the same node. Without it the
    /// id follows from the node's name and this machine's /etc/machine-id.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Meta of the catalog node; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    node_meta: Vec<(String, String)>,
    /// Address that others dial; by default the pod's, outside Kubernetes 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<IpAddr>,
    /// Where the application listens.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    local_address: IpAddr,
    /// Where the mesh dials the first service; the others follow two ports apart.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:20000")]
    inbound_address: SocketAddr,
    /// Where probes and preStop ask.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:20001", value_parser = address_or_none)]
    health_address: Where,
    /// Where the HTTP API is served; `none` for nowhere.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8500", value_parser = address_or_none)]
    http_address: Where,
    /// Where DNS is served; `none` for nowhere.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8600", value_parser = address_or_none)]
    dns_address: Where,
    /// Seconds that open connections may last after the order to leave.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_DRAIN_LIMIT.as_secs())]
    drain_seconds: u64,
    /// How much to log.
    #[arg(long, value_enum, ignore_case = true, default_value = "info")]
    log_level: Level,
    /// Log lines are JSON objects.
    #[arg(long)]
    log_json: bool,
    /// Threads that work.
    #[arg(long, value_name = "COUNT", default_value_t = SIDECAR_WORKERS)]
    worker_threads: usize,
}

/// What to do with a sidecar that runs.
#[derive(Subcommand)]
enum SidecarVerb {
    /// Makes the sidecar of this pod leave, and waits until it has; preStop runs it
    Drain(DrainFlags),
}

/// Where it is.
#[derive(Args)]
struct DrainFlags {
    /// Where the sidecar answers probes.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:20001")]
    health_address: SocketAddr,
}

/// An address, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Where(Option<SocketAddr>);

fn address_or_none(text: &str) -> Result<Where, String> {
    if text == "none" {
        return Ok(Where(None));
    }
    text.parse().map(|address| Where(Some(address))).map_err(|_| "write ADDRESS:PORT, or none".into())
}

fn uuid(text: &str) -> Result<String, String> {
    let is_uuid = text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_uuid
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "write a UUID, for example 40e4a748-2192-161a-0510-9bf59fe950b5".into())
}

/// The id of the node, the same after every start: a name in the catalog belongs to one id.
fn node_id(
    given: Option<String>,
    data_dir: Option<&Path>,
    datacenter: &str,
    node: &NodeName,
    is_pod: bool,
) -> Result<Option<String>, Failure> {
    if given.is_some() || is_pod {
        return Ok(given);
    }
    if let Some(directory) = data_dir {
        let kept = kept_node_id(directory, &RealFs, &SystemRng);
        return kept.map(Some).map_err(Failure::because(format!("-data-dir {}", directory.display())));
    }
    // A container often has none: then the id is random, and the name is free again when this node is known to have failed.
    let machine = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let machine = machine.trim();
    Ok((!machine.is_empty()).then(|| derived_node_id(machine, datacenter, node)))
}

/// Asks the sidecar to leave. It limits the leave itself; who waits longer than any leave can take gives up.
fn drain(flags: &DrainFlags) -> Result<Output, Failure> {
    let address = flags.health_address;
    let failed = || Failure::because(format!("the sidecar at {address} does not leave"));
    let mut stream = TcpStream::connect_timeout(&address, DRAIN_CONNECT_LIMIT).map_err(failed())?;
    stream.set_read_timeout(Some(DRAIN_WAIT_MAX)).map_err(failed())?;
    let request = format!("POST /drain HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed())?;
    let mut reply = String::new();
    stream.take(DRAIN_REPLY_BYTES_MAX).read_to_string(&mut reply).map_err(failed())?;
    if reply.starts_with("HTTP/1.1 200 ") {
        return Ok(Output::line("drained"));
    }
    let said = reply.lines().last().unwrap_or("nothing");
    Err(Failure::new(format!("the sidecar at {address} does not leave: it said: {said}")))
}

pub(super) fn run(flags: SidecarFlags) -> Result<Output, Failure> {
    if let Some(SidecarVerb::Drain(flags)) = &flags.verb {
        return drain(flags);
    }
    let (level, json, workers) = (flags.log_level, flags.log_json, flags.worker_threads);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let settings = settings(flags, &variable, &Host::of_this_machine())?;
    logging::begin(level, json)?;
    let runtime = of_threads(Some(workers), SIDECAR_BLOCKING_THREADS)?;
    let result = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(settings: SidecarSettings) -> Result<Output, Failure> {
    let mut signals = Signals::take()?;
    let stop_limit = settings.drain_limit + STOP_SLACK;
    let parts =
        SidecarParts { clock: Arc::new(SystemClock), rng: Arc::new(SystemRng), resolver: Resolver::from_system() };
    let sidecar = Sidecar::start(settings, parts).await.map_err(|error| Failure::of(&error))?;
    let result = tokio::select! {
        stop = signals.stop() => {
            tracing::info!(?stop, "the sidecar leaves");
            Ok(Output::default())
        }
        trouble = sidecar.broken() => Err(Failure::new(trouble)),
    };
    tokio::select! {
        () = sidecar.stop(stop_limit) => {}
        _ = signals.stop() => tracing::warn!("a second signal: the sidecar ends at once"),
    }
    result
}

fn settings(
    flags: SidecarFlags,
    variable: &dyn Fn(&str) -> Option<String>,
    host: &Host,
) -> Result<SidecarSettings, Failure> {
    let wrong =
        |flag: &'static str| move |error: lictor_sidecar::SettingsError| Failure::new(format!("{flag}: {error}"));
    let mut services = flags
        .service
        .iter()
        .enumerate()
        .map(|(position, text)| ServiceSpec::parse(text, position, flags.inbound_address).map_err(wrong("-service")))
        .collect::<Result<Vec<_>, _>>()?;
    for text in &flags.check_http {
        ServiceSpec::set_http_check(&mut services, text).map_err(wrong("-check-http"))?;
    }
    let upstreams = flags
        .upstream
        .iter()
        .map(|text| UpstreamSpec::parse(text).map_err(wrong("-upstream")))
        .collect::<Result<Vec<_>, _>>()?;
    let ca_pem = match &flags.ca_file {
        Some(path) => read_ca(path)?,
        None => variable("LICTOR_CA_PEM").unwrap_or_default(),
    };
    let node = flags.node.unwrap_or_else(|| match (variable("POD_NAME"), variable("POD_NAMESPACE")) {
        (Some(pod), Some(namespace)) => format!("{pod}.{namespace}"),
        _ => host.name.clone(),
    });
    let node = NodeName::try_from(node).map_err(Failure::because("-node"))?;
    let address = match (flags.advertise, variable("POD_IP")) {
        (Some(address), _) => address,
        (None, Some(text)) => {
            text.parse().map_err(|_| Failure::new(format!("POD_IP is {text:?}, which is no IP address")))?
        }
        (None, None) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let of_pod = [("k8s-node", variable("NODE_NAME")), ("pod-uid", variable("POD_UID"))];
    let mut node_meta: BTreeMap<String, String> =
        of_pod.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    node_meta.extend(flags.node_meta);
    let login_token_file = flags.login_token_file.ok_or_else(|| Failure::new("-login-token-file is missing"))?;
    let is_pod = node_meta.contains_key("pod-uid");
    Ok(SidecarSettings {
        node_id: node_id(flags.node_id, flags.data_dir.as_deref(), &flags.datacenter, &node, is_pod)?,
        node,
        node_meta,
        address,
        datacenter: flags.datacenter,
        server_addresses: flags.server_address,
        ca_pem,
        login_token: Proof::File(login_token_file),
        services,
        upstreams,
        local_address: flags.local_address,
        health_address: flags.health_address.0,
        http_address: flags.http_address.0,
        dns_address: flags.dns_address.0,
        drain_limit: Duration::from_secs(flags.drain_seconds),
    })
}

fn read_ca(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(Failure::because(format!("-ca-file {}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: SidecarFlags,
    }

    fn read(line: &[&str], variables: &[(&str, &str)]) -> Result<SidecarSettings, Failure> {
        let line = [&["sidecar", "--login-token-file=/lictor/identity/token"], line].concat();
        let flags = Line::try_parse_from(line).map_err(|error| Failure::new(error.to_string()))?.flags;
        let host = Host { name: "here".into(), ..Host::default() };
        settings(
            flags,
            &|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            &host,
        )
    }

    const SERVER: &str = "--server-address=lictor-server.lictor.svc.cluster.local:8300";

    #[test]
    fn what_the_injector_writes_is_what_a_pod_needs() {
        let settings = read(
            &[
                "--datacenter=dc1",
                SERVER,
                "--service=web:8080",
                "--service=admin:9000",
                "--upstream=api:9090",
                "--check-http=web:/healthz",
            ],
            &[
                ("LICTOR_CA_PEM", "pem"),
                ("POD_NAME", "web-1"),
                ("POD_NAMESPACE", "apps"),
                ("POD_IP", "10.1.1.1"),
                ("POD_UID", "u"),
                ("NODE_NAME", "n"),
            ],
        )
        .unwrap();
        assert_eq!(settings.validate(), Ok(()));
        assert_eq!(settings.node.as_str(), "web-1.apps");
        assert_eq!(settings.address, IpAddr::from([10, 1, 1, 1]));
        assert_eq!(settings.node_meta.get("pod-uid").map(String::as_str), Some("u"));
        assert_eq!(settings.node_meta.get("k8s-node").map(String::as_str), Some("n"));
        let inbound: Vec<_> = settings.services.iter().map(|service| service.inbound_address.port()).collect();
        assert_eq!(inbound, [20000, 20002]);
        assert_eq!(settings.health_address, "0.0.0.0:20001".parse().ok());
        assert_eq!(settings.http_address, "127.0.0.1:8500".parse().ok());
    }

    #[test]
    fn drain_needs_nothing_but_the_address_and_says_what_the_sidecar_said() {
        let flags = Line::try_parse_from(["sidecar", "drain"]).unwrap_or_else(|error| panic!("{error}")).flags;
        assert!(
            matches!(flags.verb, Some(SidecarVerb::Drain(DrainFlags { health_address })) if health_address.port() == 20001)
        );
        assert!(Line::try_parse_from(["sidecar"]).is_err(), "a sidecar itself needs its proof");
        for (reply, good) in [("HTTP/1.1 200 OK\r\n\r\ndrained\n", true), ("HTTP/1.1 403 Forbidden\r\n\r\nno\n", false)]
        {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let health_address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap();
                assert!(head[..read].starts_with(b"POST /drain "));
                stream.write_all(reply.as_bytes()).unwrap();
            });
            assert_eq!(drain(&DrainFlags { health_address }).is_ok(), good);
            server.join().unwrap();
        }
    }

    #[test]
    fn outside_kubernetes_the_host_is_the_node_and_doors_may_be_shut() {
        let settings = read(&[SERVER, "--http-address=none", "--dns-address=none"], &[]).unwrap();
        assert_eq!((settings.node.as_str(), settings.address), ("here", IpAddr::from([127, 0, 0, 1])));
        assert_eq!((settings.http_address, settings.dns_address), (None, None));
    }

    #[test]
    fn a_wrong_flag_is_named() {
        for (flag, complaint) in [
            ("--service=web", "-service: "),
            ("--upstream=:1", "-upstream: "),
            ("--check-http=web:/", "-check-http: "),
            ("--ca-file=/nowhere/ca.pem", "-ca-file /nowhere/ca.pem"),
            ("--http-address=8500", "ADDRESS:PORT, or none"),
        ] {
            let error = read(&[flag], &[]).unwrap_err().to_string();
            assert!(error.contains(complaint), "{flag}: {error}");
        }
        let error = read(&[], &[("POD_IP", "pod")]).unwrap_err().to_string();
        assert!(error.contains("POD_IP"), "{error}");
    }
}
