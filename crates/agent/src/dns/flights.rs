//! Questions that are asked together: who asks what others ask at that moment shares the next read with them.
//!
//! An agent that holds no state asks a server. While one read of a name is under way, all further askers of that name wait for the
//! next one, which begins when this one is done: so a name costs one read at a time, however many ask.
//!
//! Invariants
//! - A read answers only those who asked before it began: nobody gets an older answer than if it had asked alone.
//! - At most two reads of one question exist, of which one is under way; none goes on when nobody waits for it any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Questions after which those that nobody waits for are cleared away.
const FLIGHTS_MAX: usize = 2048;

type Read<T> = BoxFuture<'static, T>;

/// The reads that are under way or about to begin.
pub(super) struct Flights<T: Clone> {
    flights: Mutex<HashMap<Box<[u8]>, Flight<T>>>,
}

struct Flight<T: Clone> {
    begun: Arc<AtomicBool>,
    read: WeakShared<Read<T>>,
}

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The next read of `key`, which is `read` unless somebody waits for one already.
    pub(super) fn join(&self, key: &[u8], read: impl FnOnce() -> Read<T>) -> Shared<Read<T>> {
        let mut flights = self.flights.lock();
        let newest = flights.get(key).and_then(|flight| Some((flight.begun.clone(), flight.read.upgrade()?)));
        let before = match newest {
            Some((begun, read)) if !begun.load(Ordering::SeqCst) => return read,
            Some((_, read)) => Some(read),
            None => None,
        };
        let begun = Arc::new(AtomicBool::new(false));
        let (begins, read) = (Arc::clone(&begun), read());
        let shared = async move {
            if let Some(before) = before {
                before.await;
            }
            begins.store(true, Ordering::SeqCst);
            read.await
        }
        .boxed()
        .shared();
        if flights.len() >= FLIGHTS_MAX {
            flights.retain(|_, flight| flight.read.upgrade().is_some());
        }
        if let Some(read) = shared.downgrade() {
            flights.insert(key.into(), Flight { begun, read });
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio::sync::Semaphore;

    use super::*;

    /// Reads that end when they are let go; each has its number, given when it begins.
    struct Reads {
        begun: Arc<AtomicU64>,
        gate: Arc<Semaphore>,
        flights: Flights<u64>,
    }

    impl Reads {
        fn new() -> Self {
            Self { begun: Arc::default(), gate: Arc::new(Semaphore::new(0)), flights: Flights::default() }
        }

        fn ask(&self, key: &str) -> Shared<Read<u64>> {
            self.flights.join(key.as_bytes(), || {
                let (begun, gate) = (self.begun.clone(), self.gate.clone());
                async move {
                    let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.acquire().await.unwrap().forget();
                    number
                }
                .boxed()
            })
        }
    }

    #[tokio::test]
    async fn who_asks_during_a_read_shares_the_next_one() {
        let reads = Reads::new();
        let mut first = reads.ask("a");
        let together = reads.ask("a");
        assert!((&mut first).now_or_never().is_none());
        assert_eq!(reads.begun.load(Ordering::SeqCst), 1);
        let late = [reads.ask("a"), reads.ask("a"), reads.ask("a")];
        for mut late in late.clone() {
            assert!((&mut late).now_or_never().is_none());
        }
        assert_eq!(reads.begun.load(Ordering::SeqCst), 1, "a second read while one was under way");
        reads.gate.add_permits(2);
        assert_eq!((first.await, together.await), (1, 1));
        for late in late {
            assert_eq!(late.await, 2, "an answer that is older than the question");
        }
        assert_eq!(reads.begun.load(Ordering::SeqCst), 2);
        reads.gate.add_permits(1);
        assert_eq!(reads.ask("a").await, 3, "an answer that was there before the question");
    }

    #[tokio::test]
    async fn other_names_do_not_wait_and_a_read_that_was_given_up_stops_nobody() {
        let reads = Reads::new();
        let mut given_up = reads.ask("a");
        assert!((&mut given_up).now_or_never().is_none());
        let mut waiting = reads.ask("a");
        drop(given_up);
        assert!((&mut waiting).now_or_never().is_none());
        let mut other = reads.ask("b");
        assert!((&mut other).now_or_never().is_none());
        assert_eq!(reads.begun.load(Ordering::SeqCst), 2);
        reads.gate.add_permits(3);
        assert_eq!(waiting.await, 3);
        assert_eq!(other.await, 2);
        let mut alone = reads.ask("c");
        assert!((&mut alone).now_or_never().is_none());
        drop(alone);
        reads.gate.add_permits(1);
        assert_eq!(reads.ask("c").await, 5, "a read that nobody waited for was still there");
        for number in 0..3 * FLIGHTS_MAX {
            drop(reads.ask(&number.to_string()));
        }
        assert!(reads.flights.flights.lock().len() <= FLIGHTS_MAX);
    }
}
