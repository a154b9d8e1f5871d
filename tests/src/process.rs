//! Agents as real processes on loopback.
//!
//! Every agent has an address of its own in 127.0.0.0/8, so that all of them use the usual ports and tests never share one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lictor_client::{Client, ClientSettings};

use crate::eventually;

/// How long a cluster may take to elect a leader or an agent to answer, on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// The `lictor` program under test.
pub fn lictor() -> PathBuf {
    std::env::var_os("LICTOR_BINARY")
        .map(PathBuf::from)
        .expect("LICTOR_BINARY names the program under test; `cargo xtask test` sets it")
}

/// An address in 127.0.0.0/8 that no other agent of any running test has.
pub fn next_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("127.{}.{}.{}", 64 + process % 128, process / 128 % 256, number)
}

/// One agent process.
pub struct Agent {
    /// Its node name.
    pub name: String,
    /// Its address.
    pub address: String,
    arguments: Vec<String>,
    /// The program that runs ours, with its arguments; none as a rule.
    runner: Vec<String>,
    state: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Agent {
    /// An agent of these arguments, not started yet. Its log goes to `directory`.
    pub fn new(directory: &Path, name: &str, address: String, arguments: &[String]) -> Self {
        let mut all: Vec<String> =
            ["agent".into(), format!("-node={name}"), format!("-bind={address}"), format!("-client={address}")].into();
        all.extend_from_slice(arguments);
        Self {
            name: name.into(),
            address,
            arguments: all,
            runner: Vec::new(),
            state: directory.join("state"),
            log: directory.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Has another program run it, for example one that counts.
    pub fn run_by(&mut self, runner: &[&str]) {
        self.runner = runner.iter().map(|it| (*it).to_owned()).collect();
    }

    /// Starts the process; its data directory is as the last one left it.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = match self.runner.split_first() {
            None => Command::new(lictor()),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(lictor());
                command
            }
        };
        let child = command
            .args(&self.arguments)
            .env("XDG_STATE_HOME", &self.state)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program under test starts");
        self.child = Some(child);
    }

    /// Ends the process with SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let killed = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
        assert!(killed.success());
        child.wait().expect("it ends")
    }

    /// How the process ended by itself; none while it runs.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a look at the process")?;
        self.child = None;
        Some(status)
    }

    /// Stops the process where it stands, or lets it go on.
    pub fn pause(&self, is_paused: bool) {
        let Some(child) = &self.child else { return };
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().expect("kill");
        assert!(sent.success());
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The process id, for tests that look at the process itself.
    pub fn process_id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// A client of its HTTP API.
    pub fn client(&self) -> Client {
        self.client_with(None)
    }

    /// A client of its HTTP API with a token.
    pub fn client_with(&self, token: Option<&str>) -> Client {
        Client::new(ClientSettings {
            address: format!("http://{}:8500", self.address),
            token: token.map(str::to_owned),
            ..ClientSettings::default()
        })
        .expect("a client")
    }

    /// Its log, of all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log, for a failing test.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The server that this agent believes to lead, as `host:port`.
    pub async fn leader(&self) -> Result<String, String> {
        let (leader, _) =
            self.client().get_json::<String>("/v1/status/leader", &[]).await.map_err(|error| error.to_string())?;
        if leader.is_empty() { Err("no leader yet".into()) } else { Ok(leader) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {} ({}):\n{}", self.name, self.address, self.log_tail());
        }
    }
}

/// Servers and one client agent, each a process.
pub struct TestCluster {
    /// The servers.
    pub servers: Vec<Agent>,
    /// Where everybody reaches them.
    pub doors: Vec<String>,
    /// A client agent that knows all of them.
    pub client: Agent,
    /// Where data and logs are.
    pub directory: tempfile::TempDir,
}

impl TestCluster {
    /// Starts `count` servers and a client, and waits until the client knows a leader.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// The same, with more arguments for every agent.
    pub async fn start_with(count: usize, more: &[String]) -> Self {
        let addresses: Vec<String> = (0..count).map(|_| next_address()).collect();
        Self::start_behind(&addresses, &addresses, more).await
    }

    /// Servers of these addresses, which everybody reaches at the address that `doors` has in the same place.
    pub async fn start_behind(addresses: &[String], doors: &[String], more: &[String]) -> Self {
        let (directory, count) = (tempfile::tempdir().expect("a temporary directory"), addresses.len());
        let join: Vec<String> = doors.iter().map(|address| format!("-server-address={address}:8300")).collect();
        let mut servers: Vec<Agent> = addresses
            .iter()
            .enumerate()
            .map(|(number, address)| {
                let name = format!("s{}", number + 1);
                let mut arguments = vec![
                    "-server".to_owned(),
                    format!("-bootstrap-expect={count}"),
                    format!("-data-dir={}", directory.path().join(&name).display()),
                ];
                if doors[number] != *address {
                    arguments.push(format!("-advertise-server-address={}:8300", doors[number]));
                }
                arguments.extend_from_slice(&join);
                arguments.extend_from_slice(more);
                Agent::new(directory.path(), &name, address.clone(), &arguments)
            })
            .collect();
        servers.iter_mut().for_each(Agent::start);
        let mut arguments = vec![format!("-data-dir={}", directory.path().join("c1").display())];
        arguments.extend_from_slice(&join);
        arguments.extend_from_slice(more);
        let mut client = Agent::new(directory.path(), "c1", next_address(), &arguments);
        client.start();
        let cluster = Self { servers, doors: doors.to_vec(), client, directory };
        eventually("the client agent knows a leader", START_LIMIT, || cluster.client.leader()).await;
        cluster
    }

    /// Starts one more server, which joins and begins nothing.
    pub fn add_server(&mut self, more: &[String]) -> usize {
        let name = format!("s{}", self.servers.len() + 1);
        let mut arguments =
            vec!["-server".to_owned(), format!("-data-dir={}", self.directory.path().join(&name).display())];
        arguments.extend(self.servers.iter().map(|it| format!("-server-address={}:8300", it.address)));
        arguments.extend_from_slice(more);
        let mut server = Agent::new(self.directory.path(), &name, next_address(), &arguments);
        server.start();
        self.doors.push(server.address.clone());
        self.servers.push(server);
        self.servers.len() - 1
    }

    /// The place of the leader among the servers, as any live server tells.
    pub async fn leader(&self) -> usize {
        eventually("a server knows the leader", START_LIMIT, || async {
            let mut last = "no server runs".to_owned();
            for server in self.servers.iter().filter(|it| it.child.is_some()) {
                match server.leader().await {
                    Ok(leader) => {
                        let host = leader.rsplit_once(':').map_or(leader.as_str(), |(host, _)| host);
                        let place = self.doors.iter().position(|it| it == host);
                        let place = place.filter(|place| self.servers[*place].child.is_some());
                        match place {
                            Some(place) => return Ok(place),
                            None => last = format!("{leader} does not run"),
                        }
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
        .await
    }
}
