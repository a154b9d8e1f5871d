//! What a cluster promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join_all;
use lictor_runtime::fs::{Crash, Fault, MemoryFs, RealFs};
use lictor_runtime::{PeerIdentity, SystemRng, Tasks};
use tokio::time::Instant;
use tokio_util::codec::FramedWrite;

use super::world::{Machine, Network, Node, leader_of, members, settings, three, until};
use crate::raft::wire::{self, Request};
use crate::raft::{
    Bug, Consensus, DataDirectory, Dependencies, Drive, Faults, MembershipError, ProposeError, ReadError, Role,
    RoleCounters, ServeError, Server, ServerId, Settings, codec,
};

fn texts(node: &Node) -> Vec<String> {
    node.held().into_iter().map(|envelope| String::from_utf8(envelope).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn three_servers_agree_on_one_order() {
    let (_network, nodes) = three(settings()).await;
    let before = nodes[0].consensus.status().last_log;
    let outcomes = join_all((0..500).map(|number| {
        let node = &nodes[0];
        async move { node.propose(&format!("write {number}")).await }
    }))
    .await;
    assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
    let entries = nodes[0].consensus.status().last_log - before;
    assert!(entries < 50, "who waits shares an entry, but 500 writes took {entries}");
    for node in &nodes {
        node.catch_up(&nodes[0]).await;
        assert_eq!(texts(node), texts(&nodes[0]));
    }
    assert_eq!(texts(&nodes[0]).len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_follower_says_who_leads() {
    let (_network, nodes) = three(settings()).await;
    let Err(ProposeError::NotLeader(Some(leader))) = nodes[1].propose("x").await else { panic!("it took the write") };
    assert_eq!((leader.id, leader.address), (nodes[0].id, nodes[0].server.address.clone()));
    assert_eq!(nodes[0].consensus.status().role, Role::Leader);
    assert_eq!(nodes[1].consensus.status().role, Role::Follower);
    assert_eq!(nodes[1].consensus.membership().voters.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lost_what_it_had_not_synced_comes_back() {
    let (_network, mut nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    nodes[2].kill().await;
    nodes[0].propose("meanwhile").await.unwrap();
    nodes[2] = nodes[2].restart().await;
    nodes[2].catch_up(&nodes[0]).await;
    assert_eq!(texts(&nodes[2]), ["before", "meanwhile"]);
}

/// openraft ee460f37: entries and votes were answered before they were durable.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_loss_of_power_everywhere() {
    let (_network, mut nodes) = three(settings()).await;
    for round in 0..3 {
        for write in 0..10 {
            nodes[0].propose(&format!("{round}.{write}")).await.unwrap();
        }
        for node in &nodes {
            node.kill().await;
        }
        for node in &mut nodes {
            *node = node.restart().await;
        }
        let leader = leader_of(&nodes).await;
        nodes.swap(0, leader);
        nodes[0].consensus.read_barrier().await.unwrap();
        assert_eq!(texts(&nodes[0]).len(), (round + 1) * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_dies_another_goes_on_within_two_seconds() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    nodes[0].kill().await;
    let died = Instant::now();
    let leader = nodes[1].leader_not(Some(nodes[0].id)).await;
    let next = nodes.iter().find(|node| node.id == leader.id).unwrap();
    until("the new leader to know", || next.consensus.is_leader()).await;
    next.propose("after").await.unwrap();
    assert!(died.elapsed() < Duration::from_millis(2_500), "{:?}", died.elapsed());
    assert_eq!(texts(next), ["before", "after"]);
    let back = nodes[0].restart().await;
    back.catch_up(next).await;
    assert_eq!(texts(&back), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_server_gets_a_snapshot_and_then_a_vote() {
    let settings = Settings { snapshot_entries: 40, kept_entries: 0, ..settings() };
    let (network, nodes) = three(settings.clone()).await;
    let leader = &nodes[0];
    for number in 0..400 {
        leader.propose(&format!("write {number} {}", "x".repeat(3_000))).await.unwrap();
    }
    until("a snapshot", || leader.consensus.status().snapshot > 300).await;
    let new = Node::start(&network, 9, MemoryFs::new(), settings).await;
    assert!(!new.consensus.is_initialized().await);
    leader.consensus.add_learner(new.id, new.server.clone()).await.unwrap();
    new.catch_up(leader).await;
    assert_eq!(texts(&new), texts(leader));
    assert!(new.consensus.status().snapshot > 300, "it came by a snapshot: {:?}", new.consensus.status());
    assert_eq!(new.consensus.membership().learners[0].id, new.id);
    leader.consensus.promote(BTreeSet::from([new.id])).await.unwrap();
    assert_eq!(leader.consensus.membership().voters.len(), 4);
    new.kill().await;
    let new = new.restart().await;
    assert_eq!(texts(&new)[..300], texts(leader)[..300], "a restart begins with the snapshot");
}

#[tokio::test(start_paused = true)]
async fn a_read_barrier_on_any_server_sees_every_earlier_write() {
    let (_network, nodes) = three(settings()).await;
    for number in 0..20 {
        nodes[0].propose(&format!("{number}")).await.unwrap();
        for node in &nodes {
            node.consensus.read_barrier().await.unwrap();
            assert_eq!(texts(node).len(), number + 1);
        }
    }
    until("the lease", || nodes[0].consensus.lease_valid()).await;
    nodes[0].consensus.lease_read().await.unwrap();
    assert!(!nodes[1].consensus.lease_valid());
    assert!(matches!(nodes[1].consensus.lease_read().await, Err(ReadError::NotLeader(Some(_)))));
    assert!(nodes[1].consensus.last_contact() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn the_leader_shows_no_less_than_what_it_told_others_to_be_committed() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    let leader = &nodes[0].consensus;
    until("the lease", || leader.lease_valid()).await;
    leader.lease_read().await.unwrap();
    // As if a follower had been told of the next entry, and its applier were quicker than the leader's own.
    leader.inner.links.told.store(leader.applied() + 1, std::sync::atomic::Ordering::SeqCst);
    let early = tokio::time::timeout(Duration::from_millis(50), leader.lease_read()).await;
    assert!(early.is_err(), "it answered before it had applied what others may have shown");
    let (read, written) = tokio::join!(leader.lease_read(), nodes[0].propose("next"));
    assert!(read.is_ok() && written.is_ok());
    assert_eq!(texts(&nodes[0]), ["before", "next"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_reads_and_writes_nothing() {
    let (network, nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    network.isolate(&nodes[0].server.address);
    let next = nodes[1].leader_not(Some(nodes[0].id)).await;
    // From the moment another can lead, the old one must not trust its lease.
    assert!(!nodes[0].consensus.lease_valid());
    assert!(nodes[0].consensus.read_barrier().await.is_err());
    assert!(nodes[0].propose("lost").await.is_err());
    let next = nodes.iter().find(|node| node.id == next.id).unwrap();
    until("the new leader to know", || next.consensus.is_leader()).await;
    next.propose("after").await.unwrap();
    network.heal();
    until("the old leader to follow", || nodes[0].consensus.status().role == Role::Follower).await;
    nodes[0].catch_up(next).await;
    assert_eq!(texts(&nodes[0]), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_cut_off_comes_back_without_an_election() {
    let (network, nodes) = three(settings()).await;
    let term = nodes[0].consensus.status().term;
    network.isolate(&nodes[2].server.address);
    tokio::time::sleep(Duration::from_secs(20)).await;
    nodes[0].propose("meanwhile").await.unwrap();
    network.heal();
    nodes[2].catch_up(&nodes[0]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in &nodes {
        assert_eq!(node.consensus.status().term, term, "it asked before it raised the term");
    }
    assert!(nodes[0].consensus.is_leader());
}

#[tokio::test(start_paused = true)]
async fn leadership_is_given_away_on_request() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    let began = Instant::now();
    nodes[0].consensus.transfer_leader(Some(nodes[1].id)).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(!nodes[0].consensus.lease_valid());
    until("the new leader to know", || nodes[1].consensus.is_leader()).await;
    nodes[1].propose("after").await.unwrap();
    assert!(matches!(nodes[0].consensus.transfer_leader(None).await, Err(MembershipError::NotLeader(_))));
}

#[tokio::test(start_paused = true)]
async fn members_go_and_the_leader_last() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].consensus.remove(nodes[2].id).await.unwrap();
    assert_eq!(nodes[0].consensus.membership().voters.len(), 2);
    assert!(matches!(nodes[0].consensus.remove(nodes[2].id).await, Err(MembershipError::Refused(_))));
    nodes[2].kill().await;
    nodes[0].consensus.remove(nodes[0].id).await.unwrap();
    nodes[1].leader_not(Some(nodes[0].id)).await;
    until("the new leader to know", || nodes[1].consensus.is_leader()).await;
    nodes[1].propose("alone").await.unwrap();
    assert_eq!(nodes[1].consensus.membership().voters.len(), 1);
}

/// openraft #1246: a cluster of one did not apply its log again.
#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_applies_its_log_again_after_a_restart() {
    let network = Network::default();
    let mut node = Node::start(&network, 1, MemoryFs::new(), settings()).await;
    node.consensus.initialize(members([&node])).await.unwrap();
    node.leader_not(None).await;
    for number in 0..30 {
        node.propose(&format!("{number}")).await.unwrap();
    }
    assert!(node.consensus.lease_valid());
    assert!(node.consensus.initialize(members([&node])).await.is_err());
    node.kill().await;
    node = node.restart().await;
    node.leader_not(None).await;
    node.consensus.read_barrier().await.unwrap();
    assert_eq!(texts(&node).len(), 30);
    assert!(node.consensus.is_initialized().await);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let network = Network::default();
    let node = Node::start(&network, 1, MemoryFs::new(), settings()).await;
    node.consensus.initialize(members([&node])).await.unwrap();
    node.leader_not(None).await;
    node.propose("first").await.unwrap();
    node.fs.set_capacity(Some(600 << 10));
    let mut refused = None;
    for number in 0..40 {
        if let Err(error) = node.propose(&format!("{number} {}", "x".repeat(20 << 10))).await {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(refused, Some(ProposeError::NoSpace));
    assert!(node.consensus.fatal().borrow().is_none());
    node.fs.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.propose("again").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_full_hands_the_lead_on_and_comes_back_when_there_is_room() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].propose("first").await.unwrap();
    nodes[0].fs.set_capacity(Some(600 << 10));
    for number in 0..200 {
        if nodes[0].propose(&format!("{number} {}", "x".repeat(20 << 10))).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    nodes[1].leader_not(Some(nodes[0].id)).await;
    let leader = if nodes[1].consensus.is_leader() { &nodes[1] } else { &nodes[2] };
    leader.propose("meanwhile").await.unwrap();
    // What it has applied it still serves to who takes stale answers.
    assert!(texts(&nodes[0]).contains(&"first".to_owned()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!nodes[0].consensus.is_leader() && nodes[0].consensus.fatal().borrow().is_none());
    nodes[0].fs.set_capacity(None);
    nodes[0].catch_up(leader).await;
    assert!(texts(&nodes[0]).contains(&"meanwhile".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_fatal_and_the_others_go_on() {
    let (_network, nodes) = three(settings()).await;
    nodes[0].propose("before").await.unwrap();
    nodes[0].fs.fail_from(0, Fault::Device);
    assert!(nodes[0].propose("doubtful").await.is_err());
    until("the failure to be told", || nodes[0].consensus.fatal().borrow().is_some()).await;
    assert!(matches!(nodes[0].propose("refused").await, Err(ProposeError::Fatal(_))));
    nodes[1].leader_not(Some(nodes[0].id)).await;
}

#[tokio::test(start_paused = true)]
async fn too_much_is_refused() {
    let settings = Settings { proposal_queue: 4, ..settings() };
    let (_network, nodes) = three(settings).await;
    let outcomes = join_all((0..100).map(|_| nodes[0].propose("x"))).await;
    assert!(outcomes.contains(&Err(ProposeError::Overloaded { limit: 4 })));
    assert!(outcomes.iter().any(Result::is_ok));
    let large = "x".repeat(1 << 20);
    assert!(matches!(nodes[0].propose(&large).await, Err(ProposeError::TooLarge { .. })));
}

#[tokio::test(start_paused = true)]
async fn only_servers_that_mean_this_one_are_served() {
    let (_network, nodes) = three(settings()).await;
    let (_near, far) = tokio::io::duplex(1024);
    let client = PeerIdentity::Client { node: "a".to_owned() };
    assert!(matches!(nodes[0].consensus.serve(&client, Box::new(far)).await, Err(ServeError::Refused(_))));
    let (near, far) = tokio::io::duplex(1024);
    drop(near);
    assert!(nodes[0].consensus.serve(&PeerIdentity::Server, Box::new(far)).await.is_ok());
    let (_near, far) = tokio::io::duplex(1024);
    let silent = nodes[0].consensus.serve(&PeerIdentity::Server, Box::new(far)).await;
    assert!(matches!(silent, Err(ServeError::TooSlow(_))), "{silent:?}");
}

/// What a server answers to a hello.
async fn greet(node: &Node, to: ServerId, version: u32) -> Result<(), ServeError> {
    let (near, far) = tokio::io::duplex(1024);
    let hello = Request::Hello { version, from: [5; 16].into(), to: to.0.into(), cluster: Some("other".to_owned()) };
    let mut sink = FramedWrite::new(near, wire::framing());
    sink.send(Bytes::from(codec::encode(&hello))).await.unwrap();
    drop(sink);
    node.consensus.serve(&PeerIdentity::Server, Box::new(far)).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_another_server_version_or_cluster_is_refused() {
    let (_network, nodes) = three(settings()).await;
    greet(&nodes[0], nodes[0].id, wire::VERSION).await.unwrap();
    assert!(matches!(greet(&nodes[0], nodes[1].id, wire::VERSION).await, Err(ServeError::Refused(_))));
    assert!(matches!(greet(&nodes[0], nodes[0].id, wire::VERSION + 1).await, Err(ServeError::Refused(_))));
    nodes[0].directory.set_cluster_id("ours").unwrap();
    assert!(matches!(greet(&nodes[0], nodes[0].id, wire::VERSION).await, Err(ServeError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_and_real_files_do_the_same() {
    let path = std::env::temp_dir().join(format!("lictor-consensus-{}", std::process::id()));
    let settings = Settings { snapshot_entries: 100, drive: Drive::Threads, ..settings() };
    for round in 0..2 {
        let machine = Arc::new(Machine::default());
        let directory = DataDirectory::open(Arc::new(RealFs), &path, &SystemRng).unwrap();
        let id = directory.server_id();
        let dependencies = Dependencies {
            directory: Arc::new(directory),
            transport: Network::default().transport("alone"),
            machine: machine.clone(),
            tasks: Tasks::new(),
            roles: RoleCounters::default(),
        };
        let consensus = Consensus::start(settings.clone(), dependencies).await.unwrap();
        if round == 0 {
            let server = Server { name: "alone".to_owned(), address: "alone:8300".to_owned() };
            consensus.initialize(BTreeMap::from([(id, server)])).await.unwrap();
        }
        consensus.leader().wait_for(Option::is_some).await.unwrap();
        for _ in 0..40 {
            let outcomes = join_all((0..50).map(|_| consensus.propose(b"write".to_vec()))).await;
            assert!(outcomes.iter().all(Result::is_ok));
        }
        consensus.read_barrier().await.unwrap();
        assert_eq!(machine.0.lock().len(), (round + 1) * 2_000);
        consensus.shutdown().await;
    }
    std::fs::remove_dir_all(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn planted_bugs_show() {
    let faults = Faults::planted(Bug::AckBeforeFsync);
    let (_network, mut nodes) = three(Settings { faults, ..settings() }).await;
    nodes[0].propose("acknowledged").await.unwrap();
    for node in &nodes {
        node.kill().await;
    }
    nodes[0] = nodes[0].restart().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(texts(&nodes[0]).is_empty(), "it was never synced");

    let faults = Faults::planted(Bug::ReadWithoutQuorum);
    let (network, nodes) = three(Settings { faults, ..settings() }).await;
    network.isolate(&nodes[0].server.address);
    assert!(nodes[0].consensus.read_barrier().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn servers_survive_disks_torn_at_random() {
    for seed in 0..6 {
        let rng = lictor_runtime::SeededRng::new(seed);
        let settings = Settings { snapshot_entries: 30, kept_entries: 10, ..settings() };
        let (_network, mut nodes) = three(settings).await;
        let mut acknowledged = 0;
        for round in 0..4 {
            let outcomes = join_all((0..60).map(|number| {
                let node = &nodes[0];
                async move {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                    node.propose(&format!("{round}.{number}")).await
                }
            }))
            .await;
            acknowledged += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            for node in &nodes {
                node.fs.crash(Crash::Random(&rng));
                node.kill().await;
            }
            for node in &mut nodes {
                *node = node.restart().await;
            }
            let leader = leader_of(&nodes).await;
            nodes.swap(0, leader);
            nodes[0].consensus.read_barrier().await.unwrap();
            assert!(texts(&nodes[0]).len() >= acknowledged, "seed {seed}, round {round}");
        }
        nodes[1].catch_up(&nodes[0]).await;
        assert_eq!(texts(&nodes[1]), texts(&nodes[0]), "seed {seed}");
        for node in &nodes {
            node.kill().await;
        }
    }
}
