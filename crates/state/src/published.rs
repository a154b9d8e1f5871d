//! The state as readers see it: one root that is replaced whole, and the watches that tell of it.

use std::sync::Arc;

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
}

impl Published {
    /// The newest state, consistent for as long as it is held.
    pub fn load(&self) -> Arc<Store> {
        self.root.load_full()
    }

    /// Makes `store` the newest state, then wakes who waits on `changes`. Only one thread may publish.
    pub fn publish(&self, store: Store, changes: &Changes) {
        self.root.store(Arc::new(store));
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
