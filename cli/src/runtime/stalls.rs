//! A thread of the runtime that does not move: a task that waits for a file, a lock or a device without giving the thread
//! back, or computes without an end. What else that thread should run stands still meanwhile, and nothing else would say so.
//!
//! A thread of its own looks, so that it speaks even when every thread of the runtime is held.
//!
//! Invariants
//! - A thread that is parked, or that finished a task since the last look, has not stalled: a busy agent is no alarm.
//! - Time is counted in looks, not by a clock: a machine that slept is no alarm.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks without a move after which a thread has stalled.
const LOOKS_MAX: u32 = 5;
/// Clock ticks of a second in `/proc`, which are the same on every Linux.
const TICKS_A_SECOND: u64 = 100;

/// The threads of a runtime as the kernel knows them.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Mutex<HashMap<ThreadId, String>>>);

impl Threads {
    /// To be called on every thread of the runtime when it begins.
    pub(super) fn begin(&self) {
        // `<process>/task/<thread>`
        let Ok(link) = std::fs::read_link("/proc/thread-self") else { return };
        if let Some(id) = link.file_name().and_then(|name| name.to_str()) {
            self.0.lock().insert(std::thread::current().id(), id.to_owned());
        }
    }

    /// To be called on every thread of the runtime when it ends.
    pub(super) fn end(&self) {
        self.0.lock().remove(&std::thread::current().id());
    }

    fn kernel_id(&self, thread: ThreadId) -> Option<String> {
        self.0.lock().get(&thread).cloned()
    }
}

/// How far a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// Odd while it is parked.
    parks: u64,
    polls: u64,
}

impl Look {
    fn is_parked(self) -> bool {
        self.parks % 2 == 1
    }
}

/// What a look found of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has not moved for so many looks, and it is time to say so.
    Stalled(u32),
    /// It moves again, after so many looks.
    Moves(u32),
}

/// What is known of one thread.
#[derive(Clone, Copy, Default)]
struct Seen {
    last: Option<Look>,
    unmoved: u32,
}

impl Seen {
    fn look(&mut self, now: Look) -> Option<Found> {
        let stands = !now.is_parked() && self.last == Some(now);
        self.last = Some(now);
        if !stands {
            let unmoved = std::mem::take(&mut self.unmoved);
            return (unmoved >= LOOKS_MAX).then_some(Found::Moves(unmoved));
        }
        self.unmoved += 1;
        // Said again each time that the stall is twice as long.
        let is_time = self.unmoved >= LOOKS_MAX
            && self.unmoved.is_multiple_of(LOOKS_MAX)
            && (self.unmoved / LOOKS_MAX).is_power_of_two();
        is_time.then_some(Found::Stalled(self.unmoved))
    }

    fn has_stalled(&self) -> bool {
        self.unmoved >= LOOKS_MAX
    }
}

/// What the kernel says that a thread does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Doing {
    state: &'static str,
    /// The function of the kernel that it waits in; empty for none, or where the kernel does not tell.
    waits_in: String,
    processor_seconds: u64,
}

impl Doing {
    fn of(kernel_id: &str) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/task/{kernel_id}/{name}"));
        let waits_in = read("wchan").unwrap_or_default();
        let (state, processor_seconds) = read("stat").ok().and_then(|text| parse(&text)).unwrap_or(("unknown", 0));
        Self { state, waits_in: waits_in.trim_matches(['0', '\n']).to_owned(), processor_seconds }
    }
}

/// State and seconds of processor of a thread, by its line in `/proc`.
fn parse(stat: &str) -> Option<(&'static str, u64)> {
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "asleep",
        "D" => "waiting for a device",
        "T" | "t" => "stopped",
        _ => "unknown",
    };
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((state, ticks / TICKS_A_SECOND))
}

/// Looks after the threads of one runtime until it is dropped.
pub(crate) struct StallWatch {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StallWatch {
    /// Begins to look. `stalled` tells how many threads stand still at the moment.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn begin(runtime: &Handle, threads: Threads, stalled: Arc<AtomicUsize>) -> io::Result<Self> {
        Self::looking_every(LOOK_INTERVAL, runtime, threads, stalled)
    }

    fn looking_every(
        interval: Duration,
        runtime: &Handle,
        threads: Threads,
        stalled: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (metrics, is_over) = (runtime.metrics(), Arc::clone(&stopping));
        let look = move || {
            let mut seen = vec![Seen::default(); metrics.num_workers()];
            loop {
                std::thread::park_timeout(interval);
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                look_at_all(&metrics, &mut seen, &threads, interval);
                stalled.store(seen.iter().filter(|seen| seen.has_stalled()).count(), Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("lictor-stalls".to_owned()).spawn(look)?;
        Ok(Self { stopping, thread: Some(thread) })
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only ends; a panic of its own has told the log already.
            let _ = thread.join();
        }
    }
}

fn look_at_all(metrics: &RuntimeMetrics, seen: &mut [Seen], threads: &Threads, interval: Duration) {
    for (worker, seen) in seen.iter_mut().enumerate() {
        let now = Look { parks: metrics.worker_park_unpark_count(worker), polls: metrics.worker_poll_count(worker) };
        match seen.look(now) {
            None => {}
            Some(Found::Moves(looks)) => {
                tracing::warn!(worker, "a thread of the runtime moves again, after {:?} or more", interval * looks);
            }
            Some(Found::Stalled(looks)) => {
                let kernel_id = metrics.worker_thread_id(worker).and_then(|thread| threads.kernel_id(thread));
                let doing = kernel_id.as_deref().map(Doing::of).unwrap_or_default();
                tracing::error!(
                    worker,
                    thread = kernel_id.unwrap_or_default(),
                    state = doing.state,
                    waits_in = doing.waits_in,
                    processor_seconds = doing.processor_seconds,
                    tasks = metrics.num_alive_tasks(),
                    queued = metrics.global_queue_depth(),
                    "a thread of the runtime has not moved for {:?} or more: what waits for it stands still",
                    interval * looks
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_parks_or_goes_on_has_not_stalled_and_who_does_neither_has() {
        let mut seen = Seen::default();
        let at = |parks, polls| Look { parks, polls };
        for round in 0..100 {
            assert_eq!(seen.look(at(1, 7)), None, "parked, round {round}");
        }
        for round in 0..100 {
            assert_eq!(seen.look(at(2, round)), None, "busy, round {round}");
        }
        let found: Vec<_> = (0..41).map(|_| seen.look(at(2, 99))).enumerate().filter(|(_, it)| it.is_some()).collect();
        let said = [(4, 5), (9, 10), (19, 20), (39, 40)].map(|(round, looks)| (round, Some(Found::Stalled(looks))));
        assert_eq!(found, said);
        assert!(seen.has_stalled());
        assert_eq!(seen.look(at(2, 100)), Some(Found::Moves(41)));
        assert!(!seen.has_stalled());
    }

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let line = "12 (a) R (b) D 1 1 1 0 -1 4194368 8 0 0 0 250 150 0 0 20 0 9 0 7 8 9";
        assert_eq!(parse(line), Some(("waiting for a device", 4)));
        assert_eq!(parse("12 (a) R 1"), None);
    }

    /// Fly.io, 1 September 2024: a guard that was held too long let every proxy stand still.
    ///
    /// The watch and a thread that is held race for real; all waits are for what the other did.
    #[test]
    fn a_task_that_holds_its_thread_is_found_and_its_end_too() {
        let threads = Threads::default();
        let (begun, ended) = (threads.clone(), threads.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || begun.begin())
            .on_thread_stop(move || ended.end())
            .build()
            .unwrap();
        let stalled = Arc::new(AtomicUsize::new(0));
        let interval = Duration::from_millis(1);
        let watch =
            StallWatch::looking_every(interval, runtime.handle(), threads.clone(), Arc::clone(&stalled)).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel::<ThreadId>();
        let tasks = runtime.block_on(async { lictor_runtime::Tasks::new() });
        runtime.block_on(async {
            tasks.spawn(async move {
                entered.send(std::thread::current().id()).unwrap();
                held.recv().unwrap();
            });
        });
        let thread = inside.recv().unwrap();
        while stalled.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let doing = Doing::of(&threads.kernel_id(thread).unwrap());
        assert_eq!(doing.state, "asleep", "{doing:?}");
        release.send(()).unwrap();
        while stalled.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        drop(watch);
        runtime.shutdown_background();
        assert!(threads.0.lock().len() <= 1);
    }
}
