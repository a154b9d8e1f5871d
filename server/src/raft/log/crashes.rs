//! Every state that a crash can leave behind, one after the other.
//!
//! A workload is recorded: before each operation on files, the disk as it is. From each of these follow the states of a
//! crash at that moment: any part of what was not synced, in pieces of 512 bytes and in any order, and any prefix of the
//! changes of names. All of them are tried where there are few, and as many drawn at random where there are more.
//!
//! From each the log must open, and hold what it held after some change between the last that was completed and the
//! last that was asked for.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use lictor_runtime::fs::{Crash, File, MemoryFs, Open};
use lictor_runtime::{Rng, SeededRng};

use super::flusher::Progress;
use super::*;

/// States that are tried at least.
const STATES: usize = 100_000;
/// At one moment so many are tried at most.
const STATES_OF_A_MOMENT: usize = 512;
const DIRECTORY: &str = "/log";

/// The choices of a crash, all of them in turn: what is asked for is answered from a path through the tree of choices.
#[derive(Default)]
struct Choices {
    path: Mutex<(Vec<(u64, u64)>, usize)>,
}

impl Choices {
    /// How many paths there are, about: how much of the file is asked for may depend on earlier choices.
    fn all(&self) -> u64 {
        self.path.lock().0.iter().fold(1u64, |all, (_, limit)| all.saturating_mul(*limit))
    }

    /// Goes to the next path; `false` after the last.
    fn advance(&self) -> bool {
        let mut path = self.path.lock();
        path.1 = 0;
        while let Some((chosen, limit)) = path.0.pop() {
            if chosen + 1 < limit {
                path.0.push((chosen + 1, limit));
                return true;
            }
        }
        false
    }
}

impl Rng for Choices {
    fn fill(&self, _: &mut [u8]) {
        unreachable!("a crash asks for choices only");
    }

    fn below(&self, limit: u64) -> u64 {
        let mut path = self.path.lock();
        let at = path.1;
        if at == path.0.len() {
            path.0.push((0, limit));
        }
        path.1 += 1;
        path.0[at].0
    }
}

/// What the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    entries: Vec<(u64, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<Bytes>,
}

fn view(log: &Log) -> View {
    View {
        entries: log.read(0, u64::MAX, usize::MAX).unwrap(),
        vote: log.vote(),
        committed: log.committed(),
        purged: log.purged(),
    }
}

/// A moment between two operations on files.
struct Moment {
    disk: MemoryFs,
    completed: usize,
    asked: usize,
}

/// A disk that remembers every moment.
struct Recorder {
    disk: MemoryFs,
    moments: Arc<Mutex<Vec<Moment>>>,
    completed: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Recorder {
    fn moment(&self) {
        self.moments.lock().push(Moment {
            disk: self.disk.copy(),
            completed: self.completed.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
        });
    }
}

struct RecordedFile {
    file: Arc<dyn File>,
    recorder: Arc<Recorder>,
}

impl File for RecordedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.recorder.moment();
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.recorder.moment();
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.recorder.moment();
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.recorder.moment();
        self.file.set_len(len)
    }
}

/// The recorder as a file system.
struct RecordedFs(Arc<Recorder>);

impl Fs for RecordedFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.disk.create_dir_all(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.0.moment();
        Ok(Arc::new(RecordedFile { file: self.0.disk.open(path, how)?, recorder: Arc::clone(&self.0) }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.disk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.moment();
        self.0.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.moment();
        self.0.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.moment();
        self.0.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.disk.lock(path)
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, cache_bytes: 1 << 10, batch_bytes: 8 << 10, queue_bytes: 64 << 10 }
}

fn open(fs: Arc<dyn Fs>) -> Result<(Log, Flusher), LogError> {
    Log::open(fs, Path::new(DIRECTORY), options(), LogFaults::default())
}

/// Appends, votes, truncations, purges, snapshots, rotations and restarts, as the seed says. Returns the moments and
/// what the log held after each change.
fn workload(seed: u64) -> (Vec<Moment>, Vec<View>) {
    let rng = SeededRng::new(seed);
    let disk = MemoryFs::new();
    disk.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let recorder =
        Arc::new(Recorder { disk, moments: Arc::default(), completed: Arc::default(), asked: Arc::default() });
    let (mut log, mut flusher) = open(Arc::new(RecordedFs(Arc::clone(&recorder)))).unwrap();
    let mut views = vec![view(&log)];
    let mut next = 1;
    for step in 0..40u64 {
        // The change is seen as asked for before it may reach the disk.
        let number = views.len();
        recorder.asked.store(number, Ordering::Relaxed);
        let completed = Arc::clone(&recorder.completed);
        let done: Completion = Box::new(move |outcome| {
            outcome.unwrap();
            completed.store(number, Ordering::Relaxed);
        });
        let mark = Bytes::from(format!("mark {step}"));
        let first = log.read(0, u64::MAX, 1).unwrap().first().map(|(index, _)| *index);
        match rng.below(12) {
            0 => log.save_vote(mark, done).unwrap(),
            1 => log.save_committed(mark).unwrap(),
            2 if first.is_some_and(|first| first + 2 < next) => {
                next -= 1 + rng.below(2);
                log.truncate(next, done).unwrap();
            }
            3 if first.is_some_and(|first| first + 1 < next) => {
                let through = next - 2;
                log.purge(through, mark, done).unwrap();
            }
            // A snapshot is installed: all is purged, and more than there was.
            4 if step > 20 => {
                next += 5;
                log.purge(next - 1, mark, done).unwrap();
            }
            _ => {
                let size = if rng.below(4) == 0 { 3_000 } else { rng.below(400) as usize };
                let count = 1 + rng.below(2);
                let body = |index: u64| Bytes::from(format!("{step} {index} {}", "x".repeat(size)));
                log.append((next..next + count).map(|index| (index, body(index))).collect(), done).unwrap();
                next += count;
            }
        }
        views.push(view(&log));
        if rng.below(3) > 0 {
            while flusher.step() == Progress::Flushed {}
        }
        if rng.below(12) == 0 {
            while flusher.step() == Progress::Flushed {}
            drop((log, flusher));
            (log, flusher) = open(Arc::new(RecordedFs(Arc::clone(&recorder)))).unwrap();
            assert_eq!(view(&log), *views.last().unwrap(), "seed {seed}: a restart changes nothing");
        }
    }
    drop((log, flusher));
    let moments = std::mem::take(&mut *recorder.moments.lock());
    (moments, views)
}

/// What must hold after a crash at `moment` that left `disk`.
fn judge(disk: &MemoryFs, moment: &Moment, views: &[View], goes_on: bool) -> Result<(), String> {
    let (log, mut flusher) = open(Arc::new(disk.clone())).map_err(|error| error.to_string())?;
    let found = view(&log);
    let allowed = &views[moment.completed..=moment.asked.min(views.len() - 1)];
    if !allowed.contains(&found) {
        return Err(format!("{found:?} is none of what may be there"));
    }
    if goes_on {
        let next = found.entries.last().map(|(index, _)| index + 1);
        let next = next.or_else(|| log.shared.state.lock().purged.as_ref().map(|(through, _)| through + 1));
        log.append(vec![(next.unwrap_or(1), Bytes::from_static(b"after"))], Box::new(|outcome| outcome.unwrap()))
            .map_err(|error| error.to_string())?;
        while flusher.step() == Progress::Flushed {}
        let expected = view(&log);
        disk.crash(Crash::DropUnsynced);
        let (log, _) = open(Arc::new(disk.clone())).map_err(|error| format!("a second time: {error}"))?;
        if view(&log) != expected {
            return Err("what was written after the crash did not survive a second".to_owned());
        }
    }
    Ok(())
}

/// openraft, IO ordering: votes and entries were written in another order than they were made.
#[test]
fn every_state_that_a_crash_can_leave_recovers_all_that_was_completed() {
    let goal = std::env::var("LICTOR_CRASH_STATES").ok().map_or(STATES, |it| it.parse().expect("a number"));
    let (mut states, mut workloads, mut moments_seen) = (0, 0, 0);
    while states < goal {
        workloads += 1;
        let (moments, views) = workload(workloads);
        moments_seen += moments.len();
        for (at, moment) in moments.iter().enumerate() {
            let rng = SeededRng::new(workloads << 32 | at as u64);
            let choices = Choices::default();
            moment.disk.copy().crash(Crash::Random(&choices));
            let few = choices.all() <= STATES_OF_A_MOMENT as u64;
            let choices = Choices::default();
            for state in 0..STATES_OF_A_MOMENT {
                let disk = moment.disk.copy();
                disk.crash(Crash::Random(if few { &choices } else { &rng }));
                states += 1;
                judge(&disk, moment, &views, state % 16 == 0)
                    .unwrap_or_else(|why| panic!("workload {workloads}, moment {at}, state {state}: {why}"));
                if few && !choices.advance() {
                    break;
                }
            }
        }
    }
    println!(
        "summary: {states} states after a crash, at {moments_seen} moments of {workloads} workloads, all recovered"
    );
}

#[test]
fn every_flipped_byte_of_every_kind_of_record_is_found_or_changes_nothing() {
    for seed in [3, 8] {
        let (moments, views) = workload(seed);
        let disk = moments.last().unwrap().disk.copy();
        disk.crash(Crash::KeepUnsynced);
        let (log, mut flusher) = open(Arc::new(disk.clone())).unwrap();
        // A last batch, which stands after all that is flipped: a torn end cannot be told from a flipped one.
        log.save_vote(Bytes::from_static(b"last"), Box::new(|outcome| outcome.unwrap())).unwrap();
        while flusher.step() == Progress::Flushed {}
        let whole = view(&log);
        assert!(views.len() > 30);
        drop((log, flusher));
        let mut found = 0u64;
        for name in disk.list(Path::new(DIRECTORY)).unwrap() {
            let path = Path::new(DIRECTORY).join(name);
            let len = disk.open(&path, Open::Existing).unwrap().len().unwrap();
            for offset in 0..len {
                let disk = disk.copy();
                disk.flip(&path, offset, 1 << (offset % 8));
                match open(Arc::new(disk)) {
                    Err(_) => found += 1,
                    Ok((log, _)) => {
                        let now = view(&log);
                        let only_the_end = View { vote: whole.vote.clone(), ..now.clone() } == whole;
                        assert!(only_the_end, "{} changed at byte {offset} and nobody noticed", path.display());
                    }
                }
            }
        }
        assert!(found > 4_000, "{found}");
    }
}
