//! Segments: the files of the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lictor_runtime::fs::{File, Fs, Open, read_exact_at};

use super::record::{self, Found, PAGE, Record};
use super::table::Location;
use super::{LogError, io_error};

/// A segment is made under this name and gets its own name when its head is durable.
pub(super) const SPARE: &str = "spare.tmp";

/// One file of the log.
#[derive(Clone)]
pub(super) struct Segment {
    pub file: Arc<dyn File>,
    /// The highest index of an entry that was written to it.
    pub last_index: Option<u64>,
}

/// The name of the segment with this number.
pub(super) fn name(number: u64) -> String {
    format!("log-{number:016x}.seg")
}

/// The number of the segment with this name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// The path of the segment with this number.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(name(number))
}

/// Makes an empty file with room for a segment.
pub(super) fn prepare(fs: &dyn Fs, directory: &Path, size: u64) -> Result<Arc<dyn File>, LogError> {
    let path = directory.join(SPARE);
    let file = fs.open(&path, Open::Empty).map_err(|source| io_error("create", &path, source))?;
    let prepared = file.allocate(size).and_then(|()| file.sync_data());
    if let Err(source) = prepared {
        // What room it took is of more use to the disk.
        let _ = fs.remove(&path);
        return Err(io_error("reserve room for", &path, source));
    }
    Ok(file)
}

/// Turns a prepared file into the segment `number`.
pub(super) fn publish(
    fs: &dyn Fs,
    directory: &Path,
    file: &dyn File,
    number: u64,
    first_sequence: u64,
) -> Result<(), LogError> {
    let spare = directory.join(SPARE);
    let path = path(directory, number);
    file.write_all_at(&record::segment_header(number, first_sequence), 0)
        .and_then(|()| file.sync_data())
        .map_err(|source| io_error("write the head of", &spare, source))?;
    fs.rename(&spare, &path).map_err(|source| io_error("name", &path, source))?;
    fs.sync_dir(directory).map_err(|source| io_error("make durable the names in", directory, source))
}

/// Reads one entry back.
pub(super) fn read_entry(directory: &Path, file: &dyn File, index: u64, location: Location) -> Result<Bytes, LogError> {
    let path = path(directory, location.segment);
    let mut buffer = vec![0; location.size as usize];
    read_exact_at(file, &mut buffer, location.offset).map_err(|source| io_error("read", &path, source))?;
    match record::parse(location.segment, location.offset, &buffer, 0) {
        Found::Record(Record::Entry { index: found, body }, _) if found == index => Ok(body),
        Found::Bad { why } => Err(LogError::Corrupt { path, offset: location.offset, why: why.to_owned() }),
        Found::Record(..) | Found::Padding => Err(LogError::Corrupt {
            path,
            offset: location.offset,
            why: format!("entry {index} was written here and is not here any more"),
        }),
    }
}

/// The bytes of a segment that hold no records.
pub(super) const HEAD: u64 = PAGE;
