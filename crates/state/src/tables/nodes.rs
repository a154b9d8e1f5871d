//! Nodes of the catalog, by name and by id.
//!
//! Invariants
//! - A name is one node whatever its case; an id is one node.

use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::{Node, NodeName};

use super::{Key, under};

#[derive(Clone, Default)]
pub(crate) struct Nodes {
    rows: OrdMap<Key, Arc<Node>>,
    by_id: OrdMap<Key, Key>,
}

/// The key of a node.
pub(crate) fn node_key(name: &NodeName) -> Key {
    Key::from(name.key())
}

impl Nodes {
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Node>> {
        self.rows.get(key)
    }

    /// The node with this id, whatever its case.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Arc<Node>> {
        self.by_id.get(&*id.to_ascii_lowercase()).and_then(|key| self.rows.get(key))
    }

    /// The node with this name; else the one whose id is this, or alone starts with it.
    pub(crate) fn find(&self, name: &NodeName) -> Option<&Arc<Node>> {
        if let Some(node) = self.rows.get(&*name.key()) {
            return Some(node);
        }
        if !may_be_id(name.as_str()) {
            return None;
        }
        let prefix = name.key();
        let mut matching = under(&self.by_id, &prefix);
        let (_, key) = matching.next()?;
        match matching.next() {
            Some(_) => None,
            None => self.rows.get(key),
        }
    }

    pub(crate) fn insert(&mut self, node: Node) {
        let key = node_key(&node.name);
        if let Some(old) = self.rows.get(&key)
            && !old.id.is_empty()
        {
            let old_id = old.id.to_ascii_lowercase();
            self.by_id.remove(&*old_id);
        }
        if !node.id.is_empty() {
            self.by_id.insert(Key::from(node.id.to_ascii_lowercase()), key.clone());
        }
        self.rows.insert(key, Arc::new(node));
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Node>> {
        let node = self.rows.remove(key)?;
        if !node.id.is_empty() {
            self.by_id.remove(&*node.id.to_ascii_lowercase());
        }
        Some(node)
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.rows.values().map(|node| &**node)
    }
}

/// Whether a text that names a node may also be (the start of) an id: Consul takes two hexadecimal digits and more.
pub(crate) fn may_be_id(text: &str) -> bool {
    text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
