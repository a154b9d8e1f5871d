//! How a question is answered: which rows, which index, and which rows the asker may see.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::query::{IntentionMatch, IntentionQuery, KeysQuery, ServiceQuery};
use lictor_types::{Access, Answer, Index, Intention, KvEntry, Node, NodeName, Query, Resource, Session};

use crate::access::{Authorized, Rules};
use crate::changes::Table;
use crate::store::{BIRTH, Store};
use crate::tables::intentions::{flatten, sort};
use crate::tables::nodes::node_key;

/// An answer, the index to wait from, and whether rows were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What the next blocking query must carry; never 0.
    pub index: Index,
    /// The answer.
    pub answer: Answer,
    /// Rows were left out because the asker may not see them.
    pub filtered: bool,
}

/// Chooses the rows that the asker may see, and remembers whether any was left out.
pub(crate) struct Filter<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) filtered: bool,
}

impl Filter<'_> {
    pub(crate) fn may_read(&mut self, resource: Resource, name: &str) -> bool {
        let may = self.rules.permits(resource, name, Access::Read);
        self.filtered |= !may;
        may
    }

    /// An intention may be read by who may read those of either end.
    fn may_read_intention(&mut self, source: &str, destination: &str) -> bool {
        let may =
            [destination, source].into_iter().any(|name| self.rules.permits(Resource::Intention, name, Access::Read));
        self.filtered |= !may;
        may
    }
}

/// Whether a row with this meta has all that is asked for.
pub(crate) fn has_meta(meta: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| meta.get(key) == Some(value))
}

fn sessions<'a>(filter: &mut Filter<'_>, rows: impl Iterator<Item = &'a Session>) -> Answer {
    let readable = rows.filter(|session| filter.may_read(Resource::Session, session.node.as_str()));
    Answer::Sessions(readable.cloned().collect())
}

impl Store {
    /// Answers a question from this snapshot.
    pub fn answer(&self, query: &Authorized<Query>) -> Answered {
        let filter = &mut Filter { rules: query.rules(), filtered: false };
        let (index, answer) = self.answer_to(filter, query.get());
        // After a restore rows are older than what readers were told before it.
        Answered { index: index.max(self.floor).max(BIRTH), answer, filtered: filter.filtered }
    }

    /// The index that the answer to a question about the instances of a service has.
    pub(crate) fn index_of_service(&self, query: &ServiceQuery) -> Index {
        self.service_index(query).max(self.floor).max(BIRTH)
    }

    pub(crate) fn answer_to(&self, filter: &mut Filter<'_>, query: &Query) -> (Index, Answer) {
        match query {
            Query::Selected(it) => self.selected(filter, it),
            Query::PreparedQuery(_)
            | Query::PreparedQueries
            | Query::PreparedQueryExplain(_)
            | Query::PreparedQueryExecute(_) => self.prepared_queries(filter, query),
            Query::ConfigEntry(key) => self.config_entry(key),
            Query::ConfigEntries(kind) => self.all_config_entries(filter, *kind),
            Query::GatewayServices(gateway) => self.gateway_services(filter, gateway),
            Query::HealthIngress(it) => self.health_ingress(filter, it),
            Query::VirtualAddress(service) => self.virtual_address(service),
            Query::AddressNames(address) => self.address_names(filter, address),
            Query::Completed(service) => {
                let mut completed = service.clone();
                self.complete(&mut completed);
                (self.central_index(service), Answer::Completed(completed))
            }
            Query::DiscoveryChain(it) => self.discovery_chain(it),
            Query::ExportedServices => self.exported_services(),
            Query::Coordinates => self.all_coordinates(filter),
            Query::CoordinatesOf(name) => self.coordinates_of(filter, name),
            Query::KvGet(key) => self.kv_get(key),
            Query::KvList(prefix) => (
                self.kv.index_under(prefix, &self.indexes),
                Answer::KvEntries(self.readable_under(filter, prefix).cloned().collect()),
            ),
            Query::KvKeys(it) => (self.kv.index_under(&it.prefix, &self.indexes), Answer::Keys(self.keys(filter, it))),
            Query::Nodes(meta) => (self.indexes.of_table(Table::Nodes), Answer::Nodes(self.nodes_with(filter, meta))),
            Query::Node(name) => self.node(filter, name),
            Query::Services(meta) => {
                (self.index_with_meta(Table::ServiceNames, meta), Answer::Services(self.service_names(filter, meta)))
            }
            Query::ServiceNodes(it) => (self.service_index(it), Answer::ServiceNodes(self.service_nodes(filter, it))),
            Query::NodeServices(name) => self.node_services(filter, name),
            Query::HealthService(it) => {
                (self.service_index(it), Answer::CheckServiceNodes(self.health_service(filter, it).into()))
            }
            Query::HealthNode(name) => self.health_node(filter, name),
            Query::HealthChecks(it) => (self.service_index(it), Answer::Checks(self.health_checks(filter, it))),
            Query::HealthState(it) => {
                (self.index_with_meta(Table::Checks, &it.node_meta), Answer::Checks(self.health_state(filter, it)))
            }
            Query::Session(id) => self.session_by_id(filter, id),
            Query::NodeSessions(name) => {
                let key = node_key(name);
                let index = self.indexes.of_key(Table::NodeSessions, key.clone());
                (index, sessions(filter, self.sessions.on_node(&key).map(|session| &**session)))
            }
            Query::Sessions => (self.indexes.of_table(Table::Sessions), sessions(filter, self.sessions.rows())),
            Query::Transaction(operations) => (self.index, Answer::Transaction(self.look_up(filter, operations))),
            Query::Autopilot => (
                self.indexes.of_table(Table::Autopilot),
                Answer::Autopilot(self.autopilot().cloned().unwrap_or_default()),
            ),
            Query::CaRoots => (self.indexes.of_table(Table::Authority), Answer::CaRoots(self.cluster.roots())),
            Query::AuthoritySettings => {
                let settings = self.authority().map(|authority| authority.settings.clone().unwrap_or_default());
                (self.indexes.of_table(Table::Authority), Answer::AuthoritySettings(settings))
            }
            Query::Intentions => {
                (self.indexes.of_table(Table::Intentions), Answer::Intentions(self.intentions_where(filter, |_| true)))
            }
            Query::IntentionExact(it) => self.intention_exact(it),
            Query::IntentionMatch(it) => self.intention_match(it),
            Query::ServiceIntentions(name) => (
                self.intentions.index_of(name, &self.indexes),
                Answer::ServiceIntentions(self.intentions.get(name).map(|entry| (**entry).clone())),
            ),
            Query::ServiceIntentionsList => {
                let entries = self.intentions.rows().filter(|entry| filter.may_read(Resource::Intention, &entry.name));
                (self.indexes.of_table(Table::Intentions), Answer::ServiceIntentionsList(entries.cloned().collect()))
            }
        }
    }

    /// A session never changes, so its index is that of its making; when it is gone, that of the last end of one.
    fn session_by_id(&self, filter: &mut Filter<'_>, id: &str) -> (Index, Answer) {
        let session = self.session(id);
        let index = session.map_or_else(|| self.indexes.of_extinction(Table::Sessions), |it| it.modify_index);
        (index, sessions(filter, session.into_iter()))
    }

    pub(crate) fn index_with_meta(&self, table: Table, meta: &BTreeMap<String, String>) -> Index {
        let index = self.indexes.of_table(table);
        if meta.is_empty() { index } else { index.max(self.indexes.of_table(Table::Nodes)) }
    }

    fn kv_get(&self, key: &str) -> (Index, Answer) {
        let entry = self.kv.get(key);
        // Of an absent key the table's index is told: never below that of its own deletion.
        let index = entry.map_or_else(|| self.indexes.of_table(Table::Kv), |entry| entry.modify_index);
        (index, Answer::KvEntry(entry.map(|entry| (**entry).clone())))
    }

    fn readable_under<'a>(
        &'a self,
        filter: &'a mut Filter<'_>,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a KvEntry> + 'a {
        self.kv.under(prefix).map(|entry| &**entry).filter(move |entry| filter.may_read(Resource::Key, &entry.key))
    }

    fn keys(&self, filter: &mut Filter<'_>, query: &KeysQuery) -> Vec<String> {
        let cut = |key: &str| {
            let found =
                if query.separator.is_empty() { None } else { key[query.prefix.len()..].find(&query.separator) };
            match found {
                Some(at) => key[..query.prefix.len() + at + query.separator.len()].to_owned(),
                None => key.to_owned(),
            }
        };
        let keys: BTreeSet<String> = self.readable_under(filter, &query.prefix).map(|entry| cut(&entry.key)).collect();
        keys.into_iter().collect()
    }

    fn nodes_with(&self, filter: &mut Filter<'_>, meta: &BTreeMap<String, String>) -> Vec<Node> {
        self.nodes
            .rows()
            .filter(|node| has_meta(&node.meta, meta))
            .filter(|node| filter.may_read(Resource::Node, node.name.as_str()))
            .cloned()
            .collect()
    }

    fn node(&self, filter: &mut Filter<'_>, name: &NodeName) -> (Index, Answer) {
        let node = self.nodes.get(&node_key(name));
        let index = node.map_or_else(|| self.indexes.of_extinction(Table::Nodes), |node| node.modify_index);
        let node = node.filter(|node| filter.may_read(Resource::Node, node.name.as_str()));
        (index, Answer::Node(node.map(|node| (**node).clone())))
    }

    fn intentions_where(&self, filter: &mut Filter<'_>, is_wanted: impl Fn(&Intention) -> bool) -> Vec<Intention> {
        let mut intentions: Vec<Intention> = self
            .intentions
            .rows()
            .flat_map(flatten)
            .filter(is_wanted)
            .filter(|it| filter.may_read_intention(&it.source.name, &it.destination))
            .collect();
        sort(&mut intentions);
        intentions
    }

    fn intention_exact(&self, query: &IntentionQuery) -> (Index, Answer) {
        let entry = self.intentions.get(&query.destination);
        let found = entry.and_then(|entry| flatten(entry).find(|it| it.source.name == query.source));
        (self.intentions.index_of(&query.destination, &self.indexes), Answer::Intention(found))
    }

    /// Who may read a service's intentions sees every one that decides over its calls: one that is left out would turn
    /// a denial into a permission.
    fn intention_match(&self, query: &IntentionMatch) -> (Index, Answer) {
        use lictor_types::intention::WILDCARD;
        let name = query.name.as_str();
        let is_match = |it: &Intention| {
            let side = if query.by_source { it.source.name.as_str() } else { it.destination.as_str() };
            side == WILDCARD || side == name
        };
        let (index, mut found): (Index, Vec<Intention>) = if query.by_source {
            let rows = self.intentions.rows().flat_map(flatten).filter(is_match).collect();
            (self.indexes.of_table(Table::Intentions), rows)
        } else {
            let destinations: BTreeSet<&str> = [name, WILDCARD].into();
            let index = destinations.iter().map(|it| self.intentions.index_of(it, &self.indexes)).max();
            let entries = destinations.into_iter().filter_map(|it| self.intentions.get(it));
            (index.unwrap_or_default(), entries.flat_map(|entry| flatten(entry)).collect())
        };
        sort(&mut found);
        (index, Answer::Intentions(found))
    }
}
