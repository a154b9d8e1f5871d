//! Keys whose lock nobody may take yet: their holder ended without giving it back.
//!
//! Invariants
//! - Deadlines are by the leader's stamped time and part of the snapshot, so a change of leader neither forgets nor
//!   lengthens a delay.
//! - A row goes when its deadline is over, earliest first; none is longer than
//!   [`lictor_types::session::LOCK_DELAY_MAX`], so what ended sessions held within that time bounds the table.

use imbl::{OrdMap, OrdSet};
use lictor_types::Timestamp;

use super::Key;

#[derive(Clone, Default)]
pub(crate) struct LockDelays {
    rows: OrdMap<Key, Timestamp>,
    by_deadline: OrdSet<(Timestamp, Key)>,
}

impl LockDelays {
    /// Shuts the lock of `key` until `deadline`, or as long as it is shut already if that is longer.
    pub(crate) fn shut(&mut self, key: &Key, deadline: Timestamp) {
        if let Some(old) = self.rows.get(key).copied() {
            if old >= deadline {
                return;
            }
            self.by_deadline.remove(&(old, key.clone()));
        }
        self.rows.insert(key.clone(), deadline);
        self.by_deadline.insert((deadline, key.clone()));
    }

    /// Whether the lock of `key` is shut at `now`.
    pub(crate) fn is_shut(&self, key: &str, now: Timestamp) -> bool {
        self.rows.get(key).is_some_and(|deadline| *deadline > now)
    }

    /// Opens the locks whose time is over.
    pub(crate) fn reap(&mut self, now: Timestamp) {
        while let Some((deadline, key)) = self.by_deadline.get_min().cloned() {
            if deadline > now {
                break;
            }
            self.rows.remove(&key);
            self.by_deadline.remove(&(deadline, key));
        }
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (&Key, &Timestamp)> {
        self.rows.iter()
    }
}
