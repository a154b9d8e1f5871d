//! A data directory that release 0.1.0 left behind: every later release must go on from it.
//!
//! `LICTOR_BLESS=1` writes one where there is none; what is there already is never written again.

use std::path::{Path, PathBuf};

use lictor_runtime::fs::{Crash, Fs, MemoryFs, Open, read_all};

use super::world::{Network, Node, members, settings, until};
use crate::raft::{LogOptions, Settings};

const SEED: u64 = 11;
const WRITES: usize = 60;
const DIRECTORIES: [&str; 3] = ["", "log", "snapshots"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/data-0.1.0")
}

fn small() -> Settings {
    let log = LogOptions { segment_bytes: 16 << 10, cache_bytes: 16 << 10, ..LogOptions::default() };
    Settings { log, snapshot_entries: 25, kept_entries: 5, ..settings() }
}

/// What was written.
fn texts() -> Vec<Vec<u8>> {
    (0..WRITES).map(|number| format!("write {number} of the release 0.1.0").into_bytes()).collect()
}

async fn write() {
    let disk = MemoryFs::new();
    let node = Node::start(&Network::default(), SEED, disk.clone(), small()).await;
    node.consensus.initialize(members([&node])).await.unwrap();
    node.leader_not(None).await;
    for text in texts() {
        node.propose(std::str::from_utf8(&text).unwrap()).await.unwrap();
    }
    until("a snapshot", || node.consensus.status().snapshot > 25).await;
    let disk = disk.copy();
    disk.crash(Crash::KeepUnsynced);
    for directory in DIRECTORIES {
        let from = Path::new("/data").join(directory);
        std::fs::create_dir_all(golden().join(directory)).unwrap();
        for name in disk.list(&from).unwrap() {
            if name.ends_with(".lock") || name.ends_with(".tmp") {
                continue;
            }
            let bytes = read_all(&*disk.open(&from.join(&name), Open::Existing).unwrap()).unwrap();
            std::fs::write(golden().join(directory).join(name), bytes).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_directory_of_release_0_1_0_is_gone_on_from() {
    crate::raft::seed_randomness(SEED);
    if std::env::var_os("LICTOR_BLESS").is_some() && !golden().exists() {
        write().await;
    }
    let disk = MemoryFs::new();
    for directory in DIRECTORIES {
        let to = Path::new("/data").join(directory);
        disk.create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(golden().join(directory)).expect("golden files").flatten() {
            if entry.path().is_file() {
                let file = disk.open(&to.join(entry.file_name()), Open::Empty).unwrap();
                file.write_all_at(&std::fs::read(entry.path()).unwrap(), 0).unwrap();
            }
        }
    }
    let node = Node::start(&Network::default(), SEED, disk, small()).await;
    node.leader_not(None).await;
    node.consensus.read_barrier().await.unwrap();
    assert!(node.consensus.status().snapshot > 25, "a snapshot is among the golden files");
    assert_eq!(node.held(), texts());
    node.propose("and one more").await.unwrap();
    assert_eq!(node.held().len(), WRITES + 1);
    node.kill().await;
}
