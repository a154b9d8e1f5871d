//! The state as readers see it: one root that is replaced whole, and the watches that tell of it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::changes::Changes;
use crate::store::Store;
use crate::watches::Watches;

/// The newest applied state. Readers never wait for the writer, nor it for them.
#[derive(Default)]
pub struct Published {
    root: ArcSwap<Store>,
    watches: Watches,
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

    /// Makes `store`, which came from a snapshot, the newest state, and wakes everybody.
    pub fn replace(&self, store: Store) {
        self.publish(store, &Changes::everything());
    }

    /// The watches on this state.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }
}
