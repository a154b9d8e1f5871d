//! Real processes on loopback, each with an address of its own, and what the kernel says of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::connection;

/// How long a process or a cluster may take to be ready.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at another process.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The kernel counts processor time in these on every machine of ours.
const TICK: Duration = Duration::from_millis(10);

/// One process of ours; ended when dropped.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: String,
    child: Child,
}

impl Process {
    /// Starts `lictor` with these arguments; what it says goes to a file in `directory`.
    pub(crate) fn start(
        lictor: &Path,
        directory: &Path,
        name: &str,
        address: &str,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let log = File::create(directory.join(format!("{name}.log")))?;
        let child = Command::new(lictor)
            .args(arguments)
            .env("XDG_STATE_HOME", directory.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", lictor.display()))?;
        Ok(Self { name: name.to_owned(), address: address.to_owned(), child })
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it still runs; else how it ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}", self.name),
        }
    }

    /// Bytes that it made the kernel send to the disk.
    pub(crate) fn written(&self) -> anyhow::Result<u64> {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.context("no count of written bytes")?.parse()?)
    }

    /// Where its HTTP API is.
    pub(crate) fn http(&self) -> String {
        format!("{}:8500", self.address)
    }

    /// The processor time that it has used.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(&self.child.id().to_string())
    }

    /// A figure of `/proc/PID/status`, in KiB.
    pub(crate) fn status_kib(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.with_context(|| format!("{name} is not in the status of {}", self.name))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processor time of a process: its number, or `self`.
pub(crate) fn processor_time(process: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything: what follows it is counted from its end.
    let (_, after) = stat.rsplit_once(')').context("a stat line without a name")?;
    let field = |number: usize| after.split_whitespace().nth(number).unwrap_or("0").parse::<u32>();
    Ok(TICK * (field(11)? + field(12)?))
}

/// An address that no other agent has.
pub(crate) fn address(number: u32) -> String {
    let process = std::process::id();
    format!("127.{}.{}.{number}", 192 + process % 60, process / 60 % 256)
}

/// Looks until there is something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Err(error) if begun.elapsed() > START_LIMIT => {
                return Err(error.context(format!("{what}: not within {START_LIMIT:?}")));
            }
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
            found => return found,
        }
    }
}

/// Three servers with durable data directories.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Process>,
    pub(crate) directory: PathBuf,
    pub(crate) join: Vec<String>,
}

impl Cluster {
    /// Starts them and waits for a leader.
    pub(crate) fn start(lictor: &Path, directory: &Path) -> anyhow::Result<Self> {
        let addresses: Vec<String> = (1..=3).map(address).collect();
        let join: Vec<String> = addresses.iter().map(|it| format!("-server-address={it}:8300")).collect();
        let mut servers = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let name = format!("server-{}", number + 1);
            servers.push(Process::start(lictor, directory, &name, address, &server(&name, address, directory, &join))?);
        }
        let cluster = Self { servers, directory: directory.to_owned(), join };
        cluster.leader()?;
        eventually("every server knows all peers", || {
            for server in &cluster.servers {
                let peers: Vec<String> = serde_json::from_slice(&get(&server.http(), "/v1/status/peers?stale")?)?;
                if peers.len() < cluster.servers.len() {
                    bail!("{} knows of {peers:?}", server.name);
                }
            }
            Ok(())
        })?;
        Ok(cluster)
    }

    /// The place of the leader.
    pub(crate) fn leader(&self) -> anyhow::Result<usize> {
        eventually("a leader", || {
            let asked = self.servers.iter().find_map(|it| get(&it.http(), "/v1/status/leader").ok());
            let leader: String = serde_json::from_slice(&asked.context("no server answers")?)?;
            let place = self.servers.iter().position(|it| leader == format!("{}:8300", it.address));
            place.with_context(|| format!("the leader is {leader:?}"))
        })
    }

    /// Ends a server with SIGKILL.
    pub(crate) fn end(&mut self, place: usize) {
        let server = &mut self.servers[place];
        // It may have ended by itself, and then there is nothing to do.
        drop(server.child.kill());
        drop(server.child.wait());
    }

    /// Starts a server that was ended, and waits until it knows the leader.
    pub(crate) fn start_again(&mut self, lictor: &Path, place: usize) -> anyhow::Result<()> {
        let (name, address) = (self.servers[place].name.clone(), self.servers[place].address.clone());
        let arguments = server(&name, &address, &self.directory, &self.join);
        self.servers[place] = Process::start(lictor, &self.directory, &name, &address, &arguments)?;
        eventually("the server knows the leader again", || {
            let leader: String = serde_json::from_slice(&get(&self.servers[place].http(), "/v1/status/leader")?)?;
            if leader.is_empty() { bail!("no leader") } else { Ok(()) }
        })
    }

    /// The processor time of all servers.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        self.servers.iter().map(Process::processor_time).sum()
    }
}

fn server(name: &str, address: &str, directory: &Path, join: &[String]) -> Vec<String> {
    let mut arguments = agent(name, address, directory);
    arguments.extend(["-server".to_owned(), "-bootstrap-expect=3".to_owned()]);
    arguments.extend_from_slice(join);
    arguments
}

/// The arguments of an agent.
pub(crate) fn agent(name: &str, address: &str, directory: &Path) -> Vec<String> {
    let data = directory.join(name);
    vec![
        "agent".into(),
        format!("-node={name}"),
        format!("-bind={address}"),
        format!("-client={address}"),
        format!("-data-dir={}", data.display()),
    ]
}

/// The body of a successful GET.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    connection::once(address, "GET", path, Vec::new())
}
