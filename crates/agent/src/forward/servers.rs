//! Which server to ask. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use lictor_runtime::Rng;

/// Servers that are remembered.
const SERVERS_MAX: usize = 32;

/// Servers whose round-trip times are less apart than this are equally near.
const EQUALLY_NEAR: Duration = Duration::from_millis(2);

/// A server as gossip knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundServer {
    /// `host:port` of its server port.
    pub address: String,
    /// It is alive as far as gossip knows.
    pub answers: bool,
    /// The round-trip time to it, by network coordinates.
    pub round_trip: Duration,
}

/// The known servers, the one to ask first in front.
pub(super) struct Servers {
    configured: Vec<String>,
    order: VecDeque<String>,
    /// A server has told which servers there are: it knows better than gossip where they are dialled.
    told: bool,
}

impl Servers {
    /// The servers that the configuration names. The order is random, so that many clients spread over the servers.
    pub(super) fn new(configured: Vec<String>, rng: &dyn Rng) -> Self {
        let order = shuffled(configured.clone(), rng).into();
        Self { configured, order, told: false }
    }

    pub(super) fn first(&self) -> Option<String> {
        self.order.front().cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }

    /// A call at `address` failed: others come first now. Calls that failed together move it once.
    pub(super) fn failed(&mut self, address: &str) {
        if self.order.front().is_some_and(|first| first == address) {
            self.order.rotate_left(1);
        }
    }

    /// A server told which servers there are. The one in use stays in front; those of the configuration stay at the end, for
    /// the day when none of the others is left.
    pub(super) fn learn(&mut self, learned: Vec<String>, rng: &dyn Rng) {
        self.told |= !learned.is_empty();
        self.take(learned, rng);
    }

    /// Gossip knows these servers. Until a server has told more, they are the servers; from then on it says which are not to be
    /// asked first: those that do not answer, and those that are farther than others. With `rebalance` the first is chosen
    /// anew among the near, so that agents spread over servers that came back.
    pub(super) fn found(&mut self, found: &[FoundServer], rebalance: bool, rng: &dyn Rng) {
        if !self.told {
            self.take(found.iter().filter(|it| it.answers).map(|it| it.address.clone()).collect(), rng);
        }
        let known = |address: &String| found.iter().find(|it| it.address == *address);
        let nearest = found.iter().filter(|it| it.answers).map(|it| it.round_trip).min().unwrap_or_default();
        // 0 for the near and those that gossip does not know, 1 for the far, 2 for those that do not answer.
        let rank = |address: &String| match known(address) {
            Some(server) if !server.answers => 2,
            Some(server) if server.round_trip > nearest + EQUALLY_NEAR => 1,
            _ => 0,
        };
        let mut order: Vec<String> = if rebalance {
            // Configured addresses may be names of servers that stand here already; they keep their place at the end.
            let (known, others): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|it| known(it).is_some());
            shuffled(known, rng).into_iter().chain(others).collect()
        } else {
            self.all()
        };
        order.sort_by_key(rank);
        self.order = order.into();
    }

    fn take(&mut self, learned: Vec<String>, rng: &dyn Rng) {
        if learned.is_empty() || learned.iter().all(|address| self.order.contains(address)) && !self.stale(&learned) {
            return;
        }
        let first = self.first();
        let known = |address: &String| learned.contains(address) || self.configured.contains(address);
        let mut order: VecDeque<String> = first.filter(|first| known(first)).into_iter().collect();
        let configured = self.configured.iter().filter(|address| !learned.contains(address)).cloned().collect();
        for address in shuffled(learned, rng).into_iter().chain(shuffled(configured, rng)) {
            if !order.contains(&address) && order.len() < SERVERS_MAX {
                order.push_back(address);
            }
        }
        self.order = order;
    }

    /// Whether a server is in the order that is neither told of nor configured.
    fn stale(&self, learned: &[String]) -> bool {
        self.order.iter().any(|address| !learned.contains(address) && !self.configured.contains(address))
    }
}

fn shuffled(mut addresses: Vec<String>, rng: &dyn Rng) -> Vec<String> {
    for last in (1..addresses.len()).rev() {
        addresses.swap(last, rng.below(last as u64 + 1) as usize);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;

    use super::*;

    fn names(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|&address| address.to_owned()).collect()
    }

    #[test]
    fn a_server_that_failed_goes_to_the_end_once() {
        let mut servers = Servers::new(names(&["a", "b", "c"]), &SeededRng::new(1));
        let order = servers.all();
        servers.failed(&order[0]);
        servers.failed(&order[0]);
        assert_eq!(servers.all(), names(&[&order[1], &order[2], &order[0]]));
    }

    fn found(address: &str, answers: bool, millis: u64) -> FoundServer {
        FoundServer { address: address.into(), answers, round_trip: Duration::from_millis(millis) }
    }

    #[test]
    fn gossip_finds_servers_and_says_which_are_not_asked_first() {
        let rng = SeededRng::new(1);
        let mut servers = Servers::new(names(&["seed"]), &rng);
        servers.found(&[found("a", true, 1), found("b", false, 1)], false, &rng);
        assert_eq!(servers.all(), names(&["seed", "a"]));
        servers.learn(names(&["a", "b", "c"]), &rng);
        servers.found(&[found("a", false, 0), found("b", true, 9), found("c", true, 1)], true, &rng);
        assert_eq!(servers.first().as_deref(), Some("c"));
        assert_eq!(servers.all().last().map(String::as_str), Some("a"));
        assert_eq!(servers.len(), 4, "a dead server is not forgotten: gossip may be wrong");
    }

    #[test]
    fn a_rebalance_spreads_over_the_near_servers() {
        let rng = SeededRng::new(1);
        let mut firsts = Vec::new();
        for _ in 0..64 {
            let mut servers = Servers::new(Vec::new(), &rng);
            servers.learn(names(&["a", "b", "c"]), &rng);
            servers.found(&[found("a", true, 1), found("b", true, 2), found("c", true, 30)], true, &rng);
            firsts.extend(servers.first());
        }
        let of = |name: &str| firsts.iter().filter(|first| *first == name).count();
        assert!(of("a") > 10 && of("b") > 10 && of("c") == 0, "{firsts:?}");
    }

    #[test]
    fn servers_are_learned_and_the_one_in_use_stays() {
        let rng = SeededRng::new(1);
        let mut servers = Servers::new(names(&["seed"]), &rng);
        servers.learn(names(&["a", "b", "c"]), &rng);
        assert_eq!(servers.first().as_deref(), Some("seed"));
        assert_eq!(servers.len(), 4);
        servers.failed("seed");
        let first = servers.first().unwrap();
        servers.learn(names(&["d", "e"]), &rng);
        assert!(!servers.all().contains(&first));
        assert_eq!(servers.all().len(), 3);
        assert_eq!(servers.all().last().map(String::as_str), Some("seed"));
    }
}
