//! What goes wrong, and when: a function of the seed.

use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_runtime::{Rng, SeededRng};
use lictor_types::{Credential, Operation};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::{Instant, sleep, timeout};

use crate::history::History;
use crate::network::{Delay, Network};
use crate::reach::at;
use crate::servers::{Loss, SERVERS, SPARE, Servers, address};

/// What the generator prefers, to have a kind of bug show itself soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    /// A random choice of everything.
    None,
    /// All machines lose power at once, and the leader comes back last.
    Power,
    /// A voter restarts between two candidates.
    Votes,
    /// The leader is cut off from the others, not from its clients.
    Leaders,
    /// Servers fall so far behind that they need snapshots.
    Snapshots,
    /// Leaders lose the lead with entries that nobody else has, and messages are late.
    Reversions,
    /// The lead is handed on, and messages are late.
    Transfers,
    /// Servers join, are replaced and go, while leaders die.
    Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillLeader,
    KillAny,
    KillAll,
    IsolateLeader,
    IsolateAny,
    CutOneWay,
    CutPair,
    Reset,
    Slow,
    Rewire,
    Transfer,
    BreakDisk,
    FillDisk,
    Clock,
    CutClient,
    /// A fourth server joins, becomes a voter, and is removed again.
    Grow,
    /// A server loses its disk and comes back as a new one under its name.
    Replace,
}

const ALL: [Fault; 17] = [
    Fault::KillLeader,
    Fault::KillAny,
    Fault::KillAll,
    Fault::IsolateLeader,
    Fault::IsolateAny,
    Fault::CutOneWay,
    Fault::CutPair,
    Fault::Reset,
    Fault::Slow,
    Fault::Rewire,
    Fault::Transfer,
    Fault::BreakDisk,
    Fault::FillDisk,
    Fault::Clock,
    Fault::CutClient,
    Fault::Grow,
    Fault::Replace,
];

/// How messages travel when nothing is wrong.
pub(crate) const CALM: Delay = Delay { least: 200, most: 3_000, spike_one_in: 0 };

/// So far a wall clock is from the truth at most: two of them differ by less than outcomes are remembered.
const CLOCK_MOST_MILLIS: u64 = 4 * 60 * 1000;
/// Clients of a seed at most.
const CLIENTS_MOST: u64 = 6;

/// How long a fault waits for its moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that joins votes within this, whatever goes wrong meanwhile; one that is removed is gone.
const CHANGE_LIMIT: Duration = Duration::from_secs(25);

/// Makes things go wrong.
pub(crate) struct Nemesis {
    pub(crate) servers: Servers,
    pub(crate) network: Network,
    pub(crate) rng: SeededRng,
    pub(crate) history: History,
    pub(crate) bias: Bias,
    /// What became of a server that did not start again.
    pub(crate) broken: Arc<Mutex<Vec<String>>>,
    /// Servers that joined or were replaced.
    pub(crate) member_changes: Arc<AtomicU64>,
    pub(crate) talk: bool,
}

impl Nemesis {
    /// Until `end`; then all is well again.
    pub(crate) async fn run(&self, end: Instant) {
        let chosen: Vec<Fault> = match self.bias {
            Bias::Power => vec![Fault::KillAll],
            Bias::Votes => vec![Fault::Rewire],
            Bias::Leaders => vec![Fault::IsolateLeader, Fault::Transfer, Fault::Slow],
            Bias::Snapshots => vec![Fault::IsolateAny, Fault::KillAny],
            Bias::Reversions => vec![Fault::IsolateLeader, Fault::Slow, Fault::CutOneWay, Fault::Reset],
            Bias::Transfers => vec![Fault::Transfer, Fault::Transfer, Fault::Slow, Fault::CutPair],
            Bias::Members => vec![Fault::Grow, Fault::Replace, Fault::KillLeader, Fault::IsolateLeader],
            Bias::None => ALL.into_iter().filter(|_| self.rng.below(3) > 0).collect(),
        };
        // Every seed has at least one change of leader that somebody notices.
        let first = if self.rng.below(2) == 0 { Fault::KillLeader } else { Fault::IsolateLeader };
        self.strike(first).await;
        while Instant::now() < end {
            self.millis(200, 1_500).await;
            let fault = chosen.get(self.rng.below(chosen.len() as u64) as usize).copied().unwrap_or(Fault::KillLeader);
            self.strike(fault).await;
        }
        self.network.heal();
        self.network.set_delay(CALM);
        for server in 0..SERVERS {
            self.servers.fill_disk(server, false);
            self.start(server).await;
        }
    }

    async fn strike(&self, fault: Fault) {
        if self.talk {
            println!("fault {fault:?}, the leader is {:?}", self.servers.leader());
        }
        match fault {
            Fault::KillLeader => self.kill(self.leader()).await,
            Fault::KillAny => self.kill(self.any()).await,
            Fault::KillAll => self.kill_all().await,
            Fault::IsolateLeader => self.isolate(self.leader()).await,
            Fault::IsolateAny => self.isolate(self.any()).await,
            Fault::CutOneWay => {
                let (a, b) = self.pair();
                self.network.cut(&address(a), &address(b));
                self.millis(300, 3_500).await;
                self.network.mend(&address(a), &address(b));
            }
            Fault::CutPair => {
                let (a, b) = self.pair();
                self.cut(a, b);
                self.millis(300, 3_500).await;
                self.mend(a, b);
            }
            Fault::Reset => {
                let host = address(self.any());
                self.network.reset_where(|from, to| from == host || to == host);
            }
            Fault::Slow => {
                self.network.set_delay(Delay { least: 1_000, most: 60_000, spike_one_in: 20 });
                self.millis(500, 3_000).await;
                self.network.set_delay(CALM);
            }
            Fault::Rewire => self.rewire().await,
            Fault::BreakDisk => self.break_disk().await,
            Fault::FillDisk => {
                let server = self.any();
                self.servers.fill_disk(server, true);
                self.millis(300, 3_500).await;
                self.servers.fill_disk(server, false);
            }
            Fault::Clock => {
                let millis = self.rng.below(2 * CLOCK_MOST_MILLIS) as i64 - CLOCK_MOST_MILLIS as i64;
                self.servers.set_clock(self.any(), millis);
            }
            Fault::CutClient => self.cut_client().await,
            Fault::Transfer => self.operate(Operation::TransferLeader).await,
            Fault::Grow => self.grow().await,
            Fault::Replace => self.replace().await,
        }
    }

    async fn operate(&self, operation: Operation) {
        if let Some(waist) = self.servers.waist(self.any()) {
            let nobody = Credential::anonymous();
            at(&waist, waist.datacenter.operate(&nobody, operation)).await;
        }
    }

    /// An error of the device ends the process, and never undoes what was acknowledged.
    async fn break_disk(&self) {
        let server = self.any();
        self.servers.break_disk(server, self.rng.below(6));
        self.millis(200, 2_000).await;
        self.kill(server).await;
    }

    async fn cut_client(&self) {
        let client = format!("client-{}", self.rng.below(CLIENTS_MOST));
        let server = address(self.any());
        self.network.cut(&client, &server);
        if self.rng.below(2) == 0 {
            self.network.cut(&server, &client);
        }
        self.millis(300, 3_500).await;
        self.network.mend(&client, &server);
        self.network.mend(&server, &client);
    }

    async fn kill(&self, server: usize) {
        self.servers.kill(server, self.loss(), self.rng.below(2) == 0);
        if self.rng.below(3) > 0 {
            self.millis(0, 3_000).await;
        }
        self.start(server).await;
    }

    /// The power goes everywhere, and comes back here and there.
    async fn kill_all(&self) {
        if self.bias == Bias::Power || self.rng.below(2) == 0 {
            // The meanest moment: a client was told that its write is safe, and nothing has happened since.
            let _either = timeout(PATIENCE, self.history.next_write()).await;
        }
        let leader = self.leader();
        for server in 0..SERVERS {
            let loss = if self.bias == Bias::Power { Loss::All } else { self.loss() };
            self.servers.kill(server, loss, true);
        }
        let leader_last = self.bias == Bias::Power || self.rng.below(3) == 0;
        if leader_last {
            for server in (0..SERVERS).filter(|server| *server != leader) {
                self.start(server).await;
            }
            self.millis(2_500, 4_000).await;
            self.start(leader).await;
            return;
        }
        let first = self.any();
        for server in 0..SERVERS {
            self.start((first + server) % SERVERS).await;
            self.millis(0, 2_000).await;
        }
    }

    async fn isolate(&self, server: usize) {
        let others = (0..=SPARE).filter(|other| *other != server);
        others.clone().for_each(|other| self.cut(server, other));
        self.millis(500, 5_000).await;
        others.for_each(|other| self.mend(server, other));
    }

    /// The old leader is alone, a new one is chosen; the one that voted for it restarts and is alone with the old one.
    async fn rewire(&self) {
        let old = self.leader();
        (0..SERVERS).filter(|it| *it != old).for_each(|other| self.cut(old, other));
        let begun = Instant::now();
        let new = loop {
            match self.servers.leader() {
                Some(new) if new != old => break new,
                _ if begun.elapsed() > Duration::from_secs(4) => {
                    self.network.heal();
                    return;
                }
                _ => sleep(Duration::from_millis(5)).await,
            }
        };
        self.millis(10, 150).await;
        let voter = SERVERS - old - new;
        self.cut(voter, new);
        self.servers.kill(voter, self.loss(), false);
        self.mend(voter, old);
        self.start(voter).await;
        self.millis(500, 2_500).await;
        self.network.heal();
    }

    /// 3, 4, and 3 servers again, with something else that goes wrong on the way.
    async fn grow(&self) {
        self.servers.renew(SPARE);
        self.start(SPARE).await;
        let Some(id) = self.servers.id(SPARE) else { return };
        self.trouble_of_a_change().await;
        self.until_it_votes(&id).await;
        self.trouble_of_a_change().await;
        let begun = Instant::now();
        while self.is_member(&id) != Some(false) {
            if begun.elapsed() > CHANGE_LIMIT {
                self.broken.lock().push(format!("a fourth server is not removed within {CHANGE_LIMIT:?}"));
                break;
            }
            self.operate(Operation::RemoveServer(id.clone())).await;
            sleep(Duration::from_millis(50)).await;
        }
        self.servers.kill(SPARE, Loss::None, false);
    }

    /// Only when the two others hold all that was acknowledged may one lose its disk.
    async fn replace(&self) {
        let server = self.any();
        let begun = Instant::now();
        while !self.all_hold_everything() {
            if begun.elapsed() > PATIENCE {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.servers.kill(server, Loss::All, self.rng.below(2) == 0);
        self.servers.renew(server);
        self.millis(0, 1_000).await;
        self.start(server).await;
        if let Some(id) = self.servers.id(server) {
            self.trouble_of_a_change().await;
            self.until_it_votes(&id).await;
        }
    }

    /// Whether every server votes and has what the leader has.
    fn all_hold_everything(&self) -> bool {
        let statuses = self.servers.statuses();
        let Some(leader) = self.servers.leader().and_then(|leader| statuses[leader].clone()) else { return false };
        let voters = (0..SERVERS).filter(|it| self.servers.id(*it).is_some_and(|id| self.votes(&id) == Some(true)));
        let committed = leader.committed;
        leader.matched.values().all(|matched| *matched >= committed) && voters.count() == SERVERS
    }

    /// Something goes wrong while the members change; never a disk more.
    async fn trouble_of_a_change(&self) {
        match self.rng.below(6) {
            0 => self.kill(self.leader()).await,
            1 => self.isolate(self.leader()).await,
            2 => self.operate(Operation::TransferLeader).await,
            3 => self.millis(0, 1_500).await,
            _ => {}
        }
    }

    async fn until_it_votes(&self, id: &str) {
        let begun = Instant::now();
        while self.votes(id) != Some(true) {
            if begun.elapsed() > CHANGE_LIMIT {
                self.broken.lock().push(format!("a new server does not vote within {CHANGE_LIMIT:?}"));
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.member_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What the leader knows of a server: whether it votes.
    fn votes(&self, id: &str) -> Option<bool> {
        let membership = self.servers.membership(self.servers.leader()?)?;
        (!membership.changing).then(|| membership.voters.iter().any(|it| it.id.to_string() == id))
    }

    fn is_member(&self, id: &str) -> Option<bool> {
        let membership = self.servers.membership(self.servers.leader()?)?;
        let mut members = membership.voters.iter().chain(&membership.learners);
        (!membership.changing).then(|| members.any(|it| it.id.to_string() == id))
    }

    async fn start(&self, server: usize) {
        if !self.servers.is_running(server)
            && let Err(error) = self.servers.start(server).await
        {
            self.broken.lock().push(error);
        }
    }

    fn cut(&self, a: usize, b: usize) {
        self.network.cut(&address(a), &address(b));
        self.network.cut(&address(b), &address(a));
    }

    fn mend(&self, a: usize, b: usize) {
        self.network.mend(&address(a), &address(b));
        self.network.mend(&address(b), &address(a));
    }

    fn any(&self) -> usize {
        self.rng.below(SERVERS as u64) as usize
    }

    fn leader(&self) -> usize {
        self.servers.leader().unwrap_or_else(|| self.any())
    }

    fn pair(&self) -> (usize, usize) {
        let a = self.any();
        (a, (a + 1 + self.rng.below(SERVERS as u64 - 1) as usize) % SERVERS)
    }

    fn loss(&self) -> Loss {
        [Loss::All, Loss::None, Loss::Some][self.rng.below(3) as usize]
    }

    async fn millis(&self, least: u64, most: u64) {
        sleep(Duration::from_millis(least + self.rng.below(most - least))).await;
    }
}
