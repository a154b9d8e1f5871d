//! What an agent refuses at its start, and a running one of its callers: each time one clear complaint, nothing half done.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use lictor_client::{Client, ClientError};
use lictor_tests::process::{START_LIMIT, lictor, next_address};
use lictor_tests::{Agent, eventually};
use serde_json::Value;

/// A start that is refused is refused within this, on a busy machine.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// A place to start agents from, which must not start.
struct Place {
    directory: tempfile::TempDir,
    address: String,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory"), address: next_address() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    /// Runs the program here; the exit code, unless it had to be killed, and what it complained of.
    fn run(&self, arguments: &[String]) -> (Option<i32>, String) {
        let mut child = Command::new(lictor())
            .args(arguments)
            .current_dir(self.directory.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program under test starts");
        let end = std::time::Instant::now() + REFUSAL_LIMIT;
        while child.try_wait().expect("a look at the process").is_none() {
            if std::time::Instant::now() >= end {
                child.kill().expect("it can be killed");
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut complaint = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut complaint).expect("text");
        (child.wait().expect("it ends").code(), complaint)
    }

    /// Asserts that the program ends with 1 and complains once, in words that hold all of these.
    fn refuses(&self, arguments: &[String], words: &[&str]) {
        let (code, complaint) = self.run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {complaint}");
        for word in words {
            assert!(complaint.contains(word), "{arguments:?}: {word:?} is not in: {complaint}");
        }
        assert!(!complaint.contains("panicked") && !complaint.contains("backtrace"), "{arguments:?}: {complaint}");
        // The parser of the command line adds how to use it; everything else is one line.
        let lines = complaint.split("\n\nUsage:").next().unwrap_or_default().trim_end().lines().count();
        assert!(lines <= if complaint.starts_with("error: ") { 3 } else { 1 }, "{arguments:?}: {complaint}");
    }

    /// The same for a server here with these arguments more.
    fn refuses_a_server(&self, more: &[String], words: &[&str]) {
        let mut arguments: Vec<String> = vec![
            "agent".into(),
            "-server".into(),
            "-bootstrap-expect=1".into(),
            "-node=refused".into(),
            format!("-bind={}", self.address),
            format!("-client={}", self.address),
        ];
        if !more.iter().any(|it| it.starts_with("-data-dir")) {
            arguments.push(format!("-data-dir={}", self.path("data").display()));
        }
        arguments.extend_from_slice(more);
        self.refuses(&arguments, words);
    }
}

#[test]
fn certificates_and_keys_that_cannot_be_used_are_named() {
    let place = Place::new();
    for arguments in
        [["tls", "ca", "create"].as_slice(), &["tls", "cert", "create", "-server"], &["seal-key", "create"]]
    {
        // The second certificate is for the key that does not match.
        for _ in 0..if arguments.contains(&"cert") { 2 } else { 1 } {
            let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
            let (code, complaint) = place.run(&arguments);
            assert_eq!(code, Some(0), "{complaint}");
        }
    }
    place.file("garbage", "not a certificate");
    std::fs::create_dir(place.path("directory")).expect("a directory");
    let right = ["consul-agent-ca.pem", "dc1-server-consul-0.pem", "dc1-server-consul-0-key.pem", "seal.key"];
    for (key, file, words) in [
        (0, "nowhere.pem", ["nowhere.pem", "No such file"]),
        (0, "directory", ["directory", "Is a directory"]),
        (0, "garbage", ["garbage", "a PEM block `CERTIFICATE` is needed"]),
        (1, "directory", ["directory", "Is a directory"]),
        (1, "garbage", ["garbage", "a PEM block `CERTIFICATE` is needed"]),
        (2, "nowhere.pem", ["nowhere.pem", "No such file"]),
        (2, "garbage", ["garbage", "a PEM block `PRIVATE KEY` is needed"]),
        (2, "dc1-server-consul-1-key.pem", ["dc1-server-consul-1-key.pem", "give the key that the certificate"]),
        (3, "nowhere.key", ["nowhere.key", "No such file"]),
        (3, "garbage", ["garbage", "a seal key is 32 bytes"]),
    ] {
        let mut files = right;
        files[key] = file;
        let [ca, certificate, own, seal] = files;
        let fragment = format!(
            "tls {{ defaults {{ ca_file = \"{ca}\" cert_file = \"{certificate}\" key_file = \"{own}\" }} }}\n\
             seal_key_file = \"{seal}\""
        );
        place.refuses_a_server(&[format!("-hcl={fragment}")], &words);
        assert!(!place.path("data").exists(), "{file}: it made a data directory before it looked at its certificates");
    }
}

#[test]
fn an_address_in_use_is_named_with_what_it_was_for() {
    let http = Place::new();
    let _held = TcpListener::bind((http.address.as_str(), 8500)).expect("a free address");
    http.refuses_a_server(&[], &["cannot listen for HTTP on", &http.address, ":8500", "Address already in use"]);
    let rpc = Place::new();
    let _held = TcpListener::bind((rpc.address.as_str(), 8300)).expect("a free address");
    rpc.refuses_a_server(&[], &["cannot listen for RPC on", &rpc.address, ":8300", "Address already in use"]);
    let dns = Place::new();
    let held = UdpSocket::bind((dns.address.as_str(), 8600)).expect("a free address");
    dns.refuses_a_server(&[], &["cannot listen for DNS on", &dns.address, ":8600", "Address already in use"]);
    drop(held);
    let _held = TcpListener::bind((dns.address.as_str(), 8600)).expect("a free address");
    dns.refuses_a_server(&[], &["cannot listen for DNS on", &dns.address, ":8600", "Address already in use"]);
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_with_what_would_do() {
    let place = Place::new();
    let file = place.file("file", "a file");
    let right = "data_dir must be a directory, with room, that this process may write";
    for (path, reason) in [
        (file.clone(), "Not a directory"),
        (format!("{file}/below"), "Not a directory"),
        // Nobody, root included, makes directories there.
        ("/proc/data".to_owned(), "No such file or directory"),
    ] {
        place.refuses_a_server(&[format!("-data-dir={path}")], &[&path, reason, right]);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_once_with_its_place() {
    let place = Place::new();
    let broken = place.file("broken.hcl", "datacenter = \"dc1\"\nserver = \nlog_level = \"info\"\n");
    let json = place.file("broken.json", "{\n\"server\": tru }");
    let nowhere = place.path("nowhere.hcl").display().to_string();
    let agent = |more: &[&str]| -> Vec<String> {
        ["agent"].iter().chain(more).map(|&it| it.to_owned()).collect::<Vec<String>>()
    };
    // Nothing follows of a data_dir, or an address, that may stand in what could not be read.
    place.refuses(&agent(&["-config-file", &broken]), &["broken.hcl: line 3: ", "is expected"]);
    place.refuses(&agent(&["-config-file", &json]), &["broken.json: ", "line 2 column"]);
    place.refuses(&agent(&["-config-file", &nowhere]), &["nowhere.hcl: cannot be read: No such file"]);
    for (fragment, words) in [
        ("datacentre = \"x\"", ["invalid config key datacentre", "the nearest known key is datacenter"].as_slice()),
        ("ports { htpp = 1 }", &["invalid config key ports.htpp", "the nearest known key is ports.http"]),
        ("ports { http = \"x\" }", &["ports.http must be a port from 0 to 65535, or -1 for off, not \"x\""]),
        ("leave_on_terminate = 3", &["leave_on_terminate must be true or false, not 3"]),
        ("dns_config { node_ttl = 5 }", &["dns_config.node_ttl must be a duration", "\"10s\""]),
        ("retry_join = { a = 1 }", &["retry_join must be a list of texts"]),
    ] {
        place.refuses_a_server(&[format!("-hcl={fragment}")], words);
    }
    for (flag, words) in [
        ("-data-dri=x", ["unexpected argument '-data-dri'", "'-data-dir'"].as_slice()),
        ("-http-port=eighty", &["'eighty'", "-http-port", "write a port from 0 to 65535, or -1 for off"]),
        ("-dns-port=70000", &["'70000'", "-dns-port", "write a port from 0 to 65535, or -1 for off"]),
        ("-rejoin=maybe", &["'maybe'", "write true or false"]),
    ] {
        place.refuses_a_server(&[flag.to_owned()], words);
    }
    assert!(!place.path("data").exists(), "a refused configuration made a data directory");
}

/// A server of its own address in `directory`, which knows `join`.
fn server(directory: &Path, name: &str, address: &str, more: &[String]) -> Agent {
    let mut arguments = vec!["-server".to_owned(), format!("-data-dir={}", directory.join(name).display())];
    arguments.extend_from_slice(more);
    Agent::new(directory, name, address.to_owned(), &arguments)
}

/// Waits until the agent ends by itself, with 1.
async fn until_refused(agent: &mut Agent) {
    let end = std::time::Instant::now() + START_LIMIT;
    let code = loop {
        match agent.ended() {
            Some(status) => break status.code(),
            None if std::time::Instant::now() >= end => panic!("{} runs on:\n{}", agent.name, agent.log()),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(code, Some(1), "{}", agent.log());
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_never_joined_with_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path();
    let [a1, a2, b, alone] = [next_address(), next_address(), next_address(), next_address()];
    let join = |addresses: &[&String]| -> Vec<String> {
        addresses.iter().map(|it| format!("-server-address={it}:8300")).collect()
    };
    let two = ["-bootstrap-expect=2".to_owned()].into_iter().chain(join(&[&a1, &a2])).collect::<Vec<_>>();
    let one = ["-bootstrap-expect=1".to_owned()];
    let mut of_a = [server(home, "a1", &a1, &two), server(home, "a2", &a2, &two)];
    let mut of_b = server(home, "b", &b, &one);
    let mut leads = server(home, "alone", &alone, &one);
    of_a.iter_mut().chain([&mut of_b, &mut leads]).for_each(Agent::start);
    for agent in [&of_a[0], &of_a[1], &of_b, &leads] {
        // A write, so that the cluster is known to be founded, and noted in the directory.
        let client = agent.client();
        eventually("it takes a write", START_LIMIT, || client.put_bytes("/v1/kv/own", &[], Bytes::from_static(b"1")))
            .await;
        let note = home.join(&agent.name).join("raft/server.meta");
        eventually("it notes its cluster", START_LIMIT, || async {
            let text = std::fs::read_to_string(&note).unwrap_or_default();
            if text.contains("cluster -") { Err(text) } else { Ok(()) }
        })
        .await;
    }
    of_a.iter_mut().for_each(Agent::kill);
    leads.terminate();

    // Without its own cluster's quorum it would have to ask the other for a place.
    let mut stray = server(home, "a1", &a1, &join(&[&b]));
    stray.start();
    // One that leads its own cluster goes on, and says what is wrong with its configuration.
    let mut leads = server(home, "alone", &alone, &join(&[&b]));
    leads.start();
    until_refused(&mut stray).await;
    for text in [stray.log(), eventually_logged(&leads, "belongs to the cluster").await] {
        assert!(text.contains(&format!("but the server at {b}:8300 belongs to the cluster")), "{text}");
        assert!(
            text.contains("give this server the addresses of its own cluster, or an empty data directory"),
            "{text}"
        );
    }
    leads.client().put_bytes("/v1/kv/own", &[], Bytes::from_static(b"2")).await.expect("it serves its cluster");
    let (raft, _) = of_b.client().get_json::<Value>("/v1/operator/raft/configuration", &[]).await.expect("its members");
    assert_eq!(raft["Servers"].as_array().map(Vec::len), Some(1), "the other cluster took it in: {raft}");

    // The same data under the seal key of another datacenter.
    of_b.terminate();
    std::fs::write(home.join("other.key"), [7; 32]).expect("a key");
    let other = format!("-hcl=seal_key_file = \"{}\"", home.join("other.key").display());
    let mut of_b = server(home, "b", &b, &[other]);
    of_b.start();
    until_refused(&mut of_b).await;
    let text = of_b.log();
    assert!(text.contains("this cluster's secrets are sealed with the key"), "{text}");
    assert!(text.contains("give every server of the datacenter the same seal_key_file"), "{text}");
}

/// Waits until the log holds `words`, and returns it.
async fn eventually_logged(agent: &Agent, words: &str) -> String {
    eventually("it is in the log", START_LIMIT, || async {
        let text = agent.log();
        if text.contains(words) { Ok(text) } else { Err(text) }
    })
    .await
}

const MANAGEMENT: &str = "3fc1a2a4-0000-4000-8000-000000000001";

fn refusal(answer: Result<Bytes, ClientError>) -> (u16, String) {
    match answer {
        Err(ClientError::Status { status, body }) => (status, body),
        other => panic!("this is no refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_running_agent_refuses_in_consuls_words_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let acl = format!(
        "-hcl=acl {{ enabled = true default_policy = \"deny\" tokens {{ initial_management = \"{MANAGEMENT}\" }} }}"
    );
    let mut agent = server(directory.path(), "s1", &next_address(), &["-bootstrap-expect=1".to_owned(), acl]);
    agent.start();
    let manager = agent.client_with(Some(MANAGEMENT));
    eventually("it takes a write", START_LIMIT, || manager.put_bytes("/v1/kv/a", &[], Bytes::from_static(b"one")))
        .await;
    let (anonymous, stranger) = (agent.client(), agent.client_with(Some("nobody's")));
    let put = async |client: &Client, path: &str, body: &str| {
        refusal(client.put_bytes(path, &[], Bytes::copy_from_slice(body.as_bytes())).await)
    };
    let missing = |permission: &str| {
        let explained = "The anonymous token is used implicitly when a request does not specify a token.";
        (403, format!("Permission denied: anonymous token lacks permission {permission}. {explained}"))
    };
    assert_eq!(put(&anonymous, "/v1/kv/a", "two").await, missing("'key:write' on \"a\""));
    let service = r#"{"Name":"web"}"#;
    assert_eq!(put(&anonymous, "/v1/agent/service/register", service).await, missing("'service:write' on \"web\""));
    assert_eq!(put(&stranger, "/v1/kv/a", "two").await, (403, "ACL not found".to_owned()));
    let (status, text) = put(&manager, "/v1/kv/a", &"x".repeat(600_000)).await;
    assert!(
        status == 413 && text.starts_with("Request body(600000 bytes) too large, max size: 524288 bytes."),
        "{text}"
    );
    let (status, text) = put(&manager, "/v1/agent/service/register", "{\"Name\":\"a\\u0001b\"}").await;
    assert_eq!((status, text.as_str()), (400, "a service name \"a\\u{1}b\" contains a control character"));
    let node = r#"{"Node":"bad\u0001node","Address":"192.0.2.1"}"#;
    let (status, text) = put(&manager, "/v1/catalog/register", node).await;
    assert!(status == 400 && text.contains("a node name \"bad\\u{1}node\" contains a control character"), "{text}");
    let (status, text) = put(&manager, "/v1/kv/a?dc=nowhere", "two").await;
    assert_eq!((status, text.as_str()), (500, "No path to datacenter"));

    let (value, _) = manager.get_bytes("/v1/kv/a", &[("raw", "")]).await.expect("the value");
    assert_eq!(&value[..], b"one", "a refused write left something");
    let (services, _) = manager.get_json::<Value>("/v1/agent/services", &[]).await.expect("the services");
    assert_eq!(services, serde_json::json!({}), "a refused registration left something");
    let (nodes, _) = manager.get_json::<Vec<Value>>("/v1/catalog/nodes", &[]).await.expect("the nodes");
    assert_eq!(nodes.len(), 1, "a refused registration left something: {nodes:?}");
}
