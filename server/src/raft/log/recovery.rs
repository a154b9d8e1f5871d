//! Recovery: from the files to the state of the log.
//!
//! The end of the last segment may be torn: its last batch was being written when the machine stopped, so nobody was
//! told that it is durable, and it is cut off whole. Anything else that is broken was durable once. Then the log
//! refuses to open and says where, because going on would silently forget what was acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lictor_runtime::fs::{File, Fs, Open, read_all};

use super::record::{self, Found, PAGE, Record};
use super::segment::{self, HEAD, Segment};
use super::table::{Location, Table};
use super::{LogError, LogOptions, io_error};

/// What the files held.
pub(super) struct Recovered {
    pub table: Table,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    pub segments: BTreeMap<u64, Segment>,
    /// The segment to go on with, where in it, and how long it is; `None` when there is no segment.
    pub current: Option<(u64, u64, u64)>,
    /// The sequence of the last batch.
    pub sequence: u64,
}

/// Reads the log in `directory`, cuts a torn end off, and makes what was read durable.
pub(super) fn recover(fs: &dyn Fs, directory: &Path, options: &LogOptions) -> Result<Recovered, LogError> {
    let names = fs.list(directory).map_err(|source| io_error("list", directory, source))?;
    if names.iter().any(|name| name == segment::SPARE) {
        let path = directory.join(segment::SPARE);
        fs.remove(&path).map_err(|source| io_error("remove", &path, source))?;
    }
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(LogError::Missing { path: segment::path(directory, pair[0] + 1) });
    }
    let mut replay = Replay {
        recovered: Recovered {
            table: Table::new(options.cache_bytes),
            vote: None,
            committed: None,
            purged: None,
            segments: BTreeMap::new(),
            current: None,
            sequence: 0,
        },
        needs_purged: None,
    };
    for (at, number) in numbers.iter().enumerate() {
        let path = segment::path(directory, *number);
        let file = fs.open(&path, Open::Existing).map_err(|source| io_error("open", &path, source))?;
        let is_last = at + 1 == numbers.len();
        let end = replay.segment(*number, &path, &file, at == 0, is_last)?;
        if is_last {
            let len = settle_tail(&*file, &path, end, options)?;
            replay.recovered.current = Some((*number, record::page_up(end), len));
        }
    }
    let purged = replay.recovered.purged.as_ref().map(|(through, _)| *through);
    if numbers.first().is_some_and(|first| *first > 1) && purged.is_none() {
        return Err(LogError::Missing { path: segment::path(directory, numbers[0] - 1) });
    }
    if let Some((through, path, offset)) = replay.needs_purged
        && purged.is_none_or(|purged| purged < through)
    {
        return Err(hole(&path, offset, through + 1, purged.map(|purged| purged + 1)));
    }
    fs.sync_dir(directory).map_err(|source| io_error("make durable the names in", directory, source))?;
    Ok(replay.recovered)
}

/// Zeroes what follows `end` and makes the rest durable: what was read may so far be only in memory.
fn settle_tail(file: &dyn File, path: &Path, end: u64, options: &LogOptions) -> Result<u64, LogError> {
    let settle = || {
        let len = file.len()?;
        file.set_len(end)?;
        file.sync_data()?;
        // Without room for the rest the segment simply ends here, and the next batch goes to a new one.
        let whole = match file.allocate(len.max(options.segment_bytes)) {
            Ok(()) => len.max(options.segment_bytes),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => end,
            Err(error) => return Err(error),
        };
        file.sync_data()?;
        Ok(whole)
    };
    settle().map_err(|source| io_error("prepare", path, source))
}

struct Replay {
    recovered: Recovered,
    /// The oldest segment may begin later than the purges it knows of: a later record must account for the difference.
    needs_purged: Option<(u64, PathBuf, u64)>,
}

/// Records of the batch being read, which count only when all of it is whole.
struct OpenBatch {
    sequence: u64,
    start: usize,
    end: usize,
    records: Vec<(Record, Location)>,
}

impl Replay {
    /// Replays one segment and returns where its last whole batch ends.
    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        file: &Arc<dyn File>,
        is_first: bool,
        is_last: bool,
    ) -> Result<u64, LogError> {
        let bytes = read_all(&**file).map_err(|source| io_error("read", path, source))?;
        let corrupt =
            |offset: usize, why: String| LogError::Corrupt { path: path.to_path_buf(), offset: offset as u64, why };
        let first_sequence = record::read_segment_header(number, &bytes).map_err(|why| corrupt(0, why.to_owned()))?;
        if is_first {
            self.recovered.sequence = first_sequence.saturating_sub(1);
        } else if self.recovered.sequence + 1 != first_sequence {
            return Err(corrupt(
                0,
                format!(
                    "the segment begins with batch {first_sequence}, but the one before ends with batch {}",
                    self.recovered.sequence
                ),
            ));
        }
        self.recovered.segments.insert(number, Segment { file: file.clone(), last_index: None });
        let mut open: Option<OpenBatch> = None;
        let mut at = HEAD as usize;
        let broken = loop {
            if open.as_ref().is_some_and(|batch| at == batch.end)
                && let Some(batch) = open.take()
            {
                self.finish(number, batch, path)?;
            }
            if at >= bytes.len() {
                break open.as_ref().map(|_| "the segment ends inside a batch");
            }
            match record::parse(number, 0, &bytes, at) {
                Found::Padding if open.is_some() => break Some("a batch ends before its length"),
                Found::Padding if (at as u64).is_multiple_of(PAGE) => break None,
                Found::Padding => at = record::page_up(at as u64) as usize,
                Found::Bad { why } => break Some(why),
                Found::Record(Record::Batch(batch), size) => {
                    if open.is_some() {
                        break Some("a batch begins inside another");
                    }
                    if batch.sequence != self.recovered.sequence + 1 {
                        break Some("a batch is missing before this one");
                    }
                    let end = at + size + batch.length as usize;
                    open = Some(OpenBatch { sequence: batch.sequence, start: at, end, records: Vec::new() });
                    at += size;
                }
                Found::Record(record, size) => {
                    let Some(batch) = open.as_mut().filter(|batch| at + size <= batch.end) else {
                        break Some("a record is outside of any batch");
                    };
                    let location = Location { segment: number, offset: at as u64, size: size as u32 };
                    batch.records.push((record, location));
                    at += size;
                }
            }
        };
        let end = open.map_or(at, |batch| batch.start);
        if let (Some(why), false) = (broken, is_last) {
            return Err(corrupt(at, why.to_owned()));
        }
        if let Some(later) = record::find_later_batch(number, &bytes, end, self.recovered.sequence + 1) {
            let why = broken.unwrap_or("a batch that was durable is gone");
            return Err(corrupt(at, format!("{why}; the batch at byte {later} proves that it was once whole")));
        }
        Ok(end as u64)
    }

    fn finish(&mut self, number: u64, batch: OpenBatch, path: &Path) -> Result<(), LogError> {
        let recovered = &mut self.recovered;
        recovered.sequence = batch.sequence;
        for (record, location) in batch.records {
            match record {
                Record::Batch(_) => {}
                Record::Entry { index, body } => {
                    if let Some(segment) = recovered.segments.get_mut(&number) {
                        segment.last_index = segment.last_index.max(Some(index));
                    }
                    if recovered.purged.as_ref().is_some_and(|(through, _)| index <= *through) {
                        continue;
                    }
                    if !recovered.table.accepts(index) {
                        let next = recovered.table.next();
                        if recovered.table.last().is_some() || next.is_none_or(|next| index < next) {
                            return Err(hole(path, location.offset, index, next));
                        }
                        self.needs_purged = Some((index - 1, path.to_path_buf(), location.offset));
                    }
                    recovered.table.push(index, body, Some(location));
                }
                Record::Vote { body } => recovered.vote = Some(body),
                Record::Truncate { from } => recovered.table.truncate(from),
                Record::Purge { through, body } => {
                    recovered.table.purge(through);
                    if recovered.purged.as_ref().is_none_or(|(before, _)| *before < through) {
                        recovered.purged = Some((through, body));
                    }
                }
                Record::Committed { body } => recovered.committed = Some(body),
            }
        }
        Ok(())
    }
}

fn hole(path: &Path, offset: u64, index: u64, expected: Option<u64>) -> LogError {
    let expected = expected.map_or_else(|| "any".to_owned(), |index| index.to_string());
    LogError::Corrupt {
        path: PathBuf::from(path),
        offset,
        why: format!("entry {index} is here where entry {expected} should be"),
    }
}
