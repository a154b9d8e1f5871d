//! Running checks: each has one task, which ends when the check is removed or replaced.

use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::Tasks;
use lictor_types::{CheckId, CheckStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Local;
use super::alias::{self, Alias};
use super::definition::CheckDefinition;
use super::expiry::Verdict;
use super::probe::{Probe, output_limit};
use super::thresholds::Thresholds;
use super::validate::INTERVAL_MIN;

/// A check that runs. Dropping it ends its task.
pub(super) struct Running {
    tasks: Tasks,
    renewed: Option<watch::Sender<Instant>>,
}

impl Running {
    /// Starts to run the check `id`.
    pub(super) fn start(local: &Arc<Local>, id: CheckId, definition: &CheckDefinition) -> Self {
        let tasks = local.tasks.child();
        if let Some(probe) = Probe::of(definition) {
            tasks.spawn(run(Arc::clone(local), id, probe, definition.clone()));
            return Self { tasks, renewed: None };
        }
        if let Some(alias) = Alias::of(definition, &local.identity.node_name) {
            tasks.spawn(alias::follow(Arc::clone(local), id, alias));
            return Self { tasks, renewed: None };
        }
        let (renewed, renewals) = watch::channel(Instant::now());
        tasks.spawn(expire(Arc::clone(local), id, definition.ttl.unwrap_or_default(), renewals));
        Self { tasks, renewed: Some(renewed) }
    }

    /// Whether its owner tells its status.
    pub(super) fn has_ttl(&self) -> bool {
        self.renewed.is_some()
    }

    /// Its owner was heard of.
    pub(super) fn renew(&self) {
        if let Some(renewed) = &self.renewed {
            renewed.send_replace(Instant::now());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn run(local: Arc<Local>, id: CheckId, probe: Probe, definition: CheckDefinition) {
    let interval = definition.interval.unwrap_or_default().max(INTERVAL_MIN);
    let limit = definition.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(probe.default_limit());
    let kept = output_limit(&definition, local.settings.output_max_size);
    let mut thresholds = Thresholds::of(&definition);
    // Checks that were registered together must not all run together.
    tokio::time::sleep(Duration::from_millis(local.rng.below(interval.as_millis() as u64))).await;
    loop {
        let (status, output) = probe.run(&local.resolver, limit, kept).await;
        if let Some(status) = thresholds.count(status) {
            local.observe(&id, status, &output).await;
        }
        tokio::time::sleep(interval).await;
    }
}

async fn expire(local: Arc<Local>, id: CheckId, ttl: Duration, mut renewals: watch::Receiver<Instant>) {
    let mut grace = Duration::ZERO;
    loop {
        let deadline = *renewals.borrow_and_update() + ttl + grace;
        tokio::select! {
            changed = renewals.changed() => {
                if changed.is_err() {
                    return;
                }
                grace = Duration::ZERO;
                continue;
            }
            () = tokio::time::sleep_until(deadline) => {}
        }
        if let Verdict::Held { grace: more, .. } = local.judge_expiry(&id, ttl, !grace.is_zero()) {
            grace = more;
            continue;
        }
        grace = Duration::ZERO;
        let last = local.check(&id).map(|check| check.output).unwrap_or_default();
        let output = if last.is_empty() {
            "TTL expired".to_owned()
        } else {
            format!("TTL expired (last output before timeout follows): {last}")
        };
        tracing::warn!(check = %id, "check missed its TTL, it is now critical");
        local.observe(&id, CheckStatus::Critical, &output).await;
        if renewals.changed().await.is_err() {
            return;
        }
    }
}
