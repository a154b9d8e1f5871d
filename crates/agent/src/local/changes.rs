//! Changes of what the agent keeps: many at a time, each as if it were alone.
//!
//! ```text
//! register, deregister, ... ──> queue ──> batch of changes that do not concern each other
//!                                           planned ──> written down, one sync ──> in force, in order ──> answered
//! ```
//!
//! Invariants
//! - A change is planned against what all changes before it left behind: those in its batch concern other things.
//! - What is in force is on disk; what could not be written is not in force.
//! - A change goes to its end even if whoever asked for it goes away.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use tokio::sync::{mpsc, oneshot};

use super::Local;
use super::store::Record;

/// Changes that wait.
pub(super) const WAITING_MAX: usize = 1024;
/// Changes that are written down together.
const BATCH_MAX: usize = 256;

/// What a change concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Concern {
    /// An instance, and all checks of it.
    Service(String),
    /// A check.
    Check(String),
    /// All of it.
    Everything,
}

/// Puts a change in force.
type Apply = Box<dyn FnOnce(&Arc<Local>) -> Result<(), Refusal> + Send>;
/// Says what a change comes to, once it is its turn.
type Planner = Box<dyn FnOnce(&Arc<Local>) -> Result<Plan, Refusal> + Send>;

/// What a change comes to.
pub(super) struct Plan {
    /// What is written down first.
    pub(super) records: Vec<Record>,
    /// What puts it in force then.
    pub(super) apply: Apply,
}

impl Plan {
    pub(super) fn new(
        records: Vec<Record>,
        apply: impl FnOnce(&Arc<Local>) -> Result<(), Refusal> + Send + 'static,
    ) -> Self {
        Self { records, apply: Box::new(apply) }
    }

    /// There is nothing to do.
    pub(super) fn nothing() -> Self {
        Self::new(Vec::new(), |_| Ok(()))
    }
}

/// A change that waits for its turn.
pub(super) struct Change {
    concerns: BTreeSet<Concern>,
    plan: Planner,
    done: oneshot::Sender<Result<(), Refusal>>,
}

impl Local {
    /// Plans and carries out a change of what these are about; answers when it is on disk and in force.
    ///
    /// # Errors
    /// What the plan says, or that it cannot be kept; then nothing has changed.
    pub(super) async fn change(
        &self,
        concerns: impl IntoIterator<Item = Concern>,
        plan: impl FnOnce(&Arc<Self>) -> Result<Plan, Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        let change = Change { concerns: concerns.into_iter().collect(), plan: Box::new(plan), done };
        let stopping = || Refusal::new(RefusalKind::Unavailable, "the agent is stopping");
        self.changes.send(change).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn carry_out(self: &Arc<Self>, batch: Vec<Change>) {
        let mut records = Vec::new();
        let mut planned = Vec::new();
        for change in batch {
            match (change.plan)(self) {
                Ok(plan) => {
                    records.extend(plan.records);
                    planned.push((plan.apply, change.done));
                }
                // Whoever asked may have gone.
                Err(refusal) => drop(change.done.send(Err(refusal))),
            }
        }
        let written = self.write_down(records).await;
        for (apply, done) in planned {
            let result = written.clone().and_then(|()| apply(self));
            // Whoever asked may have gone.
            let _ = done.send(result);
        }
    }

    /// Files are written beside the tasks that must answer in time.
    async fn write_down(&self, records: Vec<Record>) -> Result<(), Refusal> {
        let Some(store) = self.store.clone().filter(|_| !records.is_empty()) else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || store.append(&records)).await;
        not_kept(written.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

/// What the caller is told when the data directory does not take it.
pub(super) fn not_kept(written: io::Result<()>) -> Result<(), Refusal> {
    written.map_err(|error| Refusal::failed(format!("the definition cannot be kept in the data directory: {error}")))
}

/// Carries out what waits, for as long as the agent runs.
pub(super) async fn carry_out_all(local: Arc<Local>, mut queue: mpsc::Receiver<Change>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(change) = queue.recv().await else { return };
            waiting.push_back(change);
        }
        while waiting.len() < BATCH_MAX
            && let Ok(change) = queue.try_recv()
        {
            waiting.push_back(change);
        }
        let together = together(waiting.iter().map(|change| &change.concerns));
        local.carry_out(waiting.drain(..together).collect()).await;
    }
}

/// How many of these, from the first on, concern each other in nothing; one at least, where there is one.
fn together<'c>(changes: impl Iterator<Item = &'c BTreeSet<Concern>>) -> usize {
    let mut concerned = BTreeSet::new();
    let mut count = 0;
    for concerns in changes {
        let is_alone = concerns.contains(&Concern::Everything) || concerned.contains(&Concern::Everything);
        if count > 0 && (is_alone || concerns.iter().any(|concern| concerned.contains(concern))) {
            break;
        }
        concerned.extend(concerns.iter().cloned());
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_concern_each_other_are_not_carried_out_together() {
        let service = |id: &str| Concern::Service(id.into());
        let check = |id: &str| Concern::Check(id.into());
        let together = |changes: &[&[Concern]]| {
            let changes: Vec<BTreeSet<Concern>> = changes.iter().map(|it| it.iter().cloned().collect()).collect();
            super::together(changes.iter())
        };
        assert_eq!(together(&[]), 0);
        assert_eq!(together(&[&[service("a")], &[service("b")], &[check("a")], &[service("a")]]), 3);
        assert_eq!(together(&[&[service("a"), check("x")], &[service("b"), check("x")]]), 1);
        assert_eq!(together(&[&[Concern::Everything], &[service("b")]]), 1);
        assert_eq!(together(&[&[service("b")], &[Concern::Everything]]), 1);
    }
}
