//! The index that each question is answered with.
//!
//! Invariants
//! - An index that is told for a key never goes backwards: while the key lives it is that of its last change; when it
//!   is gone it is that of the last key of its table that went, which is later than any change of the key itself.

use imbl::OrdMap;
use lictor_types::Index;

use crate::changes::{Commit, Table};
use crate::tables::Key;

#[derive(Clone, Default)]
pub(crate) struct Indexes {
    /// The last change of any row.
    pub(crate) tables: OrdMap<Table, Index>,
    /// The last change of what belongs to a key, for the tables whose rows do not tell it themselves.
    pub(crate) keys: OrdMap<(Table, Key), Index>,
    /// The last time that a key ceased to be.
    pub(crate) extinctions: OrdMap<Table, Index>,
}

impl Indexes {
    /// Something in a table changed whose rows carry their own index.
    pub(crate) fn changed(&mut self, commit: &mut Commit, table: Table, key: Key) {
        self.tables.insert(table, commit.at);
        commit.touch(table, key);
    }

    /// Something that belongs to `key` changed; `exists` tells whether anything of it is left.
    pub(crate) fn settled(&mut self, commit: &mut Commit, table: Table, key: Key, exists: bool) {
        if exists {
            self.keys.insert((table, key.clone()), commit.at);
        } else {
            self.keys.remove(&(table, key.clone()));
            self.extinctions.insert(table, commit.at);
        }
        self.changed(commit, table, key);
    }

    /// A row is gone.
    pub(crate) fn removed(&mut self, commit: &mut Commit, table: Table, key: Key) {
        self.extinctions.insert(table, commit.at);
        self.changed(commit, table, key);
    }

    pub(crate) fn of_table(&self, table: Table) -> Index {
        self.tables.get(&table).copied().unwrap_or_default()
    }

    pub(crate) fn of_extinction(&self, table: Table) -> Index {
        self.extinctions.get(&table).copied().unwrap_or_default()
    }

    pub(crate) fn of_key(&self, table: Table, key: Key) -> Index {
        self.keys.get(&(table, key)).copied().unwrap_or_else(|| self.of_extinction(table))
    }
}
