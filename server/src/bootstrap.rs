//! The birth of a cluster, and how a server with an empty log finds one.
//!
//! It asks all its join addresses. If any is part of a cluster, it joins that as a learner. If exactly `bootstrap_expect`
//! servers, itself among them, all report the same set and none is part of a cluster, the one with the smallest id
//! initializes that set, once. A server that has a log never comes here: it goes on with its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lictor_types::rpc::{Credential, Operation, Probe, Report, Request, RequestBody, Response, ServerAddress};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;
use crate::membership;
use crate::raft::InitializeError;

/// Between two rounds of asking.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);
/// How long one server may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// A join address may fail for so long before people are told why: servers of a cluster do not start in the same moment.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// Between two words about an address that fails as it did before.
const WORD_INTERVAL: Duration = Duration::from_secs(60);
/// After this many rounds without a cluster, people are told what is waited for.
const ROUNDS_BEFORE_WORD: u32 = 50;

/// What to do after a round of asking.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Ask this cluster to take us as a learner.
    Join(String),
    /// Begin a cluster of these.
    Initialize(Vec<ServerAddress>),
    /// Ask again.
    Wait,
}

/// Why join addresses do not answer, told once for each reason and now and then.
#[derive(Default)]
struct Complaints(BTreeMap<String, Complaint>);

struct Complaint {
    since: Instant,
    told: Option<(String, Instant)>,
}

impl Complaints {
    /// Notes how an address answered; whether people must be told of it.
    fn note(&mut self, address: &str, failure: Option<&str>, now: Instant) -> bool {
        let Some(failure) = failure else {
            self.0.remove(address);
            return false;
        };
        let complaint = self.0.entry(address.to_owned()).or_insert(Complaint { since: now, told: None });
        let is_old = complaint
            .told
            .as_ref()
            .is_some_and(|(text, at)| text == failure && now.duration_since(*at) < WORD_INTERVAL);
        if is_old || now.duration_since(complaint.since) < SILENT_FOR {
            return false;
        }
        complaint.told = Some((failure.to_owned(), now));
        true
    }
}

/// Finds or begins a cluster; returns when this server is part of one.
pub async fn find_cluster(
    datacenter: Arc<ServerDatacenter>,
    join: Vec<String>,
    expect: u32,
    probe: watch::Sender<Probe>,
) {
    let mut round = 0u32;
    let mut complaints = Complaints::default();
    while !datacenter.is_member() {
        let answers = ask_all(&datacenter, &join, &mut complaints).await;
        let own = probe.borrow().clone();
        let mut found: BTreeMap<String, ServerAddress> = BTreeMap::from([(own.server.id.clone(), own.server.clone())]);
        found.extend(answers.iter().map(|(_, it)| (it.server.id.clone(), it.server.clone())));
        let found: Vec<ServerAddress> = found.into_values().collect();
        probe.send_modify(|probe| probe.found.clone_from(&found));
        match decide(&own.server, &found, &answers, expect) {
            Step::Join(address) => ask_to_join(&datacenter, &address, own.server).await,
            Step::Initialize(servers) => {
                tracing::info!(servers = servers.len(), "beginning a new cluster");
                if let Err(error) = initialize(&datacenter, &servers).await {
                    tracing::warn!(%error, "could not begin a cluster");
                }
            }
            Step::Wait => {}
        }
        round += 1;
        if round.is_multiple_of(ROUNDS_BEFORE_WORD) {
            let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
            tracing::info!(?names, expect, "waiting for the other servers before a cluster can begin");
        }
        tokio::time::sleep(ROUND_INTERVAL).await;
    }
    probe.send_modify(|probe| probe.initialized = true);
}

async fn initialize(datacenter: &ServerDatacenter, servers: &[ServerAddress]) -> Result<(), String> {
    let members = servers.iter().map(membership::raft_server).collect::<Result<BTreeMap<_, _>, _>>();
    let members = members.map_err(|refusal| refusal.to_string())?;
    match datacenter.consensus.initialize(members).await {
        // A round may begin before raft tells what the one before it did.
        Ok(()) | Err(InitializeError::AlreadyInitialized) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn decide(own: &ServerAddress, found: &[ServerAddress], answers: &[(String, Probe)], expect: u32) -> Step {
    if let Some((address, _)) = answers.iter().find(|(_, it)| it.initialized && it.server.id != own.id) {
        return Step::Join(address.clone());
    }
    let all_agree = answers
        .iter()
        .filter(|(_, it)| it.server.id != own.id)
        .all(|(_, it)| it.found == found && it.bootstrap_expect == expect);
    let smallest = found.iter().map(|it| &it.id).min() == Some(&own.id);
    if expect > 0 && found.len() == expect as usize && all_agree && smallest {
        return Step::Initialize(found.to_vec());
    }
    Step::Wait
}

async fn ask_all(datacenter: &ServerDatacenter, join: &[String], complaints: &mut Complaints) -> Vec<(String, Probe)> {
    let asked = join.iter().map(|address| async move {
        let request = Request {
            credential: Credential::anonymous(),
            body: RequestBody::Operate(Operation::Probe),
            forwarded: true,
        };
        match datacenter.peers.call(address, request, PROBE_LIMIT).await {
            Ok(Response::Report(Report::Probe(probe))) => (address, Ok(probe)),
            Ok(Response::Refused(refusal)) => (address, Err(refusal.text)),
            Ok(other) => (address, Err(other.unexpected().text)),
            Err(error) => (address, Err(error.to_string())),
        }
    });
    let mut answers = Vec::new();
    for (address, answer) in join_all(asked).await {
        let failure = answer.as_ref().err();
        if complaints.note(address, failure.map(String::as_str), Instant::now()) {
            let reason = failure.map(String::as_str).unwrap_or_default();
            tracing::warn!(%address, reason, "a join address does not answer; trying again, but silently");
        }
        answers.extend(answer.ok().map(|probe| (address.clone(), probe)));
    }
    answers
}

pub(crate) async fn ask_to_join(datacenter: &ServerDatacenter, address: &str, own: ServerAddress) {
    let request = Request {
        credential: Credential::anonymous(),
        body: RequestBody::Operate(Operation::JoinServer(own)),
        forwarded: false,
    };
    match datacenter.peers.call(address, request, PROBE_LIMIT).await {
        Ok(Response::Refused(refusal)) => {
            tracing::warn!(%address, %refusal, "the cluster does not take this server yet")
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%address, %error, "could not ask to join"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str) -> ServerAddress {
        ServerAddress { id: id.into(), name: id.parse().unwrap(), address: format!("{id}:8300") }
    }

    fn probe(id: &str, found: &[&str], initialized: bool) -> (String, Probe) {
        let probe = Probe {
            server: server(id),
            cluster_id: None,
            bootstrap_expect: 3,
            found: found.iter().map(|it| server(it)).collect(),
            initialized,
        };
        (format!("{id}:8300"), probe)
    }

    fn three() -> Vec<ServerAddress> {
        ["a", "b", "c"].map(server).to_vec()
    }

    #[test]
    fn the_smallest_begins_when_all_report_the_same_set() {
        let answers = [probe("b", &["a", "b", "c"], false), probe("c", &["a", "b", "c"], false)];
        assert_eq!(decide(&server("a"), &three(), &answers, 3), Step::Initialize(three()));
        let answers = [probe("a", &["a", "b", "c"], false), probe("c", &["a", "b", "c"], false)];
        assert_eq!(decide(&server("b"), &three(), &answers, 3), Step::Wait);
    }

    #[test]
    fn nobody_begins_while_the_sets_differ_or_are_incomplete() {
        let answers = [probe("b", &["a", "b"], false), probe("c", &["a", "b", "c"], false)];
        assert_eq!(decide(&server("a"), &three(), &answers, 3), Step::Wait);
        let answers = [probe("b", &["a", "b"], false)];
        assert_eq!(decide(&server("a"), &three()[..2], &answers, 3), Step::Wait);
        let four: Vec<_> = ["a", "b", "c", "d"].map(server).to_vec();
        assert_eq!(decide(&server("a"), &four, &[], 3), Step::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn people_are_told_once_why_an_address_fails_and_again_when_it_fails_otherwise() {
        let mut complaints = Complaints::default();
        let mut fails = |failure: Option<&str>| complaints.note("a:8300", failure, Instant::now());
        assert!(!fails(Some("refused")), "it may start later than we do");
        tokio::time::advance(SILENT_FOR).await;
        assert!(fails(Some("refused")) && !fails(Some("refused")));
        assert!(fails(Some("TLS with a:8300: UnknownIssuer")) && !fails(Some("TLS with a:8300: UnknownIssuer")));
        tokio::time::advance(WORD_INTERVAL).await;
        assert!(fails(Some("TLS with a:8300: UnknownIssuer")), "it is not forgotten");
        assert!(!fails(None) && !fails(Some("refused")), "an answer in between begins anew");
    }

    #[test]
    fn a_cluster_that_is_there_is_joined_and_never_begun_again() {
        let answers = [probe("b", &["a", "b", "c"], true), probe("c", &["a", "b", "c"], false)];
        assert_eq!(decide(&server("a"), &three(), &answers, 3), Step::Join("b:8300".into()));
    }
}
