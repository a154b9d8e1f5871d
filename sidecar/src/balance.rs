//! Which instance of a service takes a connection: the less loaded of two chosen at random.
//!
//! Two random choices come close to the least loaded of all without everybody running to the same one (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing"). An instance that just failed has few connections and would
//! win every time, so it is passed over for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lictor_runtime::Rng;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an instance that failed is passed over: about what its check and the catalog need to notice it.
pub(crate) const SUSPENSION: Duration = Duration::from_secs(5);

/// One instance as it can be dialled.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: String,
    load: AtomicUsize,
    suspended_until: Mutex<Option<Instant>>,
}

/// A connection that counts as load of its endpoint until it is dropped.
#[derive(Debug)]
pub(crate) struct Load(Arc<Endpoint>);

impl Endpoint {
    /// An instance at `address` (`host:port`), with no load yet.
    pub(crate) fn new(address: String) -> Self {
        Self { address, load: AtomicUsize::new(0), suspended_until: Mutex::new(None) }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// It could not be connected to.
    pub(crate) fn failed(&self, now: Instant) {
        *self.suspended_until.lock() = Some(now + SUSPENSION);
    }

    /// It could be connected to.
    pub(crate) fn succeeded(&self) {
        *self.suspended_until.lock() = None;
    }

    fn is_suspended(&self, now: Instant) -> bool {
        self.suspended_until.lock().is_some_and(|until| now < until)
    }

    /// Counts one more connection.
    pub(crate) fn take(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(self))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoint for the next connection, none of those `tried`. One that failed lately only where there is no other.
pub(crate) fn choose<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &[Arc<Endpoint>],
    now: Instant,
    rng: &dyn Rng,
) -> Option<&'a Arc<Endpoint>> {
    let untried: Vec<_> =
        endpoints.iter().filter(|endpoint| !tried.iter().any(|other| other.address == endpoint.address)).collect();
    let healthy: Vec<_> = untried.iter().copied().filter(|endpoint| !endpoint.is_suspended(now)).collect();
    let candidates = if healthy.is_empty() { untried } else { healthy };
    match candidates.as_slice() {
        [] => None,
        [only] => Some(only),
        many => {
            let first = rng.below(many.len() as u64) as usize;
            let second = rng.below(many.len() as u64 - 1) as usize;
            let second = second + usize::from(second >= first);
            let load = |at: usize| many[at].load.load(Ordering::Relaxed);
            Some(many[if load(second) < load(first) { second } else { first }])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lictor_runtime::SeededRng;

    fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
        (0..count).map(|at| Arc::new(Endpoint::new(format!("10.0.0.{at}:20000")))).collect()
    }

    #[test]
    fn connections_spread_evenly() {
        let (endpoints, rng, now) = (endpoints(5), SeededRng::new(1), Instant::now());
        let held: Vec<_> = (0..1000).map(|_| choose(&endpoints, &[], now, &rng).unwrap().take()).collect();
        for endpoint in &endpoints {
            let load = endpoint.load.load(Ordering::Relaxed);
            assert!((190..=210).contains(&load), "{load}");
        }
        drop(held);
        assert!(endpoints.iter().all(|endpoint| endpoint.load.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn the_most_loaded_of_all_is_never_chosen() {
        let (endpoints, rng, now) = (endpoints(3), SeededRng::new(2), Instant::now());
        let _load = endpoints[1].take();
        assert!((0..100).all(|_| !Arc::ptr_eq(choose(&endpoints, &[], now, &rng).unwrap(), &endpoints[1])));
    }

    #[test]
    fn an_endpoint_that_was_tried_is_not_tried_again() {
        let (endpoints, rng, now) = (endpoints(2), SeededRng::new(3), Instant::now());
        let tried = [Arc::clone(&endpoints[0])];
        assert!(Arc::ptr_eq(choose(&endpoints, &tried, now, &rng).unwrap(), &endpoints[1]));
        assert!(choose(&endpoints, &endpoints.clone(), now, &rng).is_none());
        assert!(choose(&[], &[], now, &rng).is_none());
    }

    #[test]
    fn an_endpoint_that_failed_is_passed_over_for_a_while_unless_it_is_the_only_one() {
        let (endpoints, rng, now) = (endpoints(2), SeededRng::new(4), Instant::now());
        endpoints[0].failed(now);
        let chosen_at =
            |at| (0..100).filter(|_| Arc::ptr_eq(choose(&endpoints, &[], at, &rng).unwrap(), &endpoints[0])).count();
        assert_eq!(chosen_at(now), 0);
        assert!(chosen_at(now + SUSPENSION) > 0);
        assert!(choose(&endpoints[..1], &[], now, &rng).is_some());
        endpoints[0].succeeded();
        assert!(chosen_at(now) > 0);
    }
}
