//! The runtimes that commands run on, and the signals that end them.

mod stalls;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::Failure;
use stalls::Threads;

pub(crate) use stalls::StallWatch;

/// Threads for blocking work (files, DNS of resolv.conf) of an agent.
pub(crate) const AGENT_BLOCKING_THREADS: usize = 32;
/// Threads for blocking work of a sidecar, which has next to none.
pub(crate) const SIDECAR_BLOCKING_THREADS: usize = 2;
/// Workers of a sidecar unless asked for more: it is one of many on its machine.
pub(crate) const SIDECAR_WORKERS: usize = 2;

/// A runtime whose threads are looked after.
pub(crate) struct Watched {
    /// The runtime.
    pub(crate) runtime: Runtime,
    /// How many of its threads stand still.
    pub(crate) stalled: Arc<AtomicUsize>,
    /// Looks until it is dropped.
    pub(crate) watch: StallWatch,
}

/// As [`of_threads`], with somebody who speaks up when one of them does not move.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn of_watched_threads(workers: Option<usize>, blocking: usize) -> Result<Watched, Failure> {
    let threads = Threads::default();
    let (begun, ended) = (threads.clone(), threads.clone());
    let mut builder = builder(workers, blocking);
    builder.on_thread_start(move || begun.begin()).on_thread_stop(move || ended.end());
    let runtime = builder.build().map_err(Failure::because("cannot start the runtime"))?;
    let stalled = Arc::default();
    let watch = StallWatch::begin(runtime.handle(), threads, Arc::clone(&stalled));
    let watch = watch.map_err(Failure::because("cannot watch the runtime"))?;
    Ok(Watched { runtime, stalled, watch })
}

/// A runtime of several threads; as many workers as the machine has cores unless `workers` says otherwise.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn of_threads(workers: Option<usize>, blocking: usize) -> Result<Runtime, Failure> {
    builder(workers, blocking).build().map_err(Failure::because("cannot start the runtime"))
}

fn builder(workers: Option<usize>, blocking: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers.max(1));
    }
    builder.enable_all().max_blocking_threads(blocking).thread_name("lictor");
    builder
}

/// Runs one request on this thread.
///
/// # Errors
/// As the request's, or the system gives no runtime.
pub(crate) fn run_here<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(Failure::because("cannot start the runtime"))?;
    runtime.block_on(request)
}

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// From whoever manages the process.
    Terminate,
}

/// A signal of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// End.
    Stop(Stop),
    /// Read the configuration again.
    Reload,
}

/// The signals that matter to a long-running command, taken from the moment this is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from their defaults.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn take() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(Failure::because("cannot take signals"));
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal.
    pub(crate) async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Stop(Stop::Interrupt),
            _ = self.terminate.recv() => Heard::Stop(Stop::Terminate),
            _ = self.hang_up.recv() => Heard::Reload,
        }
    }

    /// Waits for a signal to stop.
    pub(crate) async fn stop(&mut self) -> Stop {
        loop {
            match self.next().await {
                Heard::Stop(stop) => return stop,
                Heard::Reload => tracing::warn!("SIGHUP: nothing can be reloaded here; restart to apply changes"),
            }
        }
    }
}
