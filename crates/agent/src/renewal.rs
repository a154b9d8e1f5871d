//! Certificates and authorities that are renewed in their files: by the operator in a mounted Secret, or by whoever keeps
//! them.
//!
//! Invariants
//! - A file that cannot be used changes nothing: what is in force stays, and the trouble is told once.
//! - Files are read when none has changed for one look, so that a key and a certificate of two renewals never meet.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::files::{FileError, read_keyed_chain, read_roots};
use lictor_identity::{KeyedChain, RenewableRoots, Roots};
use lictor_runtime::{Clock, Tasks};

use crate::config::TlsFiles;

/// Between two looks at the files. A Secret reaches a pod within a minute or two; certificates are renewed months early.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Those two.
    pub fn new(certificate: &Path, key: &Path) -> Self {
        Self { certificate: certificate.to_owned(), key: key.to_owned() }
    }

    /// Hands every new certificate in the files to `put_in_force`, for ever.
    pub async fn follow(
        self,
        what: &'static str,
        clock: Arc<dyn Clock>,
        interval: Duration,
        put_in_force: impl Fn(KeyedChain) + Send,
    ) {
        let files = [self.certificate.clone(), self.key.clone()];
        let read = || read_keyed_chain(&self.certificate, &self.key, clock.now());
        follow(&files, interval, || match read() {
            Ok(chain) => {
                tracing::info!(what, file = %self.certificate.display(), "a new certificate is in force");
                put_in_force(chain);
            }
            Err(error) => kept(what, &error),
        })
        .await;
    }
}

/// The file of one or more authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFile(pub PathBuf);

impl AuthorityFile {
    /// Hands the authorities in the file to `put_in_force` whenever they have changed, for ever.
    pub async fn follow(self, what: &'static str, interval: Duration, put_in_force: impl Fn(Roots) + Send) {
        follow(std::slice::from_ref(&self.0), interval, || match read_roots(&self.0) {
            Ok(roots) => {
                tracing::info!(what, file = %self.0.display(), "new authorities are in force");
                put_in_force(roots);
            }
            Err(error) => kept(what, &error),
        })
        .await;
    }
}

/// The authorities of those who must show a certificate for HTTPS, followed in their file; none where nobody must.
///
/// # Errors
/// The file cannot be used.
pub fn https_clients(https: &TlsFiles, tasks: &Tasks) -> Result<Option<Arc<RenewableRoots>>, FileError> {
    let Some(file) = https.ca_file.as_deref().filter(|_| https.verify_incoming) else { return Ok(None) };
    let roots = RenewableRoots::new(read_roots(file)?);
    let in_force = Arc::clone(&roots);
    let put_in_force = move |roots| in_force.set(roots);
    tasks.spawn(AuthorityFile(file.to_owned()).follow("clients of HTTPS", LOOK_INTERVAL, put_in_force));
    Ok(Some(roots))
}

fn kept(what: &'static str, error: &FileError) {
    tracing::error!(what, %error, "the new file cannot be used; the old one stays in force until it changes again");
}

/// What tells one state of a file from another; a mounted Secret is replaced by a link to another directory.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

/// Calls `changed` whenever the files have changed and rest, for ever.
async fn follow(files: &[PathBuf], interval: Duration, changed: impl Fn()) {
    let mut known = stamps(files);
    let mut seen = known.clone();
    loop {
        tokio::time::sleep(interval).await;
        let now = stamps(files);
        let settled = now == seen;
        seen.clone_from(&now);
        if now != known && settled {
            known = now;
            changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lictor_identity::{RenewableChain, ServerAuthority, ServerCertificateRequest};
    use lictor_runtime::SystemClock;
    use parking_lot::Mutex;

    use super::*;

    const LOOK: Duration = Duration::from_millis(20);

    /// Writes a new pair as a careful tool does: beside, then renamed.
    fn write(files: &CertificateFiles, chain_pem: &str, key_pem: &str) {
        for (path, text) in [(&files.certificate, chain_pem), (&files.key, key_pem)] {
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, path).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_authority_is_put_in_force_and_a_broken_file_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let file = AuthorityFile(directory.path().join("ca.pem"));
        let authority = || ServerAuthority::create("dc1", "consul", SystemClock.now()).unwrap();
        fs::write(&file.0, authority().certificate_pem()).unwrap();
        let put = Arc::new(AtomicUsize::new(0));
        let (seen, tasks) = (Arc::clone(&put), Tasks::new());
        tasks.spawn(file.clone().follow("test", LOOK, move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        tokio::time::sleep(LOOK * 3).await;
        fs::write(&file.0, "no authority").unwrap();
        tokio::time::sleep(LOOK * 6).await;
        assert_eq!(put.load(Ordering::SeqCst), 0, "a file without an authority was put in force");
        fs::write(&file.0, authority().certificate_pem()).unwrap();
        tokio::time::sleep(LOOK * 6).await;
        assert_eq!(put.load(Ordering::SeqCst), 1);
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_put_in_force_and_a_broken_one_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let files = CertificateFiles::new(&at("tls.crt"), &at("tls.key"));
        let now = SystemClock.now();
        let authority = ServerAuthority::create("dc1", "consul", now).unwrap();
        let issue = || authority.sign_server(&ServerCertificateRequest::new("dc1", "consul"), now).unwrap();
        let (first, second) = (issue(), issue());
        write(&files, &first.chain_pem, &first.key_pem);
        let put = Arc::new((Mutex::new(None), AtomicUsize::new(0)));
        let tasks = Tasks::new();
        let seen = Arc::clone(&put);
        let in_force = RenewableChain::new(read_keyed_chain(&files.certificate, &files.key, now).unwrap());
        tasks.spawn(files.clone().follow("test", Arc::new(SystemClock), LOOK, move |chain| {
            *seen.0.lock() = Some(chain.certificates()[0].clone());
            in_force.set(chain);
            seen.1.fetch_add(1, Ordering::SeqCst);
        }));
        let until = |count: usize| {
            let put = Arc::clone(&put);
            async move {
                while put.1.load(Ordering::SeqCst) < count {
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        tokio::time::sleep(LOOK * 3).await;
        // A certificate with the key of another, which cannot be used, and then the right key.
        write(&files, &second.chain_pem, &first.key_pem);
        tokio::time::sleep(LOOK * 6).await;
        assert_eq!(put.1.load(Ordering::SeqCst), 0, "a pair that does not match was put in force");
        write(&files, &second.chain_pem, &second.key_pem);
        tokio::time::timeout(Duration::from_secs(20), until(1)).await.expect("the new pair is put in force");
        let expected = KeyedChain::from_pem(&second.chain_pem, &second.key_pem).unwrap();
        assert_eq!(put.0.lock().clone().unwrap(), expected.certificates()[0]);
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
