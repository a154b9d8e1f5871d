//! The agent's own services and checks, and what the catalog has been told of them. Pure: time comes in as a value.
//!
//! Invariants
//! - A row is in sync only if what the catalog was told is what the row says now: a change in between, seen by the
//!   row's revision, keeps it out of sync.
//! - What was removed stays as a tombstone until the catalog was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lictor_types::{CheckId, CheckStatus, Credential, HealthCheck, NodeName, NodeService, ServiceId};
use tokio::time::Instant;

use super::definition::CheckDefinition;
use super::difference::Difference;

/// One instance of ours.
pub(super) struct ServiceRow {
    pub(super) service: NodeService,
    pub(super) token: Credential,
    pub(super) in_sync: bool,
    pub(super) revision: u64,
}

/// One check of ours.
pub(super) struct CheckRow {
    pub(super) check: HealthCheck,
    pub(super) definition: CheckDefinition,
    pub(super) token: Credential,
    /// It came through the API, so it survives a restart by itself.
    pub(super) kept: bool,
    pub(super) in_sync: bool,
    pub(super) revision: u64,
    /// Only its output changed: the catalog hears of it then.
    pub(super) deferred_until: Option<Instant>,
    /// Since when it has been critical.
    pub(super) critical_since: Option<Instant>,
}

/// What the catalog must be told next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// The node itself.
    Node(u64),
    /// An instance, with those of its checks that share its token.
    Service(ServiceId, u64, Vec<(CheckId, u64)>),
    /// Checks that are told with the same token.
    Checks(Vec<(CheckId, u64)>),
    /// An instance is gone.
    ServiceGone(ServiceId),
    /// A check is gone.
    CheckGone(CheckId),
}

/// Checks that are told at once.
const BATCH_MAX: usize = 64;

impl Job {
    /// Jobs of one stage do not build on each other; those of a later one may build on those of an earlier one.
    pub(super) fn stage(&self) -> u8 {
        match self {
            Self::Node(_) => 0,
            Self::Service(..) | Self::ServiceGone(_) | Self::CheckGone(_) => 1,
            Self::Checks(_) => 2,
        }
    }

    /// The same in pieces, for when the whole was denied: one check that may not be told must not hide the others.
    pub(super) fn pieces(&self) -> Vec<Self> {
        match self {
            Self::Checks(checks) if checks.len() > 1 => {
                checks.iter().map(|check| Self::Checks(vec![check.clone()])).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// All rows.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) node_in_sync: bool,
    node_revision: u64,
    pub(super) services: BTreeMap<ServiceId, ServiceRow>,
    pub(super) checks: BTreeMap<CheckId, CheckRow>,
    gone_services: BTreeMap<ServiceId, Credential>,
    gone_checks: BTreeMap<CheckId, Credential>,
    revisions: u64,
}

impl Rows {
    fn revision(&mut self) -> u64 {
        self.revisions += 1;
        self.revisions
    }

    /// Other things are told of the node from now on.
    pub(super) fn node_changed(&mut self) {
        self.node_revision = self.revision();
        self.node_in_sync = false;
    }

    /// Adds or replaces an instance.
    pub(super) fn put_service(&mut self, id: ServiceId, service: NodeService, token: Credential) {
        self.gone_services.remove(&id);
        let revision = self.revision();
        for row in self.checks.values_mut().filter(|row| row.check.service_id == id.as_str()) {
            service.name.as_str().clone_into(&mut row.check.service_name);
            row.check.service_tags.clone_from(&service.tags);
        }
        self.services.insert(id, ServiceRow { service, token, in_sync: false, revision });
    }

    /// Adds or replaces a check. One that was there keeps its status and output unless the new definition names one.
    pub(super) fn put_check(
        &mut self,
        node: &NodeName,
        mut check: HealthCheck,
        definition: CheckDefinition,
        token: Credential,
        kept: bool,
        now: Instant,
    ) {
        let Some(id) = check.check_id.clone() else { return };
        self.gone_checks.remove(&id);
        check.node = Some(node.clone());
        if let Some(service) = self.service_of(&check) {
            service.service.name.as_str().clone_into(&mut check.service_name);
            check.service_tags.clone_from(&service.service.tags);
        }
        let before = self.checks.get(&id);
        if let Some(before) = before.filter(|_| definition.status.is_empty()) {
            check.status = before.check.status;
            check.output.clone_from(&before.check.output);
        }
        let critical_since = before.and_then(|row| row.critical_since).or(Some(now));
        let critical_since = critical_since.filter(|_| check.status == CheckStatus::Critical);
        let revision = self.revision();
        let row =
            CheckRow { check, definition, token, kept, in_sync: false, revision, deferred_until: None, critical_since };
        self.checks.insert(id, row);
    }

    fn service_of(&self, check: &HealthCheck) -> Option<&ServiceRow> {
        self.services.get(&check.service_id.parse::<ServiceId>().ok()?)
    }

    /// Removes an instance and its checks; returns the ids of those.
    pub(super) fn remove_service(&mut self, id: &ServiceId) -> Option<Vec<CheckId>> {
        let row = self.services.remove(id)?;
        self.gone_services.insert(id.clone(), row.token);
        let of_it = self.checks.iter().filter(|(_, row)| row.check.service_id == id.as_str());
        let checks: Vec<CheckId> = of_it.map(|(check, _)| check.clone()).collect();
        for check in &checks {
            // The catalog removes them with the instance.
            self.checks.remove(check);
        }
        Some(checks)
    }

    /// Removes a check. Whether it was there.
    pub(super) fn remove_check(&mut self, id: &CheckId) -> bool {
        let Some(row) = self.checks.remove(id) else { return false };
        self.gone_checks.insert(id.clone(), row.token);
        true
    }

    /// A check found something. A change of output alone reaches the catalog only after `defer`.
    /// Returns whether anything changed, and whether the status did.
    pub(super) fn observe(
        &mut self,
        id: &CheckId,
        status: CheckStatus,
        output: &str,
        now: Instant,
        defer: Duration,
    ) -> (bool, bool) {
        let revision = self.revision();
        let Some(row) = self.checks.get_mut(id) else { return (false, false) };
        let status_changed = row.check.status != status;
        if !status_changed && row.check.output == output {
            return (false, false);
        }
        row.check.status = status;
        output.clone_into(&mut row.check.output);
        row.revision = revision;
        match (status, row.critical_since) {
            (CheckStatus::Critical, None) => row.critical_since = Some(now),
            (CheckStatus::Critical, Some(_)) => {}
            _ => row.critical_since = None,
        }
        if status_changed || defer.is_zero() {
            row.in_sync = false;
            row.deferred_until = None;
        } else if row.in_sync && row.deferred_until.is_none() {
            row.deferred_until = Some(now + defer);
        }
        (true, status_changed)
    }

    /// What the catalog must be told now, by stages.
    pub(super) fn pending(&self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        if !self.node_in_sync {
            jobs.push(Job::Node(self.node_revision));
        }
        let due = |row: &CheckRow| !row.in_sync || row.deferred_until.is_some_and(|at| at <= now);
        let mut with_service = Vec::new();
        for (id, row) in self.services.iter().filter(|(_, row)| !row.in_sync) {
            let checks = self
                .checks
                .iter()
                .filter(|(_, check)| due(check) && check.check.service_id == id.as_str() && check.token == row.token);
            let checks: Vec<(CheckId, u64)> = checks.map(|(check, row)| (check.clone(), row.revision)).collect();
            with_service.extend(checks.iter().map(|(check, _)| check.clone()));
            jobs.push(Job::Service(id.clone(), row.revision, checks));
        }
        jobs.extend(self.gone_services.keys().cloned().map(Job::ServiceGone));
        jobs.extend(self.gone_checks.keys().cloned().map(Job::CheckGone));
        let with_service: BTreeSet<CheckId> = with_service.into_iter().collect();
        let mut by_token: BTreeMap<&str, Vec<(CheckId, u64)>> = BTreeMap::new();
        for (id, row) in self.checks.iter().filter(|(id, row)| due(row) && !with_service.contains(id)) {
            by_token.entry(&self.token_of_check(row).secret).or_default().push((id.clone(), row.revision));
        }
        let batches =
            by_token.into_values().flat_map(|checks| checks.chunks(BATCH_MAX).map(<[_]>::to_vec).collect::<Vec<_>>());
        jobs.extend(batches.map(Job::Checks));
        jobs
    }

    /// The token that a check is told with: its own, else that of its instance.
    pub(super) fn token_of_check<'r>(&'r self, row: &'r CheckRow) -> &'r Credential {
        match self.service_of(&row.check) {
            Some(service) if row.token.is_anonymous() => &service.token,
            _ => &row.token,
        }
    }

    /// When the next deferred output is due.
    pub(super) fn next_deferred(&self) -> Option<Instant> {
        self.checks.values().filter_map(|row| row.deferred_until).min()
    }

    /// The token that a removal is done with; anonymous when the row had none.
    pub(super) fn token_of_gone(&self, job: &Job) -> Credential {
        match job {
            Job::ServiceGone(id) => self.gone_services.get(id),
            Job::CheckGone(id) => self.gone_checks.get(id),
            Job::Node(_) | Job::Service(..) | Job::Checks(_) => None,
        }
        .cloned()
        .unwrap_or_default()
    }

    /// The catalog was told, or will not hear it from us before the next full comparison.
    pub(super) fn told(&mut self, job: &Job) {
        match job {
            Job::Node(revision) => self.node_in_sync |= self.node_revision == *revision,
            Job::Service(id, revision, checks) => {
                if let Some(row) = self.services.get_mut(id).filter(|row| row.revision == *revision) {
                    row.in_sync = true;
                }
                for (check, revision) in checks {
                    self.check_told(check, *revision);
                }
            }
            Job::Checks(checks) => checks.iter().for_each(|(check, revision)| self.check_told(check, *revision)),
            Job::ServiceGone(id) => {
                self.gone_services.remove(id);
            }
            Job::CheckGone(id) => {
                self.gone_checks.remove(id);
            }
        }
    }

    fn check_told(&mut self, id: &CheckId, revision: u64) {
        if let Some(row) = self.checks.get_mut(id).filter(|row| row.revision == revision) {
            row.in_sync = true;
            row.deferred_until = None;
        }
    }

    /// Takes over what a comparison with the catalog found.
    pub(super) fn apply(&mut self, difference: Difference) {
        self.node_in_sync = !difference.node;
        let revision = self.revision();
        for (id, tags) in difference.tags {
            if let Some(row) = self.services.get_mut(&id) {
                row.service.tags = tags;
                row.revision = revision;
            }
        }
        for (id, row) in &mut self.services {
            row.in_sync = !difference.services.contains(id);
        }
        for (id, row) in &mut self.checks {
            row.in_sync = !difference.checks.contains(id);
        }
        for id in difference.unknown_services.into_iter().filter(|id| !self.services.contains_key(id)) {
            self.gone_services.entry(id).or_default();
        }
        for id in difference.unknown_checks.into_iter().filter(|id| !self.checks.contains_key(id)) {
            self.gone_checks.entry(id).or_default();
        }
    }

    /// The instances whose check has been critical longer than its definition allows.
    pub(super) fn to_reap(&self, now: Instant) -> Vec<ServiceId> {
        let overdue = |row: &CheckRow| {
            let limit = row.definition.deregister_critical_service_after?.max(REAP_AFTER_MIN);
            let overdue = now.duration_since(row.critical_since?) >= limit;
            if overdue { row.check.service_id.parse().ok() } else { None }
        };
        let mut ids: Vec<ServiceId> = self.checks.values().filter_map(overdue).collect();
        ids.dedup();
        ids.retain(|id| self.services.contains_key(id));
        ids
    }
}

/// The shortest time after which a critical instance is removed.
pub(super) const REAP_AFTER_MIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::definition::ServiceDefinition;

    const DEFER: Duration = Duration::from_secs(150);

    fn rows(now: Instant) -> Rows {
        let mut rows = Rows { node_in_sync: true, ..Rows::default() };
        let written = json!({"Name": "web", "Check": {"TTL": "10s", "DeregisterCriticalServiceAfter": "90s"}});
        let service = ServiceDefinition::from_json(&written).unwrap();
        let check = service.all_checks().remove(0);
        let node = "n1".parse().unwrap();
        rows.put_service("web".parse().unwrap(), service.to_node_service().unwrap(), Credential::default());
        let health = check.to_health_check("service:web".parse().unwrap());
        rows.put_check(&node, health, check, Credential::default(), true, now);
        rows
    }

    fn tell_all(rows: &mut Rows, now: Instant) {
        for job in rows.pending(now) {
            rows.told(&job);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_travels_with_its_checks_and_only_once() {
        let now = Instant::now();
        let mut rows = rows(now);
        let jobs = rows.pending(now);
        assert!(
            matches!(&jobs[..], [Job::Service(id, _, checks)] if id.as_str() == "web" && checks.len() == 1),
            "{jobs:?}"
        );
        tell_all(&mut rows, now);
        assert_eq!(rows.pending(now), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_while_the_catalog_is_told_is_told_again() {
        let now = Instant::now();
        let mut rows = rows(now);
        let jobs = rows.pending(now);
        rows.observe(&"service:web".parse().unwrap(), CheckStatus::Passing, "ok", now, DEFER);
        rows.told(&jobs[0]);
        let again = rows.pending(now);
        assert!(matches!(&again[..], [Job::Checks(_)]), "{again:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_of_one_token_travel_together_and_can_be_taken_apart() {
        let now = Instant::now();
        let mut rows = rows(now);
        for number in 0..100 {
            let token = Credential::new(if number < 70 { "one" } else { "two" });
            let written = json!({"Name": format!("c{number}"), "TTL": "10s"});
            let check = CheckDefinition::from_json(&written).unwrap();
            let health = check.to_health_check(check.name.parse().unwrap());
            rows.put_check(&"n1".parse().unwrap(), health, check, token, true, now);
        }
        let sizes = |jobs: &[Job]| -> Vec<usize> {
            jobs.iter()
                .filter_map(|job| if let Job::Checks(checks) = job { Some(checks.len()) } else { None })
                .collect()
        };
        let jobs = rows.pending(now);
        assert_eq!(sizes(&jobs), [64, 6, 30]);
        assert_eq!(jobs[2].pieces().len(), 6);
        tell_all(&mut rows, now);
        assert_eq!(rows.pending(now), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_alone_waits_and_a_status_does_not() {
        let now = Instant::now();
        let id: CheckId = "service:web".parse().unwrap();
        let mut rows = rows(now);
        tell_all(&mut rows, now);
        assert_eq!(rows.observe(&id, CheckStatus::Critical, "one", now, DEFER), (true, false));
        assert_eq!(rows.pending(now), []);
        assert_eq!(rows.next_deferred(), Some(now + DEFER));
        assert_eq!(rows.pending(now + DEFER).len(), 1);
        assert_eq!(rows.observe(&id, CheckStatus::Passing, "two", now, DEFER), (true, true));
        assert_eq!(rows.pending(now).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_instance_is_told_of_until_the_catalog_knows() {
        let now = Instant::now();
        let mut rows = rows(now);
        tell_all(&mut rows, now);
        rows.remove_service(&"web".parse().unwrap()).unwrap();
        assert_eq!(rows.pending(now), [Job::ServiceGone("web".parse().unwrap())]);
        tell_all(&mut rows, now);
        assert_eq!(rows.pending(now), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_reaped_when_it_was_critical_for_too_long() {
        let now = Instant::now();
        let rows = rows(now);
        assert_eq!(rows.to_reap(now + Duration::from_secs(89)), []);
        assert_eq!(rows.to_reap(now + Duration::from_secs(90)), ["web".parse().unwrap()]);
    }
}
