//! A real Serf: Debian's package, as a process on an address of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lictor_tests::tools;
use serde::Deserialize;

/// Serf's port for gossip here.
pub(crate) const PORT: u16 = 7946;
/// How long a command to an agent may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A member as Serf prints it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SerfMember {
    pub(crate) name: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct SerfMembers {
    members: Vec<SerfMember>,
}

/// A Serf agent; ends with this value.
pub(crate) struct SerfAgent {
    program: PathBuf,
    pub(crate) name: String,
    pub(crate) address: String,
    events: PathBuf,
    log: PathBuf,
    child: Child,
}

impl SerfAgent {
    /// Starts one that writes every event into a file and answers the query `who` with its name.
    pub(crate) fn start(program: &Path, directory: &Path, name: &str, address: &str, more: &[&str]) -> Self {
        let (events, log) = (directory.join(format!("{name}.events")), directory.join(format!("{name}.log")));
        let file = File::create(&log).expect("a log file");
        let handler = format!(
            "(printf '%s %s%s ' \"$SERF_EVENT\" \"$SERF_USER_EVENT\" \"$SERF_QUERY_NAME\"; cat; echo) >> {}",
            events.display()
        );
        let child = Command::new(program)
            .args(["agent", "-profile=local", "-log-level=debug"])
            .args([format!("-node={name}"), format!("-bind={address}:{PORT}"), format!("-rpc-addr={address}:7373")])
            .args([format!("-event-handler={handler}"), format!("-event-handler=query:who=printf {name}")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("serf starts");
        let (name, address) = (name.to_owned(), address.to_owned());
        Self { program: program.to_owned(), name, address, events, log, child }
    }

    /// Runs one of Serf's commands against the agent.
    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg(verb).arg(format!("-rpc-addr={}:7373", self.address)).args(arguments);
        tools::captured(&mut command, COMMAND_LIMIT)
    }

    pub(crate) fn members(&self) -> Result<Vec<SerfMember>, String> {
        let text = self.run("members", &["-format=json"])?;
        serde_json::from_str::<SerfMembers>(&text).map(|it| it.members).map_err(|error| format!("{error}: {text}"))
    }

    /// The member of that name, in that status.
    pub(crate) fn sees(&self, name: &str, status: &str) -> Result<SerfMember, String> {
        let members = self.members()?;
        let found = members.iter().find(|it| it.name == name && it.status == status).cloned();
        found.ok_or_else(|| format!("{} does not see {name} {status}: {members:?}", self.name))
    }

    /// The events it has handled, a line each.
    pub(crate) fn events(&self) -> String {
        // Payloads may be any bytes.
        String::from_utf8_lossy(&std::fs::read(&self.events).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SerfAgent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6000);
            println!("--- {} ---\n{}", self.name, log.get(from..).unwrap_or(&log));
        }
    }
}
