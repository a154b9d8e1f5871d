//! The log beside the crate `raft-log`, which solves the same task another way: after the same changes and restarts both must
//! hold the same.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

use lictor_runtime::fs::{Crash, MemoryFs};
use lictor_runtime::{Rng as _, SeededRng};
use raft_log::api::raft_log_writer::RaftLogWriter as _;
use raft_log::{Config, RaftLog, Types};

use super::flusher::Progress;
use super::*;

/// Sequences of changes.
const SEEDS: u64 = 60;
/// Changes of a sequence.
const CHANGES: u64 = 120;
/// The other log begins a new file after so many records, so that its files turn over too.
const RECORDS_OF_A_FILE: usize = 80;
/// Entries are at most this long; a few fill a segment.
const BODY_MOST: u64 = 6_000;

/// A position: term and index.
type Position = (u64, u64);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Theirs;

impl Types for Theirs {
    type LogId = Position;
    type LogPayload = Vec<u8>;
    type Vote = Position;
    type Callback = SyncSender<io::Result<()>>;
    type UserData = String;

    fn log_index(position: &Position) -> u64 {
        position.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

/// What can be read of a log.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    entries: Vec<(u64, Vec<u8>)>,
    last: Option<u64>,
    vote: Option<Position>,
    committed: Option<Position>,
    purged: Option<Position>,
}

fn body_of((term, index): Position) -> Bytes {
    Bytes::from([term.to_le_bytes(), index.to_le_bytes()].concat())
}

fn position_of(body: &Bytes) -> Position {
    let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

fn done() -> Completion {
    Box::new(|outcome| outcome.unwrap())
}

/// Both logs, and what a raft would know of them.
struct Pair {
    rng: SeededRng,
    fs: MemoryFs,
    ours: Log,
    flusher: Flusher,
    directory: PathBuf,
    theirs: Option<RaftLog<Theirs>>,
    term: u64,
    positions: Vec<Position>,
    purged: Position,
    committed: u64,
}

fn open_ours(fs: &MemoryFs) -> (Log, Flusher) {
    let options =
        LogOptions { segment_bytes: 64 << 10, cache_bytes: 1 << 10, batch_bytes: 16 << 10, queue_bytes: 1 << 20 };
    Log::open(Arc::new(fs.clone()), Path::new("/log"), options, LogFaults::default()).unwrap()
}

fn open_theirs(directory: &Path) -> RaftLog<Theirs> {
    let mut config = Config::new(directory.display());
    config.wal.chunk_max_records = Some(RECORDS_OF_A_FILE);
    RaftLog::open(Arc::new(config)).unwrap()
}

impl Pair {
    fn new(seed: u64, directory: PathBuf) -> Self {
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new("/log")).unwrap();
        let (ours, flusher) = open_ours(&fs);
        let theirs = Some(open_theirs(&directory));
        let rng = SeededRng::new(seed);
        Self { rng, fs, ours, flusher, directory, theirs, term: 1, positions: Vec::new(), purged: (0, 0), committed: 0 }
    }

    fn theirs(&mut self) -> &mut RaftLog<Theirs> {
        self.theirs.as_mut().unwrap()
    }

    fn last(&self) -> u64 {
        self.positions.last().map_or(self.purged.1, |it| it.1)
    }

    /// One change of both.
    fn change(&mut self) {
        match self.rng.below(20) {
            0..9 => self.append(),
            9..11 => self.truncate(),
            11..13 => self.purge(),
            13..15 => self.vote(),
            15..18 => self.commit(),
            _ => self.reopen(),
        }
    }

    fn append(&mut self) {
        self.term += self.rng.below(2);
        let first = self.last() + 1;
        let entries: Vec<(Position, Vec<u8>)> = (first..first + 1 + self.rng.below(12))
            .map(|index| {
                let length = if self.rng.below(8) == 0 { self.rng.below(BODY_MOST) } else { self.rng.below(60) };
                ((self.term, index), (0..length).map(|at| (index * 31 + at) as u8).collect())
            })
            .collect();
        self.positions.extend(entries.iter().map(|(position, _)| *position));
        let bodies = entries.iter().map(|(position, body)| (position.1, Bytes::from(body.clone()))).collect();
        self.ours.append(bodies, done()).unwrap();
        self.theirs().append(entries).unwrap();
    }

    /// What was committed stays.
    fn truncate(&mut self) {
        if self.positions.is_empty() {
            return;
        }
        // The first entry stays: the other log wants to know the position of the one before.
        let end = self.last() + 1;
        let least = end.min(self.committed.max(self.purged.1).max(1) + 1);
        let from = least + self.rng.below(end + 1 - least);
        self.positions.retain(|it| it.1 < from);
        // A leader of a later term overwrites.
        self.term += 1;
        self.ours.truncate(from, done()).unwrap();
        self.theirs().truncate(from).unwrap();
    }

    /// Up to an entry that is there, or, as after a snapshot of the leader, beyond all of them.
    fn purge(&mut self) {
        let through = if self.rng.below(5) == 0 {
            self.term += 1;
            (self.term, self.last() + 1 + self.rng.below(30))
        } else if self.positions.is_empty() {
            return;
        } else {
            self.positions[self.rng.below(self.positions.len() as u64) as usize]
        };
        self.positions.retain(|it| it.1 > through.1);
        self.purged = through;
        self.committed = self.committed.max(through.1);
        self.ours.purge(through.1, body_of(through), done()).unwrap();
        self.theirs().purge(through).unwrap();
    }

    fn vote(&mut self) {
        self.term += 1;
        let vote = (self.term, self.rng.below(5));
        self.ours.save_vote(body_of(vote), done()).unwrap();
        self.theirs().save_vote(vote).unwrap();
    }

    fn commit(&mut self) {
        let new: Vec<Position> = self.positions.iter().copied().filter(|it| it.1 > self.committed).collect();
        if new.is_empty() {
            return;
        }
        let position = new[self.rng.below(new.len() as u64) as usize];
        self.committed = position.1;
        self.ours.save_committed(body_of(position)).unwrap();
        self.theirs().commit(position).unwrap();
    }

    fn flush(&mut self) {
        while self.flusher.step() == Progress::Flushed {}
        let (sender, receiver) = sync_channel(1);
        self.theirs().flush(true, Some(sender)).unwrap();
        receiver.recv().unwrap().unwrap();
    }

    fn reopen(&mut self) {
        if self.rng.below(2) == 0 {
            // A mark alone is not synced, but a vote takes it along.
            self.vote();
            self.flush();
            self.fs.crash(Crash::DropUnsynced);
        } else {
            self.flush();
            self.fs.crash(Crash::KeepUnsynced);
        }
        (self.ours, self.flusher) = open_ours(&self.fs);
        self.theirs = None;
        self.theirs = Some(open_theirs(&self.directory));
    }

    fn ours_holds(&self) -> Contents {
        let entries = self.ours.read(0, u64::MAX, usize::MAX).unwrap();
        Contents {
            entries: entries.into_iter().map(|(index, body)| (index, body.to_vec())).collect(),
            last: self.ours.last_index(),
            vote: self.ours.vote().as_ref().map(position_of),
            committed: self.ours.committed().as_ref().map(position_of),
            purged: self.ours.purged().as_ref().map(position_of),
        }
    }

    fn theirs_holds(&mut self) -> Contents {
        let theirs = self.theirs.as_ref().unwrap();
        let entries = theirs.read(0, u64::MAX).map(Result::unwrap).map(|((_, index), body)| (index, body));
        let entries: Vec<_> = entries.collect();
        let state = theirs.log_state();
        // Where nothing is held their last is what was purged, and ours is none.
        let last = state.last().map(|it| it.1).filter(|last| state.purged().is_none_or(|purged| *last > purged.1));
        Contents {
            entries,
            last,
            vote: state.vote().copied(),
            committed: state.committed().copied(),
            purged: state.purged().copied(),
        }
    }
}

#[test]
fn the_same_changes_and_restarts_leave_the_same_in_another_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut held = 0;
    for seed in 0..SEEDS {
        let place = directory.path().join(seed.to_string());
        std::fs::create_dir_all(&place).unwrap();
        let mut pair = Pair::new(seed, place);
        for at in 0..CHANGES {
            pair.change();
            if at % 5 == 0 {
                pair.flush();
            }
            let (ours, theirs) = (pair.ours_holds(), pair.theirs_holds());
            assert_eq!(ours, theirs, "seed {seed}, after change {at}");
            held += ours.entries.len();
        }
        pair.reopen();
        assert_eq!(pair.ours_holds(), pair.theirs_holds(), "seed {seed}, at the end");
    }
    assert!(held > 100_000, "{held} entries were compared, which is too few to say much");
}
