//! The library's own suite for storage, run against ours.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lictor_runtime::fs::{Fs, MemoryFs};
use lictor_runtime::{SeededRng, Tasks};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::watch;

use super::world::Machine;
use crate::raft::data_directory::DataDirectory;
use crate::raft::log::{Log, LogFaults, LogOptions, LogStore};
use crate::raft::settings::Drive;
use crate::raft::snapshot::SnapshotStore;
use crate::raft::state_machine::Applier;
use crate::raft::types::{ServerId, Types};

impl From<u64> for ServerId {
    fn from(number: u64) -> Self {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        Self(id)
    }
}

struct Stop(Tasks);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// All stores share a disk: the suite installs a snapshot of one in another.
#[derive(Default)]
struct Builder {
    disk: MemoryFs,
    built: AtomicU64,
}

impl StoreBuilder<Types, LogStore, Applier, Stop> for Builder {
    async fn build(&self) -> Result<(Stop, LogStore, Applier), StorageError<Types>> {
        let fs: Arc<dyn Fs> = Arc::new(self.disk.clone());
        let number = self.built.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/data-{number}"));
        let directory = DataDirectory::open(fs.clone(), &path, &SeededRng::new(number)).unwrap();
        let options = LogOptions { segment_bytes: 64 << 10, cache_bytes: 100, ..LogOptions::default() };
        let (log, flusher) = Log::open(fs.clone(), &directory.log(), options, LogFaults::default()).unwrap();
        let tasks = Tasks::new();
        tasks.spawn(flusher.drive_in_task());
        let snapshots = SnapshotStore::open(fs, directory.snapshots()).unwrap();
        let machine = Arc::new(Machine::default());
        let applier = Applier::new(machine, snapshots, Drive::Tasks, watch::Sender::new(None));
        Ok((Stop(tasks), LogStore::new(log), applier))
    }
}

#[tokio::test]
async fn the_suite_of_the_library_passes() {
    Suite::test_all(Builder::default()).await.unwrap();
}
