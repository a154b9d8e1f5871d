//! Intentions: one entry per destination with all its sources.
//!
//! Invariants
//! - Sources are sorted, the most specific first, with their precedence; no source is there twice; an entry has at
//!   least one.

use std::cmp::Reverse;
use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::command::{Effect, IntentionDelete, IntentionUpsert, IntentionsDelete, IntentionsSet};
use lictor_types::intention::{WILDCARD, precedence};
use lictor_types::{Index, Intention, Refusal, ServiceIntentions, SourceIntention};

use super::Key;
use crate::changes::{Commit, Table};
use crate::indexes::Indexes;

#[derive(Clone, Default)]
pub(crate) struct Intentions {
    rows: OrdMap<Key, Arc<ServiceIntentions>>,
}

impl Intentions {
    pub(crate) fn get(&self, destination: &str) -> Option<&Arc<ServiceIntentions>> {
        self.rows.get(destination)
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &ServiceIntentions> {
        self.rows.values().map(|entry| &**entry)
    }

    /// The index of one entry; that of the last entry that went where there is none.
    pub(crate) fn index_of(&self, destination: &str, indexes: &Indexes) -> Index {
        self.get(destination).map_or_else(|| indexes.of_extinction(Table::Intentions), |entry| entry.modify_index)
    }

    pub(crate) fn restore(&mut self, entry: ServiceIntentions) {
        self.rows.insert(Key::from(&*entry.name), Arc::new(entry));
    }

    pub(crate) fn set_entry(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &IntentionsSet,
    ) -> Result<Effect, Refusal> {
        let stored = self.get(&command.entry.name).map(|entry| entry.modify_index).unwrap_or_default();
        if command.cas.is_some_and(|expected| expected != stored) {
            return Ok(Effect::NotApplied);
        }
        let entry = normalize(command.entry.clone())?;
        self.store(commit, indexes, entry);
        Ok(Effect::Applied)
    }

    pub(crate) fn delete_entry(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &IntentionsDelete,
    ) -> Effect {
        let stored = self.get(&command.name).map(|entry| entry.modify_index);
        match (command.cas, stored) {
            (Some(expected), Some(stored)) if expected != stored => return Effect::NotApplied,
            (Some(expected), None) if expected != Index(0) => return Effect::NotApplied,
            _ => {}
        }
        self.remove(commit, indexes, &command.name);
        Effect::Applied
    }

    pub(crate) fn upsert(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        command: &IntentionUpsert,
    ) -> Result<Effect, Refusal> {
        let mut entry = self.get(&command.destination).map_or_else(
            || ServiceIntentions {
                kind: ServiceIntentions::KIND.into(),
                name: command.destination.clone(),
                sources: Vec::new(),
                meta: std::collections::BTreeMap::new(),
                create_index: Index(0),
                modify_index: Index(0),
            },
            |entry| (**entry).clone(),
        );
        entry.sources.retain(|source| source.name != command.source.name);
        entry.sources.push(command.source.clone());
        let entry = normalize(entry)?;
        self.store(commit, indexes, entry);
        Ok(Effect::Applied)
    }

    pub(crate) fn delete(&mut self, commit: &mut Commit, indexes: &mut Indexes, command: &IntentionDelete) -> Effect {
        let Some(entry) = self.get(&command.destination) else { return Effect::Applied };
        let mut entry = (**entry).clone();
        entry.sources.retain(|source| source.name != command.source);
        if entry.sources.is_empty() {
            self.remove(commit, indexes, &command.destination);
        } else {
            self.store(commit, indexes, entry);
        }
        Effect::Applied
    }

    /// Stores an entry unless the same is there already. What did not change keeps its times.
    fn store(&mut self, commit: &mut Commit, indexes: &mut Indexes, mut entry: ServiceIntentions) {
        let old = self.get(&entry.name).cloned();
        for source in &mut entry.sources {
            let before = old.iter().flat_map(|old| &old.sources).find(|before| before.name == source.name);
            source.created_at = before.map_or(commit.now, |before| before.created_at);
            source.updated_at = match before {
                Some(before) if is_same_source(before, source) => before.updated_at,
                _ => commit.now,
            };
        }
        if let Some(old) = &old {
            entry.create_index = old.create_index;
            entry.modify_index = old.modify_index;
            if **old == entry {
                return;
            }
        } else {
            entry.create_index = commit.at;
        }
        entry.modify_index = commit.at;
        let key = Key::from(&*entry.name);
        self.rows.insert(key.clone(), Arc::new(entry));
        indexes.changed(commit, Table::Intentions, key);
    }

    fn remove(&mut self, commit: &mut Commit, indexes: &mut Indexes, destination: &str) {
        if self.rows.remove(destination).is_some() {
            indexes.removed(commit, Table::Intentions, Key::from(destination));
        }
    }
}

fn is_same_source(one: &SourceIntention, other: &SourceIntention) -> bool {
    one.action == other.action && one.description == other.description && one.precedence == other.precedence
}

/// Checks an entry, computes precedences, and sorts the sources.
fn normalize(mut entry: ServiceIntentions) -> Result<ServiceIntentions, Refusal> {
    let refused = |text: String| Err(Refusal::failed(text));
    if entry.name.is_empty() {
        return refused("Name is required".into());
    }
    if is_partial_wildcard(&entry.name) {
        return refused("Name: wildcard character '*' cannot be used with partial values".into());
    }
    if entry.sources.is_empty() {
        return refused("At least one source must be specified".into());
    }
    for (position, source) in entry.sources.iter_mut().enumerate() {
        if source.name.is_empty() {
            return refused(format!("Sources[{position}].Name is required"));
        }
        if is_partial_wildcard(&source.name) {
            return refused(format!(
                "Sources[{position}].Name: wildcard character '*' cannot be used with partial values"
            ));
        }
        if source.kind.is_empty() {
            source.kind = SourceIntention::consul_type();
        }
        if source.kind != "consul" {
            return refused(format!("Sources[{position}].Type must be set to 'consul'"));
        }
        source.precedence = precedence(&source.name, &entry.name);
    }
    entry.kind = ServiceIntentions::KIND.into();
    entry
        .sources
        .sort_by(|one, other| (Reverse(one.precedence), &one.name).cmp(&(Reverse(other.precedence), &other.name)));
    if let Some(pair) = entry.sources.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return refused(format!("Sources define {:?} more than once: keep one of them", pair[0].name));
    }
    Ok(entry)
}

fn is_partial_wildcard(name: &str) -> bool {
    name != WILDCARD && name.contains('*')
}

/// The intentions of an entry, joined with their destination.
pub(crate) fn flatten(entry: &ServiceIntentions) -> impl Iterator<Item = Intention> + '_ {
    entry.sources.iter().map(|source| Intention {
        destination: entry.name.clone(),
        source: source.clone(),
        create_index: entry.create_index,
        modify_index: entry.modify_index,
        meta: entry.meta.clone(),
    })
}

/// Sorts intentions, the most specific first.
pub(crate) fn sort(intentions: &mut [Intention]) {
    intentions.sort_by(|one, other| {
        let key = |it: &Intention| (Reverse(it.source.precedence), it.destination.clone(), it.source.name.clone());
        key(one).cmp(&key(other))
    });
}
