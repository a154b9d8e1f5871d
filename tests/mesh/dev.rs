//! One `lictor dev` as a real process, and callers that know nothing of the project's own code.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use lictor_client::{Client, ClientSettings};
use lictor_tests::process::lictor;
use serde_json::{Value, json};

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one exchange may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at another process.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One `lictor dev`.
pub(crate) struct Dev {
    /// As the ready line says it.
    pub(crate) ready_in: String,
    pub(crate) http: u16,
    pub(crate) dns: u16,
    pub(crate) web: u16,
    pub(crate) upstream: u16,
    pub(crate) api_inbound: u16,
    offset: u16,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Dev {
    /// Chooses ports and a directory.
    pub(crate) fn prepare() -> Self {
        let offset = free_offset();
        Self {
            ready_in: String::new(),
            http: 8500 + offset,
            dns: 8600 + offset,
            web: 9090 + offset,
            upstream: 9191 + offset,
            api_inbound: 21_001 + offset,
            offset,
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
        }
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start() -> Self {
        let mut dev = Self::prepare();
        dev.start_again();
        dev
    }

    /// Starts it with the ports and the data of before.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::create(self.log()).expect("a log file");
        let child = self.command().stdout(log.try_clone().expect("a second handle")).stderr(log).spawn();
        self.child = Some(child.expect("the program under test starts"));
        let begun = Instant::now();
        loop {
            if let Some(line) = self.output().lines().find(|line| line.starts_with("Ready in ")) {
                self.ready_in =
                    line.split(' ').skip(2).take(2).collect::<Vec<_>>().join(" ").trim_end_matches('.').into();
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "it ended ({ended:?}):\n{}", self.output());
            assert!(begun.elapsed() < START_LIMIT, "not ready:\n{}", self.output());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Runs it until it ends by itself; how, and what it said.
    pub(crate) fn run_to_end(&self) -> (ExitStatus, String) {
        let output = self.command().output().expect("the program under test starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(lictor());
        command.args(["dev", "--port-offset", &self.offset.to_string(), "--data-dir"]).arg(self.data());
        // Neither may be looked at: whatever it needs of this kind lies in its data directory.
        command.env("HOME", "/nowhere").env("XDG_STATE_HOME", "/nowhere").stdin(Stdio::null());
        command
    }

    /// Sends SIGTERM and waits for the end: how long it took, and how it ended.
    pub(crate) fn terminate(&mut self) -> (Duration, ExitStatus) {
        let mut child = self.child.take().expect("it runs");
        let begun = Instant::now();
        let told = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
        assert!(told.success());
        let status = child.wait().expect("it ends");
        (begun.elapsed(), status)
    }

    /// The data directory, which the process makes.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has said.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// A client of its HTTP API, without a token.
    pub(crate) fn client(&self) -> Client {
        let settings =
            ClientSettings { address: format!("http://127.0.0.1:{}", self.http), ..ClientSettings::default() };
        Client::new(settings).expect("a client")
    }

    /// Sets the intention of the samples.
    pub(crate) async fn intention(&self, action: &str) {
        let query = [("source", "web"), ("destination", "api")];
        let body = json!({ "Action": action });
        let set = self.client().put_json::<_, Value>("/v1/connect/intentions/exact", &query, &body).await;
        set.expect("the intention is taken");
    }

    /// Every port.
    pub(crate) fn ports(&self) -> Vec<u16> {
        PORTS.map(|port| port + self.offset).to_vec()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which the output below tells.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- lictor dev --port-offset {}:\n{}", self.offset, self.output());
        }
    }
}

/// The ports without an offset.
const PORTS: [u16; 10] = [8300, 8310, 8320, 8500, 8600, 9090, 9091, 9191, 21_000, 21_001];

/// An offset with which every port is free, and that no other test of this process has.
fn free_offset() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Steps of 3, as no two ports are a small multiple of 3 apart: neighbours never share one.
    let first = u16::try_from(std::process::id() % 100).expect("below 100") * 63;
    for _ in 0..100 {
        let offset = 1 + first + 3 * NEXT.fetch_add(1, Ordering::Relaxed);
        if PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()) {
            return offset;
        }
    }
    panic!("no offset is free");
}

/// `GET /api` of `web`: status and body.
pub(crate) fn call(web: u16) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", web)).expect("web is there");
    stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a limit");
    stream.write_all(b"GET /api HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Calls until the answer has this status, and how long that took.
pub(crate) fn eventually_calls(web: u16, status: u16, limit: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        let (got, body) = call(web);
        if got == status {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < limit, "still {got} after {limit:?}: {body}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// A connection through both sidecars that has carried a request and stays open.
pub(crate) fn keep_open(upstream: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", upstream)).expect("the upstream listener is there");
    stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").expect("a request");
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a head");
        assert!(!line.is_empty(), "api closed the connection");
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    assert_eq!(body, b"hello from api\n");
    drop(reader);
    stream
}
