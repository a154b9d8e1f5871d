//! Questions about the catalog: instances joined with their nodes and checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lictor_types::query::{ServiceQuery, StateQuery};
use lictor_types::service::NodeServices;
use lictor_types::{
    Answer, CheckServiceNode, CheckStatus, HealthCheck, Index, Node, NodeName, NodeService, Resource, ServiceNode,
};

use crate::answer::{Filter, has_meta};
use crate::changes::Table;
use crate::store::Store;
use crate::tables::Key;
use crate::tables::checks::check_id;
use crate::tables::nodes::{may_be_id, node_key};

impl Store {
    /// The index of a service: moved by its instances, their nodes and their checks, and by nothing else.
    pub(crate) fn service_index(&self, query: &ServiceQuery) -> Index {
        let key = query.service.key();
        if !query.connect {
            return self.indexes.of_key(Table::Services, Key::from(key));
        }
        self.indexes.of_key(Table::Connect, Key::from(&*key)).max(self.terminating_index(&key))
    }

    /// The names of services with their tags, each tag once.
    pub(crate) fn service_names(
        &self,
        filter: &mut Filter<'_>,
        meta: &BTreeMap<String, String>,
    ) -> BTreeMap<String, Vec<String>> {
        let mut tags: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (node, service) in self.services.all() {
            let is_wanted = meta.is_empty() || self.nodes.get(node).is_some_and(|node| has_meta(&node.meta, meta));
            if is_wanted && filter.may_read(Resource::Service, service.name.as_str()) {
                tags.entry(service.name.as_str()).or_default().extend(service.tags.iter().map(String::as_str));
            }
        }
        let owned = |tags: BTreeSet<&str>| tags.into_iter().map(str::to_owned).collect();
        tags.into_iter().map(|(name, tags)| (name.to_owned(), owned(tags))).collect()
    }

    /// The instances that a query is about and the asker may see, with their nodes, by node name and instance id.
    fn instances<'a>(
        &'a self,
        filter: &mut Filter<'_>,
        query: &ServiceQuery,
    ) -> Vec<(&'a Key, &'a Arc<Node>, &'a Arc<NodeService>)> {
        // Who may not read a service learns nothing of who serves it.
        if query.connect && !filter.may_read(Resource::Service, query.service.as_str()) {
            return Vec::new();
        }
        let service = query.service.key();
        let rows: Vec<_> = if query.connect {
            // Who is outside of the mesh is served by the gateways before it.
            self.services.of_connect(&service).chain(self.terminating_instances(&service)).collect()
        } else {
            self.services.of_service(&service).collect()
        };
        self.joined(filter, query, rows)
    }

    /// Of these instances, with their node keys, those that a query wants and the asker may see, with their nodes.
    pub(crate) fn joined<'a>(
        &'a self,
        filter: &mut Filter<'_>,
        query: &ServiceQuery,
        rows: impl IntoIterator<Item = (&'a Key, &'a Arc<NodeService>)>,
    ) -> Vec<(&'a Key, &'a Arc<Node>, &'a Arc<NodeService>)> {
        rows.into_iter()
            .filter(|(_, service)| has_tags(&service.tags, &query.tags))
            .filter_map(|(key, service)| self.nodes.get(key).map(|node| (key, node, service)))
            .filter(|(_, node, _)| has_meta(&node.meta, &query.node_meta))
            .filter(|(_, node, service)| {
                filter.may_read(Resource::Node, node.name.as_str())
                    && filter.may_read(Resource::Service, service.name.as_str())
            })
            .collect()
    }

    pub(crate) fn service_nodes(&self, filter: &mut Filter<'_>, query: &ServiceQuery) -> Vec<ServiceNode> {
        let row = |(_, node, service): (_, &Arc<Node>, &Arc<NodeService>)| ServiceNode {
            node: (**node).clone(),
            service: (**service).clone(),
        };
        self.instances(filter, query).into_iter().map(row).collect()
    }

    pub(crate) fn health_service(&self, filter: &mut Filter<'_>, query: &ServiceQuery) -> Vec<CheckServiceNode> {
        let rows = self.instances(filter, query);
        self.with_checks(query, rows)
    }

    /// The rows with the checks of each.
    pub(crate) fn with_checks<'a>(
        &self,
        query: &ServiceQuery,
        rows: Vec<(&'a Key, &'a Arc<Node>, &'a Arc<NodeService>)>,
    ) -> Vec<CheckServiceNode> {
        rows.into_iter()
            .map(|(key, node, service)| {
                let of_node = self.checks.of_instance(key, "");
                let of_service = self.checks.of_instance(key, service.id_text());
                CheckServiceNode {
                    node: (**node).clone(),
                    service: (**service).clone(),
                    checks: of_node.chain(of_service).map(|check| (**check).clone()).collect(),
                }
            })
            .filter(|row| !query.passing || row.checks.iter().all(|check| check.status == CheckStatus::Passing))
            .collect()
    }

    pub(crate) fn health_checks(&self, filter: &mut Filter<'_>, query: &ServiceQuery) -> Vec<HealthCheck> {
        let mut rows: Vec<(&Key, &Arc<HealthCheck>)> = self
            .instances(filter, query)
            .into_iter()
            .flat_map(|(key, _, service)| self.checks.of_instance(key, service.id_text()).map(move |it| (key, it)))
            .filter(|(_, check)| !query.passing || check.status == CheckStatus::Passing)
            .collect();
        rows.sort_by_key(|(node, check)| (*node, check_id(check)));
        rows.into_iter().map(|(_, check)| (**check).clone()).collect()
    }

    pub(crate) fn node_services(&self, filter: &mut Filter<'_>, name: &NodeName) -> (Index, Answer) {
        let node = self.nodes.find(name);
        let key = node_key(node.map_or(name, |node| &node.name));
        let index = if self.nodes.get(&node_key(name)).is_none() && may_be_id(name.as_str()) {
            // An id may come to another node, so only the table's index is sure never to go back.
            self.indexes.of_table(Table::NodeContents)
        } else {
            self.indexes.of_key(Table::NodeContents, key.clone())
        };
        let node = node.filter(|node| filter.may_read(Resource::Node, node.name.as_str()));
        let answer = node.map(|node| NodeServices {
            node: (**node).clone(),
            services: self
                .services
                .on_node(&key)
                .filter(|service| filter.may_read(Resource::Service, service.name.as_str()))
                .map(|service| (service.id_text().to_owned(), (**service).clone()))
                .collect(),
        });
        (index, Answer::NodeServices(answer))
    }

    pub(crate) fn health_node(&self, filter: &mut Filter<'_>, name: &NodeName) -> (Index, Answer) {
        let key = node_key(name);
        let checks = self.checks.on_node(&key).filter(|check| may_read_check(filter, check));
        let checks = checks.map(|check| (**check).clone()).collect();
        (self.indexes.of_key(Table::NodeContents, key.clone()), Answer::Checks(checks))
    }

    pub(crate) fn health_state(&self, filter: &mut Filter<'_>, query: &StateQuery) -> Vec<HealthCheck> {
        let meta = &query.node_meta;
        self.checks
            .rows()
            .filter(|(_, check)| query.state == "any" || query.state == check.status.as_str())
            .filter(|(node, _)| meta.is_empty() || self.nodes.get(node).is_some_and(|node| has_meta(&node.meta, meta)))
            .filter(|(_, check)| may_read_check(filter, check))
            .map(|(_, check)| (**check).clone())
            .collect()
    }
}

fn may_read_check(filter: &mut Filter<'_>, check: &HealthCheck) -> bool {
    let node = check.node.as_ref().map_or("", NodeName::as_str);
    filter.may_read(Resource::Node, node)
        && (check.service_id.is_empty() || filter.may_read(Resource::Service, &check.service_name))
}

fn has_tags(tags: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted)))
}
