//! What an agent keeps of its services and checks over a restart: those that were registered through the API.
//!
//! One file per service and per check, named by the hash of its id, so that no id can name a path. A file is written
//! beside its place and renamed into it: after a crash there is the old one or the new one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use lictor_runtime::fs::{self, Fs, Open};
use lictor_types::CheckStatus;
use serde::{Deserialize, Serialize};

use super::definition::{CheckDefinition, ServiceDefinition};

/// The largest file that is read back.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

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
    pub(super) status: CheckStatus,
    pub(super) output: String,
}

/// A status with the check it is of.
#[derive(Serialize, Deserialize)]
struct StatusFile {
    check: String,
    #[serde(flatten)]
    kept: KeptStatus,
}

/// The files of one agent.
#[derive(Clone)]
pub(super) struct Store {
    fs: Arc<dyn Fs>,
    services: PathBuf,
    checks: PathBuf,
    statuses: PathBuf,
    tokens: PathBuf,
}

impl Store {
    pub(super) fn open(fs: Arc<dyn Fs>, directory: &Path) -> io::Result<Self> {
        let [services, checks, statuses] = ["services", "checks", "check-statuses"].map(|name| directory.join(name));
        for directory in [&services, &checks, &statuses] {
            fs.create_dir_all(directory)?;
        }
        Ok(Self { fs, services, checks, statuses, tokens: directory.join(TOKENS) })
    }

    pub(super) fn keep_service(&self, id: &str, service: &KeptService) -> io::Result<()> {
        self.keep(&self.services, id, service)
    }

    pub(super) fn keep_check(&self, id: &str, check: &KeptCheck) -> io::Result<()> {
        self.keep(&self.checks, id, check)
    }

    /// Writes the agent's own tokens down, by kind.
    pub(super) fn keep_tokens(&self, tokens: &BTreeMap<String, String>) -> io::Result<()> {
        let bytes = serde_json::to_vec(tokens).map_err(io::Error::other)?;
        write_whole(&*self.fs, &self.tokens, &bytes)
    }

    /// The agent's own tokens that were kept, by kind.
    pub(super) fn load_tokens(&self) -> io::Result<BTreeMap<String, String>> {
        match self.load_one(&self.tokens) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            loaded => loaded,
        }
    }

    pub(super) fn keep_status(&self, id: &str, kept: &KeptStatus) -> io::Result<()> {
        self.keep(&self.statuses, id, &StatusFile { check: id.to_owned(), kept: kept.clone() })
    }

    pub(super) fn forget_status(&self, id: &str) -> io::Result<()> {
        self.forget(&self.statuses, id)
    }

    /// The statuses that were kept, by check.
    pub(super) fn load_statuses(&self) -> io::Result<Vec<(String, KeptStatus)>> {
        let files = self.load_all::<StatusFile>(&self.statuses)?;
        Ok(files.into_iter().map(|file| (file.check, file.kept)).collect())
    }

    pub(super) fn forget_service(&self, id: &str) -> io::Result<()> {
        self.forget(&self.services, id)
    }

    pub(super) fn forget_check(&self, id: &str) -> io::Result<()> {
        self.forget(&self.checks, id)
    }

    /// Everything that was kept. A file that cannot be read is named in the log and passed over: one bad file must not
    /// take all services down.
    pub(super) fn load(&self) -> io::Result<(Vec<KeptService>, Vec<KeptCheck>)> {
        Ok((self.load_all(&self.services)?, self.load_all(&self.checks)?))
    }

    fn keep<T: Serialize>(&self, directory: &Path, id: &str, row: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(row).map_err(io::Error::other)?;
        write_whole(&*self.fs, &directory.join(file_name(id)), &bytes)
    }

    fn forget(&self, directory: &Path, id: &str) -> io::Result<()> {
        match self.fs.remove(&directory.join(file_name(id))) {
            Ok(()) => self.fs.sync_dir(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn load_all<T: for<'de> Deserialize<'de>>(&self, directory: &Path) -> io::Result<Vec<T>> {
        let mut rows = Vec::new();
        for name in self.fs.list(directory)?.iter().filter(|name| !name.ends_with(NEW)) {
            let path = directory.join(name);
            match self.load_one(&path) {
                Ok(row) => rows.push(row),
                Err(error) => tracing::error!(path = %path.display(), %error, "a kept definition cannot be read"),
            }
        }
        Ok(rows)
    }

    fn load_one<T: for<'de> Deserialize<'de>>(&self, path: &Path) -> io::Result<T> {
        let file = self.fs.open(path, Open::Existing)?;
        let length = file.len()?;
        if length > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read")));
        }
        serde_json::from_slice(&fs::read_all(&*file)?).map_err(io::Error::other)
    }
}

/// The file with the agent's own tokens.
const TOKENS: &str = "acl-tokens.json";
/// The end of the name of a file that is not in its place yet.
const NEW: &str = ".new";

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

fn file_name(id: &str) -> String {
    digest(&SHA256, id.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use lictor_runtime::fs::{Crash, MemoryFs};

    use super::*;

    fn check(output: &str) -> KeptCheck {
        KeptCheck {
            definition: CheckDefinition { name: "a".into(), ..CheckDefinition::default() },
            status: CheckStatus::Passing,
            output: output.into(),
        }
    }

    #[test]
    fn what_was_kept_survives_a_crash_and_a_bad_file_does_not_hide_the_rest() {
        let fs = MemoryFs::new();
        let store = Store::open(Arc::new(fs.clone()), Path::new("/data")).unwrap();
        store.keep_check("../../etc/passwd", &check("one")).unwrap();
        store.keep_check("../../etc/passwd", &check("two")).unwrap();
        let bad = fs.open(Path::new("/data/checks/bad"), Open::OrCreate).unwrap();
        bad.write_all_at(b"{", 0).unwrap();
        fs.crash(Crash::KeepUnsynced);
        let (services, checks) = store.load().unwrap();
        assert!(services.is_empty());
        assert_eq!(checks.iter().map(|check| check.output.as_str()).collect::<Vec<_>>(), ["two"]);
        store.forget_check("../../etc/passwd").unwrap();
        assert!(store.load().unwrap().1.is_empty());
    }
}
