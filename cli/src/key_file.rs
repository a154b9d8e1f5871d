//! Writing keys: never over another file, readable by their owner only.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::output::Failure;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Everybody: it is a certificate.
    Public,
    /// Its owner: it is a key.
    Secret,
}

/// Writes new files, all of them or none.
///
/// # Errors
/// One of them exists, or cannot be written.
pub(crate) fn create_all(files: &[(&Path, &str, Secrecy)]) -> Result<(), Failure> {
    for (position, (path, text, secrecy)) in files.iter().enumerate() {
        if let Err(error) = create(path, text, *secrecy) {
            for (made, ..) in &files[..position] {
                // Ours from a moment ago; if it cannot be removed, the error below is still the one to read.
                let _ = std::fs::remove_file(made);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(format!("{} already exists.", path.display())),
                _ => Failure::new(format!("cannot write {}: {error}", path.display())),
            });
        }
    }
    Ok(())
}

fn create(path: &Path, text: &str, secrecy: Secrecy) -> io::Result<()> {
    let mode = if secrecy == Secrecy::Secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_only_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("key"), directory.path().join("certificate"));
        std::fs::write(&certificate, "before").unwrap();
        let files = [(key.as_path(), "k", Secrecy::Secret), (certificate.as_path(), "c", Secrecy::Public)];
        let error = create_all(&files).unwrap_err().to_string();
        assert!(error.ends_with("certificate already exists."), "{error}");
        assert!(!key.exists(), "the key of a pair that was not written stayed");
        assert_eq!(std::fs::read_to_string(&certificate).unwrap(), "before");
        std::fs::remove_file(&certificate).unwrap();
        create_all(&files).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
