//! What this server's state is at a place of the log, so that servers can compare theirs as they run.
//!
//! The leader puts [`lictor_types::Command::StateCompare`] into the log. Whoever applies it keeps the state of that very
//! place, which is a cheap clone, and hashes it beside the apply path; the leader then asks everybody for the hash
//! ([`crate::leader::equality`]). The place is one of the log, not a moment and not an index of the state alone: between
//! two commands a repeated request may move the leader's time, which is part of the state.
//!
//! Invariants
//! - Applying waits for no hash: a state that waits to be hashed is replaced by the next one.
//! - A repeated marker is no place of its own: it takes no index.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lictor_state::Store;
use lictor_types::Index;
use lictor_types::rpc::{Report, StateHash};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::datacenter::ServerDatacenter;
use crate::raft::Drive;

/// Hashes that are kept: the leader asks for the newest, and one that was asked late for the one before.
const KEPT: usize = 8;
/// How long a server is waited for that has not come so far yet, or still hashes.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// When the leader has the states compared.
#[derive(Clone, Copy, Debug)]
pub struct EqualitySettings {
    /// After so many entries of the log.
    pub entries: u64,
    /// After this long, if anything has changed.
    pub interval: Duration,
}

impl Default for EqualitySettings {
    fn default() -> Self {
        Self { entries: 1_000, interval: Duration::from_secs(60) }
    }
}

/// What was hashed.
#[derive(Default)]
struct Known {
    hashes: VecDeque<(Index, u32)>,
    took: Duration,
}

/// The looks at the state of this server. Only consensus adds one.
#[derive(Default)]
pub struct Looks {
    waiting: Mutex<Option<(Index, Store)>>,
    arrived: Notify,
    known: watch::Sender<Known>,
}

impl Looks {
    /// The state at a marker.
    pub(crate) fn look(&self, store: &Store) {
        let replaced = self.waiting.lock().replace((store.index(), store.clone()));
        drop(replaced);
        self.arrived.notify_one();
    }

    /// Hashes what was looked at, one after the other, until dropped.
    pub(crate) async fn hash(self: Arc<Self>, drive: Drive) {
        loop {
            self.arrived.notified().await;
            let waiting = self.waiting.lock().take();
            let Some((index, store)) = waiting else { continue };
            let begin = Instant::now();
            // The state is dropped where it was hashed: to free what only it holds takes time too.
            let hashed = match drive {
                Drive::Tasks => Ok(store.hash()),
                Drive::Threads => tokio::task::spawn_blocking(move || store.hash()).await,
            };
            let Ok(hash) = hashed else { return };
            self.known.send_modify(|known| {
                known.took = begin.elapsed();
                known.hashes.push_back((index, hash));
                if known.hashes.len() > KEPT {
                    known.hashes.pop_front();
                }
            });
        }
    }

    /// The hash of the state at the marker with this index, as soon as there is one; none when there will be none.
    pub(crate) async fn of(&self, index: Index, limit: Duration) -> Option<u32> {
        let mut known = self.known.subscribe();
        let reached = known.wait_for(|known| known.hashes.back().is_some_and(|(newest, _)| *newest >= index));
        let known = timeout(limit, reached).await.ok()?.ok()?;
        known.hashes.iter().find(|(its, _)| *its == index).map(|(_, hash)| *hash)
    }

    /// How long the newest hash took.
    pub(crate) fn took(&self) -> Duration {
        self.known.borrow().took
    }
}

impl ServerDatacenter {
    /// Answers a leader that compares, and says so here too when this server differs from it.
    pub(crate) async fn compare_state(&self, asked: &StateHash) -> Report {
        let limit = Duration::from_millis(asked.wait_millis).min(ANSWER_LIMIT);
        let own = self.looks.of(asked.index, limit).await;
        if let Some(own) = own.filter(|own| *own != asked.hash) {
            self.figures.states_differed.increment();
            tracing::error!(
                index = asked.index.0,
                leader = asked.leader,
                "the state of this server differs from the leader's: {own:08x} here, {:08x} there. The leader's log says \
                 which server most others disagree with: stop that one, empty its data directory and start it again",
                asked.hash
            );
        }
        Report::StateHash(own)
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::{Command, Envelope, Timestamp};

    use super::*;

    fn marked(number: u8) -> Store {
        let mut store = Store::new();
        for id in 0..number {
            let leader_time = Timestamp(u64::from(id));
            store.apply(&Envelope { request_id: [id; 16], leader_time, command: Command::StateCompare });
        }
        store
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_look_is_hashed_and_who_asks_for_one_that_was_passed_over_is_told_so() {
        let looks = Arc::new(Looks::default());
        let (one, two) = (marked(1), marked(2));
        looks.look(&one);
        looks.look(&two);
        let hashing = tokio::time::timeout(Duration::from_secs(1), Arc::clone(&looks).hash(Drive::Tasks));
        assert!(hashing.await.is_err(), "it never ends by itself");
        assert_eq!(looks.of(two.index(), Duration::from_secs(1)).await, Some(two.hash()));
        assert_eq!(looks.of(one.index(), Duration::from_secs(1)).await, None);
        assert_eq!(looks.of(two.index().next(), Duration::from_secs(1)).await, None, "not there in time");
    }
}
