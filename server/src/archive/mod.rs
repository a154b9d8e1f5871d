//! Snapshots for people: saved as one archive file, verified, and restored through raft.
//!
//! ```text
//! save     Store ─> state.bin ─> tar ─> gzip ─> pieces ─> SnapshotRead, SnapshotRead, ... ─> a file
//! restore  a file ─> RestoreWrite, RestoreWrite, ... ─> spool ─> verify all of it ─> parts ─> raft ─> one commit
//! ```
//!
//! Invariants
//! - A snapshot is encoded as it is read: neither its bytes nor the archive are ever in memory whole.
//! - Nothing of a restore reaches the log before the whole archive was verified; nothing of it is seen before the commit.
//! - What is being saved or handed over is bounded in number and in time.

pub mod container;
pub(crate) mod restore;
pub(crate) mod save;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::fs::Fs;
use lictor_types::archive::TransferId;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Credential, Refusal, Requirement, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;
use crate::raft::DataDirectory;
use restore::{Job, Upload};
use save::Save;

/// Snapshots that are saved at once on one server.
const SAVES_MAX: usize = 4;
/// A saving or a handing over that nobody goes on with is given up after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Between two looks for such ones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// What is being saved and handed over on this server.
pub struct Archives {
    saves: Mutex<BTreeMap<TransferId, Arc<tokio::sync::Mutex<Save>>>>,
    upload: Mutex<Option<Upload>>,
    jobs: mpsc::Sender<Job>,
    fs: Arc<dyn Fs>,
    spool: PathBuf,
}

impl Archives {
    /// None yet, and where the jobs of restoring come out.
    pub(crate) fn new(directory: &DataDirectory) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, waiting) = mpsc::channel(1);
        // Beside the snapshots of raft: what is left there under such a name is removed at the next start.
        let spool = directory.snapshots().join("restore.new");
        let (saves, upload) = (Mutex::default(), Mutex::default());
        (Self { saves, upload, jobs, fs: directory.fs(), spool }, waiting)
    }
}

fn too_many(text: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::TooMany, text)
}

impl ServerDatacenter {
    /// The operations of saving and restoring. All of them need what Consul calls management.
    pub(crate) async fn archive_operation(
        &self,
        credential: &Credential,
        operation: Operation,
    ) -> Result<Report, Refusal> {
        let stale = matches!(&operation, Operation::SnapshotOpen(open) if open.stale);
        match operation {
            // Rights are judged by what this server knows; all else is asked of one that is up to date.
            Operation::SnapshotOpen(_) if !stale => self.barrier(lictor_types::Consistency::Consistent).await?,
            Operation::RestoreOpen(_) => self.fresh().await?,
            _ => {}
        }
        self.require(credential, &[Requirement::write(Resource::Acl, "")])?;
        match operation {
            Operation::SnapshotOpen(open) => self.open_save(open.id).map(Report::SnapshotOpened),
            Operation::SnapshotRead(read) => self.read_save(&read).await.map(Report::SnapshotPiece),
            Operation::RestoreOpen(id) => self.open_restore(id).map(|()| Report::Done),
            Operation::RestoreWrite(write) => self.write_restore(write).await.map(|()| Report::Done),
            Operation::RestoreFinish(id) => self.finish_restore(id).await.map(Report::Restored),
            _ => Err(Refusal::failed("this is no operation of snapshots")),
        }
    }
}

/// Gives up what nobody goes on with.
pub(crate) async fn sweep(datacenter: Arc<ServerDatacenter>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let now = Instant::now();
        let archives = &datacenter.archives;
        // One that is locked is being read just now.
        archives.saves.lock().retain(|_, save| save.try_lock().map_or(true, |save| now - save.used < IDLE_MAX));
        drop(archives.upload.lock().take_if(|upload| upload.is_idle(now)));
    }
}
