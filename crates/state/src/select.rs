//! The choice among the rows of an answer: what the asker may see comes first, then what completes the rows, then the
//! filter, then the sort.
//!
//! Invariants
//! - Index and watches are those of the question without a choice, and of what completes its rows.
//! - A filter is compiled before the question is authorised, so that it is refused even where there are no rows.

use std::collections::{BTreeMap, BTreeSet};

use lictor_filter::{Fields, Filter as Expression, FilterError, config_rows, rows};
use lictor_types::{
    Answer, ConfigKind, Index, Merge, Near, NodeService, Query, Refusal, Selection, ServiceIntentions, ServiceNode,
};

use crate::answer::{Filter, has_meta};
use crate::changes::Table;
use crate::store::Store;

/// Refuses a filter that is no expression over the rows of its question.
pub(crate) fn check(selection: &Selection) -> Result<(), Refusal> {
    fn compiles<T: 'static>(text: &str, fields: fn(&mut Fields<'_, T>)) -> Result<(), FilterError> {
        Expression::compile(text, fields).map(drop)
    }
    let text = selection.filter.as_str();
    if text.is_empty() {
        return Ok(());
    }
    let checked = match &selection.query {
        Query::Nodes(_) => compiles(text, rows::node),
        Query::Services(_) | Query::ServiceNodes(_) => compiles(text, rows::service_node),
        Query::NodeServices(_) => compiles(text, rows::service),
        Query::HealthService(_) | Query::HealthIngress(_) => compiles(text, rows::check_service_node),
        Query::HealthNode(_) | Query::HealthChecks(_) | Query::HealthState(_) => compiles(text, rows::check),
        Query::Intentions => compiles(text, rows::intention),
        Query::ConfigEntries(ConfigKind::ServiceDefaults) => compiles(text, config_rows::service_defaults),
        // Of all other kinds Consul knows no fields to select.
        Query::ConfigEntries(kind) => return Err(no_fields(kind.as_str())),
        Query::ServiceIntentionsList => return Err(no_fields(ServiceIntentions::KIND)),
        _ => return Err(Refusal::bad_request("?filter is not supported for this question")),
    };
    checked.map_err(|error| Refusal::failed(error.to_string()))
}

fn no_fields(kind: &str) -> Refusal {
    Refusal::failed(format!("filtering not supported for config entry kind={kind}"))
}

/// Keeps the rows that satisfy the expression. The authoriser has compiled it, so that a text which is none keeps nothing.
fn retain<T: 'static>(found: &mut Vec<T>, text: &str, fields: fn(&mut Fields<'_, T>)) {
    if text.is_empty() {
        return;
    }
    match Expression::compile(text, fields) {
        Ok(expression) => found.retain(|row| expression.matches(row)),
        Err(_) => found.clear(),
    }
}

impl Store {
    pub(crate) fn selected(&self, filter: &mut Filter<'_>, selection: &Selection) -> (Index, Answer) {
        let text = selection.filter.as_str();
        if let Query::Services(meta) = &selection.query
            && !text.is_empty()
        {
            let index = self.index_with_meta(Table::ServiceNames, meta);
            return (index, Answer::Services(self.names_of_selected(filter, meta, text)));
        }
        let (mut index, mut answer) = self.answer_to(filter, &selection.query);
        if let Some(Merge::CentralConfig) = selection.merge {
            index = index.max(self.complete_answer(&mut answer));
        }
        match &mut answer {
            Answer::Nodes(found) => retain(found, text, rows::node),
            Answer::ServiceNodes(found) => retain(found, text, rows::service_node),
            Answer::CheckServiceNodes(found) => retain(found.to_mut(), text, rows::check_service_node),
            Answer::Checks(found) => retain(found, text, rows::check),
            Answer::Intentions(found) => retain(found, text, rows::intention),
            Answer::ConfigEntries(found) => retain(found, text, config_rows::service_defaults),
            Answer::NodeServices(Some(found)) if !text.is_empty() => match Expression::compile(text, rows::service) {
                Ok(expression) => found.services.retain(|_, service| expression.matches(service)),
                Err(_) => found.services.clear(),
            },
            _ => {}
        }
        if let Some(near) = &selection.near {
            self.sort_answer(near, &mut answer);
        }
        (index, answer)
    }

    /// Completes every row by the config entries; the last change of any of those.
    fn complete_answer(&self, answer: &mut Answer) -> Index {
        let complete = |service: &mut NodeService| {
            let index = self.central_index(service);
            self.complete(service);
            index
        };
        let indexes = match answer {
            Answer::ServiceNodes(found) => found.iter_mut().map(|row| complete(&mut row.service)).max(),
            Answer::CheckServiceNodes(found) => found.to_mut().iter_mut().map(|row| complete(&mut row.service)).max(),
            Answer::NodeServices(Some(found)) => found.services.values_mut().map(complete).max(),
            _ => None,
        };
        indexes.unwrap_or_default()
    }

    fn sort_answer(&self, near: &Near, answer: &mut Answer) {
        match answer {
            Answer::Nodes(found) => self.sort_near(near, found, |row| Some(&row.name)),
            Answer::ServiceNodes(found) => self.sort_near(near, found, |row| Some(&row.node.name)),
            Answer::CheckServiceNodes(found) => self.sort_near(near, found.to_mut(), |row| Some(&row.node.name)),
            Answer::Checks(found) => self.sort_near(near, found, |row| row.node.as_ref()),
            _ => {}
        }
    }

    /// The names of services with their tags, of those instances alone that satisfy the expression.
    fn names_of_selected(
        &self,
        filter: &mut Filter<'_>,
        meta: &BTreeMap<String, String>,
        text: &str,
    ) -> BTreeMap<String, Vec<String>> {
        let Ok(expression) = Expression::compile(text, rows::service_node) else { return BTreeMap::new() };
        let mut tags: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (key, service) in self.services.all() {
            let Some(node) = self.nodes.get(key).filter(|node| has_meta(&node.meta, meta)) else { continue };
            if !filter.may_read(lictor_types::Resource::Service, service.name.as_str()) {
                continue;
            }
            if expression.matches(&ServiceNode { node: (**node).clone(), service: (**service).clone() }) {
                tags.entry(service.name.as_str()).or_default().extend(service.tags.iter().map(String::as_str));
            }
        }
        let owned = |tags: BTreeSet<&str>| tags.into_iter().map(str::to_owned).collect();
        tags.into_iter().map(|(name, tags)| (name.to_owned(), owned(tags))).collect()
    }
}
