//! What agents bound to loopback share when they were given no certificates: made by the first of them.
//!
//! One directory per datacenter, for one user: mode 0700, files 0600. It holds a server CA, a server certificate, a seal
//! key and a join token. Plain Consul configurations of several members on one host work with it, and are mutual TLS.
//!
//! Invariants
//! - Nothing is taken from a directory that others than its owner can enter.
//! - A file appears whole or not at all (written beside, then renamed), under a lock that only one process holds.
//! - The seal key and the join token are never replaced: state was sealed with the one, members hold the other.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lictor_runtime::Rng;
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;
use crate::files::{self, FileError};
use crate::material::{KeyedChain, MaterialError, Roots};
use crate::seal::{SealError, SealKey};
use crate::server_authority::{ServerAuthority, ServerCertificateRequest};

/// How long to wait for another process that is making the material.
pub const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// A server certificate or CA that ends sooner than this is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Random bytes in a join token.
const TOKEN_BYTES: usize = 32;

/// Why the shared material is not there.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// The directory or a file cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could read or change what is in it.
    #[error("{} must belong to you and be closed to others (chmod 700): keys lie in it", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody holds the lock.
    #[error("another process has held {} for more than {} s; remove the lock's holder and try again",
            path.display(), LOCK_LIMIT.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The datacenter's name cannot be a directory.
    #[error("{0:?} cannot be a datacenter's name: letters, digits, hyphens and underscores are allowed")]
    Datacenter(String),
    /// A file in it is damaged.
    #[error("{0}; remove the directory to have everything made anew")]
    File(#[from] FileError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// What was made cannot be read back.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The seal key cannot be made.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The material. All agents of one user and datacenter on this host get the same.
pub struct LoopbackMaterial {
    /// The directory it lies in.
    pub directory: PathBuf,
    /// The server CA's certificate, as PEM text.
    pub server_ca_pem: String,
    /// The same, ready for verification.
    pub server_roots: Roots,
    /// The server certificate with its key.
    pub server: KeyedChain,
    /// The seal key.
    pub seal_key: SealKey,
    /// The secret with which members on this host log in.
    pub join_token: Zeroizing<String>,
}

impl fmt::Debug for LoopbackMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoopbackMaterial").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The base directory: `$XDG_STATE_HOME`, or `$HOME/.local/state`, given as they stand in the environment.
pub fn state_base(xdg_state_home: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
    let absolute = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    xdg_state_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".local/state")))
}

impl LoopbackMaterial {
    /// Reads the material of `datacenter` under `base`, making first what is missing or about to expire.
    ///
    /// Blocks for [`LOCK_LIMIT`] at most: call it before the runtime serves, or on a thread for blocking work.
    ///
    /// # Errors
    /// The directory is not usable or not closed to others, the lock is not given up, or a file is damaged.
    pub fn open(
        base: &Path,
        datacenter: &str,
        domain: &str,
        now: SystemTime,
        rng: &dyn Rng,
    ) -> Result<Self, LoopbackError> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if datacenter.is_empty() || datacenter.len() > 63 || !datacenter.bytes().all(safe) {
            return Err(LoopbackError::Datacenter(datacenter.to_owned()));
        }
        let directory = base.join("lictor").join("loopback").join(datacenter);
        make_private_directory(&directory)?;
        let _lock = lock(&directory.join("lock"))?;
        let maker = Maker { directory: &directory, datacenter, domain, now, rng };
        let (server_ca_pem, server) = maker.certificates()?;
        Ok(Self {
            server_roots: Roots::from_pem(&server_ca_pem)?,
            server_ca_pem,
            server,
            seal_key: maker.seal_key()?,
            join_token: maker.join_token()?,
            directory,
        })
    }
}

struct Maker<'a> {
    directory: &'a Path,
    datacenter: &'a str,
    domain: &'a str,
    now: SystemTime,
    rng: &'a dyn Rng,
}

impl Maker<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The content of a file, `None` when there is none.
    fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, LoopbackError> {
        match files::read_text(&self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(FileError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    fn write(&self, name: &str, content: &str) -> Result<(), LoopbackError> {
        let path = self.path(name);
        let beside = self.path(&format!("{name}.new"));
        let written = (|| {
            let _ = fs::remove_file(&beside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        })();
        written.map_err(|source| LoopbackError::Path { path, source })
    }

    fn lasts(&self, until: SystemTime) -> bool {
        self.now + RENEW_BEFORE < until
    }

    fn certificates(&self) -> Result<(String, KeyedChain), LoopbackError> {
        let stored = match (self.read("ca.crt")?, self.read("ca.key")?) {
            (Some(certificate), Some(key)) => Some(ServerAuthority::from_pem(&certificate, &key)?),
            _ => None,
        };
        let (authority, is_new) = match stored {
            Some(authority) if self.lasts(authority.not_after()) => (authority, false),
            _ => {
                let authority = ServerAuthority::create(self.datacenter, self.domain, self.now)?;
                // The key first: with a certificate alone, the next one to come would make both anew.
                self.write("ca.key", authority.key_pem())?;
                self.write("ca.crt", authority.certificate_pem())?;
                (authority, true)
            }
        };
        if !is_new
            && let (Some(chain), Some(key)) = (self.read("server.crt")?, self.read("server.key")?)
            && let Ok(server) = KeyedChain::from_pem(&chain, &key)
            && self.lasts(server.not_after())
            && self.is_ours(&authority, &server)?
        {
            return Ok((authority.certificate_pem().to_owned(), server));
        }
        let mut request = ServerCertificateRequest::new(self.datacenter, self.domain);
        request.dns_names = vec!["localhost".into()];
        request.ip_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let issued = authority.sign_server(&request, self.now)?;
        self.write("server.key", &issued.key_pem)?;
        self.write("server.crt", &issued.chain_pem)?;
        let server = KeyedChain::from_pem(&issued.chain_pem, &issued.key_pem)?;
        Ok((authority.certificate_pem().to_owned(), server))
    }

    /// Whether the stored server certificate is of this CA and for this datacenter and domain.
    fn is_ours(&self, authority: &ServerAuthority, server: &KeyedChain) -> Result<bool, LoopbackError> {
        let roots = Roots::from_pem(authority.certificate_pem())?;
        let chain = server.certificates();
        let chained = roots.verify_server(&chain[0], &chain[1..], crate::peers::unix_time(self.now)).is_ok();
        let role = crate::server_authority::server_name(self.datacenter, self.domain);
        Ok(chained && crate::peers::has_dns_name(&chain[0], &role).unwrap_or(false))
    }

    fn seal_key(&self) -> Result<SealKey, LoopbackError> {
        if self.read("seal.key")?.is_none() {
            self.write("seal.key", &SealKey::generate(self.rng)?.to_base64())?;
        }
        Ok(files::read_seal_key(&self.path("seal.key"))?)
    }

    fn join_token(&self) -> Result<Zeroizing<String>, LoopbackError> {
        if let Some(token) = self.read("join.token")? {
            return Ok(Zeroizing::new(token.trim().to_owned()));
        }
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        self.rng.fill(bytes.as_mut_slice());
        let token = Zeroizing::new(crate::pki::hex(bytes.as_slice()));
        self.write("join.token", &token)?;
        Ok(token)
    }
}

/// Makes the directory with mode 0700, or checks that it is ours and closed to others.
fn make_private_directory(directory: &Path) -> Result<(), LoopbackError> {
    let failed = |source| LoopbackError::Path { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let metadata = fs::symlink_metadata(directory).map_err(failed)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && ours && metadata.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(LoopbackError::Open { path: directory.to_owned() })
    }
}

/// Takes the lock; it is given back when the file is dropped, or by the system when the process dies.
fn lock(path: &Path) -> Result<File, LoopbackError> {
    let failed = |source| LoopbackError::Path { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    let started = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_LIMIT => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LoopbackError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lictor_runtime::SystemRng;
    use std::os::unix::fs::PermissionsExt;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    fn open(base: &Path, at: SystemTime) -> Result<LoopbackMaterial, LoopbackError> {
        LoopbackMaterial::open(base, "dc1", "consul", at, &SystemRng)
    }

    #[test]
    fn all_who_open_it_at_once_get_the_same() {
        let base = tempfile::tempdir().unwrap();
        let opened: Vec<LoopbackMaterial> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(base.path(), now()).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for other in &opened[1..] {
            assert_eq!(other.server_ca_pem, opened[0].server_ca_pem);
            assert_eq!(other.server.certificates(), opened[0].server.certificates());
            assert_eq!(other.seal_key.id(), opened[0].seal_key.id());
            assert_eq!(*other.join_token, *opened[0].join_token);
        }
        assert!(opened[0].join_token.len() == 2 * TOKEN_BYTES);
        assert!(!format!("{:?}", opened[0]).contains(opened[0].join_token.as_str()));
    }

    #[test]
    fn files_are_for_their_owner_only_and_an_open_directory_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let material = open(base.path(), now()).unwrap();
        for entry in fs::read_dir(&material.directory).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        }
        fs::set_permissions(&material.directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(open(base.path(), now()), Err(LoopbackError::Open { .. })));
    }

    #[test]
    fn certificates_about_to_expire_are_made_anew_but_seal_key_and_token_stay() {
        let base = tempfile::tempdir().unwrap();
        let first = open(base.path(), now()).unwrap();
        let soon = open(base.path(), now() + Duration::from_secs(710 * 24 * 3600)).unwrap();
        assert_eq!(soon.server_ca_pem, first.server_ca_pem);
        assert_ne!(soon.server.certificates(), first.server.certificates());
        let late = open(base.path(), now() + Duration::from_secs(5 * 365 * 24 * 3600)).unwrap();
        assert_ne!(late.server_ca_pem, first.server_ca_pem);
        assert_eq!(late.seal_key.id(), first.seal_key.id());
        assert_eq!(*late.join_token, *first.join_token);
    }

    #[test]
    fn a_damaged_seal_key_is_reported_and_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let material = open(base.path(), now()).unwrap();
        fs::write(material.directory.join("seal.key"), "damaged").unwrap();
        let error = open(base.path(), now()).unwrap_err().to_string();
        assert!(error.contains("seal.key"), "{error}");
        assert_eq!(fs::read_to_string(material.directory.join("seal.key")).unwrap(), "damaged");
    }

    #[test]
    fn a_datacenter_name_cannot_leave_the_directory() {
        let base = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", "../../x"] {
            let opened = LoopbackMaterial::open(base.path(), name, "consul", now(), &SystemRng);
            assert!(matches!(opened, Err(LoopbackError::Datacenter(_))), "{name:?}");
        }
    }

    #[test]
    fn the_base_directory_follows_the_environment() {
        assert_eq!(state_base(Some("/s"), Some("/h")), Some("/s".into()));
        assert_eq!(state_base(None, Some("/h")), Some("/h/.local/state".into()));
        assert_eq!(state_base(Some("relative"), Some("/h")), Some("/h/.local/state".into()));
        assert_eq!(state_base(None, None), None);
    }
}
