//! The flusher: the only writer of the log's files.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lictor_runtime::fs::{File, Fs};

use super::record::{BATCH, Batch, PAGE, Record, page_up};
use super::segment::{self, HEAD, Segment};
use super::table::Location;
use super::{Change, Completion, FULL_DISK_RETRY, LogError, SYNC, Shared, io_error};

/// What a step of the flusher did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Progress {
    /// Nothing waited.
    Idle,
    /// A batch was written.
    Flushed,
    /// The disk is full: try again later.
    Full,
    /// The log is closed and all is written, or it is poisoned: do not step any more.
    Ended,
}

struct Current {
    number: u64,
    file: Arc<dyn File>,
    offset: u64,
    len: u64,
    /// Something was written after the last sync.
    unsynced: bool,
}

/// Writes batches. Drive it with [`Flusher::drive_on_thread`], or step by step.
pub(in crate::raft) struct Flusher {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    shared: Arc<Shared>,
    current: Option<Current>,
    spare: Option<Arc<dyn File>>,
    sequence: u64,
    synced: u64,
    /// A batch that found the disk full.
    held: VecDeque<Change>,
    /// The held batch found the disk full, and it was said.
    waits: bool,
    written: Marks,
}

/// What a new segment begins with, so that older ones are not needed for it: the marks that were written last. Marks
/// that still wait are not among them, since they come after what waits before them.
#[derive(Default)]
struct Marks {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
}

impl Marks {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Vote { body } => self.vote = Some(body.clone()),
            Record::Committed { body } => self.committed = Some(body.clone()),
            Record::Purge { through, body } => {
                if self.purged.as_ref().is_none_or(|(before, _)| before < through) {
                    self.purged = Some((*through, body.clone()));
                }
            }
            Record::Batch(_) | Record::Entry { .. } | Record::Truncate { .. } => {}
        }
    }

    fn records(&self) -> Vec<Record> {
        let vote = self.vote.clone().map(|body| Record::Vote { body });
        let committed = self.committed.clone().map(|body| Record::Committed { body });
        let purged = self.purged.clone().map(|(through, body)| Record::Purge { through, body });
        vote.into_iter().chain(committed).chain(purged).collect()
    }
}

impl Flusher {
    pub(super) fn new(fs: Arc<dyn Fs>, shared: Arc<Shared>, current: Option<(u64, u64, u64)>, sequence: u64) -> Self {
        let (current, written) = {
            let state = shared.state.lock();
            let current = current.and_then(|(number, offset, len)| {
                let file = state.segments.get(&number)?.file.clone();
                Some(Current { number, file, offset, len, unsynced: false })
            });
            let written =
                Marks { vote: state.vote.clone(), committed: state.committed.clone(), purged: state.purged.clone() };
            (current, written)
        };
        let directory = shared.directory.clone();
        Self {
            fs,
            directory,
            shared,
            current,
            spare: None,
            sequence,
            synced: sequence,
            held: VecDeque::new(),
            waits: false,
            written,
        }
    }

    /// Writes everything that waits, up to the limit of a batch, and completes it.
    pub(in crate::raft) fn step(&mut self) -> Progress {
        let closed = {
            let mut state = self.shared.state.lock();
            if state.poisoned.is_some() {
                return Progress::Ended;
            }
            if self.held.is_empty() {
                let limit = self.shared.options.batch_bytes;
                let mut bytes = 0;
                let mut taken = 0;
                for change in &state.queue {
                    bytes += change.record.size();
                    if taken > 0 && bytes > limit {
                        bytes -= change.record.size();
                        break;
                    }
                    taken += 1;
                }
                state.queued_bytes -= bytes;
                self.held.extend(state.queue.drain(..taken));
            }
            state.closed
        };
        self.shared.room.notify_waiters();
        if self.held.is_empty() {
            return self.rest(closed);
        }
        match self.write() {
            Ok(completions) => {
                // There is room again only when there is room for the next segment: that is looked at when nothing waits.
                self.waits = false;
                if self.spare.is_some() {
                    self.shared.full.store(false, Ordering::Relaxed);
                }
                for completion in completions {
                    completion(Ok(()));
                }
                self.remove_purged();
                Progress::Flushed
            }
            Err(error) if error.is_full_disk() => {
                self.shared.full.store(true, Ordering::Relaxed);
                if !std::mem::replace(&mut self.waits, true) {
                    tracing::error!(%error, "the disk is full: the log waits for room");
                }
                if closed { self.end() } else { Progress::Full }
            }
            Err(error) => {
                self.poison(error);
                Progress::Ended
            }
        }
    }

    /// What is done when nothing waits.
    fn rest(&mut self, closed: bool) -> Progress {
        if closed {
            return self.end();
        }
        if self.spare.is_none() && self.current.is_some() {
            match segment::prepare(&*self.fs, &self.directory, self.shared.options.segment_bytes) {
                Ok(file) => {
                    self.spare = Some(file);
                    self.shared.full.store(false, Ordering::Relaxed);
                }
                Err(error) if error.is_full_disk() => {
                    if !self.shared.full.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "the disk is nearly full: nothing new is accepted");
                    }
                    return Progress::Full;
                }
                Err(error) => {
                    self.poison(error);
                    return Progress::Ended;
                }
            }
        }
        Progress::Idle
    }

    fn end(&mut self) -> Progress {
        self.shared.ended.send_replace(true);
        Progress::Ended
    }

    /// Gives every change that waits the error, and takes no more.
    fn poison(&mut self, error: LogError) {
        tracing::error!(%error, "the log failed");
        let mut changes = std::mem::take(&mut self.held);
        {
            let mut state = self.shared.state.lock();
            state.poisoned = Some(error.clone());
            changes.extend(state.queue.drain(..));
            state.queued_bytes = 0;
        }
        for completion in changes.into_iter().filter_map(|change| change.completion) {
            completion(Err(error.clone()));
        }
        self.shared.fatal.send_replace(Some(error));
        self.shared.room.notify_waiters();
        self.end();
    }

    /// Writes the held batch and returns what to complete. On a full disk the batch stays held.
    fn write(&mut self) -> Result<Vec<Completion>, LogError> {
        let needs_sync = self.held.iter().any(|change| !matches!(change.record, Record::Committed { .. }));
        let bytes: usize = self.held.iter().map(|change| change.record.size()).sum();
        self.make_room(BATCH + bytes)?;
        let Some(current) = self.current.as_mut() else { return Err(LogError::Closed) };
        let path = segment::path(&self.directory, current.number);
        let mut buffer = Vec::with_capacity(BATCH + bytes + PAGE as usize);
        let batch = Batch { sequence: self.sequence + 1, synced: self.synced, length: bytes as u32 };
        Record::Batch(batch).encode(current.number, current.offset, &mut buffer);
        let mut places = Vec::with_capacity(self.held.len());
        for change in &self.held {
            let offset = current.offset + buffer.len() as u64;
            change.record.encode(current.number, current.offset, &mut buffer);
            if let Record::Entry { index, .. } = change.record {
                let location = Location { segment: current.number, offset, size: change.record.size() as u32 };
                places.push((index, change.serial, location));
            }
        }
        if needs_sync {
            let end = page_up(current.offset + buffer.len() as u64);
            buffer.resize((end - current.offset) as usize, 0);
        }
        if self.shared.faults.ack_before_sync && current.unsynced {
            current.file.sync_data().map_err(|source| io_error(SYNC, &path, source))?;
        }
        current.file.write_all_at(&buffer, current.offset).map_err(|source| io_error("write", &path, source))?;
        current.offset += buffer.len() as u64;
        current.unsynced = true;
        self.sequence += 1;
        if needs_sync && !self.shared.faults.ack_before_sync {
            // Once, and never again on failure: the kernel may have dropped the pages and called them clean.
            current.file.sync_data().map_err(|source| io_error(SYNC, &path, source))?;
            current.unsynced = false;
            self.synced = self.sequence;
        }
        let mut state = self.shared.state.lock();
        for (index, serial, location) in places {
            state.table.written(index, serial, location);
            if let Some(segment) = state.segments.get_mut(&location.segment) {
                segment.last_index = segment.last_index.max(Some(index));
            }
        }
        state.table.evict();
        drop(state);
        for change in &self.held {
            self.written.note(&change.record);
        }
        Ok(self.held.drain(..).filter_map(|change| change.completion).collect())
    }

    /// Goes to a new segment when the current one cannot take `bytes`.
    fn make_room(&mut self, bytes: usize) -> Result<(), LogError> {
        if let Some(current) = self.current.as_mut() {
            if page_up(current.offset + bytes as u64) <= current.len {
                return Ok(());
            }
            if current.unsynced {
                let path = segment::path(&self.directory, current.number);
                current.file.sync_data().map_err(|source| io_error(SYNC, &path, source))?;
                current.unsynced = false;
                self.synced = self.sequence;
            }
        }
        let number = self.current.as_ref().map_or(1, |current| current.number + 1);
        let marks = self.written.records();
        let marks_bytes: usize = marks.iter().map(Record::size).sum();
        let needed = page_up(page_up(HEAD + (BATCH + marks_bytes) as u64) + bytes as u64);
        let len = needed.max(self.shared.options.segment_bytes);
        let file = match self.spare.take() {
            Some(file) if len == self.shared.options.segment_bytes => file,
            _ => segment::prepare(&*self.fs, &self.directory, len)?,
        };
        segment::publish(&*self.fs, &self.directory, &*file, number, self.sequence + 1)?;
        let mut offset = HEAD;
        if !marks.is_empty() {
            let mut buffer = Vec::new();
            let batch = Batch { sequence: self.sequence + 1, synced: self.synced, length: marks_bytes as u32 };
            Record::Batch(batch).encode(number, offset, &mut buffer);
            for mark in marks {
                mark.encode(number, offset, &mut buffer);
            }
            buffer.resize((page_up(offset + buffer.len() as u64) - offset) as usize, 0);
            let path = segment::path(&self.directory, number);
            file.write_all_at(&buffer, offset)
                .and_then(|()| file.sync_data())
                .map_err(|source| io_error("begin", &path, source))?;
            offset += buffer.len() as u64;
            self.sequence += 1;
            self.synced = self.sequence;
        }
        self.shared.state.lock().segments.insert(number, Segment { file: file.clone(), last_index: None });
        self.current = Some(Current { number, file, offset, len, unsynced: false });
        Ok(())
    }

    /// Removes the oldest segments as long as all their entries are purged, durably.
    fn remove_purged(&mut self) {
        let Some(current) = self.current.as_ref().map(|current| current.number) else { return };
        let removable: Vec<u64> = {
            let mut state = self.shared.state.lock();
            let Some((through, _)) = self.written.purged else { return };
            let numbers: Vec<u64> = state
                .segments
                .iter()
                .take_while(|(number, segment)| {
                    **number < current && segment.last_index.is_none_or(|last| last <= through)
                })
                .map(|(number, _)| *number)
                .collect();
            for number in &numbers {
                state.segments.remove(number);
            }
            numbers
        };
        for number in &removable {
            let path = segment::path(&self.directory, *number);
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a segment that is not needed any more");
                return;
            }
        }
        if !removable.is_empty()
            && let Err(error) = self.fs.sync_dir(&self.directory)
        {
            tracing::warn!(path = %self.directory.display(), %error, "cannot make the removal of segments durable");
        }
    }

    /// Steps on a thread of its own until the log ends.
    pub(in crate::raft) fn drive_on_thread(mut self) -> std::io::Result<()> {
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || {
            loop {
                let wait = match self.step() {
                    Progress::Flushed => continue,
                    Progress::Idle => None,
                    Progress::Full => Some(FULL_DISK_RETRY),
                    Progress::Ended => return,
                };
                let mut waiting = self.shared.waiting.lock();
                if !*waiting {
                    match wait {
                        None => self.shared.wake_thread.wait(&mut waiting),
                        Some(limit) => {
                            self.shared.wake_thread.wait_for(&mut waiting, limit);
                        }
                    }
                }
                *waiting = false;
            }
        })?;
        Ok(())
    }

    /// Steps in a task until the log ends: for simulation, where nothing may run beside the one thread.
    pub(in crate::raft) async fn drive_in_task(mut self) {
        let shared = self.shared.clone();
        loop {
            match self.step() {
                // Lets the others run between two batches, as a disk would.
                Progress::Flushed => tokio::task::yield_now().await,
                Progress::Idle => shared.wake_task.notified().await,
                Progress::Full => tokio::time::sleep(FULL_DISK_RETRY).await,
                Progress::Ended => return,
            }
        }
    }
}
