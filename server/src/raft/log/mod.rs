//! The write-ahead log: entries, votes and marks of one server, in one ordered stream over preallocated segments.
//!
//! Callers change the log through [`Log`]; a change is seen by readers at once. The [`Flusher`] takes everything that
//! waits, writes it as one batch, makes it durable with one sync, and only then completes the changes, in their order.
//!
//! Invariants
//! - A change is completed with success only after it is durable, and never before a change that was made earlier.
//! - Votes and entries share the stream, so they are never reordered.
//! - Every segment begins with the vote, the commit mark and the purge mark, so an old segment can be removed whole.
//! - After a failed sync nothing is written any more: the log is poisoned, and its owner must end the process.
//! - When the disk is full, changes wait and nothing is lost: they go on when there is room again.

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod differential;
mod flusher;
mod record;
mod recovery;
mod segment;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lictor_runtime::fs::Fs;
use parking_lot::{Condvar, Mutex};
use thiserror::Error;
use tokio::sync::{Notify, watch};

pub(super) use flusher::{Flusher, Progress};
use record::Record;
use segment::Segment;
pub(super) use store::LogStore;
use table::{Found, Table};

/// Between two attempts to go on after the disk was full.
const FULL_DISK_RETRY: Duration = Duration::from_millis(500);

/// Why the log cannot be used.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// The operating system refused something.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Something that was durable once is broken.
    #[error(
        "{path} is damaged at byte {offset}: {why}. Remove this server from the cluster, empty its data directory and \
         let it join again as a new server",
        path = .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A file that should be there is not.
    #[error(
        "{path} is missing. Remove this server from the cluster, empty its data directory and let it join again as a \
         new server",
        path = .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write failed, so nothing is known about what is on the disk.
    #[error("the log stopped after an earlier failure: {0}")]
    Poisoned(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// A change would leave a hole in the log.
    #[error("entry {index} does not follow the log, whose next entry is {next:?}")]
    Hole {
        /// The index of the entry.
        index: u64,
        /// The index that would fit.
        next: Option<u64>,
    },
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { what, path: path.to_path_buf(), source: Arc::new(source) }
}

/// What is done to make records durable. It is done once: when it fails, whatever the reason, the kernel may have dropped the
/// pages and called them clean.
const SYNC: &str = "sync";

impl LogError {
    /// Whether it can be tried again when there is room. A sync never can, though a disk that is promised and not there (thin
    /// provisioning, a quota of a network file system) refuses it in the same words as a write.
    fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { what, source, .. }
            if *what != SYNC && matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Sizes of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The size of a segment, reserved when it is made. A batch that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// How much of the recent entries is kept in memory.
    pub cache_bytes: usize,
    /// The largest batch that is written with one sync.
    pub batch_bytes: usize,
    /// How much may wait to be written before appending has to wait too.
    pub queue_bytes: usize,
}

impl LogOptions {
    /// For a log that is in memory only: a segment's room is memory there.
    pub fn in_memory() -> Self {
        Self { segment_bytes: 1 << 20, cache_bytes: 4 << 20, ..Self::default() }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, cache_bytes: 8 << 20, batch_bytes: 8 << 20, queue_bytes: 64 << 20 }
    }
}

/// Bugs that a test plants to see that it would find them. All off outside of tests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogFaults {
    pub ack_before_sync: bool,
    pub vote_not_persisted: bool,
}

/// Called once with the outcome of a change.
type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A change that waits to be written.
struct Change {
    record: Record,
    /// The serial of an entry in the table.
    serial: u64,
    completion: Option<Completion>,
}

struct State {
    table: Table,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    segments: BTreeMap<u64, Segment>,
    queue: Vec<Change>,
    queued_bytes: usize,
    poisoned: Option<LogError>,
    closed: bool,
}

struct Shared {
    directory: PathBuf,
    state: Mutex<State>,
    options: LogOptions,
    faults: LogFaults,
    /// Wakes the flusher: a thread by the condition, a task by the notification.
    waiting: Mutex<bool>,
    wake_thread: Condvar,
    wake_task: Notify,
    /// Tells that the queue became shorter.
    room: Notify,
    full: AtomicBool,
    fatal: watch::Sender<Option<LogError>>,
    ended: watch::Sender<bool>,
}

impl Shared {
    fn wake(&self) {
        *self.waiting.lock() = true;
        self.wake_thread.notify_one();
        self.wake_task.notify_one();
    }
}

/// The handle of a log. Clones share it.
#[derive(Clone)]
pub(super) struct Log {
    shared: Arc<Shared>,
}

impl Log {
    /// Opens the log in `directory`, which must exist, and recovers it. Nothing is written before the flusher is
    /// driven.
    pub(super) fn open(
        fs: Arc<dyn Fs>,
        directory: &Path,
        options: LogOptions,
        faults: LogFaults,
    ) -> Result<(Self, Flusher), LogError> {
        let recovered = recovery::recover(&*fs, directory, &options)?;
        let shared = Arc::new(Shared {
            directory: directory.to_path_buf(),
            state: Mutex::new(State {
                table: recovered.table,
                vote: recovered.vote,
                committed: recovered.committed,
                purged: recovered.purged,
                segments: recovered.segments,
                queue: Vec::new(),
                queued_bytes: 0,
                poisoned: None,
                closed: false,
            }),
            options,
            faults,
            waiting: Mutex::new(false),
            wake_thread: Condvar::new(),
            wake_task: Notify::new(),
            room: Notify::new(),
            full: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        });
        let flusher = Flusher::new(fs, shared.clone(), recovered.current, recovered.sequence);
        Ok((Self { shared }, flusher))
    }

    /// Waits until the queue has room. Votes and marks do not wait: they are small and few.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.shared.room.notified();
            {
                let state = self.shared.state.lock();
                if state.queued_bytes < self.shared.options.queue_bytes || state.closed || state.poisoned.is_some() {
                    return;
                }
            }
            freed.await;
        }
    }

    fn submit(&self, change: impl FnOnce(&mut State) -> Result<(), LogError>) -> Result<(), LogError> {
        {
            let mut state = self.shared.state.lock();
            if let Some(error) = &state.poisoned {
                return Err(LogError::Poisoned(error.to_string()));
            }
            if state.closed {
                return Err(LogError::Closed);
            }
            change(&mut state)?;
        }
        self.shared.wake();
        Ok(())
    }

    /// Adds entries. They are readable when this returns; `completion` is called when they are durable.
    pub(super) fn append(&self, entries: Vec<(u64, Bytes)>, completion: Completion) -> Result<(), LogError> {
        let mut completion = Some(completion);
        self.submit(|state| {
            let mut next = state.table.next();
            for (index, _) in &entries {
                if next.is_some_and(|next| next != *index) {
                    return Err(LogError::Hole { index: *index, next });
                }
                next = Some(index + 1);
            }
            let last = entries.len().saturating_sub(1);
            for (at, (index, body)) in entries.into_iter().enumerate() {
                let serial = state.table.push(index, body.clone(), None);
                let completion = if at == last { completion.take() } else { None };
                state.enqueue(Record::Entry { index, body }, serial, completion);
            }
            Ok(())
        })?;
        if let Some(nothing_to_do) = completion {
            nothing_to_do(Ok(()));
        }
        Ok(())
    }

    /// Saves the vote; `completion` is called when it is durable.
    pub(super) fn save_vote(&self, body: Bytes, completion: Completion) -> Result<(), LogError> {
        let skip = self.shared.faults.vote_not_persisted;
        self.submit(|state| {
            state.vote = Some(body.clone());
            if skip {
                completion(Ok(()));
                return Ok(());
            }
            state.enqueue(Record::Vote { body }, 0, Some(completion));
            Ok(())
        })
    }

    /// Notes how far the log is committed. It is written with the next batch, or alone without a sync.
    pub(super) fn save_committed(&self, body: Bytes) -> Result<(), LogError> {
        self.submit(|state| {
            state.committed = Some(body.clone());
            state.enqueue(Record::Committed { body }, 0, None);
            Ok(())
        })
    }

    /// Removes the entries from `from` on.
    pub(super) fn truncate(&self, from: u64, completion: Completion) -> Result<(), LogError> {
        self.submit(|state| {
            state.table.truncate(from);
            state.enqueue(Record::Truncate { from }, 0, Some(completion));
            Ok(())
        })
    }

    /// Removes the entries up to and with `through`; `body` is the position of the last of them.
    pub(super) fn purge(&self, through: u64, body: Bytes, completion: Completion) -> Result<(), LogError> {
        self.submit(|state| {
            state.table.purge(through);
            if state.purged.as_ref().is_none_or(|(before, _)| *before < through) {
                state.purged = Some((through, body.clone()));
            }
            state.enqueue(Record::Purge { through, body }, 0, Some(completion));
            Ok(())
        })
    }

    /// The entries with indexes from `from` to before `to`, up to about `byte_limit` bytes but at least one.
    pub(super) fn read(&self, from: u64, to: u64, byte_limit: usize) -> Result<Vec<(u64, Bytes)>, LogError> {
        let (found, files) = {
            let state = self.shared.state.lock();
            let found = state.table.read(from, to, byte_limit);
            let files: BTreeMap<u64, Segment> = found
                .iter()
                .filter_map(|(_, entry)| match entry {
                    Found::At(location) => Some(location.segment),
                    Found::Cached(_) => None,
                })
                .filter_map(|number| Some((number, state.segments.get(&number)?.clone())))
                .collect();
            (found, files)
        };
        let mut entries = Vec::with_capacity(found.len());
        for (index, entry) in found {
            let body = match entry {
                Found::Cached(body) => body,
                Found::At(location) => {
                    // The segment is held while an entry of it is: it goes only after a purge.
                    let Some(segment) = files.get(&location.segment) else { break };
                    segment::read_entry(&self.shared.directory, &*segment.file, index, location)?
                }
            };
            entries.push((index, body));
        }
        Ok(entries)
    }

    /// The vote that was saved last.
    pub(super) fn vote(&self) -> Option<Bytes> {
        self.shared.state.lock().vote.clone()
    }

    /// The commit mark that was saved last.
    pub(super) fn committed(&self) -> Option<Bytes> {
        self.shared.state.lock().committed.clone()
    }

    /// The position of the last entry that was purged.
    pub(super) fn purged(&self) -> Option<Bytes> {
        self.shared.state.lock().purged.as_ref().map(|(_, body)| body.clone())
    }

    /// The index of the last entry that is held.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.shared.state.lock().table.last()
    }

    /// Whether changes wait because the disk is full.
    pub(super) fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Becomes `Some` when the log cannot go on.
    pub(super) fn fatal(&self) -> watch::Receiver<Option<LogError>> {
        self.shared.fatal.subscribe()
    }

    /// Lets the flusher write what waits and end.
    pub(super) fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake();
    }

    /// Waits for the end of the flusher.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl State {
    fn enqueue(&mut self, record: Record, serial: u64, completion: Option<Completion>) {
        self.queued_bytes += record.size();
        self.queue.push(Change { record, serial, completion });
    }
}
