//! Instructions per operation, counted by callgrind in a real server: a change that makes one dearer does not pass unseen.
//!
//! A count of instructions, unlike a time, is nearly the same on a busy machine and on an idle one. A server runs under
//! valgrind twice, with few operations of a kind and with many; the difference belongs to the operations. It is the tests'
//! build, so a count says how one build compares with the next, not what a release build takes.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use lictor_client::Client;
use lictor_tests::process::next_address;
use lictor_tests::{Agent, eventually};

/// Operations of every kind in every run: first ones cost more than later ones.
const FEW: u64 = 30;
/// Operations of the kind that is counted.
const MANY: u64 = 330;
/// Valgrind makes a program some fifty times slower.
const START_LIMIT: Duration = Duration::from_secs(180);
/// Instances of the service that is read.
const INSTANCES: usize = 100;
/// Questions in one count of DNS: a single answer is less than what the server does beside.
const QUESTIONS: u64 = 50;
/// How long a DNS answer may take.
const DNS_LIMIT: Duration = Duration::from_secs(30);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
    HealthRead,
    DnsAnswer,
}

impl Operation {
    /// How many of them one turn is.
    fn in_a_turn(self) -> u64 {
        if self == Self::DnsAnswer { QUESTIONS } else { 1 }
    }
}

/// The most instructions that one may take: a quarter above what was measured when the figure was set, since what the server
/// does beside, by the clock, counts too. Who makes one cheaper lowers its figure; who has a reason to make one dearer says
/// it in the commit that raises it.
const BUDGETS: [(Operation, u64); 4] = [
    (Operation::Put, 2_000_000),
    (Operation::Get, 670_000),
    (Operation::HealthRead, 640_000),
    (Operation::DnsAnswer, 430_000),
];

/// A server that runs under callgrind.
struct Counted {
    agent: Agent,
    client: Client,
    dns: UdpSocket,
    _directory: tempfile::TempDir,
    counts: std::path::PathBuf,
}

impl Counted {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let counts = directory.path().join("counts");
        let data = format!("-data-dir={}", directory.path().join("data").display());
        let arguments = ["-server".to_owned(), "-bootstrap-expect=1".to_owned(), data];
        let address = next_address();
        let mut agent = Agent::new(directory.path(), "s1", address.clone(), &arguments);
        agent.run_by(&["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={}", counts.display())]);
        agent.start();
        eventually("the server leads", START_LIMIT, || agent.leader()).await;
        let dns = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        dns.set_read_timeout(Some(DNS_LIMIT)).expect("a limit");
        dns.connect((address.as_str(), 8600)).expect("an address");
        let client = agent.client();
        let counted = Self { agent, client, dns, _directory: directory, counts };
        counted.register_instances().await;
        counted
    }

    async fn register_instances(&self) {
        for number in 0..INSTANCES {
            let node = format!("10.0.0.{number}");
            let body = serde_json::json!({
                "Node": format!("n{number}"),
                "Address": node,
                "Service": { "Service": "web", "ID": "web", "Port": 80, "Tags": ["v1"] },
                "Check": { "CheckID": "service:web", "ServiceID": "web", "Name": "alive", "Status": "passing" },
            });
            self.client.put_json::<_, bool>("/v1/catalog/register", &[], &body).await.expect("a registration");
        }
    }

    async fn run(&self, operation: Operation, times: u64) {
        for number in 0..times {
            match operation {
                Operation::Put => {
                    let path = format!("/v1/kv/key/{number}");
                    self.client.put_json::<_, bool>(&path, &[], &"x".repeat(256)).await.map(drop).expect("a write");
                }
                Operation::Get => {
                    let (entries, _) = self
                        .client
                        .get_json::<serde_json::Value>("/v1/kv/key/0", &[])
                        .await
                        .expect("the key that was written first");
                    assert_eq!(entries[0]["Key"], "key/0");
                }
                Operation::HealthRead => {
                    let (rows, _) = self
                        .client
                        .get_json::<Vec<serde_json::Value>>("/v1/health/service/web", &[])
                        .await
                        .expect("the instances");
                    assert_eq!(rows.len(), INSTANCES);
                }
                Operation::DnsAnswer => (0..QUESTIONS).for_each(|_| self.ask_dns()),
            }
        }
    }

    /// Asks for the addresses of the service.
    fn ask_dns(&self) {
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["web", "service", "consul"] {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        self.dns.send(&question).expect("a question");
        let mut answer = [0; 4096];
        let length = self.dns.recv(&mut answer).expect("an answer");
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        assert!(length > question.len() && answers > 0, "a DNS answer with addresses");
    }

    /// Ends the server; how many instructions it took.
    fn end(mut self) -> u64 {
        self.agent.terminate();
        collected(&self.counts)
    }
}

/// The total in a file of callgrind's.
fn collected(counts: &Path) -> u64 {
    let text = std::fs::read_to_string(counts).expect("callgrind wrote its counts");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    total.and_then(|it| it.split_whitespace().next()?.parse().ok()).expect("a total in callgrind's file")
}

/// The instructions of a run with `MANY` of one kind and `FEW` of the others.
async fn instructions(many: Option<Operation>) -> u64 {
    let server = Counted::start().await;
    for (operation, _) in BUDGETS {
        server.run(operation, if many == Some(operation) { MANY } else { FEW }).await;
    }
    server.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_takes_more_instructions_than_its_budget() {
    let base = instructions(None).await;
    let mut dear = Vec::new();
    for (operation, budget) in BUDGETS {
        let each = instructions(Some(operation)).await.saturating_sub(base) / ((MANY - FEW) * operation.in_a_turn());
        println!("summary: {operation:?}: {each} instructions, at most {budget}");
        if each > budget {
            dear.push(format!("{operation:?} takes {each} instructions, {budget} are allowed"));
        }
    }
    assert!(dear.is_empty(), "{}", dear.join("; "));
}
