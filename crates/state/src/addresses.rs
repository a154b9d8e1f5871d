//! Who has an address: what DNS asks for the name of one.

use core::net::IpAddr;
use std::collections::BTreeMap;

use lictor_types::query::AddressNames;
use lictor_types::{Answer, Index, Resource};

use crate::answer::Filter;
use crate::changes::Table;
use crate::store::Store;

/// Names of one kind in an answer.
const NAMES_MAX: usize = 256;

/// Whether a text of the catalog is this address, however it is spelled.
fn is(text: &str, written: &str, address: Option<IpAddr>) -> bool {
    text == written || (text.contains(':') && address.is_some() && text.parse().ok() == address)
}

impl Store {
    /// The nodes at an address and the services with instances of their own there. It looks at every row: nobody asks for this
    /// often, and an index of all addresses would weigh more than it is worth.
    pub(crate) fn address_names(&self, filter: &mut Filter<'_>, written: &str) -> (Index, Answer) {
        let address = written.parse().ok();
        let nodes = self.nodes.rows().filter(|node| is(&node.address, written, address));
        let nodes = nodes.filter(|node| filter.may_read(Resource::Node, node.name.as_str()));
        let nodes = nodes.map(|node| node.name.clone()).take(NAMES_MAX).collect();
        let mut services = BTreeMap::new();
        for (node, service) in self.services.all() {
            if services.len() >= NAMES_MAX {
                break;
            }
            if is(&service.address, written, address)
                && filter.may_read(Resource::Node, node)
                && filter.may_read(Resource::Service, service.name.as_str())
            {
                services.insert(service.name.key(), service.name.clone());
            }
        }
        let services = services.into_values().collect();
        let index = self.indexes.of_table(Table::Nodes).max(self.indexes.of_table(Table::Services));
        (index, Answer::AddressNames(AddressNames { nodes, services }))
    }
}
