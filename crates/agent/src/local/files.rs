//! The services and checks that configuration files define, and taking over others in their place.
//!
//! What was registered through the API is nobody else's business here: it stays, and a definition of a file that the API
//! replaced belongs to the API until a file defines it anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_types::{CheckId, Refusal, ServiceId};

use super::changes::{Concern, Plan};
use super::store::Record;
use super::{CHECKS_MAX, CheckDefinition, Local, SERVICES_MAX, ServiceDefinition};

/// Definitions of files, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Files {
    pub(super) services: BTreeMap<ServiceId, ServiceDefinition>,
    pub(super) checks: BTreeMap<CheckId, CheckDefinition>,
}

impl Files {
    /// These, with the checks of the services.
    ///
    /// # Errors
    /// 400: a name or an id is not one. There are too many (429).
    pub(super) fn of(services: &[ServiceDefinition], checks: &[CheckDefinition]) -> Result<Self, Refusal> {
        let bad = |error: lictor_types::name::NameError| Refusal::bad_request(error.to_string());
        let mut files = Self::default();
        for service in services {
            let id = service.to_node_service().map_err(bad)?.id;
            if let Some(id) = id {
                files.services.insert(id, service.clone());
            }
        }
        let of_services = services.iter().flat_map(ServiceDefinition::all_checks);
        for check in of_services.chain(checks.iter().cloned()) {
            files.checks.insert(CheckId::try_from(check.id_text().to_owned()).map_err(bad)?, check);
        }
        if files.services.len() > SERVICES_MAX || files.checks.len() > CHECKS_MAX {
            let text = format!("an agent holds {SERVICES_MAX} services and {CHECKS_MAX} checks at most");
            return Err(Refusal::new(lictor_types::refusal::RefusalKind::TooMany, text));
        }
        Ok(files)
    }
}

impl Local {
    /// Has these definitions in place of those of files so far: what is new is added, what is gone is removed, what is
    /// the same goes on as it is. A check that changed keeps its status.
    ///
    /// # Errors
    /// A definition cannot be taken; then nothing has changed.
    pub async fn take_files(
        self: &Arc<Self>,
        services: &[ServiceDefinition],
        checks: &[CheckDefinition],
    ) -> Result<(), Refusal> {
        let new = Files::of(&self.with_sidecars(services)?, checks)?;
        new.checks.values().try_for_each(|check| self.may_run(check, false))?;
        self.change([Concern::Everything], move |local| local.plan_files(new)).await?;
        self.settle().await;
        Ok(())
    }

    fn plan_files(&self, new: Files) -> Result<Plan, Refusal> {
        let old = self.files.lock().clone();
        for check in new.checks.values().filter(|check| !check.service_id.is_empty()) {
            let of_a_file = |files: &Files| files.services.keys().any(|id| id.as_str() == check.service_id);
            if !of_a_file(&new) && (of_a_file(&old) || self.service_named(&check.service_id).is_none()) {
                return Err(Refusal::not_found(format!("ServiceID {:?} does not exist", check.service_id)));
            }
        }
        let gone: Vec<ServiceId> = old.services.keys().filter(|id| !new.services.contains_key(*id)).cloned().collect();
        // Checks that the API added to an instance go with it, and must not come back at the next start.
        let orphans = gone.iter().flat_map(|id| self.other_checks_of(id.as_str()));
        let records = orphans.map(|check| Record::CheckGone(check.to_string())).collect();
        Ok(Plan::new(records, move |local| local.put_files(old, new, &gone)))
    }

    fn put_files(self: &Arc<Self>, old: Files, new: Files, gone: &[ServiceId]) -> Result<(), Refusal> {
        for id in gone {
            self.sidecars.lost(id);
            let removed = self.rows.lock().remove_service(id).unwrap_or_default();
            self.sidecars.lost(id);
            self.running.lock().retain(|check, _| !removed.contains(check));
        }
        old.checks.keys().filter(|id| !new.checks.contains_key(*id)).for_each(|id| self.drop_check(id));
        for (id, service) in &new.services {
            if old.services.get(id) != Some(service) {
                self.take_service(service)?;
            }
        }
        for (id, check) in &new.checks {
            if old.checks.get(id) != Some(check) || self.check(id).is_none() {
                self.take_check(check.clone(), false)?;
            }
        }
        *self.files.lock() = new;
        self.note_change();
        Ok(())
    }

    /// The API has a service of this id now, with these checks: no reload of files takes them away.
    pub(super) fn no_longer_of_files(&self, service: Option<&str>, checks: &[CheckDefinition]) {
        let mut files = self.files.lock();
        files.services.retain(|id, _| Some(id.as_str()) != service);
        files.checks.retain(|id, _| !checks.iter().any(|check| check.id_text() == id.as_str()));
    }
}
