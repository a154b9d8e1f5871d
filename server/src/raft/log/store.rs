//! The log as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};
use tokio::sync::oneshot;

use super::{Completion, Log, LogError};
use crate::raft::codec;
use crate::raft::types::{Entry, LogId, Types, Vote};

/// One read for replication takes at most about this much, so that it fits a frame of the network.
const REPLICATION_BYTES: usize = 4 << 20;

/// Raft's view of a [`Log`].
#[derive(Clone)]
pub(in crate::raft) struct LogStore {
    log: Log,
}

impl LogStore {
    pub(in crate::raft) fn new(log: Log) -> Self {
        Self { log }
    }

    fn entries(&self, from: u64, to: u64, byte_limit: usize) -> Result<Vec<Entry>, io::Error> {
        let found = self.log.read(from, to, byte_limit)?;
        found.iter().map(|(_, body)| codec::decode_entry(body).map_err(io::Error::from)).collect()
    }
}

/// A completion that can be waited for.
fn awaited() -> (Completion, impl Future<Output = Result<(), io::Error>>) {
    let (sender, receiver) = oneshot::channel();
    let completion: Completion = Box::new(move |outcome| {
        // Whoever asked may be gone.
        let _ = sender.send(outcome);
    });
    let outcome =
        async move { receiver.await.map_err(|_| io::Error::from(LogError::Closed))?.map_err(io::Error::from) };
    (completion, outcome)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        self.entries(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, REPLICATION_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote().map(|body| codec::decode_vote(&body)).transpose()?)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let purged = self.log.purged().map(|body| codec::decode_position(&body)).transpose()?;
        let last = match self.log.last_index() {
            None => purged,
            Some(index) => self.entries(index, index + 1, usize::MAX)?.first().map(|entry| entry.log_id),
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (completion, outcome) = awaited();
        self.log.save_vote(codec::encode_vote(vote), completion)?;
        outcome.await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.save_committed(codec::encode_position(&committed))?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.committed().map(|body| codec::decode_position(&body)).transpose()?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index(), codec::encode_entry(&entry))).collect();
        self.log.room().await;
        let completion: Completion = Box::new(move |outcome| callback.io_completed(outcome.map_err(io::Error::from)));
        self.log.append(entries, completion)?;
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let (completion, outcome) = awaited();
        self.log.truncate(last_log_id.map_or(0, |last| last.index() + 1), completion)?;
        outcome.await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let (completion, outcome) = awaited();
        self.log.purge(log_id.index(), codec::encode_position(&log_id), completion)?;
        outcome.await
    }
}
