//! Instances of services: by node, by service, and by the service that they serve over mutual TLS.
//!
//! Invariants
//! - Services are found whatever the case of their name; rows of one service are in the order of node name, then id.

use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::NodeService;

use super::{Key, of_first, of_pair};

#[derive(Clone, Default)]
pub(crate) struct Services {
    rows: OrdMap<(Key, Key), Arc<NodeService>>,
    by_service: OrdMap<(Key, Key, Key), Arc<NodeService>>,
    by_connect: OrdMap<(Key, Key, Key), Arc<NodeService>>,
}

/// The key of the service that `service` is an instance of.
pub(crate) fn service_key(service: &NodeService) -> Key {
    Key::from(service.name.key())
}

/// The key of the service whose callers `service` serves over mutual TLS.
pub(crate) fn connect_key(service: &NodeService) -> Option<Key> {
    service.connect_destination().map(|name| Key::from(name.to_ascii_lowercase()))
}

impl Services {
    pub(crate) fn get(&self, node: &Key, id: &str) -> Option<&Arc<NodeService>> {
        self.rows.get(&(node.clone(), Key::from(id)))
    }

    pub(crate) fn insert(&mut self, node: &Key, service: NodeService) {
        let id = Key::from(service.id_text());
        self.remove(node, &id);
        let service = Arc::new(service);
        self.by_service.insert((service_key(&service), node.clone(), id.clone()), service.clone());
        if let Some(destination) = connect_key(&service) {
            self.by_connect.insert((destination, node.clone(), id.clone()), service.clone());
        }
        self.rows.insert((node.clone(), id), service);
    }

    pub(crate) fn remove(&mut self, node: &Key, id: &str) -> Option<Arc<NodeService>> {
        let id = Key::from(id);
        let service = self.rows.remove(&(node.clone(), id.clone()))?;
        if let Some(destination) = connect_key(&service) {
            self.by_connect.remove(&(destination, node.clone(), id.clone()));
        }
        self.by_service.remove(&(service_key(&service), node.clone(), id));
        Some(service)
    }

    /// The instances on a node, by id.
    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<NodeService>> + use<'_> {
        of_pair(&self.rows, node).map(|(_, service)| service)
    }

    /// The node key and the instance, for every instance of a service.
    pub(crate) fn of_service(&self, service: &str) -> impl Iterator<Item = (&Key, &Arc<NodeService>)> + use<'_> {
        of_first(&self.by_service, service).map(|(key, service)| (&key.1, service))
    }

    /// The node key and the instance, for every instance that serves a service over mutual TLS.
    pub(crate) fn of_connect(&self, service: &str) -> impl Iterator<Item = (&Key, &Arc<NodeService>)> + use<'_> {
        of_first(&self.by_connect, service).map(|(key, service)| (&key.1, service))
    }

    /// The node key and the instance, for all of them, by service.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<NodeService>)> {
        self.by_service.iter().map(|(key, service)| (&key.1, service))
    }

    /// The node key and the instance, for all of them, by node.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (&Key, &NodeService)> {
        self.rows.iter().map(|(key, service)| (&key.0, &**service))
    }
}
