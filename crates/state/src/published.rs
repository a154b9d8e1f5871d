//! The state as readers see it: one root that is replaced whole, and the watches that tell of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use lictor_types::{Answer, Query};

use crate::access::Authorized;
use crate::answer::Answered;
use crate::answers::Answers;
use crate::changes::Changes;
use crate::store::Store;
use crate::watches::Watches;

/// The newest applied state. Readers never wait for the writer, nor it for them.
#[derive(Default)]
pub struct Published {
    root: ArcSwap<Store>,
    watches: Watches,
    answers: Answers,
    /// Odd while one state takes the place of another: see [`Published::version`].
    version: AtomicU64,
}

impl Published {
    /// The newest state, consistent for as long as it is held.
    pub fn load(&self) -> Arc<Store> {
        self.root.load_full()
    }

    /// Which state is the newest: what was read after this number was taken is not older than any state, as long as this is the
    /// number. None in the moment in which it changes. It counts publications here, not commands: it is of use to this process
    /// alone.
    pub fn version(&self) -> Option<u64> {
        let version = self.version.load(Ordering::SeqCst);
        version.is_multiple_of(2).then_some(version)
    }

    /// Makes `store` the newest state, then wakes who waits on `changes`. Only one thread may publish.
    pub fn publish(&self, store: Store, changes: &Changes) {
        // Odd before the first reader can see the new state, even when every reader sees it: who finds the same even number
        // twice has seen one state in between and no other.
        self.version.fetch_add(1, Ordering::SeqCst);
        self.root.store(Arc::new(store));
        self.version.fetch_add(1, Ordering::SeqCst);
        self.watches.notify(changes);
    }

    /// Answers from `store`, which was loaded from here: as [`Store::answer`], with what was put together before where
    /// that is the same.
    pub fn answer(&self, store: &Store, query: &Authorized<Query>) -> Answered {
        let Query::HealthService(asked) = query.get() else { return store.answer(query) };
        if !query.rules().reads_every_instance() {
            return store.answer(query);
        }
        let index = store.index_of_service(asked);
        if let Some(rows) = self.answers.get(asked, index) {
            return Answered { index, answer: Answer::CheckServiceNodes(rows), filtered: false };
        }
        let answered = store.answer(query);
        if let Answer::CheckServiceNodes(rows) = &answered.answer {
            self.answers.keep(asked, index, rows);
        }
        answered
    }

    /// Makes `store`, which came from a snapshot, the newest state, and wakes everybody.
    pub fn replace(&self, store: Store) {
        self.answers.clear();
        self.publish(store, &Changes::everything());
    }

    /// The watches on this state.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_of_one_state_only() {
        let published = Published::default();
        let first = published.version();
        assert!(first.is_some());
        assert_eq!(published.version(), first);
        published.publish(Store::default(), &Changes::default());
        let second = published.version();
        assert!(second.is_some() && second != first);
        published.replace(Store::default());
        assert!(published.version().is_some() && published.version() != second);
    }

    /// Nobody who saw a state finds a version afterwards under which an older one was read.
    #[test]
    fn no_reader_finds_an_old_version_after_a_new_state() {
        use std::sync::atomic::AtomicBool;
        const ROUNDS: u64 = 20_000;
        let (published, done) = (Published::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    published.publish(Store::default(), &Changes::default());
                }
                done.store(true, Ordering::SeqCst);
            });
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let Some(version) = published.version() else { continue };
                    let made_of = published.load();
                    let current = published.load();
                    if published.version() == Some(version) {
                        assert!(Arc::ptr_eq(&made_of, &current), "two states under one version");
                    }
                }
            });
        });
        assert_eq!(published.version(), Some(2 * ROUNDS));
    }
}
