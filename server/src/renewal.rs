//! Certificates that are renewed in their files: by the operator in a mounted Secret, or by whoever keeps them.
//!
//! Invariants
//! - A file that cannot be used changes nothing: the certificate in force stays, and the trouble is told once.
//! - A pair is read when neither file has changed for one look, so that a key and a certificate of two renewals never meet.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::KeyedChain;
use lictor_identity::files::read_keyed_chain;
use lictor_runtime::Clock;

/// Between two looks at the files. A Secret reaches a pod within a minute or two; certificates are renewed months early.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What tells one state of a file from another; a mounted Secret is replaced by a link to another directory.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

impl CertificateFiles {
    /// Those two.
    pub(crate) fn new(certificate: &Path, key: &Path) -> Self {
        Self { certificate: certificate.to_owned(), key: key.to_owned() }
    }

    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        })
    }

    /// Hands every new certificate in the files to `put_in_force`, for ever.
    pub(crate) async fn follow(
        self,
        what: &'static str,
        clock: Arc<dyn Clock>,
        interval: Duration,
        put_in_force: impl Fn(KeyedChain) + Send,
    ) {
        let mut known = self.stamp();
        let mut seen = known;
        loop {
            tokio::time::sleep(interval).await;
            let now = self.stamp();
            let settled = now == seen;
            seen = now;
            if now == known || !settled {
                continue;
            }
            known = now;
            match read_keyed_chain(&self.certificate, &self.key, clock.now()) {
                Ok(chain) => {
                    tracing::info!(what, file = %self.certificate.display(), "a new certificate is in force");
                    put_in_force(chain);
                }
                Err(error) => tracing::error!(
                    what,
                    %error,
                    "the new certificate cannot be used; the old one stays in force until the files change again"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lictor_identity::{RenewableChain, ServerAuthority, ServerCertificateRequest};
    use lictor_runtime::{SystemClock, Tasks};
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
