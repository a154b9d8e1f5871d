//! The node, driven as processes: `node/kube`, and through it kubectl, helm, curl and the rest.
//!
//! Invariants
//! - Every process and every wait is bounded, by its own limit and by the phase's.
//! - A failure says what was wanted and what was there instead.
//! - The cluster is stopped when the harness goes, unless it is asked to stay.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(100);
/// What one command may take, if nothing else is said.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// What a process may take longer than the `timeout` around it inside the node.
const MARGIN: Duration = Duration::from_secs(5);
/// Output of a command beyond this is left out of messages.
const SHOWN: usize = 4000;
/// Chosen so that no other cluster of this machine is in the way.
const DEFAULT_RUN: &str = "/run/lictor-kube-ci";

/// What a process said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// An HTTP answer as curl saw it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) struct Harness {
    script: PathBuf,
    run: PathBuf,
    begun: Instant,
    deadline: Instant,
    keep: bool,
}

impl Harness {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            script: repository().join("tests/kubernetes/node/kube"),
            run: env::var_os("KUBE_RUN").map_or_else(|| PathBuf::from(DEFAULT_RUN), PathBuf::from),
            begun: now,
            deadline: now,
            keep: env::var_os("LICTOR_E2E_KEEP").is_some_and(|value| value == "1"),
        }
    }

    /// Gives the following calls this long, all together.
    pub(crate) fn allow(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    pub(crate) fn say(&self, text: &str) {
        println!("[{:7.1} s] {text}", self.begun.elapsed().as_secs_f32());
    }

    /// A directory of this run for files that commands exchange.
    pub(crate) fn scratch(&self, name: &str) -> Outcome<PathBuf> {
        let folder = self.run.join("e2e");
        // Tokens and keys of the cluster lie here.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(folder.join(name))
    }

    /// Removes what an earlier run has left.
    pub(crate) fn clear_scratch(&self) -> Outcome {
        let folder = self.run.join("e2e");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.scratch(name)?;
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn left(&self, limit: Duration) -> Duration {
        limit.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Calls the node's script; it must succeed.
    pub(crate) fn script(&self, limit: Duration, arguments: &[&str]) -> Outcome<String> {
        let said = wait(self.command(arguments), self.left(limit))?;
        require(&format!("kube {}", arguments.join(" ")), said)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(arguments).env("KUBE_RUN", &self.run).stdin(Stdio::null());
        command
    }

    /// Runs a program in the node's namespaces, whatever its exit status.
    pub(crate) fn try_run(&self, limit: Duration, arguments: &[&str]) -> Outcome<Said> {
        let limit = self.left(limit);
        let seconds = format!("{:.1}", limit.as_secs_f32().max(0.1));
        let mut words = vec!["exec", "timeout", "-k", "1", &seconds];
        words.extend(arguments);
        wait(self.command(&words), limit + MARGIN)
    }

    /// Runs a program in the node's namespaces; it must succeed.
    pub(crate) fn run(&self, limit: Duration, arguments: &[&str]) -> Outcome<String> {
        require(&arguments.join(" "), self.try_run(limit, arguments)?)
    }

    /// Starts a program in the node's namespaces that goes on while the test does other things.
    pub(crate) fn start(&self, limit: Duration, arguments: &[&str]) -> Outcome<Background> {
        let seconds = format!("{:.1}", self.left(limit).as_secs_f32().max(0.1));
        let mut words = vec!["exec", "timeout", "-s", "INT", "-k", "1", &seconds];
        words.extend(arguments);
        let mut command = self.command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot run {}: {error}", arguments.join(" ")))?;
        Ok(Background(child))
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Outcome<String> {
        self.run(COMMAND_LIMIT, &[&["kubectl"], arguments].concat())
    }

    pub(crate) fn kubectl_json(&self, arguments: &[&str]) -> Outcome<Value> {
        parse(&self.kubectl(&[arguments, &["-o", "json"]].concat())?)
    }

    /// Applies a manifest; the error is what the API server said.
    pub(crate) fn apply(&self, manifest: &str) -> Outcome {
        let file = self.write("manifest.yaml", manifest)?;
        self.kubectl(&["apply", "-f", &file]).map(drop)
    }

    /// Looks again and again until there is a value; the error is the last look's.
    pub(crate) fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Outcome<T>,
    ) -> Outcome<T> {
        let (begun, limit) = (Instant::now(), self.left(limit));
        loop {
            match look() {
                Ok(value) => return Ok(value),
                Err(reason) if begun.elapsed() >= limit => {
                    return Err(format!("waited {:.0} s for {what}; at last: {reason}", limit.as_secs_f32()));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// One request by the node's curl. An error is the lack of an answer, never a status.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Outcome<Answer> {
        read_answer(self.try_run(COMMAND_LIMIT, &[CURL, arguments].concat())?)
    }

    /// The same from within the network of a pod, where loopback is the pod's own.
    pub(crate) fn curl_in_pod(&self, process: &str, arguments: &[&str]) -> Outcome<Answer> {
        read_answer(self.try_run(COMMAND_LIMIT, &[&["nsenter", "-t", process, "-n"], CURL, arguments].concat())?)
    }

    /// Calls `ctr` of the node's containerd.
    pub(crate) fn containerd(&self, arguments: &[&str]) -> Outcome<String> {
        let socket = self.run.join("nodes/n1/containerd.sock").display().to_string();
        self.run(COMMAND_LIMIT, &[&["ctr", "-a", &socket, "-n", "k8s.io"], arguments].concat())
    }

    /// The one running pod of an app.
    pub(crate) fn pod(&self, namespace: &str, app: &str) -> Outcome<Pod> {
        let selector = format!("app={app}");
        let list = self.kubectl_json(&["get", "pods", "-n", namespace, "-l", &selector])?;
        let living: Vec<&Value> = list["items"]
            .as_array()
            .map(|items| items.iter().filter(|item| item["metadata"]["deletionTimestamp"].is_null()).collect())
            .unwrap_or_default();
        let [item] = living.as_slice() else {
            return Err(format!("{} pods of {app} in {namespace}, not one", living.len()));
        };
        Pod::read(item)
    }

    /// The process id, inside the node, of a container.
    pub(crate) fn process(&self, pod: &Pod) -> Outcome<String> {
        let tasks = self.containerd(&["tasks", "list"])?;
        let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .find(|words| words.first() == Some(&pod.container.as_str()))
            .and_then(|words| words.get(1).map(|word| (*word).to_owned()))
            .ok_or_else(|| format!("containerd has no task {} of pod {}: {tasks}", pod.container, pod.name))
    }

    /// What is worth reading after a failure: pods, events, logs. Written to a file, its end to standard output.
    pub(crate) fn report_failure(&mut self) {
        self.allow(Duration::from_secs(60));
        let mut text = String::new();
        let mut add = |title: &str, said: Outcome<String>| {
            text.push_str(&format!("==== {title}\n{}\n", said.unwrap_or_else(|error| error)));
        };
        add("pods", self.kubectl(&["get", "pods", "-A", "-o", "wide"]));
        add("datacenters", self.kubectl(&["get", "consuldatacenters", "-A", "-o", "yaml"]));
        add(
            "events",
            self.kubectl(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]).map(|t| tail(&t, 6000)),
        );
        for (namespace, lines) in [("lictor-system", "60"), ("apps", "25")] {
            let names = self.kubectl(&["get", "pods", "-n", namespace, "-o", "name"]).unwrap_or_default();
            for name in names.lines() {
                let logs = ["logs", "-n", namespace, name, "--all-containers", "--prefix", "--tail", lines];
                add(&format!("logs of {namespace} {name}"), self.kubectl(&logs));
                let last = [&logs[..], &["--previous", "--ignore-errors"]].concat();
                add(&format!("logs of the container before, {namespace} {name}"), self.kubectl(&last));
            }
        }
        match self.write("failure.txt", &text) {
            Ok(path) => println!("{}\n(all of it: {path})", tail(&text, 12_000)),
            Err(error) => println!("{text}\n({error})"),
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.allow(Duration::from_secs(30));
        if self.keep {
            let (run, script) = (self.run.display(), self.script.display());
            println!("the cluster stays: KUBE_RUN={run} {script} exec kubectl get pods -A; stop it with {script} stop");
        } else if let Err(error) = self.script(COMMAND_LIMIT, &["stop"]) {
            println!("{error}");
        }
    }
}

/// What curl is always told: silent but for errors, the status as the last line.
const CURL: &[&str] = &["curl", "-sS", "--connect-timeout", "3", "--max-time", "15", "-w", "\n%{http_code}"];

fn read_answer(said: Said) -> Outcome<Answer> {
    if !said.success {
        return Err(format!("no answer: {}", said.err.trim()));
    }
    let (body, status) = said.out.rsplit_once('\n').ok_or("curl printed no status")?;
    let status = status.parse().map_err(|_| format!("curl printed {status:?} as the status"))?;
    Ok(Answer { status, body: body.to_owned() })
}

/// A pod of ours, as far as tests look at it.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: String,
    /// The id of its application container.
    pub(crate) container: String,
}

impl Pod {
    pub(crate) fn read(item: &Value) -> Outcome<Self> {
        let text = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").ok_or("a pod without a name")?;
        let address = text("/status/podIP").ok_or_else(|| format!("pod {name} has no address"))?;
        let container = text("/status/containerStatuses/0/containerID")
            .and_then(|id| id.strip_prefix("containerd://").map(str::to_owned))
            .ok_or_else(|| format!("pod {name} has no running container"))?;
        Ok(Self { name, address, container })
    }
}

/// A process that runs beside the test.
pub(crate) struct Background(Child);

impl Background {
    /// Waits for its end.
    pub(crate) fn finish(&mut self, limit: Duration) -> Outcome {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.0.try_wait().map_err(|error| error.to_string())?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it still runs after {:.1} s", limit.as_secs_f32()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Its own `timeout` ends what runs inside the node; both calls fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

pub(crate) fn parse(text: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| format!("not JSON ({error}): {}", tail(text, SHOWN)))
}

/// The end of a text, cut at a line.
pub(crate) fn tail(text: &str, length: usize) -> String {
    let mut from = text.len().saturating_sub(length);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if from == 0 { text.to_owned() } else { format!("…{}", &text[from..]) }
}

fn require(what: &str, said: Said) -> Outcome<String> {
    if said.success {
        return Ok(said.out);
    }
    Err(format!("{what} failed: {}", tail(&format!("{}{}", said.out, said.err), SHOWN).trim()))
}

/// Runs a process to its end or to the limit.
fn wait(mut command: Command, limit: Duration) -> Outcome<Said> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break Some(status),
            None if begun.elapsed() >= limit => break None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        // Fails only where it has ended in this very moment.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |stream: &mpsc::Receiver<Vec<u8>>| {
        let bytes = stream.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (out, err) = (text(&out), text(&err));
    match status {
        Some(status) => Ok(Said { success: status.success(), out, err }),
        None => Err(format!(
            "{command:?} did not end within {:.0} s; it said: {}",
            limit.as_secs_f32(),
            tail(&format!("{out}{err}"), SHOWN)
        )),
    }
}

/// Reads a stream to its end beside the test, so that a full pipe stops nobody.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is what there is to show.
            let _ = stream.read_to_end(&mut bytes);
        }
        // Nobody waits any more where the limit has passed.
        let _ = sender.send(bytes);
    });
    receiver
}
