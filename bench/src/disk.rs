//! What the disk itself needs: every acknowledged write waits for it at least once.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Syncs that are measured.
const ROUNDS: usize = 300;
/// A log record of one small write.
const RECORD: [u8; 512] = [7; 512];

/// The median time of an append and `fdatasync` in `directory`.
pub(crate) fn sync_time(directory: &Path) -> anyhow::Result<Duration> {
    let path = directory.join("sync-time");
    let mut file = File::create(&path)?;
    // As the log does: the space is there before it is written.
    file.write_all(&vec![0; RECORD.len() * ROUNDS])?;
    file.sync_all()?;
    std::io::Seek::rewind(&mut file)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        file.write_all(&RECORD)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}
