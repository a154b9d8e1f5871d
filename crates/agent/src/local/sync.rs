//! Anti-entropy: keeps the catalog's rows of this node the same as ours.
//!
//! Changes travel at once. A full comparison runs at the start, when a server is reached again, and every
//! [`FULL_INTERVAL`], longer in a large cluster, and a random part of it more, so that a fleet does not ask all at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::{
    Answer, CheckId, Command, Credential, Deregistration, Freshness, Index, Node, NodeService, Query, Refusal,
    Registration, ServiceId,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::difference::{Remote, difference};
use super::rows::{CheckRow, Job};
use super::{Local, NodeFacts};
use crate::datacenter::SharedDatacenter;

/// Between two full comparisons, and as much again at random.
const FULL_INTERVAL: Duration = Duration::from_secs(60);
/// Before the first try after one that failed; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest wait before another try.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Before the first full comparison after something was denied; doubled up to [`FULL_INTERVAL`]. A node that has just
/// joined may be denied what it may do a moment later, once the leader has registered it.
const DENIED_MIN: Duration = Duration::from_secs(2);
/// A server that is reached again is not asked by all agents in the same moment.
const RECONNECT_STAGGER_MILLIS: u64 = 1000;
/// Changes that are on their way to the catalog at once: servers write many of them down together.
const TOLD_AT_ONCE: usize = 32;
/// Members of the largest cluster whose agents compare at the shortest interval.
const SMALL_CLUSTER: usize = 128;

/// How much rarer the agents of a cluster of `members` compare: once more for every doubling beyond a small one.
fn scale(members: usize) -> u32 {
    members.div_ceil(SMALL_CLUSTER).max(1).next_power_of_two().trailing_zeros() + 1
}

impl Local {
    /// The catalog will be known soon: from now on a change waits for it, before the first comparison too.
    pub fn expect_catalog(&self) {
        self.syncing.store(true, Ordering::Release);
    }

    /// Keeps the catalog in step for as long as the agent runs. `reconnections` grows whenever a server was reached again;
    /// `members` is how many agents the cluster has.
    pub fn keep_in_sync(
        self: &Arc<Self>,
        datacenter: SharedDatacenter,
        reconnections: watch::Receiver<u64>,
        members: watch::Receiver<usize>,
    ) {
        self.expect_catalog();
        self.datacenter.send_replace(Some(Arc::clone(&datacenter)));
        let driver = Driver { local: Arc::clone(self), datacenter, members };
        self.tasks.spawn(driver.run(reconnections));
    }

    /// Our node as the catalog should hold it.
    fn own_node(&self) -> Node {
        let NodeFacts { meta, locality } = self.node();
        Node {
            id: self.identity.node_id.clone(),
            name: self.identity.node_name.clone(),
            address: self.identity.address.clone(),
            datacenter: self.identity.datacenter.clone(),
            tagged_addresses: self.identity.tagged_addresses(),
            meta,
            create_index: Index(0),
            modify_index: Index(0),
            locality,
        }
    }
}

struct Driver {
    local: Arc<Local>,
    datacenter: SharedDatacenter,
    members: watch::Receiver<usize>,
}

/// How a round went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Done,
    Denied,
}

impl Driver {
    async fn run(self, mut reconnections: watch::Receiver<u64>) {
        let local = &self.local;
        let mut changes = local.changed.subscribe();
        let mut next_full = Instant::now();
        let mut retry = RETRY_MIN;
        let mut denied = DENIED_MIN;
        let mut reconnectable = true;
        loop {
            let change = *changes.borrow_and_update();
            let round = self.round(&mut next_full, denied == DENIED_MIN).await;
            if round.is_ok() {
                local.told.send_replace(change);
            }
            let retry_at = match round {
                Ok(Round::Done) => {
                    (retry, denied) = (RETRY_MIN, DENIED_MIN);
                    None
                }
                Ok(Round::Denied) => {
                    next_full = next_full.min(Instant::now() + denied);
                    denied = (denied * 2).min(FULL_INTERVAL);
                    None
                }
                Err(refusal) => {
                    // Once is usual while a cluster begins or changes its leader.
                    if retry == RETRY_MIN {
                        tracing::info!(%refusal, "the catalog cannot be told yet; trying again");
                    } else {
                        tracing::warn!(%refusal, "the catalog cannot be told; trying again");
                    }
                    let at = Instant::now() + retry + self.jitter(retry);
                    retry = (retry * 2).min(RETRY_MAX);
                    Some(at)
                }
            };
            let deferred = local.rows.lock().next_deferred();
            let timer = [retry_at, deferred.filter(|_| retry_at.is_none())]
                .into_iter()
                .flatten()
                .min()
                .map_or(next_full, |at| if retry_at.is_some() { at } else { at.min(next_full) });
            tokio::select! {
                // The sender lives in `local`, so this never ends in an error.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(timer) => {}
                reconnected = reconnections.changed(), if reconnectable => {
                    reconnectable = reconnected.is_ok();
                    let stagger = RECONNECT_STAGGER_MILLIS * u64::from(self.scale());
                    next_full = Instant::now() + Duration::from_millis(local.rng.below(stagger));
                }
            }
        }
    }

    fn scale(&self) -> u32 {
        scale(*self.members.borrow())
    }

    fn jitter(&self, around: Duration) -> Duration {
        Duration::from_millis(self.local.rng.below(around.as_millis() as u64))
    }

    /// Compares if it is time, then tells the catalog what it must be told. `first`: nothing was denied in the last one.
    async fn round(&self, next_full: &mut Instant, first: bool) -> Result<Round, Refusal> {
        if Instant::now() >= *next_full {
            self.compare().await?;
            let interval = FULL_INTERVAL * self.scale();
            *next_full = Instant::now() + interval + self.jitter(interval);
        }
        let jobs = self.local.rows.lock().pending(Instant::now());
        let mut round = Round::Done;
        for jobs in jobs.chunk_by(|one, other| one.stage() == other.stage()) {
            if self.tell_all(jobs, first).await? == Round::Denied {
                round = Round::Denied;
            }
        }
        Ok(round)
    }

    /// Tells the catalog these side by side. After one that failed no other is begun, and those under way are awaited: one that
    /// was given up could still be done later, over what is told next.
    async fn tell_all(&self, jobs: &[Job], first: bool) -> Result<Round, Refusal> {
        let (mut round, mut failed) = (Round::Done, None);
        let mut waiting = jobs.iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while failed.is_none() && under_way.len() < TOLD_AT_ONCE {
                let Some(job) = waiting.next() else { break };
                under_way.push(self.tell_whole(job, first).boxed());
            }
            match under_way.next().await {
                None => break,
                Some(Ok(Round::Done)) => {}
                Some(Ok(Round::Denied)) => round = Round::Denied,
                Some(Err(refusal)) => failed = failed.or(Some(refusal)),
            }
        }
        failed.map_or(Ok(round), Err)
    }

    /// Tells the catalog one thing, in pieces if the whole is denied.
    async fn tell_whole(&self, job: &Job, first: bool) -> Result<Round, Refusal> {
        let round = self.tell(job, first).await?;
        if round == Round::Denied {
            for piece in job.pieces() {
                self.tell(&piece, first).await?;
            }
        }
        Ok(round)
    }

    async fn compare(&self) -> Result<(), Refusal> {
        let node = &self.local.identity.node_name;
        let token = self.token(&self.local.tokens.agent());
        let services = self.datacenter.read(&token, Query::NodeServices(node.clone()), Freshness::default()).await?;
        let (node_row, services) = match services.answer {
            Answer::NodeServices(Some(found)) => {
                let with_id = |(id, service): (String, NodeService)| NodeService { id: id.parse().ok(), ..service };
                (Some(found.node), found.services.into_iter().map(with_id).collect())
            }
            Answer::NodeServices(None) => (None, Vec::new()),
            other => return Err(unexpected(&other)),
        };
        let checks = self.datacenter.read(&token, Query::HealthNode(node.clone()), Freshness::default()).await?;
        let Answer::Checks(checks) = checks.answer else { return Err(unexpected(&checks.answer)) };
        let remote = Remote { node: node_row, services, checks };
        let mut rows = self.local.rows.lock();
        let own = self.local.own_node();
        let difference = difference(&own, &rows, &remote);
        tracing::debug!(?difference, "compared with the catalog");
        rows.apply(difference);
        Ok(())
    }

    /// Tells the catalog one thing. An error is worth another try; a denial is not, before the next comparison.
    async fn tell(&self, job: &Job, first: bool) -> Result<Round, Refusal> {
        let Some((credential, command)) = self.command(job) else { return Ok(Round::Done) };
        let outcome = self.datacenter.write(&credential, command).await;
        let refusal = match outcome.map(|outcome| outcome.effect) {
            Ok(Effect::Applied | Effect::NotApplied | Effect::Transaction(_) | Effect::Unassigned(_)) => {
                match job {
                    Job::Node(_) => tracing::info!("Synced node info"),
                    other => tracing::info!(job = ?other, "told the catalog"),
                }
                self.local.rows.lock().told(job);
                return Ok(Round::Done);
            }
            Ok(Effect::Refused(refusal)) | Err(refusal) => refusal,
        };
        match refusal.kind {
            _ if refusal.may_retry() => Err(refusal),
            RefusalKind::TooMany => Err(refusal),
            // What is gone already need not be removed.
            RefusalKind::NotFound if matches!(job, Job::ServiceGone(_) | Job::CheckGone(_)) => {
                self.local.rows.lock().told(job);
                Ok(Round::Done)
            }
            _ => {
                if first {
                    tracing::info!(?job, %refusal, "the catalog does not take it yet");
                } else {
                    tracing::warn!(?job, %refusal, "the catalog does not take it");
                }
                self.local.rows.lock().told(job);
                Ok(Round::Denied)
            }
        }
    }

    fn token(&self, own: &Credential) -> Credential {
        if own.is_anonymous() { self.local.tokens.default() } else { own.clone() }
    }

    /// As [`Self::token`], for what a file of the configuration may define.
    fn token_of_file(&self, own: &Credential, of_file: bool) -> Credential {
        let registration = self.local.tokens.registration();
        if own.is_anonymous() && of_file && !registration.is_anonymous() { registration } else { self.token(own) }
    }

    /// The command of a job and the token it is done with; none when the row has gone meanwhile.
    fn command(&self, job: &Job) -> Option<(Credential, Command)> {
        let rows = self.local.rows.lock();
        let agent_token = &self.local.tokens.agent();
        let register = |service, checks, skip_node_update| {
            let own = self.local.own_node();
            Command::Register(Box::new(Registration {
                id: own.id,
                node: own.name,
                address: own.address,
                datacenter: own.datacenter,
                tagged_addresses: own.tagged_addresses,
                node_meta: own.meta,
                service,
                check: None,
                checks,
                skip_node_update,
                locality: own.locality,
            }))
        };
        match job {
            Job::Node(_) => Some((self.token(agent_token), register(None, Vec::new(), false))),
            Job::Service(id, _, checks) => {
                let row = rows.services.get(id)?;
                let checks = checks.iter().filter_map(|(check, _)| Some(rows.checks.get(check)?.check.clone()));
                let of_file = self.local.files.lock().services.contains_key(id);
                Some((
                    self.token_of_file(&row.token, of_file),
                    register(Some(row.service.clone()), checks.collect(), true),
                ))
            }
            Job::Checks(checks) => {
                let there: Vec<&CheckRow> = checks.iter().filter_map(|(id, _)| rows.checks.get(id)).collect();
                let token = rows.token_of_check(there.first()?);
                let checks = there.iter().map(|row| row.check.clone()).collect();
                Some((self.token_of_file(token, there.iter().all(|row| !row.kept)), register(None, checks, true)))
            }
            Job::ServiceGone(id) => Some((self.gone_token(rows.token_of_gone(job)), self.deregister(Some(id), None))),
            Job::CheckGone(id) => Some((self.gone_token(rows.token_of_gone(job)), self.deregister(None, Some(id)))),
        }
    }

    /// What was removed here is removed with its own token; what nobody here knows, with the agent's.
    fn gone_token(&self, own: Credential) -> Credential {
        if own.is_anonymous() { self.token(&self.local.tokens.agent()) } else { own }
    }

    fn deregister(&self, service_id: Option<&ServiceId>, check_id: Option<&CheckId>) -> Command {
        Command::Deregister(Deregistration {
            node: self.local.identity.node_name.clone(),
            service_id: service_id.cloned(),
            check_id: check_id.cloned(),
            authorized_service: None,
        })
    }
}

fn unexpected(answer: &Answer) -> Refusal {
    Refusal::failed(format!("a server answered another question: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn a_larger_cluster_compares_less_often() {
        let scales = [0, 1, 128, 129, 256, 257, 512, 1024, 1025, 8192].map(scale);
        assert_eq!(scales, [1, 1, 1, 2, 2, 3, 3, 4, 5, 7]);
    }
}
