//! What an agent keeps of its services and checks over a restart: those that were registered through the API.
//!
//! One journal, a line for each thing that is kept or forgotten: a checksum in hexadecimal, a space, and JSON. What counts is the
//! last line of each id. Many changes at once cost one write and one sync. When most lines are of the past, those that count
//! are written beside it and take its place.
//!
//! Invariants
//! - What [`Store::append`] returned from without an error is read back after any crash.
//! - A line that is broken is named in the log and passed over: one bad line must not take all services down.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_runtime::fs::{self, File, Fs, Open};
use lictor_types::CheckStatus;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::definition::{CheckDefinition, ServiceDefinition};

/// The journal's name in the data directory.
const JOURNAL: &str = "registrations.journal";
/// The file with the agent's own tokens.
const TOKENS: &str = "acl-tokens.json";
/// The end of the name of a file that is not in its place yet.
const NEW: &str = ".new";
/// The largest journal that is read: every service and check that an agent holds, many times over.
const JOURNAL_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// A journal below this size is left as it is.
const REWRITE_BYTES_MIN: u64 = 1024 * 1024;
/// How many times as long as after the last rewrite a journal becomes before the next.
const REWRITE_FACTOR: u64 = 4;
/// Digits of the checksum that a line begins with.
const CHECKSUM_DIGITS: usize = 8;

/// A service on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptService {
    pub(super) definition: ServiceDefinition,
}

/// A check on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptCheck {
    pub(super) definition: CheckDefinition,
    pub(super) status: CheckStatus,
    pub(super) output: String,
}

/// The status of a check whose definition is in a file of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptStatus {
    pub(super) check: String,
    pub(super) status: CheckStatus,
    pub(super) output: String,
}

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// A service is there, in place of the one with its id.
    Service(Box<KeptService>),
    /// A check is there, in place of the one with its id.
    Check(Box<KeptCheck>),
    /// A check of a file has this status.
    Status(KeptStatus),
    /// The service with this id is gone.
    ServiceGone(String),
    /// The check with this id is gone.
    CheckGone(String),
    /// The status of the check with this id is gone.
    StatusGone(String),
}

/// Of what kind the thing is that a line is about. Services come first, so that their checks find them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RecordKind {
    Service,
    Check,
    Status,
}

impl Record {
    fn key(&self) -> (RecordKind, &str) {
        match self {
            Self::Service(service) => (RecordKind::Service, service.definition.id_text()),
            Self::Check(check) => (RecordKind::Check, check.definition.id_text()),
            Self::Status(status) => (RecordKind::Status, &status.check),
            Self::ServiceGone(id) => (RecordKind::Service, id),
            Self::CheckGone(id) => (RecordKind::Check, id),
            Self::StatusGone(id) => (RecordKind::Status, id),
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Check(_) | Self::Status(_))
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        out.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
        out.extend_from_slice(&json);
        out.push(b'\n');
        Ok(())
    }

    /// What a line says, without its end; an error says what is wrong with it.
    fn read(line: &[u8]) -> Result<Self, String> {
        let (checksum, json) = line.split_at_checked(CHECKSUM_DIGITS).ok_or("it is too short")?;
        let checksum = std::str::from_utf8(checksum).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
        let json = json.strip_prefix(b" ").ok_or("it does not begin with a checksum and a space")?;
        if checksum != Some(crc32fast::hash(json)) {
            return Err("its checksum is another".into());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}

/// Everything that is kept.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) services: Vec<KeptService>,
    pub(super) checks: Vec<KeptCheck>,
    pub(super) statuses: Vec<KeptStatus>,
}

/// The files of one agent.
#[derive(Clone)]
pub(super) struct Store {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    journal: Arc<Mutex<Journal>>,
}

/// The journal as it is written.
#[derive(Default)]
struct Journal {
    /// None before the first line and after an error: then the file is written anew before anything is added to it.
    file: Option<Arc<dyn File>>,
    /// Bytes that are known to be right.
    length: u64,
    /// Bytes after the last rewrite.
    rewritten: u64,
}

impl Store {
    pub(super) fn open(fs: Arc<dyn Fs>, directory: &Path) -> io::Result<Self> {
        fs.create_dir_all(directory)?;
        Ok(Self { fs, directory: directory.into(), journal: Arc::default() })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(JOURNAL)
    }

    /// Writes these down, durably and together.
    ///
    /// # Errors
    /// As the operating system reports them; then none of these counts, unless the machine stops before the next change.
    pub(super) fn append(&self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        records.iter().try_for_each(|record| record.write(&mut bytes))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal.lock();
        let too_long = journal.length > REWRITE_BYTES_MIN.max(journal.rewritten * REWRITE_FACTOR);
        let file = match journal.file.take() {
            Some(file) if !too_long => file,
            _ => self.rewrite(&mut journal)?,
        };
        if let Err(error) = file.write_all_at(&bytes, journal.length).and_then(|()| file.sync_data()) {
            // At best it is gone at once; else the next change writes a journal without it.
            let _ = file.set_len(journal.length);
            return Err(error);
        }
        journal.length += bytes.len() as u64;
        journal.file = Some(file);
        Ok(())
    }

    /// Writes the lines that count into a new journal.
    fn rewrite(&self, journal: &mut Journal) -> io::Result<Arc<dyn File>> {
        let mut bytes = Vec::new();
        self.lines(journal.length)?.values().try_for_each(|record| record.write(&mut bytes))?;
        let path = self.path();
        write_whole(&*self.fs, &path, &bytes)?;
        (journal.length, journal.rewritten) = (bytes.len() as u64, bytes.len() as u64);
        self.fs.open(&path, Open::Existing)
    }

    /// What the first `length` bytes of the journal say, by what it is about.
    fn lines(&self, length: u64) -> io::Result<BTreeMap<(RecordKind, String), Record>> {
        let mut kept = BTreeMap::new();
        let path = self.path();
        let file = match self.fs.open(&path, Open::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            Err(error) => return Err(error),
        };
        let there = file.len()?;
        if there > JOURNAL_BYTES_MAX {
            let text = format!("{} has {there} bytes, at most {JOURNAL_BYTES_MAX} are read", path.display());
            return Err(io::Error::other(text));
        }
        let mut bytes = fs::read_all(&*file)?;
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            match Record::read(line) {
                Ok(record) => {
                    let (kind, id) = record.key();
                    let key = (kind, id.to_owned());
                    if record.is_kept() {
                        kept.insert(key, record);
                    } else {
                        kept.remove(&key);
                    }
                }
                // A crash left it half written, and nobody was told that it is kept.
                Err(_) if number + 1 == lines.len() => {}
                Err(problem) => {
                    tracing::error!(path = %path.display(), line = number + 1, problem, "a kept definition is lost");
                }
            }
        }
        Ok(kept)
    }

    /// Everything that is kept. Called once, before anything is added.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn load(&self) -> io::Result<Kept> {
        let mut kept = Kept::default();
        for record in self.lines(u64::MAX)?.into_values() {
            match record {
                Record::Service(service) => kept.services.push(*service),
                Record::Check(check) => kept.checks.push(*check),
                Record::Status(status) => kept.statuses.push(status),
                Record::ServiceGone(_) | Record::CheckGone(_) | Record::StatusGone(_) => {}
            }
        }
        self.journal.lock().length = u64::MAX;
        Ok(kept)
    }

    /// Writes the agent's own tokens down, by kind.
    pub(super) fn keep_tokens(&self, tokens: &BTreeMap<String, String>) -> io::Result<()> {
        let bytes = serde_json::to_vec(tokens).map_err(io::Error::other)?;
        write_whole(&*self.fs, &self.directory.join(TOKENS), &bytes)
    }

    /// The agent's own tokens that were kept, by kind.
    pub(super) fn load_tokens(&self) -> io::Result<BTreeMap<String, String>> {
        match self.fs.open(&self.directory.join(TOKENS), Open::Existing) {
            Ok(file) => serde_json::from_slice(&fs::read_all(&*file)?).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }
}

/// Writes a file whole or not at all, durably.
///
/// # Errors
/// As the operating system reports them; then the file is as it was.
pub(crate) fn write_whole(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(NEW);
    let beside = PathBuf::from(beside);
    let file = fs.open(&beside, Open::Empty)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    fs.rename(&beside, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use lictor_runtime::fs::{Crash, Fault, MemoryFs};

    use super::*;

    fn check(name: &str, output: &str) -> Record {
        let definition = CheckDefinition { name: name.into(), ..CheckDefinition::default() };
        Record::Check(Box::new(KeptCheck { definition, status: CheckStatus::Passing, output: output.into() }))
    }

    fn open(fs: &MemoryFs) -> (Store, Kept) {
        let store = Store::open(Arc::new(fs.clone()), Path::new("/data")).unwrap();
        let kept = store.load().unwrap();
        (store, kept)
    }

    fn outputs(kept: &Kept) -> Vec<&str> {
        kept.checks.iter().map(|check| check.output.as_str()).collect()
    }

    #[test]
    fn what_was_kept_survives_a_crash_and_what_was_forgotten_stays_so() {
        let fs = MemoryFs::new();
        let (store, _) = open(&fs);
        store.append(&[check("a", "one"), check("b", "other")]).unwrap();
        store.append(&[check("a", "two"), Record::CheckGone("b".into())]).unwrap();
        fs.crash(Crash::DropUnsynced);
        let (store, kept) = open(&fs);
        assert_eq!(outputs(&kept), ["two"]);
        store.append(&[check("c", "three")]).unwrap();
        fs.crash(Crash::DropUnsynced);
        assert_eq!(outputs(&open(&fs).1), ["two", "three"]);
    }

    #[test]
    fn one_bad_line_hides_no_other_and_half_a_line_at_the_end_is_none() {
        let fs = MemoryFs::new();
        let (store, _) = open(&fs);
        for name in ["a", "b", "c"] {
            store.append(&[check(name, name)]).unwrap();
        }
        let path = Path::new("/data/registrations.journal");
        let file = fs.open(path, Open::Existing).unwrap();
        let line = file.len().unwrap() / 3;
        fs.flip(path, line + 30, 1);
        file.write_all_at(b"0123", line * 3).unwrap();
        let (store, kept) = open(&fs);
        assert_eq!(outputs(&kept), ["a", "c"]);
        store.append(&[check("d", "d")]).unwrap();
        assert_eq!(outputs(&open(&fs).1), ["a", "c", "d"]);
    }

    #[test]
    fn what_could_not_be_written_does_not_come_back_and_the_rest_stays() {
        let fs = MemoryFs::new();
        let (store, _) = open(&fs);
        let mut written = Vec::new();
        for step in 0..12 {
            let name = format!("{step:02}");
            fs.fail_from(step, Fault::Device);
            if store.append(&[check(&name, &name)]).is_ok() {
                written.push(name);
            }
            fs.heal();
        }
        assert!(!written.is_empty() && written.len() < 12, "{written:?}");
        store.append(&[check("last", "last")]).unwrap();
        written.push("last".into());
        fs.crash(Crash::DropUnsynced);
        assert_eq!(outputs(&open(&fs).1), written);
    }

    #[test]
    fn a_journal_of_the_past_is_written_anew() {
        let fs = MemoryFs::new();
        let (store, _) = open(&fs);
        let long = "x".repeat(4000);
        for _ in 0..1000 {
            store.append(&[check("a", &long)]).unwrap();
        }
        let length = fs.open(Path::new("/data/registrations.journal"), Open::Existing).unwrap().len().unwrap();
        assert!(length < 2 * REWRITE_BYTES_MIN, "{length}");
        assert_eq!(outputs(&open(&fs).1), [long.as_str()]);
    }
}
