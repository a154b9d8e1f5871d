//! Histories of real processes: clients at every server and at a client agent read and write the same keys, alone and by
//! transactions, take the same locks, and register the same instances, while processes are killed, stopped where they stand and
//! cut from each other, and the lead is handed on, two of these at a time. Each history must be linearizable, and watchers must
//! have been told everything, in order.
//!
//! `LICTOR_HISTORIES` says how many, `LICTOR_HISTORY` runs the one of this seed.

mod checker;
mod journal;
mod objects;
mod relay;
mod sights;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_runtime::{Rng, SeededRng};
use lictor_tests::process::{START_LIMIT, next_address};
use lictor_tests::{TestCluster, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::journal::{Journal, KINDS, Kind};
use crate::objects::{Locker, Registrar};
use crate::relay::Wires;
use crate::sights::ALL_KEYS;
use crate::workers::{Watched, Work, Worker, watch};

/// Histories when nobody says how many.
const HISTORIES: u64 = 20;
const SERVERS: usize = 3;
/// Clients at each agent.
const CLIENTS_EACH: usize = 2;
/// A history with fewer answered operations shows too little.
const ANSWERED_MIN: u64 = 200;
/// So many are waited for after the faults.
const ANSWERED_AFTER: u64 = 100;
/// Of each kind of operation a history has so many that were answered.
const ANSWERED_OF_KIND: u64 = 15;
/// So long after the faults clients go on at most until there are enough.
const TRAFFIC_LIMIT: Duration = Duration::from_secs(20);
/// For the lead to be handed on, or not.
const TRANSFER_LIMIT: Duration = Duration::from_secs(1);
/// Watchers have seen the end of a history within this.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(usize),
    KillAll,
    Pause(usize),
    Isolate(usize),
    /// The first is not heard by the second.
    Deafen(usize, usize),
    /// The lead is handed on, whoever has it.
    Transfer(usize),
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

/// A cluster whose wires can be cut.
struct Stage {
    cluster: TestCluster,
    wires: Wires,
}

impl Stage {
    async fn build() -> Self {
        let addresses: Vec<String> = (0..SERVERS).map(|_| next_address()).collect();
        let doors: Vec<String> = (0..SERVERS).map(|_| next_address()).collect();
        let wires = Wires::lay(&doors, &addresses).await;
        let cluster = TestCluster::start_behind(&addresses, &doors, &[]).await;
        let mut stage = Self { cluster, wires };
        // Connections of before this moment are nobody's: let everybody dial again.
        stage.name_members();
        for server in 0..SERVERS {
            stage.cluster.servers[server].kill();
            stage.start(server);
            stage.all_is_well().await;
        }
        stage
    }

    fn name_members(&self) {
        let members = self.cluster.servers.iter().chain([&self.cluster.client]);
        self.wires.members(members.map(|it| it.is_running().then(|| it.process_id())).collect());
    }

    fn start(&mut self, server: usize) {
        if !self.cluster.servers[server].is_running() {
            self.cluster.servers[server].start();
            self.name_members();
        }
    }

    async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(server) => self.cluster.servers[server].kill(),
            Fault::KillAll => self.cluster.servers.iter_mut().for_each(|it| it.kill()),
            Fault::Pause(server) => self.cluster.servers[server].pause(true),
            Fault::Isolate(server) => (0..SERVERS).filter(|it| *it != server).for_each(|other| {
                self.wires.cut(server, other);
                self.wires.cut(other, server);
            }),
            Fault::Deafen(from, to) => self.wires.cut(from, to),
            Fault::Transfer(server) => {
                let client = self.cluster.servers[server].client();
                let asked = client.put_bytes("/v1/operator/raft/transfer-leader", &[], Bytes::new());
                // Refused, late or done: the history goes on.
                let _either = timeout(TRANSFER_LIMIT, asked).await;
            }
        }
    }

    fn end_all(&mut self) {
        self.wires.mend();
        for server in 0..SERVERS {
            self.cluster.servers[server].pause(false);
            self.start(server);
        }
    }

    /// Every agent reads from a leader.
    async fn all_is_well(&self) {
        for agent in self.cluster.servers.iter().chain([&self.cluster.client]) {
            let client = agent.client();
            eventually("every agent answers", START_LIMIT, || async {
                match client.get_bytes("/v1/kv/none", &[("consistent", "")]).await {
                    Err(error) if error.is_not_found() => Ok(()),
                    Err(error) => Err(error.to_string()),
                    Ok(_) => Ok(()),
                }
            })
            .await;
        }
    }
}

fn choose(rng: &SeededRng, leader: usize) -> Fault {
    let any = rng.below(SERVERS as u64) as usize;
    let one = if rng.below(2) == 0 { leader } else { any };
    let other = (one + 1 + rng.below(SERVERS as u64 - 1) as usize) % SERVERS;
    match rng.below(10) {
        0..2 => Fault::Kill(one),
        2 => Fault::KillAll,
        3..5 => Fault::Pause(one),
        5..7 => Fault::Isolate(one),
        7..9 => Fault::Deafen(one, other),
        _ => Fault::Transfer(one),
    }
}

/// Two faults, the second while the first lasts.
async fn trouble(stage: &mut Stage, rng: &SeededRng) -> Vec<Fault> {
    let millis = |least: u64, most: u64| Duration::from_millis(least + rng.below(most - least));
    sleep(millis(300, 600)).await;
    let leader = stage.cluster.leader().await;
    let faults = vec![choose(rng, leader), choose(rng, leader)];
    for fault in &faults {
        stage.begin(*fault).await;
        sleep(millis(300, 1_300)).await;
    }
    stage.end_all();
    faults
}

/// One history; what is wrong with it, and what was asked and answered.
async fn history(stage: &mut Stage, seed: u64) -> (Vec<String>, Arc<Journal>, Vec<Fault>) {
    let rng = SeededRng::new(seed);
    let work = Work {
        journal: Arc::new(Journal::new()),
        stop: Arc::new(AtomicBool::new(false)),
        prefix: format!("history/{seed}-{}/", std::process::id()),
    };
    let (mut clients, mut watchers) = (JoinSet::new(), JoinSet::new());
    let watching = Work { stop: Arc::new(AtomicBool::new(false)), ..work.clone() };
    let agents: Vec<_> = stage.cluster.servers.iter().chain([&stage.cluster.client]).collect();
    let watched = watched(&work);
    for (watcher, (agent, what)) in watched.iter().enumerate() {
        watchers.spawn(watch(watching.clone(), agents[*agent].client(), watcher, what.clone()));
    }
    for agent in agents {
        for _ in 0..CLIENTS_EACH {
            let rng = SeededRng::new(rng.next_u64());
            clients.spawn(Worker { work: work.clone(), client: agent.client(), rng, seen: Default::default() }.run());
        }
        let fork = || SeededRng::new(rng.next_u64());
        clients.spawn(Locker::new(work.clone(), agent.client(), fork()).run());
        clients.spawn(Registrar { work: work.clone(), client: agent.client(), rng: fork() }.run());
    }
    let faults = trouble(stage, &rng).await;
    stage.all_is_well().await;
    work.journal.calm(true);
    // What is answered after the faults shows what they left; and on a busy machine it takes longer until a history says something.
    let begun = Instant::now();
    let enough = ANSWERED_MIN.max(work.journal.answered() + ANSWERED_AFTER);
    let lacking = || KINDS.into_iter().find(|kind| work.journal.answered_of(*kind) < ANSWERED_OF_KIND);
    while (work.journal.answered() < enough || lacking().is_some()) && begun.elapsed() < TRAFFIC_LIMIT {
        sleep(Duration::from_millis(50)).await;
    }
    work.stop.store(true, Ordering::Relaxed);
    work.journal.calm(false);
    while clients.join_next().await.is_some_and(|ended| ended.is_ok()) {}
    let mut wrong = Vec::new();
    wrong.extend(lacking().map(|kind| format!("fewer than {ANSWERED_OF_KIND} operations of the kind {kind:?}")));
    // What is there in the end must fit, at every server.
    for server in &stage.cluster.servers {
        let client = server.client();
        let mut last = Worker { work: work.clone(), client, rng: rng.clone(), seen: Default::default() };
        let mut well = true;
        for group in last.groups() {
            well &= last.list(&group, &[("recurse", ""), ("consistent", "")]).await;
        }
        well &= Locker::new(work.clone(), server.client(), rng.clone()).all().await;
        well &= Registrar { work: work.clone(), client: server.client(), rng: rng.clone() }.all().await;
        if !well {
            wrong.push(format!("{} does not answer when all is well", server.name));
        }
    }
    Registrar { work: work.clone(), client: stage.cluster.client.client(), rng: rng.clone() }.clear().await;
    wrong.extend(current(stage, &work, &watched).await.err());
    watching.stop.store(true, Ordering::Relaxed);
    while watchers.join_next().await.is_some_and(|ended| ended.is_ok()) {}
    let answered = work.journal.answered();
    if answered < ANSWERED_MIN {
        wrong.push(format!("only {answered} operations were answered, {ANSWERED_MIN} are needed to count"));
    }
    let journal = Arc::clone(&work.journal);
    wrong.extend(tokio::task::spawn_blocking(move || journal.judge()).await.expect("the judge ends"));
    (wrong, work.journal, faults)
}

/// Who watches what: an agent by number, and its subject. All watch the keys; some of them, and some services, by stale reads.
fn watched(work: &Work) -> Vec<(usize, Watched)> {
    let keys = |stale| Watched { subject: ALL_KEYS.to_owned(), stale };
    let health = |service, stale| Watched { subject: objects::service(work, service), stale };
    let mut watched: Vec<(usize, Watched)> = (0..=SERVERS).map(|agent| (agent, keys(false))).collect();
    watched.extend([(0, keys(true)), (SERVERS, keys(true))]);
    watched.extend([(1, health(0, false)), (2, health(0, true)), (SERVERS, health(0, false))]);
    watched
}

/// Every watcher has seen what is there in the end.
async fn current(stage: &Stage, work: &Work, watched: &[(usize, Watched)]) -> Result<(), String> {
    let client = stage.cluster.client.client();
    let mut ends = Vec::new();
    for (_, watched) in watched {
        ends.push(watched.now(work, &client).await?);
    }
    // An empty end is told without an index, unless it is of a service.
    let is_told = |watcher: usize| !ends[watcher].is_empty() || watched[watcher].1.subject != ALL_KEYS;
    let begun = Instant::now();
    loop {
        let told = (0..watched.len()).filter(|watcher| is_told(*watcher));
        let behind: Vec<usize> =
            told.filter(|watcher| work.journal.last_sight(*watcher).as_ref() != Some(&ends[*watcher])).collect();
        if behind.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > WATCH_LIMIT {
            return Err(format!("the watchers {behind:?} have not seen the end {WATCH_LIMIT:?} after it"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_of_real_processes_is_linearizable_and_every_watcher_is_told() {
    let one = number("LICTOR_HISTORY");
    let (first, count) = one.map_or((1, number("LICTOR_HISTORIES").unwrap_or(HISTORIES)), |seed| (seed, 1));
    let begun = Instant::now();
    let mut stage = Stage::build().await;
    let (mut failed, mut operations) = (0, 0);
    let mut of_kind: BTreeMap<Kind, u64> = BTreeMap::new();
    for seed in first..first + count {
        let (wrong, journal, faults) = history(&mut stage, seed).await;
        let answered = journal.answered();
        operations += answered;
        KINDS.iter().for_each(|kind| *of_kind.entry(*kind).or_default() += journal.answered_of(*kind));
        if !wrong.is_empty() {
            failed += 1;
            println!("history {seed} under {faults:?} failed:\n{}", wrong.join("\n"));
            println!("  replay: LICTOR_HISTORY={seed} cargo xtask test histories");
        } else if one.is_some() || count > HISTORIES {
            println!("history {seed}: {answered} operations under {faults:?}: linearizable");
        }
    }
    println!(
        "summary: {count} histories of real processes under two faults at a time, {failed} failed, none unknown or counted \
         so; {operations} operations answered, of these {of_kind:?}, {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    let (strangers, all) = stage.wires.strangers();
    assert!(strangers * 4 <= all, "the relay did not know who dialled {strangers} of {all}: no cut would have held");
    assert_eq!(failed, 0, "histories failed; see above");
}
