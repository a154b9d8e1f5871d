//! What went wrong with others, and with the library before this release of it: each a test, named for where it happened.
//! `docs/regressions.md` lists them all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lictor_runtime::fs::{Crash, Fs, MemoryFs, Open};
use lictor_runtime::{Rng as _, SeededRng, Tasks};
use tokio::time::{Instant, sleep, timeout};

use super::world::{Machine, Network, Node, leader_of, members, settings, three, until};
use crate::raft::log::{Log, LogFaults};
use crate::raft::{Consensus, DataDirectory, Dependencies, RoleCounters, Settings};

/// Longer than any call may take: the deadline of consensus, twice.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

async fn five(settings: Settings) -> (Network, Vec<Node>) {
    crate::raft::seed_randomness(5);
    let network = Network::default();
    let mut nodes = Vec::new();
    for seed in 1..=5 {
        nodes.push(Node::start(&network, seed, MemoryFs::new(), settings.clone()).await);
    }
    nodes[0].consensus.initialize(members(&nodes)).await.unwrap();
    leader_of(&nodes).await;
    (network, nodes)
}

/// Whether a disk would still hold an entry with this text if the power went now.
fn holds(node: &Node, text: &str) -> bool {
    let fs = node.fs.copy();
    fs.crash(Crash::DropUnsynced);
    let opened = Log::open(Arc::new(fs), &node.directory.log(), settings().log, LogFaults::default());
    let entries = opened.unwrap().0.read(0, u64::MAX, usize::MAX).unwrap();
    entries.iter().any(|(_, body)| body.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// openraft #1802: with five voters an entry that two of them held counted as committed.
#[tokio::test(start_paused = true)]
async fn openraft_1802_what_is_acknowledged_is_durable_on_a_quorum_of_five() {
    let (network, nodes) = five(settings()).await;
    let rng = SeededRng::new(1802);
    let mut acknowledged = 0;
    for round in 0..40 {
        // Up to two are cut off, the leader perhaps among them; they hold different parts of the log.
        for _ in 0..rng.below(3) {
            network.isolate(&nodes[rng.below(5) as usize].server.address);
        }
        for number in 0..4 {
            let text = format!("<round {round}, write {number}>");
            let Some(leader) = nodes.iter().find(|node| node.consensus.is_leader()) else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            if let Ok(Ok(_)) = timeout(Duration::from_millis(400), leader.propose(&text)).await {
                acknowledged += 1;
                let holders = nodes.iter().filter(|node| holds(node, &text)).count();
                assert!(holders >= 3, "{text} was acknowledged, and {holders} of 5 hold it");
            }
        }
        network.heal();
        sleep(Duration::from_millis(rng.below(1_500))).await;
    }
    assert!(acknowledged > 40, "only {acknowledged} writes were acknowledged");
}

/// openraft 97d92771: a restarted server counted as recovered before it had applied its log.
#[tokio::test(start_paused = true)]
async fn openraft_97d92771_a_restarted_server_reads_nothing_before_it_has_applied_all_it_acknowledged() {
    let network = Network::default();
    let mut node = Node::start(&network, 1, MemoryFs::new(), settings()).await;
    node.consensus.initialize(members([&node])).await.unwrap();
    node.leader_not(None).await;
    for round in 1..=5 {
        for number in 0..40 {
            node.propose(&format!("{round}.{number}")).await.unwrap();
        }
        node.kill().await;
        node = node.restart().await;
        let begun = Instant::now();
        while node.consensus.lease_read().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(node.held().len(), round * 40, "a read was let through before the log was applied");
    }
}

/// openraft #1761: proposals were never answered when the leader became a follower that installed a snapshot.
#[tokio::test(start_paused = true)]
async fn openraft_1761_every_proposal_is_answered_when_the_lead_is_lost_to_a_snapshot() {
    let settings = Settings { snapshot_entries: 20, kept_entries: 0, ..settings() };
    let (network, nodes) = three(settings).await;
    for number in 0..50 {
        nodes[0].propose(&format!("before {number}")).await.unwrap();
    }
    network.isolate(&nodes[0].server.address);
    let stranded = join_all((0..200).map(|number| {
        let node = &nodes[0];
        async move { timeout(ANSWER_LIMIT, node.propose(&format!("stranded {number}"))).await.is_ok() }
    }));
    let meanwhile = async {
        let next = nodes[1].leader_not(Some(nodes[0].id)).await;
        let next = nodes.iter().find(|node| node.id == next.id).unwrap();
        until("the new leader to know", || next.consensus.is_leader()).await;
        for number in 0..100 {
            next.propose(&format!("after {number}")).await.unwrap();
        }
        network.heal();
        next
    };
    let (answered, next) = tokio::join!(stranded, meanwhile);
    assert!(answered.into_iter().all(|it| it), "a proposal was never answered");
    nodes[0].catch_up(next).await;
    assert!(nodes[0].consensus.status().snapshot > 0 && nodes[0].consensus.fatal().borrow().is_none());
    next.propose("at last").await.unwrap();
    nodes[0].catch_up(next).await;
    assert_eq!(nodes[0].held(), next.held());
}

/// openraft #1795: a leader that could not read its log sent entries as if nothing preceded them.
#[tokio::test(start_paused = true)]
async fn openraft_1795_a_leader_that_cannot_read_its_log_sends_nothing_wrong() {
    let (network, nodes) = three(settings()).await;
    network.isolate(&nodes[2].server.address);
    for number in 0..300 {
        nodes[0].propose(&format!("{number} {}", "x".repeat(500))).await.unwrap();
    }
    // Entries that left the memory of the leader can only be had from its disk, which has gone bad.
    let log = nodes[0].directory.log();
    for name in nodes[0].fs.list(&log).unwrap() {
        for offset in (4_096..100_000).step_by(64) {
            nodes[0].fs.flip(&log.join(&name), offset, 0x55);
        }
    }
    network.heal();
    until("the one that was cut off to hold everything", || nodes[2].held().len() >= 300).await;
    assert_eq!(nodes[2].held()[..300], nodes[1].held()[..300]);
}

/// openraft #1796: after terms had run apart, pre-votes of old terms kept each other from ever electing.
#[tokio::test(start_paused = true)]
async fn openraft_1796_a_leader_is_found_after_terms_ran_apart() {
    let (network, mut nodes) = three(settings()).await;
    let rng = SeededRng::new(1796);
    for round in 0..12 {
        let leader = leader_of(&nodes).await;
        network.isolate(&nodes[leader].server.address);
        sleep(Duration::from_millis(700 + rng.below(900))).await;
        // One of the others restarts with what it had voted, in the middle of the election.
        let other = (leader + 1 + rng.below(2) as usize) % 3;
        nodes[other].kill().await;
        nodes[other] = nodes[other].restart().await;
        network.heal();
        let begun = Instant::now();
        let leader = leader_of(&nodes).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "round {round}: {:?}", begun.elapsed());
        until("it to know", || nodes[leader].consensus.is_leader()).await;
        // It may lose the lead once more, to who was cut off; then the next one takes it.
        let mut taken = nodes[leader].propose(&format!("{round}")).await.is_ok();
        while !taken && begun.elapsed() < Duration::from_secs(20) {
            let leader = leader_of(&nodes).await;
            taken = nodes[leader].propose(&format!("{round}")).await.is_ok();
        }
        assert!(taken, "round {round}");
    }
}

/// openraft #1808 and #1828: a leader whose log was purged to its end never sent its snapshot; and who got one did not know
/// the members of it.
#[tokio::test(start_paused = true)]
async fn openraft_1828_1808_a_log_that_is_purged_to_its_end_is_followed_by_a_snapshot_with_its_members() {
    let settings = Settings { snapshot_entries: 50, kept_entries: 0, ..settings() };
    let (network, mut nodes) = three(settings).await;
    network.isolate(&nodes[2].server.address);
    let mut number = 0;
    loop {
        number += 1;
        let text = format!("<write {number}>");
        nodes[0].propose(&text).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        let status = nodes[0].consensus.status();
        if status.snapshot == status.last_log {
            // The library purges in lots: not after every snapshot.
            sleep(Duration::from_millis(300)).await;
            if !holds(&nodes[0], &text) {
                break;
            }
        }
        assert!(number < 5_000, "the log is never purged to its end: {status:?}");
    }
    network.heal();
    nodes[2].catch_up(&nodes[0]).await;
    assert_eq!(nodes[2].held(), nodes[0].held());
    assert_eq!(nodes[2].consensus.membership(), nodes[0].consensus.membership());
    nodes[2].kill().await;
    // Nobody can tell it: it knows them from its own disk.
    network.isolate(&nodes[2].server.address);
    nodes[2] = nodes[2].restart().await;
    until("its own members", || nodes[2].consensus.membership().voters.len() == 3).await;
}

/// Consul #2933 and others: a damaged data directory made the start panic.
#[tokio::test(start_paused = true)]
async fn consul_2933_a_start_never_panics_on_a_damaged_data_directory() {
    let settings = Settings { snapshot_entries: 60, kept_entries: 10, ..settings() };
    let network = Network::default();
    let node = Node::start(&network, 1, MemoryFs::new(), settings.clone()).await;
    node.consensus.initialize(members([&node])).await.unwrap();
    node.leader_not(None).await;
    for number in 0..200 {
        node.propose(&format!("{number} {}", "x".repeat(2_000))).await.unwrap();
    }
    node.kill().await;
    let files = |fs: &MemoryFs| -> Vec<_> {
        let within = |directory: &str| {
            let directory = Path::new(directory).to_owned();
            let names = fs.list(&directory).unwrap_or_default();
            names.into_iter().map(move |name| directory.join(name)).collect::<Vec<_>>()
        };
        ["/data", "/data/log", "/data/snapshots"].into_iter().flat_map(within).collect()
    };
    let (mut started, mut refused) = (0, 0);
    for seed in 0..400 {
        let rng = SeededRng::new(seed);
        let fs = node.fs.copy();
        for _ in 0..1 + rng.below(3) {
            let all = files(&fs);
            let path = &all[rng.below(all.len() as u64) as usize];
            let Ok(file) = fs.open(path, Open::Existing) else { continue };
            let length = file.len().unwrap();
            match rng.below(5) {
                0..2 if length > 0 => fs.flip(path, rng.below(length), 1 << rng.below(8)),
                2 => file.set_len(rng.below(length + 1)).unwrap(),
                3 => fs.remove(path).unwrap(),
                _ => {
                    let mut garbage = vec![0; 1 + rng.below(9_000) as usize];
                    rng.fill(&mut garbage);
                    file.write_all_at(&garbage, rng.below(length + 1)).unwrap();
                }
            }
        }
        fs.crash(Crash::KeepUnsynced);
        let directory = match DataDirectory::open(Arc::new(fs), Path::new("/data"), &SeededRng::new(1)) {
            Ok(directory) => Arc::new(directory),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
                continue;
            }
        };
        let tasks = Tasks::new();
        let machine = Arc::new(Machine::default());
        let transport = Network::default().transport("alone");
        let roles = RoleCounters::default();
        let dependencies = Dependencies { directory, transport, machine, tasks: tasks.clone(), roles };
        match Consensus::start(settings.clone(), dependencies).await {
            Ok(consensus) => {
                started += 1;
                consensus.shutdown().await;
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
        tasks.cancel();
    }
    assert!(refused > 100 && started > 10, "{started} started, {refused} were refused: the damage says little");
}

/// The document on the scale of Consul: a follower that is slower than the log is cut installs snapshots for ever.
#[tokio::test(start_paused = true)]
async fn consul_scale_a_follower_that_fell_behind_catches_up_while_writes_go_on() {
    let settings = Settings { snapshot_entries: 300, kept_entries: 300, ..settings() };
    let (network, nodes) = three(settings).await;
    let write = async |count: u64| {
        for number in 0..count {
            nodes[0].propose(&format!("{number} {}", "x".repeat(300))).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    };
    network.isolate(&nodes[2].server.address);
    write(2_000).await;
    network.heal();
    let begun = Instant::now();
    let caught_up = async {
        let mut snapshots = std::collections::BTreeSet::new();
        loop {
            let (own, leader) = (nodes[2].consensus.status(), nodes[0].consensus.status());
            snapshots.insert(own.snapshot);
            if own.applied + 20 >= leader.applied {
                return snapshots.len();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it is at {} of {}", own.applied, leader.applied);
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        installed = caught_up => assert!(installed <= 4, "it needed {installed} snapshots"),
        () = write(20_000) => panic!("it never caught up"),
    }
}
