//! Readers that wait for a change, woken by the keys that a commit touched.
//!
//! The order that loses nothing: register, read, wait. A change after the registration leaves a permit, so a wait that
//! begins later returns at once. Spurious wake-ups are allowed: the reader compares indexes.
//!
//! Invariants
//! - A commit costs the keys it touched and the watches it wakes, never the size of the data; only the replacement of
//!   the whole state wakes everybody.
//! - Dropping a [`Watch`] unregisters it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lictor_types::Query;
use lictor_types::config_entry::ConfigKind;
use lictor_types::intention::WILDCARD;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::changes::{Changes, Table};
use crate::discovery::EXPORTS;
use crate::tables::config_entries::{config_key, kind_prefix};
use crate::tables::nodes::may_be_id;
use crate::trie::Trie;

/// Bytes of a key that are watched; of a longer one everything that starts like it. Bounds the depth of the trie.
const WATCHED_BYTES_MAX: usize = 1024;

/// Where a watch is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    table: Table,
    key: Vec<u8>,
    is_prefix: bool,
}

impl Place {
    fn new(table: Table, key: &str, is_prefix: bool) -> Self {
        let key = key.as_bytes();
        match key.get(..WATCHED_BYTES_MAX) {
            Some(start) => Self { table, key: start.into(), is_prefix: true },
            None => Self { table, key: key.into(), is_prefix },
        }
    }
}

#[derive(Default)]
struct Shared {
    tries: [Mutex<Trie>; Table::COUNT],
    next_id: AtomicU64,
}

/// All registered watches.
#[derive(Default)]
pub struct Watches {
    shared: Arc<Shared>,
}

impl Watches {
    /// Watches what the answer to `query` depends on, from now until the watch is dropped.
    pub fn register(&self, query: &Query) -> Watch {
        let places = places(query);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let signal = Arc::new(Notify::new());
        for place in &places {
            let mut trie = self.shared.tries[place.table as usize].lock();
            trie.insert(&place.key, place.is_prefix, id, signal.clone());
        }
        Watch { shared: self.shared.clone(), id, signal, places }
    }

    /// Wakes the watches on what changed. Call it after the changed state was published.
    pub fn notify(&self, changes: &Changes) {
        let mut woken = Vec::new();
        if changes.is_everything() {
            for trie in &self.shared.tries {
                trie.lock().collect_all(&mut woken);
            }
        } else {
            for (table, key) in changes.keys() {
                self.shared.tries[table as usize].lock().collect(key.as_bytes(), &mut woken);
            }
        }
        // Outside the lock: waking runs the wakers of others.
        for signal in woken {
            signal.notify_one();
        }
    }
}

/// One registered watch.
pub struct Watch {
    shared: Arc<Shared>,
    id: u64,
    signal: Arc<Notify>,
    places: Vec<Place>,
}

impl Watch {
    /// Returns when something changed since the last return, or since the registration. Dropping the future loses
    /// nothing.
    pub async fn changed(&mut self) {
        self.signal.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for place in &self.places {
            let mut trie = self.shared.tries[place.table as usize].lock();
            trie.remove(&place.key, place.is_prefix, self.id);
        }
    }
}

/// What completes the registrations of proxies; of which services only the state knows.
fn central() -> Vec<Place> {
    vec![
        Place::new(Table::ConfigEntries, kind_prefix(ConfigKind::ServiceDefaults), true),
        Place::new(Table::ConfigEntries, kind_prefix(ConfigKind::ProxyDefaults), true),
    ]
}

/// What the answer to a query depends on.
fn places(query: &Query) -> Vec<Place> {
    let exact = |table, key: &str| Place::new(table, key, false);
    let under = |table, key: &str| Place::new(table, key, true);
    let all = |table| under(table, "");
    match query {
        Query::Selected(it) => {
            let mut places = places(&it.query);
            if it.merge.is_some() {
                places.extend(central());
            }
            places
        }
        Query::Completed(_) => central(),
        Query::DiscoveryChain(it) => {
            // Which entries a chain leads over only the state knows.
            let mut places = central();
            for kind in [ConfigKind::ServiceRouter, ConfigKind::ServiceSplitter, ConfigKind::ServiceResolver] {
                places.push(under(Table::ConfigEntries, kind_prefix(kind)));
            }
            places.extend([exact(Table::VirtualAddresses, &it.service.key()), all(Table::Authority)]);
            places
        }
        Query::ExportedServices => vec![
            exact(Table::ConfigEntries, &config_key(ConfigKind::ExportedServices, EXPORTS)),
            // Whether all services are exported, so that others become exported, only the state knows.
            all(Table::ServiceNames),
        ],
        Query::ConfigEntry(key) => vec![exact(Table::ConfigEntries, &config_key(key.kind, &key.name))],
        Query::ConfigEntries(kind) => vec![exact(Table::ConfigKinds, kind.as_str())],
        Query::GatewayServices(gateway) => vec![
            exact(Table::ConfigEntries, &config_key(ConfigKind::TerminatingGateway, gateway.as_str())),
            exact(Table::ConfigEntries, &config_key(ConfigKind::IngressGateway, gateway.as_str())),
            // Behind a gateway for all services is what there is, and speaks its protocol.
            all(Table::ServiceNames),
            exact(Table::ConfigKinds, ConfigKind::ServiceDefaults.as_str()),
            exact(Table::ConfigKinds, ConfigKind::ProxyDefaults.as_str()),
        ],
        Query::HealthIngress(it) => vec![
            all(Table::Gateways),
            exact(Table::ConfigEntries, &config_key(ConfigKind::ServiceDefaults, it.service.as_str())),
            exact(Table::ConfigKinds, ConfigKind::ProxyDefaults.as_str()),
        ],
        Query::AddressNames(_) => vec![all(Table::Nodes), all(Table::Services)],
        Query::VirtualAddress(service) => vec![exact(Table::VirtualAddresses, &service.key())],
        Query::Coordinates => vec![all(Table::Coordinates)],
        Query::CoordinatesOf(name) => vec![exact(Table::Coordinates, &name.key())],
        Query::KvGet(key) => vec![exact(Table::Kv, key)],
        Query::KvList(prefix) => vec![under(Table::Kv, prefix)],
        Query::KvKeys(it) => vec![under(Table::Kv, &it.prefix)],
        Query::Nodes(_) => vec![all(Table::Nodes)],
        Query::Node(name) => vec![exact(Table::Nodes, &name.key())],
        Query::Services(meta) if meta.is_empty() => vec![all(Table::ServiceNames)],
        Query::Services(_) => vec![all(Table::ServiceNames), all(Table::Nodes)],
        Query::ServiceNodes(it) | Query::HealthService(it) | Query::HealthChecks(it) => {
            if !it.connect {
                return vec![exact(Table::Services, &it.service.key())];
            }
            // Which gateways stand before the service only the state knows.
            vec![exact(Table::Connect, &it.service.key()), all(Table::Gateways)]
        }
        // Under a text that may be an id, the node it finds is known only to the state.
        Query::NodeServices(name) if may_be_id(name.as_str()) => vec![all(Table::NodeContents)],
        Query::NodeServices(name) | Query::HealthNode(name) => vec![exact(Table::NodeContents, &name.key())],
        Query::HealthState(it) if it.node_meta.is_empty() => vec![all(Table::Checks)],
        Query::HealthState(_) => vec![all(Table::Checks), all(Table::Nodes)],
        Query::CaRoots | Query::AuthoritySettings => vec![all(Table::Authority)],
        Query::Autopilot => vec![all(Table::Autopilot)],
        Query::Intentions | Query::ServiceIntentionsList => vec![all(Table::Intentions)],
        Query::IntentionExact(it) => vec![exact(Table::Intentions, &it.destination)],
        Query::IntentionMatch(it) if it.by_source => vec![all(Table::Intentions)],
        Query::IntentionMatch(it) => {
            vec![exact(Table::Intentions, &it.name), exact(Table::Intentions, WILDCARD)]
        }
        Query::Session(id) => vec![exact(Table::Sessions, id)],
        Query::NodeSessions(node) => vec![exact(Table::NodeSessions, &node.key())],
        Query::Sessions => vec![all(Table::Sessions)],
        // It never waits.
        Query::Transaction(_) => Vec::new(),
        Query::ServiceIntentions(name) => vec![exact(Table::Intentions, name)],
        // What a query finds is not waited for; of all others the index is the table's.
        Query::PreparedQuery(_)
        | Query::PreparedQueries
        | Query::PreparedQueryExplain(_)
        | Query::PreparedQueryExecute(_) => vec![all(Table::PreparedQueries)],
    }
}
