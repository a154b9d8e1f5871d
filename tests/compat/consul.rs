//! A real Consul to compare with: Debian bullseye's package (1.8.7).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http;

/// How long an agent alone may take to lead itself.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The program, downloaded the first time; or why it cannot be had.
pub(crate) fn program(cache: &Path) -> Result<PathBuf, String> {
    let program = lictor_tests::debian::CONSUL.program(cache)?;
    let version =
        Command::new(&program).arg("version").output().map_err(|error| format!("{}: {error}", program.display()))?;
    let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
    if !version.starts_with("Consul v1.") {
        return Err(format!("{} says {version:?}", program.display()));
    }
    Ok(program)
}

/// An agent alone in development mode; ends with this value.
pub(crate) struct DevelopmentAgent {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
}

impl DevelopmentAgent {
    /// Starts `program agent -dev` at this IP address and waits until it leads and is in its own catalog.
    pub(crate) fn start(program: &Path, ip: &str, directory: &Path) -> Result<Self, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = directory.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .args(["agent", "-dev", "-node=n1", "-log-level=debug"])
            .args([format!("-bind={ip}"), format!("-client={ip}")])
            .env("XDG_STATE_HOME", directory.join("state"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(|error| error.to_string())?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let address = format!("{ip}:8500").parse().map_err(|_| format!("{ip} is no IP address"))?;
        let mut agent = Self { child, log, address };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let ready = http::send(self.address, "GET", "/v1/health/service/consul?passing", None)
                .is_ok_and(|answer| answer.status == 200 && answer.text().contains("serfHealth"));
            if ready {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}:\n{}", self.log_tail()));
            }
            if Instant::now() >= end {
                return Err(format!("not ready within {START_LIMIT:?}:\n{}", self.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for DevelopmentAgent {
    fn drop(&mut self) {
        // Only its own end is waited for; what it says at the end is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
