//! Certificates, keys and roots as they come in: parsed once, checked, and then trusted.
//!
//! Invariants
//! - A [`KeyedChain`] has at least one certificate, and its key is the key of the first.
//! - A [`Roots`] is never empty.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;

use crate::pki;
use crate::spiffe::SpiffeError;

/// The most certificates that a chain or a file of roots may hold.
pub const MAX_CERTIFICATES: usize = 64;

/// What is wrong with a certificate, a key or a set of roots.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// More text than any chain needs.
    #[error("it has more than {} bytes or more than {MAX_CERTIFICATES} certificates", pki::MAX_PEM_BYTES)]
    TooLong,
    /// There is no certificate in it.
    #[error("there is no certificate in it; a PEM block `CERTIFICATE` is needed")]
    NoCertificate,
    /// A certificate in it is damaged.
    #[error("a certificate in it cannot be read: {0}")]
    UnreadableCertificate(String),
    /// There is no key in it.
    #[error("there is no private key in it; a PEM block `PRIVATE KEY` is needed")]
    NoKey,
    /// The key is damaged or of a kind that is not taken.
    #[error("the private key in it cannot be read: {0}")]
    UnreadableKey(String),
    /// The key belongs to another certificate.
    #[error("the private key does not match the certificate; give the key that the certificate was made with")]
    KeyMismatch,
    /// The certificate has ended.
    #[error("the certificate has expired at {0}; make or fetch a new one")]
    Expired(String),
    /// The certificate has not begun.
    #[error("the certificate is valid only from {0} on; is this machine's clock right?")]
    NotYetValid(String),
    /// A credential's certificate needs one identity.
    #[error("the certificate names {0} URIs; exactly one, a SPIFFE id, is needed")]
    UriCount(usize),
    /// The identity is malformed.
    #[error("the certificate's identity is refused: {0}")]
    Identity(#[from] SpiffeError),
}

/// The one cryptography provider of the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// A certificate chain with its private key, ready for handshakes.
#[derive(Clone)]
pub struct KeyedChain {
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for KeyedChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyedChain").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl KeyedChain {
    /// Reads a chain (the end's own certificate first) and its key.
    ///
    /// # Errors
    /// Either is missing or unreadable, or they do not belong together.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, MaterialError> {
        let chain = certificates(chain_pem)?;
        let (not_before, not_after) = {
            let first = pki::parse_certificate("own", &chain[0])
                .map_err(|error| MaterialError::UnreadableCertificate(error.to_string()))?;
            pki::validity_of(&first)
        };
        if key_pem.len() > pki::MAX_PEM_BYTES {
            return Err(MaterialError::TooLong);
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => MaterialError::NoKey,
            other => MaterialError::UnreadableKey(other.to_string()),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            TlsError::InconsistentKeys(_) => MaterialError::KeyMismatch,
            other => MaterialError::UnreadableKey(other.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified), not_before, not_after })
    }

    /// Refuses a certificate that is not valid at `now`.
    ///
    /// # Errors
    /// It has expired or has not begun.
    pub fn check_validity(&self, now: SystemTime) -> Result<(), MaterialError> {
        if now >= self.not_after {
            return Err(MaterialError::Expired(OffsetDateTime::from(self.not_after).to_string()));
        }
        if now < self.not_before {
            return Err(MaterialError::NotYetValid(OffsetDateTime::from(self.not_before).to_string()));
        }
        Ok(())
    }

    /// From when it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain's certificates, the end's own first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

/// The certificates that chains must end at.
#[derive(Clone, Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Roots {
    /// Reads every certificate of PEM text.
    ///
    /// # Errors
    /// There is none in it, or one is unreadable.
    pub fn from_pem(pem: &str) -> Result<Self, MaterialError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(pem)? {
            store.add(certificate).map_err(|error| MaterialError::UnreadableCertificate(error.to_string()))?;
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider())
            .build()
            .map_err(|error| MaterialError::UnreadableCertificate(error.to_string()))?;
        Ok(Self { store, clients })
    }

    /// Takes diallers whose chain ends here and no others: says nothing about names.
    pub(crate) fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.clients)
    }

    /// Whether a dialler's chain ends here and is valid: says nothing about names.
    pub(crate) fn verify_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
        let (first, rest) = chain.split_first().ok_or(TlsError::NoCertificatesPresented)?;
        self.clients.verify_client_cert(first, rest, now).map(|_| ())
    }

    /// Whether a listener's chain ends here and is valid: says nothing about names.
    pub(crate) fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.store,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )
    }
}

/// Every certificate of PEM text; never empty.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    if pem.len() > pki::MAX_PEM_BYTES {
        return Err(MaterialError::TooLong);
    }
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| MaterialError::UnreadableCertificate(error.to_string()))?;
        if found.len() == MAX_CERTIFICATES {
            return Err(MaterialError::TooLong);
        }
        found.push(certificate);
    }
    if found.is_empty() { Err(MaterialError::NoCertificate) } else { Ok(found) }
}
