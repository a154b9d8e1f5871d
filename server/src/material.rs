//! The certificates and keys of a server: from the configured files, or on loopback from what all agents of one user share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lictor_agent::config::{Config, TlsFiles};
use lictor_agent::renewal::{AuthorityFile, CertificateFiles};
use lictor_identity::files::{FileError, read_keyed_chain, read_roots, read_seal_key};
use lictor_identity::loopback::{LoopbackError, LoopbackMaterial};
use lictor_identity::{KeyedChain, Roots, SealKey};
use lictor_runtime::Rng;

/// Why a server has no identity.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A configured file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The shared material on loopback cannot be used.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// Some of the files are configured, not all.
    #[error("tls.{section}: {missing} is missing; ca_file, cert_file and key_file belong together")]
    Incomplete {
        /// The section of the configuration.
        section: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// Beyond loopback a server never makes its own.
    #[error(
        "a server on {bind} needs a certificate of the server CA and a seal key, and none are configured. Make them once \
         per datacenter:\n  lictor tls ca create\n  lictor tls cert create -server -dc {datacenter}\n  lictor seal-key \
         create\nand name them in the configuration:\n  tls {{ defaults {{ ca_file = \"consul-agent-ca.pem\" cert_file = \
         \"{datacenter}-server-consul-0.pem\" key_file = \"{datacenter}-server-consul-0-key.pem\" }} }}\n  seal_key_file = \
         \"seal.key\""
    )]
    Missing {
        /// The address it would listen on.
        bind: String,
        /// Its datacenter.
        datacenter: String,
    },
    /// There is nowhere to keep what loopback agents share.
    #[error("set HOME or XDG_STATE_HOME to an absolute path: agents on loopback keep their shared certificates there")]
    NoStateDirectory,
}

/// What a server is known by.
pub struct ServerMaterial {
    /// The server CA.
    pub roots: Roots,
    /// Its certificate on the server port.
    pub own: KeyedChain,
    /// Its certificate for HTTPS.
    pub https: KeyedChain,
    /// The file of `roots`, if they are from one.
    pub roots_file: Option<AuthorityFile>,
    /// The files of `own`, if it is from files.
    pub own_files: Option<CertificateFiles>,
    /// The files of `https`, if it is from files.
    pub https_files: Option<CertificateFiles>,
    /// The key that secrets are sealed with.
    pub seal: Arc<SealKey>,
    /// What members on one loopback log in with.
    pub loopback_join_token: Option<String>,
}

impl ServerMaterial {
    /// Reads what `config` names, and makes the rest on loopback under `state_base`.
    ///
    /// # Errors
    /// A file cannot be used, or something is missing beyond loopback.
    pub fn load(
        config: &Config,
        state_base: Option<&Path>,
        now: SystemTime,
        rng: &dyn Rng,
    ) -> Result<Self, MaterialError> {
        let files = complete("internal_rpc", &config.rpc_tls)?;
        let own_files = files.map(|(_, cert, key)| CertificateFiles::new(cert, key));
        let configured = match files {
            Some((ca, cert, key)) => Some((read_roots(ca)?, read_keyed_chain(cert, key, now)?)),
            None => None,
        };
        let seal = config.seal_key_file.as_deref().map(read_seal_key).transpose()?.map(Arc::new);
        let https_given = complete("https", &config.https_tls)?;
        let https_files = https_given.map(|(_, cert, key)| CertificateFiles::new(cert, key));
        let https = https_given.map(|(_, cert, key)| read_keyed_chain(cert, key, now)).transpose()?;
        if let (Some((roots, own)), Some(seal)) = (configured, seal.clone()) {
            let https = https.unwrap_or_else(|| own.clone());
            let https_files = https_files.or_else(|| own_files.clone());
            let roots_file = files.map(|(ca, ..)| AuthorityFile(ca.to_owned()));
            return Ok(Self { roots, own, https, roots_file, own_files, https_files, seal, loopback_join_token: None });
        }
        if !config.on_loopback() {
            return Err(MaterialError::Missing {
                bind: config.addresses.bind.to_string(),
                datacenter: config.datacenter.clone(),
            });
        }
        let shared = loopback(config, state_base, now, rng)?;
        Ok(Self {
            roots: shared.server_roots,
            https: https.unwrap_or_else(|| shared.server.clone()),
            own: shared.server,
            roots_file: None,
            // The shared ones are made anew at a start, not in their files.
            own_files: None,
            https_files,
            seal: seal.unwrap_or_else(|| Arc::new(shared.seal_key)),
            loopback_join_token: Some(shared.join_token.to_string()),
        })
    }
}

/// What agents on loopback share.
///
/// # Errors
/// There is no directory for it, or it cannot be used.
pub fn loopback(
    config: &Config,
    state_base: Option<&Path>,
    now: SystemTime,
    rng: &dyn Rng,
) -> Result<LoopbackMaterial, MaterialError> {
    let base = state_base.ok_or(MaterialError::NoStateDirectory)?;
    let domain = config.dns.domain.trim_end_matches('.');
    Ok(LoopbackMaterial::open(base, &config.datacenter, domain, now, rng)?)
}

/// All three files of a section, or none of them.
fn complete<'a>(
    section: &'static str,
    files: &'a TlsFiles,
) -> Result<Option<(&'a PathBuf, &'a PathBuf, &'a PathBuf)>, MaterialError> {
    match (&files.ca_file, &files.cert_file, &files.key_file) {
        (Some(ca), Some(cert), Some(key)) => Ok(Some((ca, cert, key))),
        (_, None, None) => Ok(None),
        (None, _, _) => Err(MaterialError::Incomplete { section, missing: "ca_file" }),
        (_, None, _) => Err(MaterialError::Incomplete { section, missing: "cert_file" }),
        (_, _, None) => Err(MaterialError::Incomplete { section, missing: "key_file" }),
    }
}
