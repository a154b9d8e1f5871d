//! Health checks, by node and by instance.

use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::{CheckId, HealthCheck};

use super::{Key, of_pair};

#[derive(Clone, Default)]
pub(crate) struct Checks {
    rows: OrdMap<(Key, Key), Arc<HealthCheck>>,
    /// By node, instance id (empty for checks of the node itself) and check id.
    by_instance: OrdMap<(Key, Key, Key), Arc<HealthCheck>>,
}

/// The id of a stored check, which always has one.
pub(crate) fn check_id(check: &HealthCheck) -> &str {
    check.check_id.as_ref().map_or("", CheckId::as_str)
}

impl Checks {
    pub(crate) fn get(&self, node: &Key, id: &str) -> Option<&Arc<HealthCheck>> {
        self.rows.get(&(node.clone(), Key::from(id)))
    }

    pub(crate) fn insert(&mut self, node: &Key, check: HealthCheck) {
        let id = Key::from(check_id(&check));
        self.remove(node, &id);
        let check = Arc::new(check);
        self.by_instance.insert((node.clone(), Key::from(&*check.service_id), id.clone()), check.clone());
        self.rows.insert((node.clone(), id), check);
    }

    pub(crate) fn remove(&mut self, node: &Key, id: &str) -> Option<Arc<HealthCheck>> {
        let id = Key::from(id);
        let check = self.rows.remove(&(node.clone(), id.clone()))?;
        self.by_instance.remove(&(node.clone(), Key::from(&*check.service_id), id));
        Some(check)
    }

    /// The checks on a node, by id.
    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<HealthCheck>> + use<'_> {
        of_pair(&self.rows, node).map(|(_, check)| check)
    }

    /// The checks of one instance, or with an empty id those of the node itself, by id.
    pub(crate) fn of_instance<'a>(
        &'a self,
        node: &Key,
        id: &str,
    ) -> impl Iterator<Item = &'a Arc<HealthCheck>> + use<'a> {
        let (node, id) = (node.clone(), Key::from(id));
        let start = (node.clone(), id.clone(), Key::from(""));
        self.by_instance.range(start..).take_while(move |(key, _)| key.0 == node && key.1 == id).map(|(_, check)| check)
    }

    /// The node key and the check, for all of them, by node.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (&Key, &Arc<HealthCheck>)> {
        self.rows.iter().map(|(key, check)| (&key.0, check))
    }
}
