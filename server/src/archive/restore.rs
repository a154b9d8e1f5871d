//! Restoring: the archive is spooled, verified whole, and then goes through raft in parts with one commit at the end.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::fs::{File, Fs, Open};
use lictor_state::Store;
use lictor_state::access::Duty;
use lictor_types::archive::{RestoreCommit, RestorePart, RestoreWrite, TransferId};
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::{Command, Index, Refusal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::container::{self, ArchiveError};
use super::{IDLE_MAX, too_many};
use crate::datacenter::ServerDatacenter;

/// Bytes of the largest archive.
const ARCHIVE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of a part in the log; an entry takes twice as many.
const LOG_PART_BYTES: usize = 512 * 1024;
/// Parts that are read ahead of the log.
const PARTS_AHEAD: usize = 2;
/// The asker hears this often that it must ask again.
const FINISH_WAIT: Duration = Duration::from_secs(2);
/// What is said when a restore ended before its commit.
const UNCHANGED: &str = "nothing was changed";

type Progress = watch::Receiver<Option<Result<Index, Refusal>>>;

/// An archive that is being handed over.
pub(crate) struct Upload {
    id: TransferId,
    spool: Spool,
    next: u64,
    used: Instant,
    progress: Option<Progress>,
}

impl Upload {
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        // One that is at work ends by itself; its outcome is kept for whoever asks again.
        let at_work = self.progress.as_ref().is_some_and(|progress| progress.borrow().is_none());
        !at_work && now - self.used >= IDLE_MAX
    }
}

/// The file an archive is collected in, removed at the end.
struct Spool {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn File>,
    bytes: u64,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // The next start removes it otherwise.
        let _ = self.fs.remove(&self.path);
    }
}

/// Reads a spooled archive from its beginning.
struct Spooled {
    file: Arc<dyn File>,
    at: u64,
}

impl Read for Spooled {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A whole archive to restore.
pub(crate) struct Job {
    id: TransferId,
    file: Arc<dyn File>,
    done: watch::Sender<Option<Result<Index, Refusal>>>,
}

fn no_such() -> Refusal {
    Refusal::failed(format!(
        "the leader does not know of this restore: the leader changed, or nothing was sent for {IDLE_MAX:?}; \
         {UNCHANGED}, restore it again"
    ))
}

/// After all was handed over the leader that is gone may have come as far as the commit.
fn lost() -> Refusal {
    Refusal::failed(
        "the leader does not know of this restore: the leader changed while it was at work; the restore may or may not \
         have taken effect, but never in part: look at the state, and restore it again if need be",
    )
}

impl ServerDatacenter {
    pub(super) fn open_restore(&self, id: TransferId) -> Result<(), Refusal> {
        self.require_leader()?;
        let archives = &self.archives;
        let mut upload = archives.upload.lock();
        let now = Instant::now();
        let over = |upload: &Upload| upload.progress.as_ref().is_some_and(|it| it.borrow().is_some());
        match &*upload {
            Some(open) if open.id == id => return Ok(()),
            Some(open) if !over(open) && !open.is_idle(now) => {
                return Err(too_many("another snapshot is being restored; wait until it is done"));
            }
            _ => {}
        }
        // The one before removes its file, so it must go first.
        *upload = None;
        let file = archives.fs.open(&archives.spool, Open::Empty);
        let file = file.map_err(|error| Refusal::failed(format!("cannot spool the snapshot: {error}")))?;
        let spool = Spool { fs: Arc::clone(&archives.fs), path: archives.spool.clone(), file, bytes: 0 };
        *upload = Some(Upload { id, spool, next: 0, used: now, progress: None });
        Ok(())
    }

    pub(super) async fn write_restore(&self, write: RestoreWrite) -> Result<(), Refusal> {
        let (file, at) = {
            let mut upload = self.archives.upload.lock();
            let upload = upload.as_mut().filter(|upload| upload.id == write.id && upload.progress.is_none());
            let upload = upload.ok_or_else(no_such)?;
            upload.used = Instant::now();
            if write.piece + 1 == upload.next {
                return Ok(());
            }
            if write.piece != upload.next {
                let text = format!("piece {} of a snapshot came after {}; {UNCHANGED}", write.piece, upload.next);
                return Err(Refusal::failed(text));
            }
            (Arc::clone(&upload.spool.file), upload.spool.bytes)
        };
        let bytes = write.bytes.len() as u64;
        if at + bytes > ARCHIVE_BYTES_MAX {
            let text = format!("a snapshot may have {ARCHIVE_BYTES_MAX} bytes; {UNCHANGED}");
            return Err(Refusal::new(RefusalKind::TooLarge, text));
        }
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&write.bytes, at)).await;
        written
            .map_err(io::Error::other)
            .and_then(|written| written)
            .map_err(|error| Refusal::failed(format!("cannot spool the snapshot: {error}; {UNCHANGED}")))?;
        if let Some(upload) = self.archives.upload.lock().as_mut().filter(|upload| upload.id == write.id) {
            upload.spool.bytes = at + bytes;
            upload.next = write.piece + 1;
        }
        Ok(())
    }

    pub(super) async fn finish_restore(&self, id: TransferId) -> Result<Option<Index>, Refusal> {
        let mut progress = {
            let mut upload = self.archives.upload.lock();
            let upload = upload.as_mut().filter(|upload| upload.id == id).ok_or_else(lost)?;
            upload.used = Instant::now();
            match &upload.progress {
                Some(progress) => progress.clone(),
                None => {
                    let (done, progress) = watch::channel(None);
                    let job = Job { id, file: Arc::clone(&upload.spool.file), done };
                    self.archives.jobs.try_send(job).map_err(|_| too_many("another snapshot is being restored"))?;
                    upload.progress.insert(progress).clone()
                }
            }
        };
        match timeout(FINISH_WAIT, progress.wait_for(Option::is_some)).await {
            Err(_) => Ok(None),
            Ok(Err(_)) => Err(Refusal::failed("this server stopped while it restored a snapshot")),
            Ok(Ok(done)) => done.clone().transpose(),
        }
    }

    /// Verifies a whole archive, without the log hearing of it.
    async fn verify(&self, job: &Job) -> Result<(), Refusal> {
        let (file, own_key) = (Arc::clone(&job.file), self.seal.id().to_string());
        let verified = tokio::task::spawn_blocking(move || {
            container::read(Spooled { file, at: 0 }, |_, part| {
                let mut store = Store::new();
                store.read_part(&part)?;
                match store.cluster() {
                    Some(cluster) if cluster.seal_key_id != own_key => Err(ArchiveError::Refused(format!(
                        "the secrets in this snapshot are sealed with the key {}, but these servers have the key {own_key}: \
                         start the servers with the seal_key_file of the cluster that the snapshot was taken of, then \
                         restore it",
                        cluster.seal_key_id
                    ))),
                    _ => Ok(()),
                }
            })
        });
        match verified.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Refusal::failed(error.to_string())),
            Err(error) => Err(Refusal::failed(format!("the snapshot could not be verified: {error}"))),
        }
    }

    async fn restore(&self, job: &Job) -> Result<Index, Refusal> {
        self.verify(job).await?;
        let (to, mut parts) = mpsc::channel(PARTS_AHEAD);
        let file = Arc::clone(&job.file);
        let reading = tokio::task::spawn_blocking(move || {
            container::read(Spooled { file, at: 0 }, |_, part| {
                to.blocking_send(part).map_err(|_| ArchiveError::Refused("the restore has ended".into()))
            })
        });
        let mut sequence = 0;
        while let Some(part) = parts.recv().await {
            let mut pieces = part.chunks(LOG_PART_BYTES).peekable();
            while let Some(bytes) = pieces.next() {
                let (bytes, continues) = (bytes.to_vec(), pieces.peek().is_some());
                let part = RestorePart { id: job.id, sequence, bytes, continues };
                self.restore_step(Command::RestorePart(part)).await?;
                sequence += 1;
            }
        }
        // It was verified; if the file is another one by now, it must not be committed.
        match reading.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Refusal::failed(error.to_string())),
            Err(error) => return Err(Refusal::failed(format!("the snapshot could not be read: {error}"))),
        }
        let commit = Command::RestoreCommit(RestoreCommit { id: job.id, parts: sequence });
        let outcome = self.write_as(Duty::Restore, commit).await.map_err(|refusal| {
            let unknown = refusal.kind == RefusalKind::Uncertain;
            let what = if unknown { "it may or may not have taken effect, but never in part" } else { UNCHANGED };
            Refusal::failed(format!("{refusal}; {what}"))
        })?;
        match outcome.effect {
            Effect::Refused(refusal) => Err(Refusal::failed(format!("{refusal}; {UNCHANGED}"))),
            _ => Ok(outcome.index),
        }
    }

    /// One part through the log. A failure is final, so that a retry of the whole does not begin in the middle.
    async fn restore_step(&self, command: Command) -> Result<(), Refusal> {
        let refused = |refusal: Refusal| Refusal::failed(format!("{refusal}; {UNCHANGED}"));
        match self.write_as(Duty::Restore, command).await.map_err(refused)?.effect {
            Effect::Refused(refusal) => Err(refused(refusal)),
            _ => Ok(()),
        }
    }
}

/// Restores what was handed over, one after another.
pub(crate) async fn run(datacenter: Arc<ServerDatacenter>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        let restored = datacenter.restore(&job).await;
        match &restored {
            Ok(index) => tracing::info!(%index, "a snapshot was restored"),
            Err(refusal) => {
                tracing::warn!(%refusal, "a snapshot was not restored");
                // What was laid aside takes memory on every server; without a leader it is dropped by its age.
                if let Err(refusal) = datacenter.write_as(Duty::Restore, Command::RestoreAbort(job.id)).await {
                    tracing::debug!(%refusal, "what was laid aside stays until it is too old");
                }
            }
        }
        job.done.send_replace(Some(restored));
    }
}
