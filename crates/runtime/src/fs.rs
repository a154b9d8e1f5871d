//! Files: the little that a write-ahead log and snapshots need, behind a trait, so that a test can crash the disk.
//!
//! Invariants
//! - Nothing written is promised to survive before [`File::sync_data`] returned; no name (created, renamed, removed)
//!   before [`Fs::sync_dir`] of its directory returned.
//! - A failed [`File::sync_data`] may have thrown the written pages away: it must never be tried again on the same
//!   data.
//! - Directories are made with mode 0700 and files with mode 0600: what is kept here is nobody else's.

mod memory;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

pub use memory::{Crash, Fault, MemoryFs, Step};

/// How [`Fs::open`] opens a file. Every file is opened for reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist.
    Existing,
    /// The file is made when it does not exist.
    OrCreate,
    /// The file is made, or emptied when it exists.
    Empty,
}

/// A file system.
pub trait Fs: Send + Sync + 'static {
    /// Makes `path` and every directory above it.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Opens the file at `path` for reading and writing.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;

    /// The names in the directory `path`, sorted.
    ///
    /// # Errors
    /// As the operating system reports them; a name that is not UTF-8 is an error.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Renames `from` to `to`, replacing it, atomically.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file at `path`.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the directory `path` durable.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock file at `path` for as long as the returned value lives.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. All positions are explicit: a file has no cursor.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the operating system reports them; part of `bytes` may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves room for the first `len` bytes; the file is at least that long afterwards and new bytes read as zero.
    ///
    /// # Errors
    /// `StorageFull` when there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As the operating system reports them. After an error nothing is known about what was written.
    fn sync_data(&self) -> io::Result<()>;

    /// The length of the file.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to `len`, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// `UnexpectedEof` when the file ends before the buffer is full.
pub fn read_exact_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside the range read")),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The whole content of `file`.
///
/// # Errors
/// As the operating system reports them.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::other("the file is larger than memory"))?;
    let mut bytes = vec![0; len];
    read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(how != Open::Existing)
            .truncate(how == Open::Empty)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the file name {} is not UTF-8", name.display()))
            })?;
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is held by another process", path.display())))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve: there the length is all that can be had.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.len()? < len {
                    self.0.set_len(len)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
