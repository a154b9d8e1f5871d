//! A member made of HashiCorp's own library: the program in `go`, driven by lines.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use lictor_tests::tools;

use crate::serf::PORT;

/// How long the program may take to build: the first time it downloads its modules.
const BUILD_LIMIT: Duration = Duration::from_secs(600);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

type Said = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A running member; ends with this value.
pub(crate) struct Library {
    child: Child,
    input: Mutex<ChildStdin>,
    said: Said,
}

impl Library {
    /// Builds the program in `directory`; `go.sum` says what its modules must hash to.
    pub(crate) fn build(directory: &Path) -> PathBuf {
        let program = directory.join("gossip-peer");
        let mut build = Command::new("go");
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("gossip/go"));
        build.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
        tools::run(&mut build, BUILD_LIMIT).expect("the Go program builds");
        program
    }

    pub(crate) fn start(program: &Path, name: &str, address: &str, key: &str, protocol: u8) -> Self {
        let mut child = Command::new(program)
            .args(["-name", name, "-bind", &format!("{address}:{PORT}"), "-key", key])
            .args(["-protocol", &protocol.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let said = Said::default();
        let lines = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.0.lock().expect("no panic holds it").push(line);
                lines.1.notify_all();
            }
        });
        let started = Self { child, input: Mutex::new(input), said };
        started.wait(0, |line| (line == "ready").then_some(())).expect("it is ready");
        started
    }

    /// The first line from the one at `from` on that `wanted` picks something from.
    fn wait<T>(&self, from: usize, wanted: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let end = Instant::now() + COMMAND_LIMIT;
        let mut lines = self.said.0.lock().expect("no panic holds it");
        loop {
            if let Some(found) = lines[from..].iter().find_map(|line| wanted(line)) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("it only said {lines:?}"));
            }
            lines = self.said.1.wait_timeout(lines, left).expect("no panic holds it").0;
        }
    }

    /// Gives a command and waits for its answer.
    pub(crate) fn ask(&self, command: &str) -> Result<String, String> {
        let mut input = self.input.lock().expect("no panic holds it");
        let from = self.said.0.lock().expect("no panic holds it").len();
        writeln!(input, "{command}").map_err(|error| error.to_string())?;
        let verb = command.split(' ').next().unwrap_or_default();
        let (done, failed) = (format!("done {verb} "), format!("failed {verb} "));
        self.wait(from, |line| match (line.strip_prefix(&done), line.strip_prefix(&failed)) {
            (Some(answer), _) => Some(Ok(answer.to_owned())),
            (_, Some(error)) => Some(Err(error.to_owned())),
            _ => None,
        })?
    }

    /// Whether it has said this line.
    pub(crate) fn said(&self, line: &str) -> Result<(), String> {
        let lines = self.said.0.lock().expect("no panic holds it");
        if lines.iter().any(|it| it == line) { Ok(()) } else { Err(format!("it only said {lines:?}")) }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
