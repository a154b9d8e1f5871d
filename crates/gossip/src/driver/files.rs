//! The two files of a member: whom it knew, and its keys.
//!
//! Writing is behind the kernel's cache and small; only a goodbye and a compaction wait for the disk. A lost snapshot costs a
//! list of addresses to join.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::fs::{File, Fs, Open, read_all};

use crate::event::Event;
use crate::snapshot::Snapshot;
use crate::wire::serf::Clocks;

/// How long lines wait to be written.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// The largest snapshot that is read.
const MAX_SNAPSHOT: u64 = 64 * 1024 * 1024;
/// How often a file that cannot be written is complained of.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// The files of a member.
pub(super) struct Files {
    fs: Arc<dyn Fs>,
    snapshot: Option<SnapshotFile>,
    keyring: Option<PathBuf>,
}

struct SnapshotFile {
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
    content: Snapshot,
    next_flush: Duration,
    complained: Option<Duration>,
}

impl Files {
    /// Opens them, and answers what the snapshot remembers.
    pub(super) fn open(
        fs: Arc<dyn Fs>,
        snapshot: Option<PathBuf>,
        rejoin_after_leave: bool,
        keyring: Option<PathBuf>,
    ) -> io::Result<(Self, Snapshot)> {
        let Some(path) = snapshot else {
            return Ok((Self { fs, snapshot: None, keyring }, Snapshot::new(rejoin_after_leave)));
        };
        if let Some(directory) = path.parent() {
            fs.create_dir_all(directory)?;
        }
        let file = fs.open(&path, Open::OrCreate)?;
        let length = file.len()?;
        let mut content = Snapshot::new(rejoin_after_leave);
        if length <= MAX_SNAPSHOT {
            content.replay(&String::from_utf8_lossy(&read_all(&*file)?));
        } else {
            tracing::warn!(path = %path.display(), length, "the gossip snapshot is too large and is begun anew");
        }
        let remembered = content.clone();
        let next_flush = Duration::ZERO;
        let snapshot = SnapshotFile { path, file, length, content, next_flush, complained: None };
        Ok((Self { fs, snapshot: Some(snapshot), keyring }, remembered))
    }

    pub(super) fn note(&mut self, event: &Event) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.content.note(event);
        }
        if let (Event::KeyringChanged(keys), Some(path)) = (event, &self.keyring)
            && let Err(error) = self.write_keyring(path, keys)
        {
            tracing::error!(path = %path.display(), %error, "the changed keyring was not written");
        }
    }

    fn write_keyring(&self, path: &Path, keys: &[String]) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(keys)?;
        replace(&*self.fs, path, &text)
    }

    /// When lines that wait want to be written.
    pub(super) fn next_flush(&self, now: Duration) -> Duration {
        match &self.snapshot {
            Some(snapshot) if snapshot.content.has_lines() => snapshot.next_flush.max(now),
            _ => Duration::MAX,
        }
    }

    pub(super) fn flush_if_due(&mut self, now: Duration, clocks: Clocks) {
        let fs = self.fs.clone();
        let Some(snapshot) = &mut self.snapshot else { return };
        snapshot.content.note_clocks(clocks);
        if !snapshot.content.has_lines() || now < snapshot.next_flush {
            return;
        }
        snapshot.next_flush = now + FLUSH_INTERVAL;
        if let Err(error) = snapshot.flush(&*fs)
            && snapshot.complained.is_none_or(|last| now > last + COMPLAIN_INTERVAL)
        {
            snapshot.complained = Some(now);
            tracing::warn!(path = %snapshot.path.display(), %error, "the gossip snapshot was not written");
        }
    }

    pub(super) fn left(&mut self) {
        let fs = self.fs.clone();
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.content.leave();
            snapshot.finish(&*fs);
        }
    }

    pub(super) fn close(&mut self, clocks: Clocks) {
        let fs = self.fs.clone();
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.content.note_clocks(clocks);
            snapshot.finish(&*fs);
        }
    }
}

impl SnapshotFile {
    fn flush(&mut self, fs: &dyn Fs) -> io::Result<()> {
        let lines = self.content.take_lines();
        self.file.write_all_at(lines.as_bytes(), self.length)?;
        self.length += lines.len() as u64;
        if self.length > self.content.largest_file() {
            let compact = self.content.compacted();
            replace(fs, &self.path, compact.as_bytes())?;
            self.file = fs.open(&self.path, Open::Existing)?;
            self.length = compact.len() as u64;
        }
        Ok(())
    }

    fn finish(&mut self, fs: &dyn Fs) {
        if let Err(error) = self.flush(fs).and_then(|()| self.file.sync_data()) {
            tracing::warn!(path = %self.path.display(), %error, "the gossip snapshot was not written");
        }
    }
}

/// Replaces the file at `path` as a whole.
fn replace(fs: &dyn Fs, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let file = fs.open(&beside, Open::Empty)?;
    file.write_all_at(content, 0)?;
    file.sync_data()?;
    fs.rename(&beside, path)
}
