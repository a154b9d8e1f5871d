//! What the cluster is: its identity, its mesh CA, the servers that must never come back, and who owns which service.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use lictor_types::authority::{AuthorityRecord, AuthoritySettings};
use lictor_types::autopilot::{AutopilotConfig, AutopilotSet};
use lictor_types::command::{ClusterIdentity, Effect, ServiceClaim};
use lictor_types::refusal::RefusalKind;
use lictor_types::{CaRoots, Index, Refusal};

use super::Key;
use crate::changes::{Commit, Table};
use crate::indexes::Indexes;

#[derive(Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) identity: Option<Arc<ClusterIdentity>>,
    pub(crate) authority: Option<Arc<AuthorityRecord>>,
    pub(crate) autopilot: Option<Arc<AutopilotConfig>>,
    /// Raft ids of removed servers.
    pub(crate) removed_servers: OrdSet<Key>,
    /// Service to namespace.
    pub(crate) claims: OrdMap<Key, Key>,
}

impl Cluster {
    pub(crate) fn initialize(&mut self, identity: &ClusterIdentity) -> Effect {
        match &self.identity {
            Some(known) if **known == *identity => Effect::Applied,
            Some(_) => Effect::NotApplied,
            None => {
                self.identity = Some(Arc::new(identity.clone()));
                Effect::Applied
            }
        }
    }

    pub(crate) fn initialize_authority(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        authority: &AuthorityRecord,
    ) -> Effect {
        if self.authority.is_some() {
            return Effect::NotApplied;
        }
        let mut authority = authority.clone();
        authority.root.create_index = commit.at;
        authority.root.modify_index = commit.at;
        self.authority = Some(Arc::new(authority));
        indexes.changed(commit, Table::Authority, Key::from(""));
        Effect::Applied
    }

    pub(crate) fn configure_authority(
        &mut self,
        commit: &mut Commit,
        indexes: &mut Indexes,
        settings: &AuthoritySettings,
    ) -> Result<Effect, Refusal> {
        settings.check().map_err(Refusal::bad_request)?;
        let Some(authority) = &self.authority else {
            return Err(Refusal::failed(
                "the mesh CA does not exist yet: no leader has made it; try again in a moment",
            ));
        };
        let old = authority.settings.clone().unwrap_or_default();
        let settings = AuthoritySettings { modify_index: old.modify_index, ..settings.clone() };
        if settings == old {
            return Ok(Effect::Applied);
        }
        let settings = Some(AuthoritySettings { modify_index: commit.at, ..settings });
        self.authority = Some(Arc::new(AuthorityRecord { settings, ..AuthorityRecord::clone(authority) }));
        indexes.changed(commit, Table::Authority, Key::from(""));
        Ok(Effect::Applied)
    }

    /// What readers see of the mesh CA.
    pub(crate) fn roots(&self) -> Option<CaRoots> {
        self.authority.as_ref().map(|authority| CaRoots {
            active_root_id: authority.root.id.clone(),
            trust_domain: authority.trust_domain.clone(),
            roots: vec![authority.root.clone()],
        })
    }

    pub(crate) fn claim(&mut self, claim: &ServiceClaim) -> Result<Effect, Refusal> {
        match self.claims.get(&*claim.service) {
            Some(owner) if **owner != *claim.namespace => Err(Refusal::new(
                RefusalKind::Conflict,
                format!(
                    "service {:?} belongs to namespace {owner:?} and cannot be claimed from namespace {:?}: one \
                     service belongs to one namespace. Name the service after another ServiceAccount, or bind another \
                     name with spec.inject.bindings[] {{namespace: {:?}, serviceAccount: ..., services: [...]}}",
                    claim.service, claim.namespace, claim.namespace
                ),
            )),
            Some(_) => Ok(Effect::Applied),
            None => {
                self.claims.insert(Key::from(&*claim.service), Key::from(&*claim.namespace));
                Ok(Effect::Applied)
            }
        }
    }

    pub(crate) fn set_autopilot(&mut self, commit: &mut Commit, indexes: &mut Indexes, set: &AutopilotSet) -> Effect {
        let stored = self.autopilot.as_ref();
        if set.cas.is_some_and(|cas| cas != stored.map_or(Index(0), |it| it.modify_index)) {
            return Effect::NotApplied;
        }
        let create_index = stored.map_or(commit.at, |it| it.create_index);
        let config = AutopilotConfig { create_index, modify_index: commit.at, ..set.config.clone() };
        self.autopilot = Some(Arc::new(config));
        indexes.changed(commit, Table::Autopilot, Key::from(""));
        Effect::Applied
    }

    pub(crate) fn remember_removed(&mut self, server_id: &str) -> Effect {
        self.removed_servers.insert(Key::from(server_id));
        Effect::Applied
    }
}
