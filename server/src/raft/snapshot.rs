//! Snapshot files.
//!
//! Layout, little endian: magic, version `u32`, length of the description `u32`, checksum of what precedes and the
//! description `u32`, the description, the content, and a tail: length of the content `u64`, checksum of the content
//! `u32`, magic. A file gets its name only when all of it is durable.
//!
//! Invariants
//! - There is at most one snapshot with a name, except between the naming of a new one and the removal of the old.
//! - A snapshot is used only after its checksums were compared.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_runtime::fs::{File, Fs, Open, read_exact_at};

use super::codec::{self, SnapshotForm};
use super::types::SnapshotMeta;

/// What is read, written and sent at once.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// A description is a membership: it cannot be large.
const META_LIMIT: u32 = 1 << 20;

const MAGIC: [u8; 8] = *b"lictor-s";
const VERSION: u32 = 1;
const HEAD: u64 = 20;
const TAIL: u64 = 20;
const SUFFIX: &str = ".snapshot";
const TEMPORARY: &str = ".new";

/// A snapshot on disk whose checksums match.
#[derive(Clone)]
pub(super) struct SnapshotFile {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    content: std::ops::Range<u64>,
}

impl SnapshotFile {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Part of the whole file, as it is sent.
    pub(super) fn chunk(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (self.len - offset).min(CHUNK_BYTES as u64) as usize];
        read_exact_at(&*self.file, &mut bytes, offset)?;
        Ok(bytes)
    }

    /// The content.
    pub(super) fn reader(&self) -> impl Read + '_ {
        io::BufReader::with_capacity(
            CHUNK_BYTES,
            Section { file: &*self.file, at: self.content.start, end: self.content.end },
        )
    }
}

struct Section<'a> {
    file: &'a dyn File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min((self.end - self.at) as usize);
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Writes to a file at growing offsets and sums what it writes.
struct Sink<'a> {
    file: &'a dyn File,
    at: u64,
    sum: u32,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The snapshots of a server.
#[derive(Clone)]
pub(super) struct SnapshotStore {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
}

fn damaged(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot {} is damaged: {why}", path.display()))
}

impl SnapshotStore {
    /// The snapshots in `directory`, which must exist. What was not finished is removed.
    pub(super) fn open(fs: Arc<dyn Fs>, directory: PathBuf) -> io::Result<Self> {
        for name in fs.list(&directory)? {
            if name.ends_with(TEMPORARY) {
                fs.remove(&directory.join(name))?;
            }
        }
        Ok(Self { fs, directory })
    }

    /// The latest snapshot; a damaged one is an error, since the log before it is gone.
    pub(super) fn latest(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        let names = self.fs.list(&self.directory)?;
        match names.iter().rev().find(|name| name.ends_with(SUFFIX)) {
            Some(name) => self.verify(self.directory.join(name)).map(Some),
            None => Ok(None),
        }
    }

    fn path_of(&self, meta: &SnapshotMeta) -> PathBuf {
        // Sorted by name is sorted by position.
        let index = meta.last_log_id.map_or(0, |last| last.index());
        self.directory.join(format!("{index:016x}{SUFFIX}"))
    }

    /// Writes a snapshot whose content `write` writes, and names it.
    pub(super) fn build(
        &self,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let path = self.path_of(meta);
        let temporary = path.with_extension("building.new");
        let built = self.write(&temporary, meta, write);
        if built.is_err() {
            // The room is needed: most likely the disk is full.
            let _ = self.fs.remove(&temporary);
        }
        built?;
        self.fs.rename(&temporary, &path)?;
        self.fs.sync_dir(&self.directory)?;
        self.remove_older(&path)?;
        Ok(self.verify(path)?.1)
    }

    fn write(
        &self,
        path: &Path,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = self.fs.open(path, Open::Empty)?;
        let description = codec::encode(&SnapshotForm::from(meta));
        let mut head = Vec::with_capacity(HEAD as usize + description.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(description.len() as u32).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head), &description);
        head.extend_from_slice(&sum.to_le_bytes());
        head.extend_from_slice(&description);
        file.write_all_at(&head, 0)?;
        let start = head.len() as u64;
        let mut sink = io::BufWriter::with_capacity(CHUNK_BYTES, Sink { file: &*file, at: start, sum: 0 });
        write(&mut sink)?;
        let sink = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut tail = Vec::with_capacity(TAIL as usize);
        tail.extend_from_slice(&(sink.at - start).to_le_bytes());
        tail.extend_from_slice(&sink.sum.to_le_bytes());
        tail.extend_from_slice(&MAGIC);
        file.write_all_at(&tail, sink.at)?;
        file.sync_data()
    }

    /// A file for a snapshot that is being received.
    pub(super) fn incoming(&self, serial: u64) -> io::Result<Incoming> {
        let path = self.directory.join(format!("incoming-{serial:016x}{TEMPORARY}"));
        let file = self.fs.open(&path, Open::Empty)?;
        Ok(Incoming { store: self.clone(), path, file, at: 0, finished: false })
    }

    /// Gives a snapshot its name, unless it has it already.
    pub(super) fn install(&self, meta: &SnapshotMeta, snapshot: &SnapshotFile) -> io::Result<()> {
        let path = self.path_of(meta);
        if snapshot.path != path {
            self.fs.rename(&snapshot.path, &path)?;
            self.fs.sync_dir(&self.directory)?;
        }
        self.remove_older(&path)
    }

    fn remove_older(&self, kept: &Path) -> io::Result<()> {
        for name in self.fs.list(&self.directory)? {
            let path = self.directory.join(&name);
            if name.ends_with(SUFFIX) && path != kept {
                self.fs.remove(&path)?;
            }
        }
        self.fs.sync_dir(&self.directory)
    }

    fn verify(&self, path: PathBuf) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        let file = self.fs.open(&path, Open::Existing)?;
        let len = file.len()?;
        if len < HEAD + TAIL {
            return Err(damaged(&path, "it is too short"));
        }
        let mut head = [0; HEAD as usize];
        read_exact_at(&*file, &mut head, 0)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[..8] != MAGIC || number(8) != VERSION {
            return Err(damaged(&path, "it does not begin like a snapshot that this version knows"));
        }
        let start = HEAD + u64::from(number(12));
        if number(12) > META_LIMIT || start + TAIL > len {
            return Err(damaged(&path, "its description is longer than the file"));
        }
        let mut description = vec![0; number(12) as usize];
        read_exact_at(&*file, &mut description, HEAD)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..16]), &description) != number(16) {
            return Err(damaged(&path, "the checksum of its description does not match"));
        }
        let mut tail = [0; TAIL as usize];
        read_exact_at(&*file, &mut tail, len - TAIL)?;
        let mut content = [0; 8];
        content.copy_from_slice(&tail[..8]);
        if tail[12..] != MAGIC || u64::from_le_bytes(content) != len - TAIL - start {
            return Err(damaged(&path, "its end is not that of a whole snapshot"));
        }
        let mut sum = 0;
        let mut at = start;
        let mut buffer = vec![0; CHUNK_BYTES];
        while at < len - TAIL {
            let part = ((len - TAIL - at) as usize).min(CHUNK_BYTES);
            read_exact_at(&*file, &mut buffer[..part], at)?;
            sum = crc32c::crc32c_append(sum, &buffer[..part]);
            at += part as u64;
        }
        if tail[8..12] != sum.to_le_bytes() {
            return Err(damaged(&path, "the checksum of its content does not match"));
        }
        let form: SnapshotForm = codec::decode("description of a snapshot", &description)?;
        Ok((form.try_into()?, SnapshotFile { file, path, len, content: start..len - TAIL }))
    }
}

/// A snapshot that is being received. Dropped before it is finished, it removes its file.
pub(super) struct Incoming {
    store: SnapshotStore,
    path: PathBuf,
    file: Arc<dyn File>,
    at: u64,
    finished: bool,
}

impl Incoming {
    /// How much was received.
    pub(super) fn received(&self) -> u64 {
        self.at
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable and checks it.
    pub(super) fn finish(mut self) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        self.file.sync_data()?;
        let verified = self.store.verify(self.path.clone())?;
        self.finished = true;
        Ok(verified)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.finished {
            // The next start removes it otherwise.
            let _ = self.store.fs.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::fs::{Crash, MemoryFs};
    use openraft::vote::leader_id_adv::LeaderId;

    use super::*;
    use crate::raft::types::{LogId, ServerId};

    fn store(fs: &MemoryFs) -> SnapshotStore {
        fs.create_dir_all(Path::new("/s")).unwrap();
        SnapshotStore::open(Arc::new(fs.clone()), PathBuf::from("/s")).unwrap()
    }

    fn meta(index: u64) -> SnapshotMeta {
        let leader = LeaderId { term: 1, node_id: ServerId([1; 16]) };
        SnapshotMeta { last_log_id: Some(LogId::new(leader, index)), ..SnapshotMeta::default() }
    }

    fn build(store: &SnapshotStore, index: u64, content: &[u8]) -> io::Result<SnapshotFile> {
        store.build(&meta(index), |to| to.write_all(content))
    }

    fn content(snapshot: &SnapshotFile) -> Vec<u8> {
        let mut bytes = Vec::new();
        snapshot.reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_snapshot_survives_a_crash_and_replaces_the_one_before() {
        let fs = MemoryFs::new();
        build(&store(&fs), 5, b"five").unwrap();
        build(&store(&fs), 300, b"three hundred").unwrap();
        fs.crash(Crash::DropUnsynced);
        let (found, file) = store(&fs).latest().unwrap().unwrap();
        assert_eq!((found, content(&file)), (meta(300), b"three hundred".to_vec()));
        assert_eq!(fs.list(Path::new("/s")).unwrap().len(), 1);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let fs = MemoryFs::new();
        let built = build(&store(&fs), 5, b"some content").unwrap();
        for at in 0..built.len() {
            let fs = fs.copy();
            fs.flip(&built.path, at, 0x20);
            assert!(store(&fs).latest().is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_failed_or_unfinished_one_leaves_the_old_one() {
        let fs = MemoryFs::new();
        let old = build(&store(&fs), 5, b"old").unwrap();
        fs.set_capacity(Some(old.len() + 20));
        assert!(build(&store(&fs), 9, b"new").is_err());
        fs.set_capacity(None);
        let mut incoming = store(&fs).incoming(1).unwrap();
        incoming.push(b"part").unwrap();
        fs.crash(Crash::KeepUnsynced);
        assert_eq!(store(&fs).latest().unwrap().unwrap().0, meta(5));
        assert_eq!(fs.list(Path::new("/s")).unwrap().len(), 1);
    }

    #[test]
    fn one_received_in_pieces_is_the_one_that_was_sent() {
        let (from, to) = (MemoryFs::new(), MemoryFs::new());
        let content_sent: Vec<u8> = (0..CHUNK_BYTES * 2 + 17).map(|at| at as u8).collect();
        let sent = build(&store(&from), 7, &content_sent).unwrap();
        let target = store(&to);
        let mut incoming = target.incoming(1).unwrap();
        while incoming.received() < sent.len() {
            incoming.push(&sent.chunk(incoming.received()).unwrap()).unwrap();
        }
        let (found, file) = incoming.finish().unwrap();
        target.install(&found, &file).unwrap();
        to.crash(Crash::DropUnsynced);
        let (found, file) = store(&to).latest().unwrap().unwrap();
        assert_eq!(found, meta(7));
        assert!(content(&file) == content_sent);
    }
}
