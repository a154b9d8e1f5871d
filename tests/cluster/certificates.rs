//! The certificates of all servers end while the cluster runs, and were replaced before.
//!
//! Fly.io, 22 October 2024: the certificates of a cluster ended, and for hours nobody could speak with anybody.

use std::path::Path;
use std::time::{Duration, SystemTime};

use lictor_identity::{ServerAuthority, ServerCertificateRequest};
use lictor_runtime::{Clock, SystemClock};
use lictor_tests::process::{START_LIMIT, next_address};
use lictor_tests::{Agent, eventually};

use crate::journal::{WRITERS, Writers};

/// What is left of the first certificate when the cluster starts: enough to start and to renew on a busy machine.
const LEFT: Duration = Duration::from_secs(30);
/// The shortest lifetime that a certificate is given.
const SHORTEST: Duration = Duration::from_secs(60);
/// For the servers to see new files, and for the old certificate to end.
const RENEWAL_LIMIT: Duration = Duration::from_secs(60);
/// For a server to come back, on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// Acknowledged writes between two steps.
const WRITES_BETWEEN: u64 = 100;

/// Puts a certificate and its key in place of those that are there. The key comes first: servers wait until both rest.
fn sign(authority: &ServerAuthority, directory: &Path, at: SystemTime, valid_for: Duration) {
    let request = ServerCertificateRequest { valid_for, ..ServerCertificateRequest::new("dc1", "consul") };
    let issued = authority.sign_server(&request, at).expect("a certificate");
    for (name, text) in [("key.pem", issued.key_pem.as_str()), ("cert.pem", &issued.chain_pem)] {
        let new = directory.join("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, directory.join(name)).expect("it takes the place of the old one");
    }
}

fn servers(directory: &Path) -> Vec<Agent> {
    let in_directory = |name: &str| directory.join(name).display().to_string();
    let [ca, cert, key, seal] = ["ca.pem", "cert.pem", "key.pem", "seal.key"].map(in_directory);
    let fragment = format!(
        "tls {{ defaults {{ ca_file = \"{ca}\" cert_file = \"{cert}\" key_file = \"{key}\" }} }}\n\
         seal_key_file = \"{seal}\""
    );
    let addresses: Vec<String> = (0..3).map(|_| next_address()).collect();
    let mut arguments = vec!["-server".to_owned(), "-bootstrap-expect=3".to_owned(), format!("-hcl={fragment}")];
    arguments.extend(addresses.iter().map(|address| format!("-server-address={address}:8300")));
    let server = |(number, address): (usize, &String)| {
        let name = format!("s{}", number + 1);
        let own = [&arguments[..], &[format!("-data-dir={}", in_directory(&name))]].concat();
        Agent::new(directory, &name, address.clone(), &own)
    };
    addresses.iter().enumerate().map(server).collect()
}

/// Fly.io, 22 October 2024: a certificate that nobody looked at was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_runs_across_the_end_of_its_certificates_without_a_failed_write() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path();
    let now = SystemClock.now();
    let authority = ServerAuthority::create("dc1", "consul", now - SHORTEST).expect("an authority");
    std::fs::write(place.join("ca.pem"), authority.certificate_pem()).expect("a file");
    std::fs::write(place.join("seal.key"), [7; 32]).expect("a file");
    let end = now + LEFT;
    sign(&authority, place, end - SHORTEST, SHORTEST);
    let mut servers = servers(place);
    servers.iter_mut().for_each(Agent::start);
    eventually("a leader", START_LIMIT, || servers[0].leader()).await;
    let writers = Writers::start(&servers[0].client());
    writers.journal.until_more(WRITES_BETWEEN).await;
    assert!(SystemClock.now() < end, "the machine is too slow: the first certificate has ended already");

    sign(&authority, place, now, Duration::from_secs(86_400));
    for server in &servers {
        eventually("a server has seen the new certificate", RENEWAL_LIMIT, || async {
            if server.log().contains("a new certificate is in force") { Ok(()) } else { Err(server.log_tail()) }
        })
        .await;
    }
    assert!(SystemClock.now() < end, "the machine is too slow: the certificate ended before it was replaced");
    eventually("the first certificate has ended", RENEWAL_LIMIT, || async {
        if SystemClock.now() > end { Ok(()) } else { Err("not yet") }
    })
    .await;
    writers.journal.until_more(WRITES_BETWEEN).await;

    // Whoever comes back makes new connections, with what the others have in memory.
    for number in [1, 2] {
        assert!(servers[number].terminate().success(), "it ends well");
        writers.journal.until_more(WRITES_BETWEEN).await;
        servers[number].start();
        let client = servers[number].client();
        eventually("the server has caught up", RETURN_LIMIT, || async {
            client.get_bytes("/v1/kv/writers/0/000000", &[("consistent", "")]).await.map_err(|error| error.to_string())
        })
        .await;
        writers.journal.until_more(WRITES_BETWEEN).await;
    }
    assert_eq!(writers.journal.failures(), Vec::<String>::new(), "no write fails");
    let acknowledged = writers.stop().await;
    println!(
        "summary: the certificates of 3 servers ended: {} writes by {WRITERS} writers, 0 failed",
        acknowledged.len()
    );
}
