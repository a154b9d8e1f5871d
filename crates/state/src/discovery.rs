//! What readers are told of whole chains, and of what peers may call.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::config_entry::ConfigKind;
use lictor_types::discovery_chain::{ChainAnswer, ChainQuery};
use lictor_types::intention::WILDCARD;
use lictor_types::query::ExportedService;
use lictor_types::{Answer, Index};

use crate::chain;
use crate::changes::Table;
use crate::store::Store;

/// The name of the one entry that says what is exported.
pub(crate) const EXPORTS: &str = "default";
/// The service that the servers themselves are; peers do not call it.
const SERVERS: &str = "consul";

impl Store {
    /// Where calls of a service go. The index is that of the last change of anything the chain follows from.
    pub(crate) fn discovery_chain(&self, query: &ChainQuery) -> (Index, Answer) {
        let of_authority = self.indexes.of_table(Table::Authority);
        let Some(roots) = self.cluster.roots() else { return (of_authority, Answer::DiscoveryChain(None)) };
        let key = query.service.key();
        let address = self.virtual_addresses.get(&key);
        let gone = || self.indexes.of_extinction(Table::VirtualAddresses);
        let of_address = address.map_or_else(gone, |row| row.modify_index);
        let mut compiled = match chain::compile(&self.config_entries, query, &roots.trust_domain) {
            Ok(compiled) => compiled,
            Err(problem) => {
                // What broke it may be any entry.
                let index = self.indexes.of_table(Table::ConfigEntries).max(of_authority);
                return (index, Answer::DiscoveryChain(Some(ChainAnswer::Broken(problem))));
            }
        };
        if let Some(row) = address {
            compiled.chain.automatic_addresses = vec![row.address().to_string()];
            compiled.chain.manual_addresses = Some(row.manual.clone());
        }
        let of_entries = compiled
            .consulted
            .iter()
            .map(|(kind, name)| self.config_entries.index_of(*kind, name, &self.indexes))
            .max()
            .unwrap_or_default();
        let answer = ChainAnswer::Compiled(Box::new(compiled.chain));
        (of_entries.max(of_address).max(of_authority), Answer::DiscoveryChain(Some(answer)))
    }

    /// The services that peers may call, with who may; one that is exported with all others only while it is there.
    pub(crate) fn exported_services(&self) -> (Index, Answer) {
        let index = self.config_entries.index_of(ConfigKind::ExportedServices, EXPORTS, &self.indexes);
        let Some(entry) = self.config_entries.get(ConfigKind::ExportedServices, EXPORTS) else {
            return (index, Answer::ExportedServices(Vec::new()));
        };
        let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut has_all = false;
        for row in entry.rows("Services") {
            let name = row["Name"].as_str().unwrap_or_default();
            let consumers = row["Consumers"].as_array().into_iter().flatten();
            let peers: BTreeSet<String> = consumers
                .filter_map(|it| it["Peer"].as_str().filter(|peer| !peer.is_empty()).map(str::to_owned))
                .collect();
            let names = if name == WILDCARD {
                has_all = true;
                self.services
                    .all()
                    .filter(|(_, it)| it.kind.is_empty())
                    .map(|(_, it)| it.name.as_str().to_owned())
                    .collect()
            } else {
                BTreeSet::from([name.to_owned()])
            };
            for name in names.into_iter().filter(|name| name != SERVERS && !peers.is_empty()) {
                exported.entry(name).or_default().extend(peers.iter().cloned());
            }
        }
        let of_names = if has_all { self.indexes.of_table(Table::ServiceNames) } else { Index(0) };
        let rows = exported
            .into_iter()
            .map(|(service, peers)| ExportedService { service, peers: peers.into_iter().collect() });
        (index.max(of_names), Answer::ExportedServices(rows.collect()))
    }
}
