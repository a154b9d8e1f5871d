//! A real disk that takes a write and then cannot keep it: the sync fails, and the server must end.
//!
//! The disk is a file system on a file with holes, in a file system in memory that has no room for what fills them, as with
//! thin provisioning.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lictor_tests::{TestCluster, eventually};

use crate::journal::{Writers, everything};

/// What the disk promises: room for the log's segments.
const PROMISED_BYTES: u64 = 700 * 1024 * 1024;
/// What there is.
const REAL_BYTES: u64 = 80 * 1024 * 1024;
/// For a server to end, and to come back, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes in each phase.
const WRITES: u64 = 200;

/// The disk under a directory; taken away when it is dropped, also of a failed test.
struct Disk {
    directory: PathBuf,
    memory: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// Puts one in the place of this directory, with what is in it; or says why it cannot be done here.
    fn under(directory: &Path) -> Result<Self, String> {
        let (aside, memory) = (directory.with_extension("aside"), directory.with_extension("memory"));
        std::fs::rename(directory, &aside).map_err(|error| error.to_string())?;
        for made in [directory, &memory] {
            std::fs::create_dir(made).map_err(|error| error.to_string())?;
        }
        let size = format!("size={REAL_BYTES}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&memory))?;
        let disk = Self { directory: directory.to_owned(), image: memory.join("image"), memory };
        let image = File::create(&disk.image).map_err(|error| error.to_string())?;
        image.set_len(PROMISED_BYTES).map_err(|error| error.to_string())?;
        let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", lazy]).arg(&disk.image))?;
        disk.mount()?;
        run(Command::new("cp").args(["-a", "--sparse=always"]).arg(aside.join(".")).arg(directory))?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.directory))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.directory))
    }

    /// From now on nothing more can be kept.
    fn break_promise(&self) {
        let mut ballast = File::create(self.memory.join("ballast")).expect("a file");
        for size in [1024 * 1024, 4096] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    /// There is what was promised again. What the file system says of itself must be mended first.
    fn repair(&self) {
        self.unmount().expect("nobody uses it");
        std::fs::remove_file(self.memory.join("ballast")).expect("the ballast goes");
        // It says by its exit status that it mended something.
        let _mended = Command::new("e2fsck").arg("-fy").arg(&self.image).output().expect("e2fsck runs");
        self.mount().expect("it is whole again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for place in [&self.directory, &self.memory] {
            // Lazily: the server may still run.
            if let Err(error) = run(Command::new("umount").arg("-l").arg(place)) {
                eprintln!("{} stays mounted: {error}", place.display());
            }
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_ends_the_server_and_costs_no_acknowledged_write() {
    let mut cluster = TestCluster::start(3).await;
    let victim = cluster.leader().await;
    cluster.servers[victim].terminate();
    let disk = match Disk::under(&cluster.directory.path().join(&cluster.servers[victim].name)) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: such a disk cannot be made here: {reason}"),
    };
    cluster.servers[victim].start();
    let of_victim = cluster.servers[victim].client();
    let writers = Writers::start(&cluster.client.client());
    writers.journal.until_more(WRITES).await;
    eventually("it follows", LIMIT, || async {
        let asked = of_victim.get_bytes("/v1/kv/writers/0/000000", &[("stale", "")]).await;
        asked.map_err(|error| error.to_string())
    })
    .await;

    disk.break_promise();
    let ending = std::cell::RefCell::new(&mut cluster.servers[victim]);
    let ended = || async { ending.borrow_mut().ended().ok_or("it runs") };
    let status = eventually("it ends by itself", LIMIT, ended).await;
    assert!(!status.success(), "an end that is no success, so that it is seen and started again: {status}");
    let log = cluster.servers[victim].log();
    assert!(log.contains("the log failed") && log.contains("sync"), "{}", cluster.servers[victim].log_tail());
    assert!(!log.contains("panicked"), "{}", cluster.servers[victim].log_tail());
    writers.journal.until_more(WRITES).await;

    disk.repair();
    cluster.servers[victim].start();
    writers.journal.until_more(WRITES).await;
    let acknowledged = writers.stop().await;
    for server in &cluster.servers {
        let stored = everything(&server.client(), &[("recurse", ""), ("consistent", "")]).await;
        for (key, value) in &acknowledged {
            assert_eq!(stored.get(key), Some(value), "{key} was acknowledged, and {} lost it", server.name);
        }
    }
    println!("summary: {} writes acknowledged around a sync that failed, 0 lost", acknowledged.len());
    cluster.servers[victim].kill();
}
