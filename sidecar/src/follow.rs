//! Keeps an answer up to date with blocking queries.
//!
//! Invariants
//! - While no server answers, nothing is observed: whoever follows keeps what it last saw.
//! - Every wait has a limit, and every failure is followed by a pause that grows up to the limit of [`RETRY`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lictor_agent::SharedDatacenter;
use lictor_runtime::{RetryPause, Rng};
use lictor_types::{Block, Consistency, Credential, Freshness, Index, Query, Read, Refusal};

/// How long a server may hold a question back while nothing changes; Consul's default.
const WAIT: Duration = Duration::from_secs(300);
/// How much later than asked an answer may come: the servers add a sixteenth to spread the wake-ups, the rest is the way.
const OVERDUE: Duration = Duration::from_secs(60);
/// How long a question that need not wait may take.
const FIRST_LIMIT: Duration = Duration::from_secs(15);
/// The pauses between attempts.
const RETRY: RetryPause = RetryPause { shortest: Duration::from_millis(200), longest: Duration::from_secs(10) };
/// The pause after an answer that brought nothing new before its time: a server may wake us for nothing, but not busily.
const SPURIOUS_PAUSE: Duration = Duration::from_millis(100);

/// The pause before attempt `failures + 1`.
pub(crate) fn retry_pause(failures: u32, rng: &dyn Rng) -> Duration {
    RETRY.after(failures, rng)
}

/// Whom to ask, and as whom. Clones share the token.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) datacenter: SharedDatacenter,
    pub(crate) token: Arc<ArcSwap<Credential>>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Asker {
    /// The token in force.
    pub(crate) fn token(&self) -> Credential {
        Credential::clone(&self.token.load())
    }

    /// Asks `query` for ever and hands every answer that may be new to `observe`. Ends only by being dropped.
    pub(crate) async fn follow(
        &self,
        what: &str,
        query: Query,
        consistency: Consistency,
        mut observe: impl FnMut(Read),
    ) {
        let mut seen = Index(0);
        let mut failures = 0;
        loop {
            let block = (seen > Index(0)).then_some(Block { after: seen, wait_millis: WAIT.as_millis() as u64 });
            let asked = tokio::time::Instant::now();
            match self.ask(query.clone(), Freshness { consistency, block }).await {
                Ok(read) => {
                    if failures > 0 {
                        tracing::info!(what, failures, "the servers answer again");
                    }
                    failures = 0;
                    let index = read.index;
                    let unchanged = index == seen;
                    // An index that went back is taken as it is: the next question then asks what came after it.
                    seen = index;
                    if unchanged {
                        if asked.elapsed() < SPURIOUS_PAUSE {
                            tokio::time::sleep(SPURIOUS_PAUSE).await;
                        }
                    } else {
                        observe(read);
                    }
                }
                Err(refusal) => {
                    if failures == 0 {
                        tracing::warn!(what, %refusal, "cannot ask the servers; going on with what is known");
                    } else {
                        tracing::debug!(what, %refusal, failures, "still cannot ask the servers");
                    }
                    tokio::time::sleep(retry_pause(failures, &*self.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn ask(&self, query: Query, freshness: Freshness) -> Result<Read, Refusal> {
        let limit = freshness.block.map_or(FIRST_LIMIT, |block| block.wait() + OVERDUE);
        let token = self.token();
        match tokio::time::timeout(limit, self.datacenter.read(&token, query, freshness)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::failed(format!("no answer within {} s", limit.as_secs()))),
        }
    }
}
