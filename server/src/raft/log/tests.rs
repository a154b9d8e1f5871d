//! The log against a disk that loses, tears, breaks and fills.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use lictor_runtime::fs::{Crash, Fault, MemoryFs};
use lictor_runtime::{Rng as _, SeededRng};

use super::flusher::Progress;
use super::*;

const DIRECTORY: &str = "/log";

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, cache_bytes: 1 << 10, batch_bytes: 16 << 10, queue_bytes: 64 << 10 }
}

fn disk() -> MemoryFs {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    fs
}

fn open(fs: &MemoryFs) -> Result<(Log, Flusher), LogError> {
    Log::open(Arc::new(fs.clone()), Path::new(DIRECTORY), options(), LogFaults::default())
}

fn nothing() -> Completion {
    Box::new(|outcome| outcome.unwrap())
}

fn entries(range: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
    range.map(|index| (index, Bytes::from(format!("entry {index} {}", "x".repeat(index as usize % 50))))).collect()
}

fn flush(flusher: &mut Flusher) {
    while flusher.step() == Progress::Flushed {}
}

/// Appends and flushes one batch.
fn put(log: &Log, flusher: &mut Flusher, range: std::ops::Range<u64>) {
    log.append(entries(range), nothing()).unwrap();
    assert_eq!(flusher.step(), Progress::Flushed);
}

fn held(log: &Log) -> Vec<(u64, Bytes)> {
    log.read(0, u64::MAX, usize::MAX).unwrap()
}

fn segments(fs: &MemoryFs) -> Vec<PathBuf> {
    let names = fs.list(Path::new(DIRECTORY)).unwrap();
    names.iter().filter(|name| segment::number(name).is_some()).map(|name| Path::new(DIRECTORY).join(name)).collect()
}

#[test]
fn what_was_completed_survives_the_loss_of_all_that_was_not_synced() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..20);
    log.save_vote(Bytes::from_static(b"vote"), nothing()).unwrap();
    log.append(entries(20..40), nothing()).unwrap();
    flush(&mut flusher);
    log.append(entries(40..50), Box::new(|_| panic!("nobody flushed it"))).unwrap();
    fs.crash(Crash::DropUnsynced);
    std::mem::forget(log);
    let (log, _) = open(&fs).unwrap();
    assert_eq!(held(&log), entries(1..40));
    assert_eq!(log.vote(), Some(Bytes::from_static(b"vote")));
}

#[test]
fn truncation_purge_and_marks_survive_a_restart() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..20);
    log.truncate(15, nothing()).unwrap();
    log.append(vec![(15, Bytes::from_static(b"other"))], nothing()).unwrap();
    log.purge(9, Bytes::from_static(b"nine"), nothing()).unwrap();
    log.save_committed(Bytes::from_static(b"fifteen")).unwrap();
    flush(&mut flusher);
    let check = |log: &Log| {
        let mut expected = entries(10..15);
        expected.push((15, Bytes::from_static(b"other")));
        assert_eq!(held(log), expected);
        assert_eq!(log.purged(), Some(Bytes::from_static(b"nine")));
        assert_eq!(log.committed(), Some(Bytes::from_static(b"fifteen")));
    };
    check(&log);
    fs.crash(Crash::DropUnsynced);
    let (log, mut flusher) = open(&fs).unwrap();
    check(&log);
    put(&log, &mut flusher, 16..18);
    log.purge(30, Bytes::from_static(b"thirty"), nothing()).unwrap();
    put(&log, &mut flusher, 31..33);
    fs.crash(Crash::DropUnsynced);
    let (log, _) = open(&fs).unwrap();
    assert_eq!(held(&log), entries(31..33));
}

#[test]
fn a_crash_at_every_byte_of_the_last_batch_keeps_all_that_was_completed() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..10);
    put(&log, &mut flusher, 10..20);
    log.save_committed(Bytes::from_static(b"nineteen")).unwrap();
    assert_eq!(flusher.step(), Progress::Flushed);
    // The state between the write of a batch and its sync.
    fs.fail_from(1, Fault::Device);
    log.append(entries(20..60), Box::new(|outcome| assert!(outcome.is_err()))).unwrap();
    assert_eq!(flusher.step(), Progress::Ended);
    let total = fs.unsynced_bytes();
    assert!(total > 2000, "{total}");
    for kept in 0..=total {
        let fs = fs.copy();
        fs.crash(Crash::KeepPrefix(kept));
        let (log, mut flusher) = open(&fs).unwrap_or_else(|error| panic!("after {kept} bytes: {error}"));
        let last = held(&log).last().unwrap().0;
        assert!(last == 19 || last == 59, "a batch is whole or gone, but the last entry is {last} after {kept} bytes");
        assert_eq!(held(&log), entries(1..last + 1));
        // It goes on, and what is written now survives too.
        put(&log, &mut flusher, last + 1..last + 3);
        fs.crash(Crash::DropUnsynced);
        let (log, _) = open(&fs).unwrap_or_else(|error| panic!("again, after {kept} bytes: {error}"));
        assert_eq!(held(&log), entries(1..last + 3));
    }
}

#[test]
fn a_log_torn_at_random_sectors_keeps_all_that_was_completed() {
    for seed in 0..400 {
        let rng = SeededRng::new(seed);
        let fs = disk();
        let mut acknowledged = 0;
        let mut next;
        for round in 0..4 {
            let (log, mut flusher) = open(&fs).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            let found = held(&log);
            let last = found.last().map_or(0, |(index, _)| *index);
            assert!(last >= acknowledged, "seed {seed}: {last} < {acknowledged}");
            assert_eq!(found, entries(1..last + 1), "seed {seed}");
            next = last + 1;
            let count = Arc::new(AtomicUsize::new(acknowledged as usize));
            for _ in 0..rng.below(8) {
                let to = next + 1 + rng.below(60);
                let count = count.clone();
                let done = Box::new(move |outcome: Result<(), LogError>| {
                    if outcome.is_ok() {
                        count.store(to as usize - 1, Ordering::Relaxed);
                    }
                });
                log.append(entries(next..to), done).unwrap();
                next = to;
                if rng.below(2) == 0 {
                    log.save_committed(Bytes::from_static(b"mark")).unwrap();
                }
                flusher.step();
            }
            // The last batch may be caught between its write and its sync, or between the files of a rotation.
            fs.fail_from(rng.below(4), Fault::Device);
            let _ = log.append(entries(next..next + 100), Box::new(|_| {}));
            flusher.step();
            acknowledged = count.load(Ordering::Relaxed) as u64;
            fs.crash(Crash::Random(&rng));
        }
    }
}

#[test]
fn every_flipped_byte_is_found_and_never_changes_what_is_read() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    for batch in 0..4 {
        put(&log, &mut flusher, batch * 3 + 1..batch * 3 + 4);
    }
    log.save_committed(Bytes::from_static(b"twelve")).unwrap();
    flush(&mut flusher);
    fs.crash(Crash::KeepUnsynced);
    let path = segments(&fs).remove(0);
    // Head, four pages of batches, the mark, and a page of what was reserved.
    for offset in 0..PAGES * 4096 {
        let fs = fs.copy();
        fs.flip(&path, offset, 0x10);
        match open(&fs) {
            Err(LogError::Corrupt { .. }) => assert!(offset < 5 * 4096, "nothing durable is at {offset}"),
            Err(other) => panic!("byte {offset}: {other}"),
            Ok((log, _)) => {
                assert!(offset >= 5 * 4096 - 4096, "byte {offset} is of an entry and was not found");
                assert_eq!(held(&log), entries(1..13), "byte {offset}");
            }
        }
    }
}

const PAGES: u64 = 7;

/// openraft #1960: completions out of order stranded the commit index.
#[test]
fn completions_come_in_order_and_one_sync_serves_many() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..2);
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 2..12 {
        let order = order.clone();
        log.append(
            entries(index..index + 1),
            Box::new(move |outcome| {
                outcome.unwrap();
                order.lock().push(index);
            }),
        )
        .unwrap();
    }
    let before = fs.steps().len();
    assert!(order.lock().is_empty());
    assert_eq!(flusher.step(), Progress::Flushed);
    assert_eq!(*order.lock(), (2..12).collect::<Vec<_>>());
    assert_eq!(fs.steps().len() - before, 2, "one write and one sync: {:?}", &fs.steps()[before..]);
}

#[test]
fn segments_turn_over_and_are_removed_when_purged() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    log.save_vote(Bytes::from_static(b"vote"), nothing()).unwrap();
    for batch in 0..60 {
        put(&log, &mut flusher, batch * 100 + 1..batch * 100 + 101);
        flush(&mut flusher);
    }
    assert!(segments(&fs).len() > 4);
    assert_eq!(held(&log), entries(1..6001), "what left memory is read from the files");
    log.purge(5950, Bytes::from_static(b"mark"), nothing()).unwrap();
    flush(&mut flusher);
    assert!(segments(&fs).len() <= 2, "{:?}", segments(&fs));
    fs.crash(Crash::DropUnsynced);
    let (log, mut flusher) = open(&fs).unwrap();
    assert_eq!(held(&log), entries(5951..6001));
    assert_eq!(log.vote(), Some(Bytes::from_static(b"vote")), "it was written in a segment that is gone");
    put(&log, &mut flusher, 6001..6010);
}

#[test]
fn a_missing_segment_is_found() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    for batch in 0..60 {
        put(&log, &mut flusher, batch * 100 + 1..batch * 100 + 101);
    }
    drop((log, flusher));
    let all = segments(&fs);
    for missing in &all[..all.len() - 1] {
        let fs = fs.copy();
        fs.remove(missing).unwrap();
        assert!(matches!(open(&fs), Err(LogError::Missing { path }) if path == *missing));
    }
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..3);
    flush(&mut flusher);
    log.append(vec![(3, Bytes::from(vec![7; 200 << 10]))], nothing()).unwrap();
    flush(&mut flusher);
    put(&log, &mut flusher, 4..6);
    fs.crash(Crash::DropUnsynced);
    let (log, _) = open(&fs).unwrap();
    assert_eq!(held(&log).len(), 5);
}

/// PostgreSQL, 2018: a sync that had failed was tried again and succeeded, without the data.
#[test]
fn a_failed_sync_poisons_the_log_for_good() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..3);
    fs.fail_from(1, Fault::Device);
    let failed = Arc::new(AtomicBool::new(false));
    let seen = failed.clone();
    log.append(entries(3..5), Box::new(move |outcome| seen.store(outcome.is_err(), Ordering::Relaxed))).unwrap();
    assert_eq!(flusher.step(), Progress::Ended);
    assert!(failed.load(Ordering::Relaxed));
    fs.heal();
    assert_eq!(flusher.step(), Progress::Ended);
    assert!(matches!(log.append(entries(5..6), nothing()), Err(LogError::Poisoned(_))));
    assert!(log.fatal().borrow().is_some());
}

#[test]
fn a_sync_that_fails_for_want_of_room_poisons_the_log_too() {
    for syncs in 0..2 {
        let fs = disk();
        let (log, mut flusher) = open(&fs).unwrap();
        put(&log, &mut flusher, 1..3);
        flush(&mut flusher);
        if syncs == 1 {
            // A mark alone is written without a sync; it is synced before the next segment begins.
            log.save_committed(Bytes::from_static(b"two")).unwrap();
            assert_eq!(flusher.step(), Progress::Flushed);
        }
        let large = vec![(3, Bytes::from(vec![1; if syncs == 1 { 60 << 10 } else { 9 }]))];
        fs.fail_from(1 - syncs, Fault::StorageFull);
        let failed = Arc::new(AtomicBool::new(false));
        let seen = failed.clone();
        log.append(large, Box::new(move |outcome| seen.store(outcome.is_err(), Ordering::Relaxed))).unwrap();
        assert_eq!(flusher.step(), Progress::Ended, "it was tried again");
        assert!(failed.load(Ordering::Relaxed) && log.fatal().borrow().is_some() && !log.is_full());
        fs.heal();
        fs.crash(Crash::DropUnsynced);
        let (log, _) = open(&fs).unwrap();
        assert_eq!(held(&log), entries(1..3));
    }
}

#[test]
fn a_full_disk_makes_changes_wait_and_room_lets_them_go_on() {
    let fs = disk();
    let (log, mut flusher) = open(&fs).unwrap();
    put(&log, &mut flusher, 1..3);
    fs.set_capacity(Some(64 << 10));
    assert_eq!(flusher.step(), Progress::Full, "there is no room for the next segment");
    assert!(log.is_full());
    // What still fits into the segment is written, and makes no room for the next one.
    log.append(entries(3..4), nothing()).unwrap();
    assert_eq!(flusher.step(), Progress::Flushed);
    assert!(log.is_full());
    let done = Arc::new(AtomicBool::new(false));
    let seen = done.clone();
    log.append(
        vec![(4, Bytes::from(vec![1; 60 << 10]))],
        Box::new(move |outcome| {
            outcome.unwrap();
            seen.store(true, Ordering::Relaxed);
        }),
    )
    .unwrap();
    assert_eq!(flusher.step(), Progress::Full);
    assert!(!done.load(Ordering::Relaxed));
    fs.set_capacity(None);
    assert_eq!(flusher.step(), Progress::Flushed);
    assert!(done.load(Ordering::Relaxed));
    assert_eq!(flusher.step(), Progress::Idle);
    assert!(!log.is_full());
    fs.crash(Crash::DropUnsynced);
    let (log, _) = open(&fs).unwrap();
    assert_eq!(log.last_index(), Some(4));
}

#[test]
fn an_error_at_any_operation_never_loses_what_was_completed() {
    for at in 0..60 {
        let fs = disk();
        let (log, mut flusher) = open(&fs).unwrap();
        fs.fail_from(at, Fault::Device);
        let acknowledged = Arc::new(AtomicUsize::new(0));
        for batch in 0..12u64 {
            let to = batch * 100 + 101;
            let count = acknowledged.clone();
            let done = Box::new(move |outcome: Result<(), LogError>| {
                if outcome.is_ok() {
                    count.store(to as usize - 1, Ordering::Relaxed);
                }
            });
            if log.append(entries(batch * 100 + 1..to), done).is_err() {
                break;
            }
            flusher.step();
            flusher.step();
        }
        fs.crash(Crash::DropUnsynced);
        let (log, _) = open(&fs).unwrap_or_else(|error| panic!("after an error at {at}: {error}"));
        assert!(log.last_index().unwrap_or(0) >= acknowledged.load(Ordering::Relaxed) as u64, "error at {at}");
    }
}

#[test]
fn a_hole_is_refused() {
    let (log, mut flusher) = open(&disk()).unwrap();
    put(&log, &mut flusher, 1..3);
    assert!(matches!(log.append(entries(4..5), nothing()), Err(LogError::Hole { index: 4, next: Some(3) })));
}

#[test]
fn planted_bugs_lose_what_was_completed() {
    let fs = disk();
    let faults = LogFaults { ack_before_sync: true, vote_not_persisted: true };
    let (log, mut flusher) = Log::open(Arc::new(fs.clone()), Path::new(DIRECTORY), options(), faults).unwrap();
    log.save_vote(Bytes::from_static(b"vote"), nothing()).unwrap();
    put(&log, &mut flusher, 1..3);
    fs.crash(Crash::DropUnsynced);
    let (log, _) = open(&fs).unwrap();
    assert_eq!((log.last_index(), log.vote()), (None, None));
}

#[test]
fn the_thread_writes_and_ends() {
    let directory = std::env::temp_dir().join(format!("lictor-log-{}", std::process::id()));
    let fs = Arc::new(lictor_runtime::fs::RealFs);
    fs.create_dir_all(&directory).unwrap();
    let (log, flusher) = Log::open(fs.clone(), &directory, options(), LogFaults::default()).unwrap();
    flusher.drive_on_thread().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    for index in 1..50 {
        let sender = sender.clone();
        log.append(entries(index..index + 1), Box::new(move |outcome| sender.send((index, outcome.is_ok())).unwrap()))
            .unwrap();
    }
    for index in 1..50 {
        assert_eq!(receiver.recv().unwrap(), (index, true));
    }
    log.close();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(log.ended());
    let (log, _) = Log::open(fs, &directory, options(), LogFaults::default()).unwrap();
    assert_eq!(held(&log), entries(1..50));
    std::fs::remove_dir_all(&directory).unwrap();
}
