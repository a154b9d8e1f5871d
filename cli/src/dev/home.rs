//! The data directory: a given one is kept for the next time, a temporary one goes with the process.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lictor_runtime::Rng;
use zeroize::Zeroizing;

use crate::key_file::{Secrecy, create_all};
use crate::output::{Failure, Output};

/// The management token; the bare text, as CONSUL_HTTP_TOKEN_FILE takes it.
const TOKEN_FILE: &str = "management-token";
/// The offset of the ports, by which the servers in the directory know each other.
const OFFSET_FILE: &str = "port-offset";

/// The data directory.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    temporary: bool,
    token: Zeroizing<String>,
}

impl Home {
    /// Makes the directory, or opens one of an earlier time, which must have been of the same ports.
    ///
    /// # Errors
    /// It cannot be used, or is of other ports.
    pub(super) fn open(given: Option<PathBuf>, port_offset: u16, rng: &dyn Rng) -> Result<Self, Failure> {
        let temporary = given.is_none();
        let path = match given {
            Some(path) => std::path::absolute(&path).map_err(cannot_use(&path))?,
            None => std::env::temp_dir().join(format!("lictor-dev-{}", rng.uuid())),
        };
        // A name that nobody could guess needs no look at what is there already; and it must be ours alone.
        let made = DirBuilder::new().recursive(!temporary).mode(0o700).create(&path);
        made.map_err(cannot_use(&path))?;
        let home = Self { token: Zeroizing::default(), path, temporary };
        match home.fill(port_offset, rng) {
            Ok(token) => Ok(Self { token, ..home }),
            Err(failure) => {
                // The failure is what matters; a temporary directory that stays behind as well is nothing beside it.
                let _ = home.leave();
                Err(failure)
            }
        }
    }

    fn fill(&self, port_offset: u16, rng: &dyn Rng) -> Result<Zeroizing<String>, Failure> {
        let offset_file = self.path.join(OFFSET_FILE);
        match read(&offset_file)? {
            Some(before) if *before != port_offset.to_string() => {
                return Err(Failure::new(format!(
                    "{} was made with -port-offset {}, and its servers know each other by these ports: give that again, \
                     or another -data-dir",
                    self.path.display(),
                    *before
                )));
            }
            Some(_) => {}
            None => create_all(&[(&offset_file, &port_offset.to_string(), Secrecy::Public)])?,
        }
        self.kept_uuid(TOKEN_FILE, rng)
    }

    /// The UUID in a file of this name; made when it is asked for the first time.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn kept_uuid(&self, name: &str, rng: &dyn Rng) -> Result<Zeroizing<String>, Failure> {
        let file = self.path.join(name);
        if let Some(kept) = read(&file)? {
            return Ok(kept);
        }
        let made = Zeroizing::new(rng.uuid());
        create_all(&[(&file, &made, Secrecy::Secret)])?;
        Ok(made)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes with the process.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The management token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Where the agents keep the certificates that they share.
    pub(super) fn certificates(&self) -> PathBuf {
        self.path.join("certificates")
    }

    /// Where the agent of this name keeps its data.
    pub(super) fn of_agent(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes the directory if it is a temporary one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn leave(self) -> Result<Output, Failure> {
        if self.temporary {
            let failed = |error| Failure::new(format!("cannot remove {}: {error}", self.path.display()));
            fs::remove_dir_all(&self.path).map_err(failed)?;
        }
        Ok(Output::default())
    }
}

fn cannot_use(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    Failure::because(format!("cannot use the data directory {}", path.display()))
}

/// The content of one of our files, without white space around it; none where there is no file.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(Failure::new(format!("{} is empty: remove the directory it is in, or give another", path.display())))
        }
        Ok(text) => Ok(Some(Zeroizing::new(Zeroizing::new(text).trim().to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use lictor_runtime::SystemRng;

    use super::*;

    #[test]
    fn a_temporary_directory_is_closed_to_others_and_goes_at_the_end() {
        let home = Home::open(None, 0, &SystemRng).unwrap();
        let path = home.path().to_owned();
        assert!(home.is_temporary() && home.token().len() == 36);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(home.path().join(TOKEN_FILE)).unwrap().mode() & 0o777, 0o600);
        home.leave().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_given_directory_keeps_its_token_and_asks_for_its_ports() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/dev");
        let token = {
            let home = Home::open(Some(path.clone()), 7, &SystemRng).unwrap();
            let token = home.token().to_owned();
            home.leave().unwrap();
            token
        };
        assert_eq!(Home::open(Some(path.clone()), 7, &SystemRng).unwrap().token(), token);
        let error = Home::open(Some(path.clone()), 8, &SystemRng).unwrap_err().to_string();
        assert!(error.contains("-port-offset 7"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Home::open(Some(file.path().to_owned()), 0, &SystemRng).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
