//! One pass over one datacenter: from what Kubernetes has to what the resource asks for.
//!
//! Reads only in `fetch`, writes only in `apply` and `report`; everything between is pure, so that any situation can be
//! tested from a fixture. A pass takes no hint about what changed: it looks again.

mod apply;
mod build;
mod fetch;
mod keys;
mod report;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use lictor_crds::ConsulDatacenter;
use lictor_runtime::{Clock, Rng};

use crate::access;
use crate::names::Names;
use crate::servers::{Observation, ObserveServers};
use crate::settings::OperatorSettings;

/// Between two passes over a datacenter that is ready.
const READY_INTERVAL: Duration = Duration::from_secs(15);
/// Between two passes over a datacenter that is on its way.
const UNREADY_INTERVAL: Duration = Duration::from_secs(2);
/// After the first failed pass; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a failed pass.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What every pass needs.
pub(crate) struct Context {
    /// The way to the API server.
    pub client: Client,
    /// What the operator was told at its start.
    pub settings: Arc<OperatorSettings>,
    /// All datacenters there are.
    pub known: Store<ConsulDatacenter>,
    /// The way to the servers.
    pub servers: Arc<dyn ObserveServers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where keys come from.
    pub random: Arc<dyn Rng>,
    /// How often passes failed in a row.
    pub seen: Seen,
}

/// How often passes failed in a row, by uid of the datacenter.
#[derive(Default)]
pub(crate) struct Seen(Mutex<BTreeMap<String, u32>>);

impl Seen {
    fn failed(&self, datacenter: &ConsulDatacenter) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(datacenter.uid().unwrap_or_default()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn forget(&self, datacenter: &ConsulDatacenter) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&datacenter.uid().unwrap_or_default());
    }
}

/// Why a pass ended early. The step says what was under way; nothing of it need be undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something could not be read.
    #[error("cannot read what there is")]
    Fetch(#[source] fetch::FetchError),
    /// Keys or certificates could not be made.
    #[error("cannot make keys and certificates")]
    Keys(#[source] keys::KeysError),
    /// Something could not be written.
    #[error("cannot write what should be")]
    Apply(#[source] apply::ApplyError),
    /// The servers could not be allowed to review tokens.
    #[error("cannot let the servers review tokens: the chart's ClusterRoleBinding {binding} is missing or locked")]
    Access {
        /// Name of the binding.
        binding: String,
        /// What the API said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The status could not be written.
    #[error("cannot write the status")]
    Report(#[source] Box<kube::Error>),
}

/// Brings one datacenter to what its resource asks for.
pub(crate) async fn reconcile(datacenter: Arc<ConsulDatacenter>, context: Arc<Context>) -> Result<Action, Error> {
    if datacenter.metadata.deletion_timestamp.is_some() {
        context.seen.forget(&datacenter);
        return Ok(Action::await_change()); // Owner references do the rest.
    }
    let found = fetch::fetch(&context.client, &datacenter).await.map_err(Error::Fetch)?;
    let now = context.clock.now();
    let outcome = match validate::validate(&datacenter, &found) {
        Ok(()) => {
            let keys = keys::complete(&datacenter, &found.keys, context.random.as_ref(), now).map_err(Error::Keys)?;
            let wanted = build::build(&datacenter, &context.settings, &found, &keys);
            access::bind_servers(&context.client, &context.settings, &context.known).await.map_err(|source| {
                Error::Access { binding: context.settings.token_review_binding.clone(), source: Box::new(source) }
            })?;
            let applied = apply::apply(&context.client, &wanted).await.map_err(Error::Apply)?;
            report::Outcome::Applied { applied: Box::new(applied), keys: Box::new(keys) }
        }
        Err(refusal) => report::Outcome::Untouched { refusal, found: Box::new(found) },
    };
    let observation = match outcome.access() {
        Some(access) => {
            context.servers.observe(&Names::of(&datacenter), datacenter.spec.servers.replicas, &access).await
        }
        None => Observation::default(),
    };
    let status = report::status(&datacenter, &outcome, &observation, now);
    let ready = report::is_ready(&status);
    report::report(&context.client, &datacenter, status).await.map_err(|error| Error::Report(Box::new(error)))?;
    context.seen.forget(&datacenter);
    Ok(Action::requeue(if ready { READY_INTERVAL } else { UNREADY_INTERVAL }))
}

/// Anything that failed may heal, so it is tried again, ever more rarely.
pub(crate) fn on_error(datacenter: Arc<ConsulDatacenter>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.seen.failed(&datacenter);
    let wait = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(6)).min(LONGEST_RETRY);
    let cause = std::error::Error::source(error).map(chain).unwrap_or_default();
    let datacenter = datacenter.name_any();
    tracing::warn!(datacenter, %error, %cause, failures, ?wait, "a pass failed and is tried again");
    Action::requeue(wait)
}

/// The causes of an error in one line, outermost first.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = told(error);
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&told(cause));
        next = cause.source();
    }
    text
}

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    error.downcast_ref::<kube::Error>().map_or_else(|| error.to_string(), brief)
}

/// What the API server said, in its first line; the rest is a dump of the object.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}
