//! What DNS tells is what the catalog holds: an instance that was deregistered is never handed out after the answer, and one that was
//! registered always is, however many ask and whatever is kept for them.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lictor_client::Client;
use lictor_tests::TestCluster;
use serde_json::json;

/// Times that the instance comes and goes, at each agent.
const TIMES: u32 = 60;
/// Questions after each time.
const QUESTIONS: usize = 8;
/// For one answer, on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Asks one agent.
struct Asker(UdpSocket);

impl Asker {
    fn of(address: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(ANSWER_LIMIT)).expect("a limit");
        socket.connect((address, 8600)).expect("an address");
        Self(socket)
    }

    /// The last bytes of the addresses of a service.
    fn instances(&self, service: &str, id: u16) -> Vec<u8> {
        let mut question = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]].concat();
        for label in [service, "service", "consul"] {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        let answers_begin = question.len();
        // EDNS with room for all of them.
        question.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        self.0.send(&question).expect("a question");
        let mut answer = [0; 4096];
        let length = self.0.recv(&mut answer).expect("an answer");
        assert_eq!(answer[..2], question[..2], "an answer to another question");
        let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
        assert!(length >= answers_begin + count * 16);
        // A pointer to the name, type, class, time to live, length and the four bytes of an address.
        (0..count).map(|at| answer[answers_begin + at * 16 + 15]).collect()
    }
}

async fn comes(client: &Client) {
    let service = json!({"Service": "door", "ID": "door-2", "Address": "10.0.0.2", "Port": 1});
    let body = json!({"Node": "outside", "Address": "10.9.9.9", "Service": service});
    client.put_json::<_, bool>("/v1/catalog/register", &[], &body).await.expect("a registration");
}

async fn goes(client: &Client) {
    let body = json!({"Node": "outside", "ServiceID": "door-2"});
    client.put_json::<_, bool>("/v1/catalog/deregister", &[], &body).await.expect("a deregistration");
}

/// One instance stays, another comes and goes, while others ask without a pause and other things are written.
async fn comes_and_goes(address: &str, client: &Client) -> u64 {
    let service = json!({"Service": "door", "ID": "door-1", "Address": "10.0.0.1", "Port": 1});
    let body = json!({"Node": "outside", "Address": "10.9.9.9", "Service": service});
    client.put_json::<_, bool>("/v1/catalog/register", &[], &body).await.expect("a registration");
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let crowd: Vec<_> = (0..2)
        .map(|number| {
            let (asker, done, asked) = (Asker::of(address), done.clone(), asked.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let seen = asker.instances(["door", "nobody"][number], 7);
                    assert!(number == 1 || seen.contains(&1), "the instance that stays is not there");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let asker = Asker::of(address);
    for turn in 0..TIMES {
        comes(client).await;
        for question in 0..QUESTIONS {
            let mut seen = asker.instances("door", question as u16);
            seen.sort_unstable();
            assert_eq!(seen, [1, 2], "turn {turn}: an instance that is registered is not told");
        }
        client.put_json::<_, bool>(&format!("/v1/kv/beside/{turn}"), &[], &turn).await.expect("a write");
        goes(client).await;
        for question in 0..QUESTIONS {
            assert_eq!(asker.instances("door", question as u16), [1], "turn {turn}: an instance that is gone is told");
        }
    }
    done.store(true, Ordering::Relaxed);
    crowd.into_iter().for_each(|asker| asker.join().expect("no asker missed the one that stays"));
    asked.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_leads_to_what_is_gone_and_every_name_to_what_is_there() {
    // A client agent that takes no answer of a server that may be behind, so that the promise holds there as well.
    let cluster = TestCluster::start_with(3, &["-hcl=dns_config { allow_stale = false }".to_owned()]).await;
    let at_client = comes_and_goes(&cluster.client.address, &cluster.client.client()).await;
    let leader = &cluster.servers[cluster.leader().await];
    let at_leader = comes_and_goes(&leader.address, &leader.client()).await;
    drop(cluster);
    // A leader that keeps answers.
    let cluster = TestCluster::start(3).await;
    let leader = &cluster.servers[cluster.leader().await];
    let kept = comes_and_goes(&leader.address, &leader.client()).await;
    println!(
        "\nsummary: DNS told the catalog's truth {TIMES} times each at a client agent, a leader and a leader that keeps \
         answers, under {at_client}, {at_leader} and {kept} other questions"
    );
}
