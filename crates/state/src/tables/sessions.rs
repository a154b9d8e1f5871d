//! Sessions, by id, by node, and by the checks they hang on.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use lictor_types::{Index, Session};

use super::nodes::node_key;
use super::{Key, of_first, of_pair};

#[derive(Clone, Default)]
pub(crate) struct Sessions {
    rows: OrdMap<Key, Arc<Session>>,
    by_node: OrdMap<(Key, Key), Arc<Session>>,
    /// By node, check and session.
    by_check: OrdMap<(Key, Key, Key), ()>,
    /// Those with a TTL, oldest first: what the leader's timers follow.
    with_ttl: OrdSet<(Index, Key)>,
}

impl Sessions {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Session>> {
        self.rows.get(id)
    }

    /// Adds a session that is not there.
    pub(crate) fn insert(&mut self, session: Session) {
        let (id, node) = (Key::from(&*session.id), node_key(&session.node));
        let session = Arc::new(session);
        for check in session.checks() {
            self.by_check.insert((node.clone(), Key::from(check), id.clone()), ());
        }
        if session.time_to_live().is_some() {
            self.with_ttl.insert((session.create_index, id.clone()));
        }
        self.by_node.insert((node, id.clone()), session.clone());
        self.rows.insert(id, session);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<Session>> {
        let session = self.rows.remove(id)?;
        let (id, node) = (Key::from(id), node_key(&session.node));
        for check in session.checks() {
            self.by_check.remove(&(node.clone(), Key::from(check), id.clone()));
        }
        self.with_ttl.remove(&(session.create_index, id.clone()));
        self.by_node.remove(&(node, id));
        Some(session)
    }

    /// The sessions of a node, by id.
    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Session>> + use<'_> {
        of_pair(&self.by_node, node).map(|(_, session)| session)
    }

    /// The ids of the sessions that hang on a check.
    pub(crate) fn on_check(&self, node: &Key, check: &str) -> Vec<Key> {
        let check = Key::from(check);
        let start = (node.clone(), check.clone(), Key::from(""));
        self.by_check
            .range(start..)
            .take_while(|((of_node, of_check, _), ())| of_node == node && *of_check == check)
            .map(|((_, _, id), ())| id.clone())
            .collect()
    }

    /// Whether any session hangs on a check of this node: most nodes have none.
    pub(crate) fn hang_on(&self, node: &Key) -> bool {
        of_first(&self.by_check, node).next().is_some()
    }

    /// The sessions with a TTL that were made after `index`, oldest first.
    pub(crate) fn with_ttl_after(&self, index: Index) -> impl Iterator<Item = &Arc<Session>> {
        self.with_ttl.range((index.next(), Key::from(""))..).filter_map(|(_, id)| self.rows.get(id))
    }

    pub(crate) fn count_with_ttl(&self) -> usize {
        self.with_ttl.len()
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &Session> {
        self.rows.values().map(|session| &**session)
    }
}
