//! The load generator: keep-alive connections, spread over one thread per core, each asking again as soon as it has its
//! answer (a closed loop: what it shows is the most that these connections can get, and the time at that load).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use lictor_runtime::Tasks;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// One request may take so long; then its connection is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Keys that are written and read.
pub(crate) const KEYS: u64 = 1000;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 256;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Get,
    GetConsistent,
    GetStale,
}

impl Kind {
    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::GetConsistent => "GET ?consistent",
            Self::GetStale => "GET ?stale",
        }
    }

    fn request(self, address: &str, key: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let (method, mode) = match self {
            Self::Put => ("PUT", ""),
            Self::Get => ("GET", ""),
            Self::GetConsistent => ("GET", "?consistent"),
            Self::GetStale => ("GET", "?stale"),
        };
        let body = if self == Self::Put { Bytes::from_static(&[b'v'; VALUE_BYTES]) } else { Bytes::new() };
        let path = format!("/v1/kv/bench/{key}{mode}");
        Ok(Request::builder().method(method).uri(path).header("Host", address).body(Full::new(body))?)
    }

    fn is_right(self, status: StatusCode, body: &[u8]) -> bool {
        // A value of 256 bytes takes 344 in base64.
        status == StatusCode::OK && if self == Self::Put { body == b"true" } else { body.len() > VALUE_BYTES }
    }
}

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
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(self.connections);
        let start = Instant::now() + self.warm_up;
        let next_key = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores)
                .map(|core| {
                    let share = self.connections / cores + usize::from(core < self.connections % cores);
                    let next_key = Arc::clone(&next_key);
                    scope.spawn(move || -> anyhow::Result<Vec<Taken>> {
                        let all = join_all((0..share).map(|_| self.keep_asking(start, &next_key)));
                        Ok(runtime()?.block_on(all))
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

    async fn keep_asking(&self, start: Instant, next_key: &AtomicU64) -> Taken {
        let end = start + self.measured;
        let mut taken = Taken::default();
        let tasks = Tasks::new();
        let mut connection = None;
        while Instant::now() < end {
            let begun = Instant::now();
            let key = next_key.fetch_add(1, Ordering::Relaxed) % KEYS;
            let asked = async {
                if connection.is_none() {
                    connection = Some(connect(&self.address, &tasks).await?);
                }
                let sender = connection.as_mut().context("it was opened above")?;
                let (status, body) = ask(sender, self.kind.request(&self.address, key)?).await?;
                if !self.kind.is_right(status, &body) {
                    bail!("{status}: {}", String::from_utf8_lossy(&body));
                }
                Ok(())
            };
            let answered = tokio::time::timeout(ANSWER_LIMIT, asked).await;
            let now = Instant::now();
            match answered.unwrap_or_else(|_| bail!("no answer within {ANSWER_LIMIT:?}")) {
                Ok(()) if begun >= start && now <= end => taken.times.push(now - begun),
                Ok(()) => {}
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

async fn connect(address: &str, tasks: &Tasks) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address.parse::<std::net::SocketAddr>()?).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its end is seen by who asks.
    tasks.spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// One request on a connection of its own; the body of a successful answer.
pub(crate) fn once(address: &str, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        let asked = async {
            let mut sender = connect(address, &tasks).await?;
            let request = Request::builder().method(method).uri(path).header("Host", address);
            ask(&mut sender, request.body(Full::new(Bytes::from(body)))?).await
        };
        let (status, body) = tokio::time::timeout(ANSWER_LIMIT, asked).await??;
        tasks.cancel();
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body.to_vec())
    })
}
