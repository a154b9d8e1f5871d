//! A process that has no file descriptor left turns connections away and says so, keeps what it has, and goes on when there are
//! some again.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_tests::process::START_LIMIT;
use lictor_tests::{Agent, TestCluster, eventually};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Descriptors that the server has beyond those it holds.
const LEFT: u64 = 20;
/// Connections that then come.
const CONNECTIONS: usize = 60;
/// For so long there is none: many times the longest election timeout.
const SHORTAGE: Duration = Duration::from_secs(6);
/// Questions of #807.
const QUESTIONS: u16 = 3_000;
/// What an agent may hold for names of other domains, and for itself: below the usual limit of a process, which is 1,024.
const DESCRIPTORS_MAX: usize = 900;
/// All questions are answered or given up within this.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// What the agent says of the first question that comes back.
const CAME_BACK: &str = "came back here: recursors must not name this agent";

fn descriptors(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.process_id())).expect("a process").count()
}

fn limit(agent: &Agent, current: Option<u64>) -> Option<u64> {
    let process = Pid::from_raw(agent.process_id() as i32).expect("a process");
    let before = rustix::process::getrlimit(Resource::Nofile);
    prlimit(Some(process), Resource::Nofile, Rlimit { current, maximum: before.maximum }).expect("its limit").current
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_file_descriptors_turns_connections_away_and_keeps_the_lead() {
    let cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let (server, follower) = (&cluster.servers[leader], &cluster.servers[(leader + 1) % 3]);
    let client = follower.client();
    client.put_bytes("/v1/kv/before", &[], Bytes::from("1")).await.expect("a write");
    let before = limit(server, Some(descriptors(server) as u64 + LEFT));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect((server.address.as_str(), 8500)).await.expect("a place in the queue");
        let ask = "GET /v1/kv/never?index=9999999&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.expect("a request");
        held.push(stream);
    }
    eventually("the server says that it cannot accept", START_LIMIT, || async {
        let log = server.log();
        let says = log.lines().any(|line| line.contains("cannot accept an HTTP connection") && line.contains("24"));
        if says { Ok(()) } else { Err(server.log_tail()) }
    })
    .await;
    let begun = Instant::now();
    let mut written = 0u64;
    while begun.elapsed() < SHORTAGE {
        written += 1;
        let done = client.put_bytes("/v1/kv/meanwhile", &[], Bytes::from(written.to_string())).await;
        done.unwrap_or_else(|error| panic!("write {written} after {:?}: {error}", begun.elapsed()));
    }
    assert_eq!(cluster.leader().await, leader, "another server leads");
    let (read, _) = client.get_bytes("/v1/kv/meanwhile", &[("raw", ""), ("consistent", "")]).await.expect("a read");
    assert_eq!(read, written.to_string(), "what was acknowledged is read");
    let lines = server.log().lines().filter(|line| line.contains("cannot accept an HTTP connection")).count();
    assert!(lines < 200, "it said so {lines} times");
    drop(held);
    eventually("the server takes connections again", START_LIMIT, || async {
        let read = server.client().get_bytes("/v1/kv/meanwhile", &[("raw", "")]).await;
        read.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    limit(server, before);
    println!("summary: {written} writes while the leader had no file descriptor left, said in {lines} lines");
}

/// A question for the address of a name of another domain.
fn question(id: u16) -> Vec<u8> {
    let mut question = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in [format!("name-{id}").as_str(), "example", "com"] {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    question
}

/// Consul #807: the agent is its own recursor, so every question comes back as another, and each took a descriptor until there
/// was none left for anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_807_a_recursor_that_leads_back_here_takes_no_descriptor_without_limit() {
    let mut cluster = TestCluster::start(1).await;
    let address = lictor_tests::process::next_address();
    let arguments = [
        format!("-data-dir={}", cluster.directory.path().join("looped").display()),
        format!("-server-address={}:8300", cluster.servers[0].address),
        format!("-recursor={address}:8600"),
    ];
    let mut looped = Agent::new(cluster.directory.path(), "looped", address, &arguments);
    looped.start();
    eventually("the agent knows a leader", START_LIMIT, || looped.leader()).await;
    let before = descriptors(&looped);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect((looped.address.as_str(), 8600)).expect("an address");
    let mut most = before;
    for id in 0..QUESTIONS {
        // The queue of the socket may be full: then it is as well.
        let _either = socket.send(&question(id));
        if id % 50 == 0 {
            most = most.max(descriptors(&looped));
        }
    }
    let begun = Instant::now();
    loop {
        let now = descriptors(&looped);
        most = most.max(now);
        if now <= before + 16 && looped.log().contains(CAME_BACK) {
            break;
        }
        assert!(begun.elapsed() < GIVEN_UP, "{now} descriptors after {GIVEN_UP:?}, {before} before");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(most < DESCRIPTORS_MAX, "it held {most} descriptors");
    // Everything else goes on.
    looped.client().get_bytes("/v1/status/leader", &[]).await.expect("an answer");
    println!("summary: an agent that is its own recursor held {most} descriptors at most, {before} before");
    looped.terminate();
    cluster.servers[0].kill();
}
