//! Which server to ask. Pure.

use std::collections::VecDeque;

use lictor_runtime::Rng;

/// Servers that are remembered.
const SERVERS_MAX: usize = 32;

/// The known servers, the one to ask first in front.
pub(super) struct Servers {
    configured: Vec<String>,
    order: VecDeque<String>,
}

impl Servers {
    /// The servers that the configuration names. The order is random, so that many clients spread over the servers.
    pub(super) fn new(configured: Vec<String>, rng: &dyn Rng) -> Self {
        let order = shuffled(configured.clone(), rng).into();
        Self { configured, order }
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
