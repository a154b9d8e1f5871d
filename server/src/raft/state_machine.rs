//! Between raft and the state: applies committed entries, takes and restores snapshots.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{RaftSnapshotBuilder, Snapshot};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::batch;
use super::settings::Drive;
use super::snapshot::{SnapshotFile, SnapshotStore};
use super::types::{LogId, Outcomes, Payload, SnapshotMeta, StoredMembership, Types};

/// Between two attempts to write a snapshot to a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(5);
/// So often a snapshot is tried: for an hour.
const FULL_DISK_ATTEMPTS: u32 = 720;

/// The replicated state, as consensus needs it.
///
/// Calls to `apply`, `snapshot` and `restore` never overlap.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies the envelopes of one entry, in order, and returns one outcome for each, in the same order.
    ///
    /// It must be a function of the state and the envelopes alone: every server calls it with the same ones.
    fn apply(&self, envelopes: &[&[u8]]) -> Vec<Vec<u8>>;

    /// A view of the present state that later changes do not touch. Making it should be cheap; writing it need not be.
    fn snapshot(&self) -> Box<dyn SnapshotView>;

    /// Replaces the whole state by what a [`SnapshotView`] wrote.
    ///
    /// # Errors
    /// The content cannot be read or is not a state; then the state must be as before.
    fn restore(&self, from: &mut dyn Read) -> io::Result<()>;
}

/// A frozen view of the state.
pub trait SnapshotView: Send + 'static {
    /// Writes the state. The same state must give the same bytes on every server. It is called again when the disk was
    /// full.
    ///
    /// # Errors
    /// As `to` reports them.
    fn write(&self, to: &mut dyn Write) -> io::Result<()>;
}

/// Runs blocking work where the drive says.
pub(super) async fn blocking<T: Send + 'static>(
    drive: Drive,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match drive {
        Drive::Tasks => work(),
        Drive::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
    }
}

/// The state machine as openraft wants it.
pub(super) struct Applier {
    machine: Arc<dyn StateMachine>,
    snapshots: SnapshotStore,
    drive: Drive,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: watch::Sender<Option<LogId>>,
}

impl Applier {
    pub(super) fn new(
        machine: Arc<dyn StateMachine>,
        snapshots: SnapshotStore,
        drive: Drive,
        progress: watch::Sender<Option<LogId>>,
    ) -> Self {
        Self { machine, snapshots, drive, applied: None, membership: StoredMembership::default(), progress }
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let outcomes = match &entry.payload {
                Payload::Blank => Vec::new(),
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Vec::new()
                }
                Payload::Normal(proposals) => {
                    let Some(envelopes) = batch::split(&proposals.0) else {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("the entry {} does not hold envelopes", entry.log_id),
                        ));
                    };
                    self.machine.apply(&envelopes)
                }
            };
            self.applied = Some(entry.log_id);
            // Before the answer: whoever has it may ask how far this server is.
            self.progress.send_replace(self.applied);
            if let Some(responder) = responder {
                responder.send(Outcomes(outcomes));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder {
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            view: Mutex::new(Some(self.machine.snapshot())),
            snapshots: self.snapshots.clone(),
            drive: self.drive,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let machine = self.machine.clone();
        let snapshots = self.snapshots.clone();
        let installed = meta.clone();
        blocking(self.drive, move || {
            snapshots.install(&installed, &snapshot)?;
            let mut reader = snapshot.reader();
            machine.restore(&mut reader)
        })
        .await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.progress.send_replace(self.applied);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>>, io::Error> {
        let snapshots = self.snapshots.clone();
        let latest = blocking(self.drive, move || snapshots.latest()).await?;
        Ok(latest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes one snapshot.
pub(super) struct Builder {
    meta: SnapshotMeta,
    view: Mutex<Option<Box<dyn SnapshotView>>>,
    snapshots: SnapshotStore,
    drive: Drive,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>, io::Error> {
        let Some(mut view) = self.view.lock().take() else {
            return Err(io::Error::other("a builder of a snapshot was used twice"));
        };
        let mut attempts = 0;
        loop {
            let snapshots = self.snapshots.clone();
            let meta = self.meta.clone();
            let (kept, built) = blocking(self.drive, move || {
                let built = snapshots.build(&meta, |to| view.write(to));
                Ok((view, built))
            })
            .await?;
            match built {
                Ok(snapshot) => return Ok(Snapshot { meta: self.meta.clone(), snapshot }),
                // An error would end raft, but a full disk passes.
                Err(error) if is_full_disk(&error) && attempts < FULL_DISK_ATTEMPTS => {
                    tracing::error!(%error, "there is no room for a snapshot: it is tried again");
                    attempts += 1;
                    view = kept;
                    tokio::time::sleep(FULL_DISK_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
