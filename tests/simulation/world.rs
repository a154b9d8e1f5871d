//! One run: servers, clients, faults, the end of faults, and the verdict.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_runtime::{Rng, SeededRng, Tasks};
use lictor_server::raft::{Faults, seed_randomness};
use lictor_types::command::KvCommand;
use lictor_types::{
    Answer, Command, Consistency, Credential, Freshness, Index, KvEntry, KvVerb, Query, Read, Timestamp,
};
use parking_lot::Mutex;
use tokio::runtime::{Builder, RngSeed};
use tokio::time::{Instant, sleep, timeout};

use crate::checks;
use crate::clients::{Client, World};
use crate::faults::{Bias, CALM, Nemesis};
use crate::groups;
use crate::history::History;
use crate::invariants;
use crate::locks;
use crate::network::Network;
use crate::reach;
use crate::servers::{SERVERS, Servers, Shape};
use crate::trace::Trace;
use crate::watchers::Watcher;

/// Things go wrong for so long.
const TROUBLE: Duration = Duration::from_secs(20);
/// After the last fault a write must be acknowledged, and all servers be equal, within this.
const RECOVERY: Duration = Duration::from_secs(30);
/// Clients go on for so long after it.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A client that is told to stop has ended its operation within this.
const CLIENTS_END: Duration = Duration::from_secs(60);
/// A leader that is busy ends sessions so much later.
const SESSIONS_SLACK: Duration = Duration::from_secs(2);
/// How often the states of the servers are compared.
const COMPARE_INTERVAL: Duration = Duration::from_millis(150);
/// How often somebody looks who leads.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    pub(crate) bias: Bias,
    pub(crate) clients: usize,
    pub(crate) pause_micros: u64,
    pub(crate) keep_trace: bool,
    pub(crate) talk: bool,
}

impl Plan {
    /// The plan that belongs to `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let small = rng.below(2) == 0;
        let shape = Shape {
            snapshot_entries: if small { 40 } else { 2_000 },
            kept_entries: if small { 10 } else { 500 },
            segment_bytes: if small { 64 << 10 } else { 256 << 10 },
            servers: SERVERS,
            faults: Faults::default(),
            faulty: None,
            id_reused: false,
        };
        let clients = 4 + rng.below(3) as usize;
        let pause_micros = 20_000 + rng.below(60_000);
        Self { seed, shape, bias: Bias::None, clients, pause_micros, keep_trace: false, talk: false }
    }
}

/// What a run showed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) acknowledged: u64,
    pub(crate) leader_changes: u64,
    /// Locks that were granted.
    pub(crate) grants: u64,
    /// Transactions on groups that were carried out.
    pub(crate) transactions: u64,
    pub(crate) undecided: u64,
    /// Servers that joined or were replaced.
    pub(crate) member_changes: u64,
    /// How often the servers compared their states themselves.
    pub(crate) comparisons: u64,
    /// What they found: the raft id of each server that differs, and whose of this run that is.
    pub(crate) differing: BTreeMap<String, Option<usize>>,
    pub(crate) simulated_seconds: u64,
    pub(crate) trace: u64,
    pub(crate) events: u64,
    pub(crate) lines: Vec<String>,
}

/// Runs `plan` on this thread.
pub(crate) fn run(plan: Plan) -> Report {
    let _ = panics();
    let mut report = on_simulated_time(plan.seed, simulate(plan));
    report.violations.extend(panics());
    report
}

/// Runs a future on this thread, with time that passes as soon as nothing else happens.
pub(crate) fn on_simulated_time<T>(seed: u64, what: impl Future<Output = T>) -> T {
    seed_randomness(seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without IO needs nothing of the system");
    runtime.block_on(what)
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What panicked on this thread since the last call: tasks take their panics with them, so only the hook hears of them.
fn panics() -> Vec<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if tokio::runtime::Handle::try_current().is_ok() {
                PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
    PANICS.with_borrow_mut(std::mem::take)
}

async fn simulate(plan: Plan) -> Report {
    let begun = Instant::now();
    let rng = SeededRng::new(plan.seed ^ 0x5eed);
    let fork = || SeededRng::new(rng.next_u64());
    let trace = Trace::new(plan.keep_trace);
    let tasks = Tasks::new();
    let network = Network::new(rng.next_u64(), CALM, trace.clone());
    let servers = Servers::new(network.clone(), plan.shape, fork(), tasks.clone(), trace.clone());
    let world = World {
        network: network.clone(),
        servers: servers.clone(),
        history: History::new(),
        trace: trace.clone(),
        tasks: tasks.clone(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let broken = Arc::new(Mutex::new(Vec::new()));
    for server in 0..SERVERS {
        if let Err(error) = servers.start(server).await {
            broken.lock().push(error);
        }
    }
    let changes = Arc::new(Mutex::new(0));
    tasks.spawn(watch_leaders(servers.clone(), Arc::clone(&changes), trace.clone()));
    let differing = Arc::new(Mutex::new(None));
    tasks.spawn(compare_states(servers.clone(), Arc::clone(&differing)));
    let found = Arc::new(Mutex::new(Found::default()));
    tasks.spawn(hear_of_comparisons(servers.clone(), Arc::clone(&found)));
    let mut violations = Vec::new();
    violations.extend(writable(&servers).await.err());
    let watchers = Watcher::all(&servers, &world.history);
    watchers.iter().for_each(|watcher| tasks.spawn(watcher.clone().run()));

    let workers = Tasks::new();
    for number in 0..plan.clients {
        let client = Client::new(&world, number, fork(), plan.pause_micros);
        workers.spawn_to_end(client.run());
    }
    let member_changes = Arc::new(AtomicU64::new(0));
    let nemesis = Nemesis {
        servers: servers.clone(),
        network,
        rng: fork(),
        history: world.history.clone(),
        bias: plan.bias,
        broken: Arc::clone(&broken),
        member_changes: Arc::clone(&member_changes),
        talk: plan.talk,
    };
    if broken.lock().is_empty() {
        nemesis.run(Instant::now() + TROUBLE).await;
    }
    violations.extend(writable(&servers).await.err());
    sleep(AFTERMATH).await;
    world.stop.store(true, Ordering::Relaxed);
    if !workers.stop(CLIENTS_END).await {
        violations.push("a client did not end its operation".into());
    }
    violations.extend(sessions_end(&servers).await.err());
    violations.extend(servers.fatal().map(|why| format!("a server says that it cannot go on: {why}")));
    violations.extend(equal(&servers).await.err());
    violations.append(&mut broken.lock());
    violations.extend(differing.lock().take());
    let found = std::mem::take(&mut *found.lock());
    violations.extend(found.violation());
    are_current(&servers, &watchers, &mut violations).await;
    let undecided = judge(&servers, &world.history, &mut violations).await;

    tasks.cancel();
    let (trace, events, lines) = trace.finish();
    let leader_changes = *changes.lock();
    let acknowledged = world.history.acknowledged();
    if plan.talk {
        println!("seed {}: {acknowledged} acknowledged, {leader_changes} changes of leader", plan.seed);
    }
    Report {
        seed: plan.seed,
        violations,
        acknowledged,
        leader_changes,
        grants: world.history.grants(),
        transactions: world.history.written(groups::PREFIX),
        undecided,
        member_changes: member_changes.load(Ordering::Relaxed),
        comparisons: found.last.values().sum(),
        differing: found.differing,
        simulated_seconds: begun.elapsed().as_secs(),
        trace,
        events,
        lines,
    }
}

/// Counts how often another server leads.
async fn watch_leaders(servers: Servers, changes: Arc<Mutex<u64>>, trace: Trace) {
    let mut last = None;
    loop {
        let statuses = servers.statuses();
        let leader = servers.leader();
        let term = leader.and_then(|leader| statuses[leader].as_ref()).map(|status| status.term);
        if let Some(leader) = leader
            && Some((leader, term)) != last
        {
            trace.note(|| format!("server {leader} leads in term {term:?}"));
            if last.is_some_and(|(before, _)| before != leader) {
                *changes.lock() += 1;
            }
            last = Some((leader, term));
        }
        sleep(WATCH_INTERVAL).await;
    }
}

/// Compares the states of the servers as they run: at the same index they have the same hash.
async fn compare_states(servers: Servers, differing: Arc<Mutex<Option<String>>>) {
    let mut hashes: BTreeMap<(Index, Timestamp), (usize, u32)> = BTreeMap::new();
    loop {
        for (server, state) in servers.states().into_iter().enumerate() {
            let Some(state) = state else { continue };
            let (index, hash) = ((state.index(), state.leader_time()), state.hash());
            let (other, known) = *hashes.entry(index).or_insert((server, hash));
            if known != hash {
                differing.lock().get_or_insert_with(|| {
                    format!("servers {other} and {server} differ at index {}: {known:08x} and {hash:08x}", index.0)
                });
            }
        }
        sleep(COMPARE_INTERVAL).await;
    }
}

/// What the servers said of their own comparisons.
#[derive(Default)]
struct Found {
    /// By server and life, how many there were.
    last: BTreeMap<(usize, u64), u64>,
    differing: BTreeMap<String, Option<usize>>,
}

impl Found {
    fn violation(&self) -> Option<String> {
        let (id, server) = self.differing.first_key_value()?;
        Some(format!("the servers found that {server:?} ({id}) holds another state than most"))
    }
}

/// Every watcher has seen what is there in the end.
async fn are_current(servers: &Servers, watchers: &[Watcher], violations: &mut Vec<String>) {
    let Some((entries, _)) = everything(servers).await else { return };
    for watcher in watchers {
        let rows = entries.iter().filter(|entry| entry.key.starts_with(watcher.prefix));
        let rows = rows.map(|entry| (entry.key.clone(), entry.modify_index)).collect();
        violations.extend(watcher.is_current(&rows).await.err());
    }
}

/// Nobody renews a session any more, so all end within twice their TTL.
async fn sessions_end(servers: &Servers) -> Result<(), String> {
    let limit = locks::TTL_MOST * 2 + SESSIONS_SLACK;
    let begun = Instant::now();
    loop {
        let left: Vec<String> = match read(servers, Query::Sessions).await.map(|read| read.answer) {
            Some(Answer::Sessions(sessions)) => sessions.into_iter().map(|session| session.id).collect(),
            _ => vec!["nobody knows which".into()],
        };
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > limit {
            return Err(format!("sessions that nobody renews are there after {limit:?}: {left:?}"));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Listens to what the servers find by comparing their states themselves.
async fn hear_of_comparisons(servers: Servers, found: Arc<Mutex<Found>>) {
    loop {
        for (life, comparisons) in servers.comparisons() {
            let mut found = found.lock();
            found.last.insert(life, comparisons.count);
            for id in comparisons.differing.into_keys() {
                let server = (0..=SERVERS).find(|server| servers.id(*server).as_ref() == Some(&id));
                found.differing.entry(id).or_insert(server);
            }
        }
        sleep(COMPARE_INTERVAL).await;
    }
}

/// A write is acknowledged in time.
async fn writable(servers: &Servers) -> Result<(), String> {
    let all: Vec<usize> = (0..SERVERS).collect();
    writable_at(servers, &all, RECOVERY).await
}

/// One of these servers acknowledges a write in time.
pub(crate) async fn writable_at(servers: &Servers, some: &[usize], limit: Duration) -> Result<(), String> {
    let tried = async {
        for server in some.iter().copied().cycle() {
            let command = KvCommand { verb: KvVerb::Set, key: "alive".into(), value: b"yes".to_vec(), flags: 0 };
            if let Some(waist) = servers.waist(server) {
                let nobody = Credential::anonymous();
                if reach::at(&waist, waist.datacenter.write(&nobody, Command::Kv(command))).await.is_some() {
                    return;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(limit, tried)
        .await
        .map_err(|_| format!("no write was acknowledged at {some:?} within {limit:?}: {:?}", servers.statuses()))
}

/// All servers hold the same state in time.
async fn equal(servers: &Servers) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let states: Vec<_> = servers.states().into_iter().flatten().collect();
        let seen: Vec<((Index, Timestamp), u32)> =
            states.iter().map(|state| ((state.index(), state.leader_time()), state.hash())).collect();
        for (one, two) in [(0, 1), (0, 2), (1, 2)] {
            if let (Some(one), Some(two)) = (seen.get(one), seen.get(two))
                && one.0 == two.0
                && one.1 != two.1
            {
                return Err(format!("servers differ at the same index: {seen:?}"));
            }
        }
        if seen.len() == SERVERS && seen.iter().all(|it| *it == seen[0]) {
            return Ok(());
        }
        if begun.elapsed() > RECOVERY {
            return Err(format!(
                "servers are not equal {RECOVERY:?} after the faults: {seen:?}, {:?}",
                servers.statuses()
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads what is there in the end, and judges the history by it. Returns how many keys could not be judged.
async fn judge(servers: &Servers, history: &History, violations: &mut Vec<String>) -> u64 {
    let Some(entries) = everything(servers).await else {
        violations.push("the state cannot be read at the end".into());
        return 0;
    };
    let (mut operations, locks, nodes, seen) = history.take();
    violations.extend(seen);
    // A last read of every key: what is there now must fit its history.
    let keys: std::collections::BTreeSet<String> = operations.iter().map(|it| it.key.clone()).collect();
    for key in keys.into_iter().filter(|key| !key.starts_with("unique/")) {
        let value = if key.starts_with(checks::PREFIX) {
            read(servers, checks::question(&key)).await.as_ref().map(checks::said)
        } else {
            stored(&key, &entries.0)
        };
        operations.push(last_read(&key, value.unwrap_or_default()));
    }
    let mut findings = invariants::judge(&operations, &entries.0);
    locks::judge(locks, &entries.0, &mut findings);
    violations.extend(findings.broken);
    for node in nodes {
        if !entries.1.contains(&node) {
            violations.push(format!("the registration of {node} was acknowledged, and it is not in the catalog"));
        }
    }
    findings.undecided as u64
}

/// What a key holds, or a group.
fn stored(key: &str, entries: &[KvEntry]) -> Option<crate::history::Value> {
    let key = if key.starts_with(groups::PREFIX) { groups::first_key(key) } else { key.to_owned() };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    std::str::from_utf8(&entry.value).ok()?.parse().ok()
}

fn last_read(key: &str, value: crate::history::Value) -> crate::history::Operation {
    let answer = crate::history::Answer::Read { value, index: Index(u64::MAX) };
    crate::history::Operation {
        key: key.to_owned(),
        action: crate::history::Action::Get,
        began: u64::MAX - 1,
        ended: Some(u64::MAX),
        answer,
        stale_at: None,
    }
}

/// What a server answers when all is well.
async fn read(servers: &Servers, query: Query) -> Option<Read> {
    let waist = servers.waist(0)?;
    let freshness = Freshness { consistency: Consistency::Consistent, block: None };
    reach::at(&waist, waist.datacenter.read(&Credential::anonymous(), query, freshness)).await
}

/// All entries and all nodes.
async fn everything(servers: &Servers) -> Option<(Vec<KvEntry>, Vec<String>)> {
    let entries = read(servers, Query::KvList(String::new())).await?;
    let nodes = read(servers, Query::Nodes(Default::default())).await?;
    match (entries.answer, nodes.answer) {
        (Answer::KvEntries(entries), Answer::Nodes(nodes)) => {
            Some((entries, nodes.into_iter().map(|node| node.name.to_string()).collect()))
        }
        _ => None,
    }
}
