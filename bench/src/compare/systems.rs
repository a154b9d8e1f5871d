//! The three that are compared, each started the way that suits it: three durable servers, or one.
//!
//! Ours speaks mutual TLS between its servers, as it always does; the others are left plain there. No door for clients has TLS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use crate::agents::{self, Process, eventually, get};
use crate::connection::{Door, alone, once};
use crate::etcd;
use crate::kind::{KEYS, Kind};

/// Servers of a cluster.
pub(crate) const SERVERS: usize = 3;
/// Connections that Consul and ours let one client have; Consul refuses to start when files for them are wanting.
const CLIENT_CONNECTIONS: u64 = 15_000;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    Ours,
    Consul,
    Etcd,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Consul, Self::Etcd];

    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Consul => "Consul",
            Self::Etcd => "etcd",
        }
    }

    pub(crate) fn door(self) -> Door {
        if self == Self::Etcd { Door::Grpc } else { Door::Http }
    }

    fn port(self) -> u16 {
        if self == Self::Etcd { 2379 } else { 8500 }
    }
}

/// The three programs.
pub(crate) struct Programs {
    pub(crate) ours: PathBuf,
    pub(crate) consul: PathBuf,
    pub(crate) etcd: PathBuf,
}

impl Programs {
    fn path(&self, system: System) -> &Path {
        match system {
            System::Ours => &self.ours,
            System::Consul => &self.consul,
            System::Etcd => &self.etcd,
        }
    }

    /// What a program says that it is.
    pub(crate) fn version(&self, system: System) -> String {
        let argument = if system == System::Etcd { "--version" } else { "version" };
        let said = Command::new(self.path(system)).arg(argument).output().map(|it| it.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
    }

    /// Whether this Consul has a log store without BoltDB's second sync.
    fn consul_has_wal(&self) -> bool {
        let version = self.version(System::Consul);
        let mut numbers = version.trim_start_matches("Consul v").split('.').map_while(|it| it.parse::<u32>().ok());
        matches!((numbers.next(), numbers.next()), (Some(1), Some(minor)) if minor >= 16)
    }
}

/// Servers of one system that know each other: three of them, or one.
pub(crate) struct Group {
    pub(crate) system: System,
    pub(crate) servers: Vec<Process>,
    arguments: Vec<Vec<String>>,
    directory: PathBuf,
    program: PathBuf,
}

impl Group {
    /// Starts `count` servers with empty data directories below `base`, without waiting. `number` is of this group alone.
    pub(crate) fn launch(
        programs: &Programs,
        system: System,
        base: &Path,
        number: u32,
        count: usize,
    ) -> anyhow::Result<Self> {
        let directory = base.join(format!("{}-{number}", system.name()));
        std::fs::create_dir_all(&directory)?;
        let addresses: Vec<String> = (0..count).map(|place| agents::address(number * 4 + place as u32 + 1)).collect();
        let arguments: Vec<Vec<String>> = (0..count)
            .map(|place| match system {
                System::Ours => ours(&directory, &addresses, place),
                System::Consul => Ok(consul(programs, &directory, &addresses, place)),
                System::Etcd => Ok(etcd(&directory, &addresses, place)),
            })
            .collect::<anyhow::Result<_>>()?;
        let program = programs.path(system).to_owned();
        let mut group = Self { system, servers: Vec::new(), arguments, directory, program };
        for (place, address) in addresses.iter().enumerate() {
            let server = group.spawn(place, address)?;
            group.servers.push(server);
        }
        Ok(group)
    }

    /// The same, ready for reads and writes at every server.
    pub(crate) fn start(
        programs: &Programs,
        system: System,
        base: &Path,
        number: u32,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut group = Self::launch(programs, system, base, number, count)?;
        for place in 0..count {
            eventually(&format!("{} takes writes at server {}", system.name(), place + 1), || {
                group.servers[place].still_runs()?;
                group.write(place, "ready")
            })?;
        }
        Ok(group)
    }

    fn spawn(&self, place: usize, address: &str) -> anyhow::Result<Process> {
        let name = format!("server-{}", place + 1);
        Process::start(&self.program, &self.directory, &name, address, &self.arguments[place])
    }

    /// Starts another process of the same program, with the same shared state.
    pub(crate) fn beside(&self, name: &str, address: &str, arguments: &[String]) -> anyhow::Result<Process> {
        Process::start(&self.program, &self.directory, name, address, arguments)
    }

    /// Starts a server again that was killed, with its data.
    pub(crate) fn restart(&mut self, place: usize) -> anyhow::Result<()> {
        let address = self.servers[place].address.clone();
        self.servers[place] = self.spawn(place, &address)?;
        Ok(())
    }

    /// Where clients find this server.
    pub(crate) fn address(&self, place: usize) -> String {
        format!("{}:{}", self.servers[place].address, self.system.port())
    }

    /// The place of the leader, as this server tells.
    pub(crate) fn leader(&self) -> anyhow::Result<usize> {
        eventually(&format!("a leader of {}", self.system.name()), || {
            for place in 0..self.servers.len() {
                let leads = if self.system == System::Etcd {
                    etcd::leads(&self.address(place)).unwrap_or(false)
                } else {
                    get(&self.address(place), "/v1/status/leader").is_ok_and(|it| {
                        String::from_utf8_lossy(&it).contains(&format!("\"{}:", self.servers[place].address))
                    })
                };
                if leads {
                    return Ok(place);
                }
            }
            bail!("none leads")
        })
    }

    /// One acknowledged write at this server, of a value that it did not have before: another would wake no watcher.
    pub(crate) fn write(&self, place: usize, key: &str) -> anyhow::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (address, value) = (self.address(place), NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        if self.system == System::Etcd {
            alone(Door::Grpc, &address, etcd::put(&address, key.into(), value.into())?)?;
        } else if once(&address, "PUT", &format!("/v1/kv/{key}"), value.into_bytes())?.trim_ascii() != b"true" {
            bail!("not acknowledged");
        }
        Ok(())
    }

    /// Whether this server alone, without asking others, knows the key.
    pub(crate) fn knows(&self, place: usize, key: &str) -> anyhow::Result<()> {
        let address = self.address(place);
        if self.system == System::Etcd {
            let (_, answer) = alone(Door::Grpc, &address, etcd::range(&address, key.into(), true)?)?;
            if !answer.windows(key.len()).any(|it| it == key.as_bytes()) {
                bail!("it does not know {key}");
            }
        } else {
            once(&address, "GET", &format!("/v1/kv/{key}?stale"), Vec::new())?;
        }
        Ok(())
    }

    /// One read as clients do by default, of the key with this number.
    pub(crate) fn read(&self, place: usize, number: u64) -> anyhow::Result<()> {
        let (address, door) = (self.address(place), self.system.door());
        let key = format!("bench/new/{number}");
        let (status, body) = if door == Door::Grpc {
            alone(door, &address, etcd::range(&address, key, false)?)?
        } else {
            let request = hyper::Request::builder().uri(format!("/v1/kv/{key}")).header("Host", &address);
            alone(door, &address, request.body(http_body_util::Full::default())?)?
        };
        if !Kind::Get.is_right(door, status, &body) {
            bail!("{status}");
        }
        Ok(())
    }

    /// The processor time of all servers.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        self.servers.iter().map(Process::processor_time).sum()
    }

    /// Writes the keys that are read and written later.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        crate::load::fill(self.system.door(), &self.address(self.leader()?), Kind::Put, KEYS, 16)
    }
}

fn ours(directory: &Path, addresses: &[String], place: usize) -> anyhow::Result<Vec<String>> {
    let mut arguments = agents::agent(&format!("server-{}", place + 1), &addresses[place], directory);
    let settings = directory.join("settings.json");
    let limits = json!({"limits": {"http_max_conns_per_client": CLIENT_CONNECTIONS}, "log_level": "warn"});
    std::fs::write(&settings, limits.to_string()).context("the settings of ours")?;
    arguments.extend(["-server".into(), format!("-bootstrap-expect={}", addresses.len())]);
    arguments.push(format!("-config-file={}", settings.display()));
    arguments.extend(addresses.iter().map(|it| format!("-server-address={it}:8300")));
    Ok(arguments)
}

/// Tuned: shortest raft timers, no limit that the load would meet, little log.
fn consul(programs: &Programs, directory: &Path, addresses: &[String], place: usize) -> Vec<String> {
    let mut arguments = agents::agent(&format!("server-{}", place + 1), &addresses[place], directory);
    let wal = if programs.consul_has_wal() { "raft_logstore { backend = \"wal\" }" } else { "" };
    arguments.extend(["-server".into(), format!("-bootstrap-expect={}", addresses.len()), "-log-level=warn".into()]);
    arguments.push(format!(
        "-hcl=performance {{ raft_multiplier = 1 }} disable_update_check = true {wal} limits {{ \
         http_max_conns_per_client = {CLIENT_CONNECTIONS} rpc_max_conns_per_client = {CLIENT_CONNECTIONS} }}"
    ));
    if addresses.len() > 1 {
        arguments.push("-retry-interval=1s".into());
        arguments.extend(addresses.iter().map(|it| format!("-retry-join={it}")));
    }
    arguments
}

fn etcd(directory: &Path, addresses: &[String], place: usize) -> Vec<String> {
    let address = &addresses[place];
    let all: Vec<String> =
        addresses.iter().enumerate().map(|(place, it)| format!("server-{}=http://{it}:2380", place + 1)).collect();
    vec![
        format!("--name=server-{}", place + 1),
        format!("--data-dir={}", directory.join(format!("server-{}", place + 1)).display()),
        format!("--listen-peer-urls=http://{address}:2380"),
        format!("--initial-advertise-peer-urls=http://{address}:2380"),
        format!("--listen-client-urls=http://{address}:2379"),
        format!("--advertise-client-urls=http://{address}:2379"),
        format!("--initial-cluster={}", all.join(",")),
        "--initial-cluster-state=new".into(),
        "--logger=zap".into(),
        "--log-level=warn".into(),
        "--quota-backend-bytes=8589934592".into(),
    ]
}
