//! A file system in memory that knows what a crash may take: it keeps what programs see apart from what is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{File, Fs, Open};
use crate::Rng;

/// A write reaches the disk in pieces of this size, in any order, unless it was synced.
const SECTOR: usize = 512;

/// What a crash leaves of that which was not synced.
#[derive(Clone, Copy)]
pub enum Crash<'a> {
    /// Nothing.
    DropUnsynced,
    /// All of it: the process died, the machine did not.
    KeepUnsynced,
    /// The first so many bytes, in the order in which they were written over all files; names are kept.
    KeepPrefix(u64),
    /// Any subset of sectors, and any prefix of the changes of names.
    Random(&'a dyn Rng),
}

/// An error that a [`MemoryFs`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No room.
    StorageFull,
    /// The device failed.
    Device,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::StorageFull => io::Error::new(io::ErrorKind::StorageFull, "no space left on device (injected)"),
            Self::Device => io::Error::other("input/output error (injected)"),
        }
    }
}

/// One change that was asked of a [`MemoryFs`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file was opened in a way that made or emptied it.
    Create(PathBuf),
    /// So many bytes were written at an offset.
    Write(PathBuf, u64, usize),
    /// Room was reserved, or the length set.
    Resize(PathBuf, u64),
    /// A file was synced.
    Sync(PathBuf),
    /// A file was renamed.
    Rename(PathBuf, PathBuf),
    /// A file was removed.
    Remove(PathBuf),
    /// A directory was synced.
    SyncDir(PathBuf),
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Resize(u64),
}

#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Not yet durable, with the moment of each, for [`Crash::KeepPrefix`].
    pending: Vec<(u64, Change)>,
}

#[derive(Clone)]
enum NameChange {
    Put(PathBuf, u64),
    Delete(PathBuf),
}

impl NameChange {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Put(path, _) | Self::Delete(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Put(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Delete(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    seen: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    next_inode: u64,
    moment: u64,
    steps: Vec<Step>,
    fault: Option<(u64, Fault)>,
    capacity: Option<u64>,
    generation: u64,
    locks: BTreeSet<PathBuf>,
}

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryFs(Arc<Mutex<Disk>>);

impl MemoryFs {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An independent copy of the disk as it is now.
    pub fn copy(&self) -> Self {
        let mut disk = self.0.lock().clone();
        disk.locks.clear();
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Loses what a crash loses. Files opened before are dead: each use of them is an error.
    pub fn crash(&self, crash: Crash<'_>) {
        let mut disk = self.0.lock();
        let disk = &mut *disk;
        let kept_names = match crash {
            Crash::DropUnsynced => 0,
            Crash::KeepUnsynced | Crash::KeepPrefix(_) => disk.pending_names.len(),
            Crash::Random(rng) => rng.below(disk.pending_names.len() as u64 + 1) as usize,
        };
        for change in disk.pending_names.drain(..).take(kept_names) {
            change.apply(&mut disk.durable);
        }
        disk.seen = disk.durable.clone();
        let mut order: Vec<(u64, u64)> =
            disk.inodes.iter().flat_map(|(id, inode)| inode.pending.iter().map(|(moment, _)| (*moment, *id))).collect();
        order.sort_unstable();
        let mut left = match crash {
            Crash::KeepPrefix(bytes) => bytes,
            _ => u64::MAX,
        };
        for (moment, id) in order {
            let Some(inode) = disk.inodes.get_mut(&id) else { continue };
            let Some(at) = inode.pending.iter().position(|(at, _)| *at == moment) else { continue };
            let (_, change) = inode.pending.remove(at);
            keep_part(&mut inode.durable, &change, crash, &mut left);
        }
        for inode in disk.inodes.values_mut() {
            inode.pending.clear();
            inode.seen = inode.durable.clone();
        }
        disk.generation += 1;
        disk.fault = None;
        disk.locks.clear();
    }

    /// How many bytes were written and not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        let disk = self.0.lock();
        disk.inodes
            .values()
            .flat_map(|inode| &inode.pending)
            .map(|(_, change)| match change {
                Change::Write(_, bytes) => bytes.len() as u64,
                Change::Resize(_) => 0,
            })
            .sum()
    }

    /// Every change asked for so far.
    pub fn steps(&self) -> Vec<Step> {
        self.0.lock().steps.clone()
    }

    /// Makes the change number `step` (counted from now, from 0) fail, and every one after it.
    pub fn fail_from(&self, step: u64, fault: Fault) {
        let mut disk = self.0.lock();
        let at = disk.steps.len() as u64 + step;
        disk.fault = Some((at, fault));
    }

    /// Makes the disk well again.
    pub fn heal(&self) {
        self.0.lock().fault = None;
    }

    /// Limits the sum of the lengths of all files.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Changes one byte of a file, in what is seen and in what is durable: a fault of the medium.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let mut disk = self.0.lock();
        let Some(id) = disk.seen.get(path).copied() else { return };
        let Some(inode) = disk.inodes.get_mut(&id) else { return };
        for bytes in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= mask;
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

fn keep_part(durable: &mut Vec<u8>, change: &Change, crash: Crash<'_>, left: &mut u64) {
    match (crash, change) {
        (Crash::DropUnsynced, _) => {}
        (Crash::KeepUnsynced | Crash::KeepPrefix(_), Change::Resize(len)) => durable.resize(*len as usize, 0),
        (Crash::KeepUnsynced, Change::Write(offset, bytes)) => put(durable, *offset, bytes),
        (Crash::KeepPrefix(_), Change::Write(offset, bytes)) => {
            let kept = (*left).min(bytes.len() as u64);
            *left -= kept;
            put(durable, *offset, &bytes[..kept as usize]);
        }
        (Crash::Random(rng), Change::Resize(len)) => {
            if rng.below(2) == 0 {
                durable.resize(*len as usize, 0);
            }
        }
        (Crash::Random(rng), Change::Write(offset, bytes)) => {
            let mut start = 0;
            while start < bytes.len() {
                // Pieces end where sectors of the disk end, whatever the offset of the write.
                let into = (*offset as usize + start) % SECTOR;
                let end = (start + SECTOR - into).min(bytes.len());
                if rng.below(2) == 0 {
                    put(durable, *offset + start as u64, &bytes[start..end]);
                }
                start = end;
            }
        }
    }
}

impl Disk {
    /// Records a change, or refuses it as a test asked.
    fn step(&mut self, step: Step) -> io::Result<()> {
        let number = self.steps.len() as u64;
        self.steps.push(step);
        match self.fault {
            Some((from, fault)) if number >= from => Err(fault.error()),
            _ => Ok(()),
        }
    }

    fn has_room(&self, id: u64, len: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let named: BTreeSet<u64> = self.seen.values().copied().collect();
        let others: u64 = named
            .iter()
            .filter(|other| **other != id)
            .filter_map(|other| self.inodes.get(other))
            .map(|inode| inode.seen.len() as u64)
            .sum();
        let own = self.inodes.get(&id).map_or(0, |inode| inode.seen.len() as u64);
        if len > own && others + len > capacity { Err(Fault::StorageFull.error()) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.pending_names.push(change);
    }

    fn change(&mut self, id: u64, change: Change) {
        let moment = self.moment;
        self.moment += 1;
        let Some(inode) = self.inodes.get_mut(&id) else { return };
        match &change {
            Change::Write(offset, bytes) => put(&mut inode.seen, *offset, bytes),
            Change::Resize(len) => inode.seen.resize(*len as usize, 0),
        }
        inode.pending.push((moment, change));
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl Fs for MemoryFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        for directory in path.ancestors() {
            disk.directories.insert(directory.to_path_buf());
        }
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut disk = self.0.lock();
        let found = disk.seen.get(path).copied();
        let id = match (found, how) {
            (Some(id), Open::Existing | Open::OrCreate) => id,
            (Some(id), Open::Empty) => {
                disk.step(Step::Create(path.to_path_buf()))?;
                disk.change(id, Change::Resize(0));
                id
            }
            (None, Open::Existing) => return Err(not_found(path)),
            (None, Open::OrCreate | Open::Empty) => {
                if path.parent().is_some_and(|parent| !disk.directories.contains(parent)) {
                    return Err(not_found(path));
                }
                disk.step(Step::Create(path.to_path_buf()))?;
                let id = disk.next_inode;
                disk.next_inode += 1;
                disk.inodes.insert(id, Inode::default());
                disk.change_name(NameChange::Put(path.to_path_buf(), id));
                id
            }
        };
        let file = MemoryFile { disk: self.0.clone(), id, path: path.to_path_buf(), generation: disk.generation };
        Ok(Arc::new(file))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        if !disk.directories.contains(path) {
            return Err(not_found(path));
        }
        let names = disk.seen.keys().filter(|name| name.parent() == Some(path));
        Ok(names.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let id = disk.seen.get(from).copied().ok_or_else(|| not_found(from))?;
        disk.step(Step::Rename(from.to_path_buf(), to.to_path_buf()))?;
        // One change of the journal each: a crash between them leaves both names, as some file systems do.
        disk.change_name(NameChange::Put(to.to_path_buf(), id));
        disk.change_name(NameChange::Delete(from.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if !disk.seen.contains_key(path) {
            return Err(not_found(path));
        }
        disk.step(Step::Remove(path.to_path_buf()))?;
        disk.change_name(NameChange::Delete(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step(Step::SyncDir(path.to_path_buf()))?;
        let changes = std::mem::take(&mut disk.pending_names);
        for change in changes {
            if change.directory() == Some(path) {
                change.apply(&mut disk.durable);
            } else {
                disk.pending_names.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = self.0.lock();
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is held", path.display())));
        }
        let generation = disk.generation;
        Ok(Box::new(MemoryLock { disk: self.0.clone(), path: path.to_path_buf(), generation }))
    }
}

struct MemoryLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    generation: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        // A crash freed it already, and the lock may be another's now.
        if disk.generation == self.generation {
            disk.locks.remove(&self.path);
        }
    }
}

struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
    path: PathBuf,
    generation: u64,
}

impl MemoryFile {
    fn alive(&self, disk: &Disk) -> io::Result<()> {
        if disk.generation == self.generation {
            Ok(())
        } else {
            Err(io::Error::other("the file was opened before the crash"))
        }
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.lock();
        self.alive(&disk)?;
        let content = disk.inodes.get(&self.id).map_or(&[][..], |inode| &inode.seen);
        let start = content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let read = buffer.len().min(content.len() - start);
        buffer[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.alive(&disk)?;
        disk.step(Step::Write(self.path.clone(), offset, bytes.len()))?;
        disk.has_room(self.id, offset + bytes.len() as u64)?;
        disk.change(self.id, Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.alive(&disk)?;
        disk.step(Step::Sync(self.path.clone()))?;
        if let Some(inode) = disk.inodes.get_mut(&self.id) {
            let changes = std::mem::take(&mut inode.pending);
            for (_, change) in changes {
                match change {
                    Change::Write(offset, bytes) => put(&mut inode.durable, offset, &bytes),
                    Change::Resize(len) => inode.durable.resize(len as usize, 0),
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        self.alive(&disk)?;
        Ok(disk.inodes.get(&self.id).map_or(0, |inode| inode.seen.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.alive(&disk)?;
        disk.step(Step::Resize(self.path.clone(), len))?;
        disk.has_room(self.id, len)?;
        disk.change(self.id, Change::Resize(len));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::read_all;

    fn disk() -> (MemoryFs, PathBuf) {
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new("/d")).unwrap();
        (fs, PathBuf::from("/d/a"))
    }

    fn content(fs: &MemoryFs, path: &Path) -> Vec<u8> {
        read_all(&*fs.open(path, Open::Existing).unwrap()).unwrap()
    }

    #[test]
    fn a_crash_takes_what_was_not_synced() {
        let (fs, path) = disk();
        let file = fs.open(&path, Open::OrCreate).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(b"lost", 4).unwrap();
        assert_eq!(content(&fs, &path), b"keptlost");
        fs.crash(Crash::DropUnsynced);
        assert_eq!(content(&fs, &path), b"kept");
        assert!(file.len().is_err(), "a file of before the crash must be dead");
    }

    #[test]
    fn a_name_that_was_not_synced_is_lost() {
        let (fs, path) = disk();
        fs.open(&path, Open::OrCreate).unwrap().sync_data().unwrap();
        fs.crash(Crash::DropUnsynced);
        assert!(fs.list(Path::new("/d")).unwrap().is_empty());
    }

    #[test]
    fn a_prefix_of_the_unsynced_bytes_can_be_kept() {
        let (fs, path) = disk();
        let file = fs.open(&path, Open::OrCreate).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        file.write_all_at(b"def", 3).unwrap();
        fs.crash(Crash::KeepPrefix(4));
        assert_eq!(content(&fs, &path), b"abcd");
    }

    #[test]
    fn faults_and_capacity_are_errors_of_the_right_kind() {
        let (fs, path) = disk();
        let file = fs.open(&path, Open::OrCreate).unwrap();
        fs.set_capacity(Some(10));
        assert_eq!(file.allocate(11).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.allocate(10).unwrap();
        fs.fail_from(1, Fault::Device);
        file.write_all_at(b"x", 0).unwrap();
        assert!(file.sync_data().is_err());
        fs.heal();
        file.sync_data().unwrap();
    }
}
