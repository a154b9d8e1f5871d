//! Setting, removing and reading config entries.
//!
//! Invariants
//! - What is stored makes sense by itself and with all the others: a change after which some chain of them does not is
//!   refused, the removal of an entry that others rest on too.
//! - Setting what is there already changes nothing and wakes nobody.

use std::collections::BTreeSet;

use lictor_types::command::Effect;
use lictor_types::config_entry::{
    ConfigEntry, ConfigEntryDelete, ConfigEntryKey, ConfigEntrySet, ConfigKind, MESH_NAME,
};
use lictor_types::gateway::{KIND_INGRESS_GATEWAY, KIND_TERMINATING_GATEWAY};
use lictor_types::{Access, Answer, Index, Refusal, Requirement, Resource};

use crate::access::Rules;
use crate::answer::Filter;
use crate::chain;
use crate::changes::{Commit, Table};
use crate::store::Store;
use crate::tables::Key;
use crate::tables::config_entries::{ConfigEntries, config_key};
use crate::virtual_addresses::addressed_by;

/// What reading an entry requires; `None` for those that everybody may read.
fn need_to_read(kind: ConfigKind, name: &str) -> Option<Requirement> {
    use ConfigKind as Kind;
    match kind {
        Kind::ProxyDefaults | Kind::Mesh => None,
        Kind::ServiceDefaults
        | Kind::ServiceResolver
        | Kind::ServiceSplitter
        | Kind::ServiceRouter
        | Kind::IngressGateway
        | Kind::TerminatingGateway
        | Kind::ApiGateway
        | Kind::BoundApiGateway => Some(Requirement::read(Resource::Service, name)),
        Kind::ExportedServices
        | Kind::HttpRoute
        | Kind::TcpRoute
        | Kind::InlineCertificate
        | Kind::FileSystemCertificate => Some(Requirement::read(Resource::Mesh, "")),
        // Proxies need them, so these may be read by whoever may write some service too.
        Kind::JwtProvider => Some(Requirement::read(Resource::Mesh, kind.as_str())),
    }
}

/// What reading one entry requires.
pub(crate) fn needs_of_read(key: &ConfigEntryKey) -> Option<Requirement> {
    need_to_read(key.kind, &key.name)
}

/// Whether an asker may read an entry.
fn may_read(rules: &Rules, kind: ConfigKind, name: &str) -> bool {
    need_to_read(kind, name).is_none_or(|need| rules.permits(need.resource, &need.name, Access::Read))
}

fn needs_of_change(kind: ConfigKind, name: &str) -> Result<Requirement, Refusal> {
    match kind {
        ConfigKind::ServiceDefaults
        | ConfigKind::ServiceResolver
        | ConfigKind::ServiceSplitter
        | ConfigKind::ServiceRouter => Ok(Requirement::write(Resource::Service, name)),
        ConfigKind::BoundApiGateway => Err(Refusal::permission_denied("only writeable by controller")),
        _ => Ok(Requirement::write(Resource::Mesh, "")),
    }
}

/// What setting an entry requires: who sends requests on to other services must be able to see those.
pub(crate) fn needs_of_set(what: &ConfigEntrySet) -> Result<Vec<Requirement>, Refusal> {
    let entry = &what.entry;
    let mut needs = vec![needs_of_change(entry.kind, &entry.name)?];
    if entry.kind.is_of_chain() {
        let others = chain::referenced(entry).into_iter().filter(|other| !other.eq_ignore_ascii_case(&entry.name));
        needs.extend(others.map(|other| Requirement::read(Resource::Service, other)));
    }
    Ok(needs)
}

pub(crate) fn needs_of_delete(what: &ConfigEntryDelete) -> Result<Vec<Requirement>, Refusal> {
    Ok(vec![needs_of_change(what.key.kind, &what.key.name)?])
}

/// A mode that takes plain text must be allowed for the whole mesh first.
fn check_permissive(entries: &ConfigEntries, entry: &ConfigEntry) -> Result<(), Refusal> {
    if entry.field("MutualTLSMode") != "permissive" {
        return Ok(());
    }
    let mesh = entries.get(ConfigKind::Mesh, MESH_NAME);
    if mesh.is_some_and(|mesh| mesh.field("AllowEnablingPermissiveMutualTLS") == true) {
        return Ok(());
    }
    Err(Refusal::failed(
        "cannot set MutualTLSMode=permissive because AllowEnablingPermissiveMutualTLS=false in the mesh config entry",
    ))
}

/// A subset is chosen by an expression over instances of its service.
fn check_subsets(entry: &ConfigEntry) -> Result<(), Refusal> {
    for (name, subset) in entry.field("Subsets").as_object().into_iter().flatten() {
        let text = subset["Filter"].as_str().unwrap_or_default();
        if text.is_empty() {
            continue;
        }
        lictor_filter::Filter::compile(text, lictor_filter::rows::check_service_node).map_err(|error| {
            Refusal::failed(format!("Filter for subset {name:?} is not a valid expression: {}", error.problem()))
        })?;
    }
    Ok(())
}

impl Store {
    pub(crate) fn set_config_entry(&mut self, commit: &mut Commit, what: &ConfigEntrySet) -> Result<Effect, Refusal> {
        let mut entry = what.entry.clone();
        entry.validate().map_err(Refusal::failed)?;
        check_subsets(&entry)?;
        let old = self.config_entries.get(entry.kind, &entry.name).cloned();
        let stored = old.as_ref().map(|old| old.modify_index).unwrap_or_default();
        if what.cas.is_some_and(|expected| expected != stored) {
            return Ok(Effect::NotApplied);
        }
        entry.create_index = old.as_ref().map_or(commit.at, |old| old.create_index);
        entry.modify_index = stored;
        if old.as_deref() == Some(&entry) {
            return Ok(Effect::Applied);
        }
        entry.modify_index = commit.at;
        check_permissive(&self.config_entries, &entry)?;
        self.check_virtual_room_for(&entry)?;
        let mut after = self.config_entries.clone();
        after.insert(entry.clone());
        chain::check(&after, entry.kind, &entry.name).map_err(Refusal::failed)?;
        self.config_entries = after;
        let had = old.map(|old| addressed_by(&old)).unwrap_or_default();
        self.config_entry_changed(commit, entry.kind, &entry.name, &had, &addressed_by(&entry), true);
        Ok(Effect::Applied)
    }

    pub(crate) fn delete_config_entry(
        &mut self,
        commit: &mut Commit,
        what: &ConfigEntryDelete,
    ) -> Result<Effect, Refusal> {
        let ConfigEntryKey { kind, name } = &what.key;
        let Some(old) = self.config_entries.get(*kind, name).cloned() else {
            let is_as_expected = what.cas.is_none_or(|expected| expected == Index(0));
            return Ok(if is_as_expected { Effect::Applied } else { Effect::NotApplied });
        };
        if what.cas.is_some_and(|expected| expected != old.modify_index) {
            return Ok(Effect::NotApplied);
        }
        let mut after = self.config_entries.clone();
        after.remove(*kind, name);
        chain::check(&after, *kind, name).map_err(Refusal::failed)?;
        self.config_entries = after;
        self.config_entry_changed(commit, *kind, name, &addressed_by(&old), &BTreeSet::new(), false);
        Ok(Effect::Applied)
    }

    /// What hangs on an entry follows it.
    fn config_entry_changed(
        &mut self,
        commit: &mut Commit,
        kind: ConfigKind,
        name: &str,
        had: &BTreeSet<String>,
        has: &BTreeSet<String>,
        exists: bool,
    ) {
        let key = config_key(kind, name);
        if exists {
            self.indexes.changed(commit, Table::ConfigEntries, key);
        } else {
            self.indexes.removed(commit, Table::ConfigEntries, key);
        }
        self.indexes.settled(commit, Table::ConfigKinds, Key::from(kind.as_str()), true);
        if matches!(kind, ConfigKind::TerminatingGateway | ConfigKind::IngressGateway) {
            // Readers of what is behind a gateway wait on the gateways, of which they do not know the names.
            commit.touch(Table::Gateways, Key::from(name.to_ascii_lowercase()));
        }
        for service in has.difference(had) {
            self.assign_virtual_address(commit, service, service);
        }
        for service in had.difference(has) {
            self.release_virtual_address(commit, service);
        }
    }

    pub(crate) fn config_entry(&self, key: &ConfigEntryKey) -> (Index, Answer) {
        let entry = self.config_entries.get(key.kind, &key.name);
        let index = self.config_entries.index_of(key.kind, &key.name, &self.indexes);
        (index, Answer::ConfigEntry(entry.map(|entry| Box::new((**entry).clone()))))
    }

    pub(crate) fn all_config_entries(&self, filter: &mut Filter<'_>, kind: ConfigKind) -> (Index, Answer) {
        let mut left_out = false;
        let entries = self.config_entries.of_kind(kind).filter(|entry| {
            let may = may_read(filter.rules, kind, &entry.name);
            left_out |= !may;
            may
        });
        let entries = entries.map(|entry| (**entry).clone()).collect();
        filter.filtered |= left_out;
        (self.config_kind_index(kind), Answer::ConfigEntries(entries))
    }

    /// The last change of any entry of a kind.
    pub(crate) fn config_kind_index(&self, kind: ConfigKind) -> Index {
        self.indexes.of_key(Table::ConfigKinds, Key::from(kind.as_str()))
    }
}

/// Whether instances of this kind carry calls of services that a config entry names.
pub(crate) fn is_linking_gateway(kind: &str) -> bool {
    matches!(kind, KIND_TERMINATING_GATEWAY | KIND_INGRESS_GATEWAY)
}
