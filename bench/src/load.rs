//! The load generator: keep-alive connections, spread over one thread per two cores, each asking again as soon as it has its
//! answer (a closed loop: what it shows is the most that these connections can get, and the time at that load).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use lictor_runtime::Tasks;
use tokio::task::JoinSet;

use crate::connection::{ANSWER_LIMIT, Connection, Door, runtime};
use crate::kind::Kind;

/// Loading data may take so long.
const FILL_LIMIT: Duration = Duration::from_secs(120);

/// Numbers of requests: over the whole run, so that none comes twice.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What came of it.
pub(crate) struct Outcome {
    /// Requests that were answered rightly while it was measured.
    pub(crate) done: usize,
    /// Of those, by time: sorted.
    times: Vec<Duration>,
    /// Requests that were not.
    pub(crate) errors: u64,
    /// What the first of those was.
    pub(crate) first_error: Option<String>,
    /// How long it was measured.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// The time that this share of the requests did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let place = (self.times.len() as f64 * share) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// What is measured.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) door: Door,
    pub(crate) address: String,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

#[derive(Default)]
struct Taken {
    times: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

impl Load {
    /// Runs it. `at_start` is called when the warm-up is over, and its answer is returned with the outcome.
    pub(crate) fn run<T>(&self, at_start: impl FnOnce() -> T) -> anyhow::Result<(Outcome, T)> {
        let start = Instant::now() + self.warm_up;
        std::thread::scope(|scope| {
            let threads: Vec<_> = shares(self.connections)
                .map(|share| {
                    scope.spawn(move || -> anyhow::Result<Vec<Taken>> {
                        Ok(runtime()?.block_on(async {
                            // A task for each: one future of all would read every answer before it asks again, and then
                            // the server rests while this thread works, and this thread while the server does.
                            let mut all = JoinSet::new();
                            for _ in 0..share {
                                let load = self.clone();
                                all.spawn(async move { load.keep_asking(start).await });
                            }
                            all.join_all().await
                        }))
                    })
                })
                .collect();
            std::thread::sleep(start.saturating_duration_since(Instant::now()));
            let begun = at_start();
            let mut outcome =
                Outcome { done: 0, times: Vec::new(), errors: 0, first_error: None, elapsed: self.measured };
            for thread in threads {
                let taken = thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
                for one in taken {
                    outcome.times.extend(one.times);
                    outcome.errors += one.errors;
                    outcome.first_error = outcome.first_error.or(one.first_error);
                }
            }
            outcome.done = outcome.times.len();
            outcome.times.sort_unstable();
            Ok((outcome, begun))
        })
    }

    async fn keep_asking(&self, start: Instant) -> Taken {
        let end = start + self.measured;
        let mut taken = Taken::default();
        let tasks = Tasks::new();
        let mut connection = None;
        while Instant::now() < end {
            let begun = Instant::now();
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let asked = ask(self.door, &self.address, self.kind, number, &mut connection, &tasks);
            let left = end.saturating_duration_since(begun);
            let answered = tokio::time::timeout(left.min(ANSWER_LIMIT), asked).await;
            let now = Instant::now();
            match answered.unwrap_or_else(|_| bail!("no answer within {ANSWER_LIMIT:?}")) {
                // What was asked during the warm-up counts too, as what is still under way at the end does not: otherwise
                // slow answers would be too few.
                Ok(()) if now >= start && now <= end => taken.times.push(now - begun),
                Ok(()) => {}
                Err(_) if now >= end && begun >= start => {}
                Err(error) => {
                    connection = None;
                    taken.errors += 1;
                    taken.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        tasks.cancel();
        taken
    }
}

/// One request on this connection, which is opened if need be.
async fn ask(
    door: Door,
    address: &str,
    kind: Kind,
    number: u64,
    connection: &mut Option<Connection>,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    if connection.is_none() {
        *connection = Some(Connection::open(door, address, tasks).await?);
    }
    let open = connection.as_mut().context("it was opened above")?;
    let (status, body) = open.ask(kind.request(door, address, number)?).await?;
    if !kind.is_right(door, status, &body) {
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        bail!("{status}: {body}");
    }
    Ok(())
}

/// Connections for each thread. Half of the cores are the servers': with as many threads as cores the generator is what is
/// measured.
pub(crate) fn shares(connections: usize) -> impl Iterator<Item = usize> {
    let threads =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)).min(connections.max(1));
    (0..threads).map(move |thread| connections / threads + usize::from(thread < connections % threads))
}

/// Asks for the numbers 0 to `count`, each once and none without success.
pub(crate) fn fill(door: Door, address: &str, kind: Kind, count: u64, connections: usize) -> anyhow::Result<()> {
    let (next, end) = (AtomicU64::new(0), Instant::now() + FILL_LIMIT);
    let work = async || -> anyhow::Result<()> {
        let (tasks, mut connection) = (Tasks::new(), None);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            if Instant::now() >= end {
                bail!("only {number} of {count} within {FILL_LIMIT:?}");
            }
            let asked = ask(door, address, kind, number, &mut connection, &tasks);
            tokio::time::timeout(ANSWER_LIMIT, asked).await.context("no answer in time")??;
        }
        tasks.cancel();
        Ok(())
    };
    runtime()?
        .block_on(join_all((0..connections).map(|_| work())))
        .into_iter()
        .collect::<anyhow::Result<()>>()
        .with_context(|| format!("{} at {address}", kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_thread() {
        for connections in [1, 2, 3, 64] {
            assert_eq!(shares(connections).sum::<usize>(), connections);
        }
    }
}
