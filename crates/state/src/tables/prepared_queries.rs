//! Prepared queries.
//!
//! Invariants
//! - A name, in any case, belongs to one query at most, and no name is another query's id.
//! - There is at most one template without a name.
//! - A query that is bound to a session goes with it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use lictor_types::Refusal;
use lictor_types::command::Effect;
use lictor_types::prepared_query::{PreparedQuery, PreparedQueryDelete, PreparedQuerySet};
use lictor_types::refusal::RefusalKind;

use super::{Key, of_pair};
use crate::changes::{Commit, Table};
use crate::indexes::Indexes;
use crate::template;

#[derive(Clone, Default)]
pub(crate) struct PreparedQueries {
    rows: OrdMap<Key, Arc<PreparedQuery>>,
    /// Ids by name in lower case; the nameless template has the empty name.
    by_name: OrdMap<Key, Key>,
    by_session: OrdMap<(Key, Key), ()>,
    templates: OrdSet<Key>,
}

/// What nobody finds.
pub(crate) fn not_found() -> Refusal {
    Refusal::not_found("Query not found")
}

/// A change of a query that is not there.
pub(crate) fn cannot_modify(id: &str) -> Refusal {
    Refusal::failed(format!("Cannot modify non-existent prepared query: '{id}'"))
}

impl PreparedQueries {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<PreparedQuery>> {
        self.rows.get(id)
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &PreparedQuery> {
        self.rows.values().map(|query| &**query)
    }

    /// The name that rules speak of, of the query with this id.
    pub(crate) fn access_name(&self, id: &str) -> Option<String> {
        self.get(id).and_then(|query| query.access_name()).map(str::to_owned)
    }

    /// The query that an id or a name finds: by id, by name, then the template whose name is the longest start of it.
    pub(crate) fn resolve(&self, name: &str) -> Result<PreparedQuery, Refusal> {
        if name.is_empty() {
            return Err(not_found());
        }
        if let Some(query) = self.get(name) {
            if query.is_template() {
                return Err(Refusal::failed("prepared query templates can only be resolved up by name, not by ID"));
            }
            return Ok((**query).clone());
        }
        let lower = name.to_ascii_lowercase();
        let named = self.by_name.get(&*lower).or_else(|| self.longest_template(&lower));
        let Some(query) = named.and_then(|id| self.rows.get(id)) else { return Err(not_found()) };
        if query.is_template() { template::render(query, name).map_err(Refusal::failed) } else { Ok((**query).clone()) }
    }

    fn longest_template(&self, name: &str) -> Option<&Key> {
        let starts = name.char_indices().map(|(at, _)| &name[..at]).rev();
        starts.filter_map(|start| self.by_name.get(start)).find(|id| self.templates.contains(*id))
    }

    pub(crate) fn set(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &PreparedQuerySet,
    ) -> Result<Effect, Refusal> {
        let mut query = command.query.clone();
        let old = self.get(&query.id).cloned();
        match &old {
            Some(_) if command.create => {
                let text = format!("a prepared query with the ID '{}' exists already", query.id);
                return Err(Refusal::new(RefusalKind::Conflict, text));
            }
            None if !command.create => return Err(cannot_modify(&query.id)),
            _ => {}
        }
        self.check_authorized(&query.id, command.authorized.as_deref())?;
        self.check_name(&query)?;
        if let Some(old) = &old {
            query.create_index = old.create_index;
            query.modify_index = old.modify_index;
            if **old == query {
                return Ok(Effect::Applied);
            }
        } else {
            query.create_index = commit.at;
        }
        query.modify_index = commit.at;
        let key = Key::from(&*query.id);
        self.insert(query);
        indexes.changed(commit, Table::PreparedQueries, key);
        Ok(Effect::Applied)
    }

    fn check_name(&self, query: &PreparedQuery) -> Result<(), Refusal> {
        if query.access_name().is_none() {
            return Ok(());
        }
        let name = query.name.to_ascii_lowercase();
        if self.by_name.get(&*name).is_some_and(|id| **id != *query.id) {
            return Err(Refusal::failed(if name.is_empty() {
                "a query template with an empty name already exists".to_owned()
            } else {
                format!("name '{}' aliases an existing query name", query.name)
            }));
        }
        // Else a name could take over the questions that are meant for another query's id.
        if self.rows.contains_key(&*name) {
            return Err(Refusal::failed(format!("name '{}' aliases an existing query ID", query.name)));
        }
        Ok(())
    }

    fn check_authorized(&self, id: &str, authorized: Option<&str>) -> Result<(), Refusal> {
        let now = self.access_name(id);
        match authorized {
            Some(seen) if now.as_deref() != Some(seen) => Err(Refusal::new(
                RefusalKind::Conflict,
                format!("the query is named {:?} now, not {seen:?}: look again and retry", now.unwrap_or_default()),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn delete(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &PreparedQueryDelete,
    ) -> Result<Effect, Refusal> {
        if self.get(&command.id).is_none() {
            return Err(cannot_modify(&command.id));
        }
        self.check_authorized(&command.id, command.authorized.as_deref())?;
        self.remove(commit, indexes, &command.id);
        Ok(Effect::Applied)
    }

    /// Removes the queries that are bound to a session that has ended.
    pub(crate) fn remove_of_session(&mut self, commit: &mut Commit, indexes: &mut Indexes, session: &str) {
        let bound: Vec<Key> = of_pair(&self.by_session, session).map(|((_, id), ())| id.clone()).collect();
        for id in bound {
            self.remove(commit, indexes, &id);
        }
    }

    fn remove(&mut self, commit: &mut Commit, indexes: &mut Indexes, id: &str) {
        if self.take(id).is_some() {
            indexes.removed(commit, Table::PreparedQueries, Key::from(id));
        }
    }

    fn take(&mut self, id: &str) -> Option<Arc<PreparedQuery>> {
        let query = self.rows.remove(id)?;
        if query.access_name().is_some() {
            self.by_name.remove(&*query.name.to_ascii_lowercase());
        }
        self.templates.remove(id);
        if !query.session.is_empty() {
            self.by_session.remove(&(Key::from(&*query.session), Key::from(id)));
        }
        Some(query)
    }

    pub(crate) fn insert(&mut self, query: PreparedQuery) {
        self.take(&query.id);
        let id = Key::from(&*query.id);
        if query.access_name().is_some() {
            self.by_name.insert(Key::from(query.name.to_ascii_lowercase()), id.clone());
        }
        if query.is_template() {
            self.templates.insert(id.clone());
        }
        if !query.session.is_empty() {
            self.by_session.insert((Key::from(&*query.session), id.clone()), ());
        }
        self.rows.insert(id, Arc::new(query));
    }
}
