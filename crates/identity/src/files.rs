//! Reading certificates, keys and roots from files, with errors that name the file and what is wrong with it.
//!
//! These read synchronously: they run at start and on reload, on files of a few kilobytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::credentials::Credential;
use crate::material::{KeyedChain, MaterialError, Roots};
use crate::pki::MAX_PEM_BYTES;
use crate::seal::{SealError, SealKey};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is missing or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too long, or no text.
    #[error("{} is not a PEM file: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// What is in it does not do.
    #[error("{}: {source}", path.display())]
    Material {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: MaterialError,
    },
    /// It is no seal key.
    #[error("{}: {source}", path.display())]
    SealKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: SealError,
    },
}

/// Reads a certificate chain and its key, valid at `now`.
///
/// # Errors
/// Names the file that is missing, unreadable, empty of what is needed, mismatched or expired.
pub fn read_keyed_chain(certificate: &Path, key: &Path, now: SystemTime) -> Result<KeyedChain, FileError> {
    let chain_pem = read_text(certificate)?;
    let key_pem = read_text(key)?;
    let chain = KeyedChain::from_pem(&chain_pem, &key_pem).map_err(|source| {
        let of_the_key =
            matches!(source, MaterialError::NoKey | MaterialError::UnreadableKey(_) | MaterialError::KeyMismatch);
        FileError::Material { path: if of_the_key { key } else { certificate }.to_owned(), source }
    })?;
    chain.check_validity(now).map_err(|source| FileError::Material { path: certificate.to_owned(), source })?;
    Ok(chain)
}

/// Reads every root in a file.
///
/// # Errors
/// The file is missing, unreadable or holds no certificate.
pub fn read_roots(path: &Path) -> Result<Roots, FileError> {
    Roots::from_pem(&read_text(path)?).map_err(|source| FileError::Material { path: path.to_owned(), source })
}

/// Reads a client's credential that was signed beforehand.
///
/// # Errors
/// As [`read_keyed_chain`] and [`read_roots`]; or the certificate does not carry exactly one SPIFFE id.
pub fn read_credential(certificate: &Path, key: &Path, roots: &Path, now: SystemTime) -> Result<Credential, FileError> {
    read_keyed_chain(certificate, key, now)?;
    read_roots(roots)?;
    Credential::from_pem(&read_text(certificate)?, &read_text(key)?, &read_text(roots)?, now)
        .map_err(|source| FileError::Material { path: certificate.to_owned(), source })
}

/// Reads the datacenter's seal key: 32 bytes, raw or as base64 text.
///
/// # Errors
/// The file is missing, unreadable or holds something else.
pub fn read_seal_key(path: &Path) -> Result<SealKey, FileError> {
    SealKey::from_bytes(&read(path)?).map_err(|source| FileError::SealKey { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut content = Zeroizing::new(Vec::new());
    let limit = u64::try_from(MAX_PEM_BYTES).unwrap_or(u64::MAX) + 1;
    File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() > MAX_PEM_BYTES {
        return Err(FileError::NotPem { path: path.to_owned(), reason: "it is longer than 64 KiB" });
    }
    Ok(content)
}

/// The text of a small file, wiped when dropped.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let content = read(path)?;
    let text = std::str::from_utf8(&content)
        .map_err(|_| FileError::NotPem { path: path.to_owned(), reason: "it is not text" })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_authority::{ServerAuthority, ServerCertificateRequest};
    use std::time::Duration;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    #[test]
    fn every_error_names_the_file_and_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let authority = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let issue = || authority.sign_server(&ServerCertificateRequest::new("dc1", "consul"), now()).unwrap();
        let (issued, other) = (issue(), issue());
        let file = |name: &str, content: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let certificate = file("tls.crt", issued.chain_pem.as_bytes());
        let key = file("tls.key", issued.key_pem.as_bytes());
        let other_key = file("other.key", other.key_pem.as_bytes());
        let empty = file("empty", b"");
        let binary = file("binary", &[0xff, 0xfe, 0]);
        let missing = directory.path().join("missing");
        let later = now() + Duration::from_secs(3 * 365 * 24 * 3600);

        assert!(read_keyed_chain(&certificate, &key, now()).is_ok());
        for (certificate, key, at, culprit, complaint) in [
            (&missing, &key, now(), "missing", "No such file"),
            (&certificate, &missing, now(), "missing", "No such file"),
            (&empty, &key, now(), "empty", "no certificate"),
            (&certificate, &empty, now(), "empty", "no private key"),
            (&binary, &key, now(), "binary", "not text"),
            (&certificate, &other_key, now(), "other.key", "does not match"),
            (&certificate, &key, later, "tls.crt", "expired"),
        ] {
            let error = read_keyed_chain(certificate, key, at).unwrap_err().to_string();
            assert!(error.contains(culprit) && error.contains(complaint), "{error}");
        }
        let error = read_roots(&key).unwrap_err().to_string();
        assert!(error.contains("tls.key") && error.contains("no certificate"), "{error}");
        let error = read_seal_key(&certificate).unwrap_err().to_string();
        assert!(error.contains("tls.crt") && error.contains("32 bytes"), "{error}");
    }
}
