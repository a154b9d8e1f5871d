//! The data directory of a server: its lock, its identity, and where the log and the snapshots are.
//!
//! Invariants
//! - One process uses the directory at a time.
//! - The identity is made once, with the directory, and never changes. An emptied directory is a new server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_runtime::Rng;
use lictor_runtime::fs::{Fs, Open, read_all};
use parking_lot::Mutex;
use thiserror::Error;

use super::types::ServerId;

const LOCK: &str = "server.lock";
const META: &str = "server.meta";
const META_NEW: &str = "server.meta.new";
const FIRST_LINE: &str = "lictor-server 1";

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirectoryError {
    /// The operating system refused something.
    #[error(
        "cannot {what} {path}: {source}; data_dir must be a directory, with room, that this process may write",
        path = .path.display()
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the data directory {path} is used by another process: give each server one of its own",
        path = .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is another server's than the one that was asked for.
    #[error(
        "node_id says {wanted}, but the data directory {path} belongs to the server {held}: leave node_id out to go on as \
         that one, or start the other with an empty directory of its own",
        path = .path.display()
    )]
    AnotherServer {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        held: ServerId,
        /// What the configuration says.
        wanted: ServerId,
    },
    /// The identity cannot be read.
    #[error(
        "{path} is damaged: {why}. Remove this server from the cluster, empty its data directory and let it join again",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A data directory that this process holds.
pub struct DataDirectory {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    server_id: ServerId,
    cluster_id: Mutex<Option<String>>,
    _lock: Box<dyn Send + Sync>,
}

impl DataDirectory {
    /// Takes the directory `path`, and makes it and an identity when there is none.
    ///
    /// # Errors
    /// Another process holds it, it cannot be read or written, or the identity in it is damaged.
    pub fn open(fs: Arc<dyn Fs>, path: &Path, rng: &dyn Rng) -> Result<Self, DataDirectoryError> {
        Self::open_as(fs, path, None, rng)
    }

    /// The same for a server whose id is given: a new directory gets it, an old one must have it.
    ///
    /// # Errors
    /// As [`DataDirectory::open`], and when the directory is another server's.
    pub fn open_as(
        fs: Arc<dyn Fs>,
        path: &Path,
        wanted: Option<ServerId>,
        rng: &dyn Rng,
    ) -> Result<Self, DataDirectoryError> {
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| DataDirectoryError::Io { what, path, source }
        };
        fs.create_dir_all(path).map_err(failed("create", path))?;
        let lock = fs.lock(&path.join(LOCK)).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DataDirectoryError::InUse { path: path.to_path_buf() },
            _ => DataDirectoryError::Io { what: "lock", path: path.join(LOCK), source },
        })?;
        for name in ["log", "snapshots"] {
            fs.create_dir_all(&path.join(name)).map_err(failed("create", &path.join(name)))?;
        }
        let meta = path.join(META);
        let found = match fs.open(&meta, Open::Existing).and_then(|file| read_all(&*file)) {
            Ok(bytes) => Some(parse(&bytes).map_err(|why| DataDirectoryError::Damaged { path: meta.clone(), why })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(DataDirectoryError::Io { what: "read", path: meta, source }),
        };
        let (server_id, cluster_id) = match &found {
            Some((held, cluster_id)) => match wanted.filter(|wanted| wanted != held) {
                Some(wanted) => {
                    return Err(DataDirectoryError::AnotherServer { path: path.to_path_buf(), held: *held, wanted });
                }
                None => (*held, cluster_id.clone()),
            },
            None => {
                let log = path.join("log");
                if !fs.list(&log).map_err(failed("list", &log))?.is_empty() {
                    let why = "it is missing, but there is a log".to_owned();
                    return Err(DataDirectoryError::Damaged { path: meta, why });
                }
                let mut bytes = [0; 16];
                rng.fill(&mut bytes);
                bytes[6] = (bytes[6] & 0x0f) | 0x40;
                bytes[8] = (bytes[8] & 0x3f) | 0x80;
                (wanted.unwrap_or(ServerId(bytes)), None)
            }
        };
        let directory =
            Self { fs, path: path.to_path_buf(), server_id, cluster_id: Mutex::new(cluster_id), _lock: lock };
        if found.is_none() {
            directory.save(None)?;
        }
        Ok(directory)
    }

    fn save(&self, cluster_id: Option<&str>) -> Result<(), DataDirectoryError> {
        let new = self.path.join(META_NEW);
        let written = || {
            let bytes = render(self.server_id, cluster_id);
            let file = self.fs.open(&new, Open::Empty)?;
            file.write_all_at(bytes.as_bytes(), 0)?;
            file.sync_data()?;
            self.fs.rename(&new, &self.path.join(META))?;
            self.fs.sync_dir(&self.path)
        };
        written().map_err(|source| DataDirectoryError::Io { what: "write", path: new.clone(), source })
    }

    /// The identity of the server.
    pub fn server_id(&self) -> ServerId {
        self.server_id
    }

    /// The cluster that the server belongs to, once it is known.
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster_id.lock().clone()
    }

    /// Notes the cluster that the server belongs to, durably. Connections of servers of another cluster are refused
    /// from then on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_cluster_id(&self, cluster_id: &str) -> Result<(), DataDirectoryError> {
        let mut known = self.cluster_id.lock();
        if known.as_deref() != Some(cluster_id) {
            self.save(Some(cluster_id))?;
            *known = Some(cluster_id.to_owned());
        }
        Ok(())
    }

    pub(crate) fn fs(&self) -> Arc<dyn Fs> {
        self.fs.clone()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

fn render(server_id: ServerId, cluster_id: Option<&str>) -> String {
    let body = format!("{FIRST_LINE}\nid {server_id}\ncluster {}\n", cluster_id.unwrap_or("-"));
    format!("{body}checksum {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn parse(bytes: &[u8]) -> Result<(ServerId, Option<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(format!("it does not begin with {FIRST_LINE:?}"));
    }
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_default();
        line.strip_prefix(name)
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| format!("the line {name:?} is missing"))
    };
    let id: ServerId = field("id ")?.parse().map_err(|error| format!("{error}"))?;
    let cluster = Some(field("cluster ")?).filter(|cluster| cluster != "-");
    field("checksum ")?;
    if render(id, cluster.as_deref()).as_bytes() != bytes {
        return Err("its checksum does not match".to_owned());
    }
    Ok((id, cluster))
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;
    use lictor_runtime::fs::{Crash, MemoryFs};

    use super::*;

    fn open(fs: &MemoryFs, seed: u64) -> Result<DataDirectory, DataDirectoryError> {
        DataDirectory::open(Arc::new(fs.clone()), Path::new("/data"), &SeededRng::new(seed))
    }

    #[test]
    fn the_identity_is_made_once_and_survives_a_crash() {
        let fs = MemoryFs::new();
        let directory = open(&fs, 1).unwrap();
        let id = directory.server_id();
        directory.set_cluster_id("c1").unwrap();
        fs.crash(Crash::DropUnsynced);
        drop(directory);
        let directory = open(&fs, 2).unwrap();
        assert_eq!((directory.server_id(), directory.cluster_id()), (id, Some("c1".to_owned())));
    }

    #[test]
    fn a_given_identity_is_kept_and_another_one_is_refused() {
        let fs = MemoryFs::new();
        let as_server =
            |wanted| DataDirectory::open_as(Arc::new(fs.clone()), Path::new("/data"), wanted, &SeededRng::new(1));
        let (id, other) = (ServerId([7; 16]), ServerId([8; 16]));
        assert_eq!(as_server(Some(id)).unwrap().server_id(), id);
        assert_eq!(as_server(None).unwrap().server_id(), id);
        let error = as_server(Some(other)).err().unwrap().to_string();
        assert!(error.contains(&format!("belongs to the server {id}")), "{error}");
    }

    #[test]
    fn one_process_holds_it_at_a_time() {
        let fs = MemoryFs::new();
        let held = open(&fs, 1).unwrap();
        assert!(matches!(open(&fs, 2), Err(DataDirectoryError::InUse { .. })));
        drop(held);
        open(&fs, 3).unwrap();
    }

    #[test]
    fn every_flipped_byte_of_the_identity_is_found() {
        let fs = MemoryFs::new();
        drop(open(&fs, 1).unwrap());
        let path = Path::new("/data").join(META);
        let len = fs.open(&path, Open::Existing).unwrap().len().unwrap();
        for at in 0..len {
            let fs = fs.copy();
            fs.flip(&path, at, 0x01);
            assert!(matches!(open(&fs, 2), Err(DataDirectoryError::Damaged { .. })), "byte {at}");
        }
    }
}
