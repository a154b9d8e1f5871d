//! A workload's or an agent's credential as a watched value that starts closed.
//!
//! Invariants
//! - Until a credential was published there is none, and whoever needs one accepts and dials nothing.
//! - A credential is replaced whole: chain, key and roots never come from two different publications.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::material::{KeyedChain, MaterialError, Roots};
use crate::pki;
use crate::spiffe::SpiffeId;

/// A certificate of the mesh CA with its key, and the roots to verify others by.
#[derive(Clone)]
pub struct Credential {
    id: SpiffeId,
    chain: KeyedChain,
    roots: Roots,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credential")
            .field("id", &self.id.to_string())
            .field("not_after", &self.chain.not_after())
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Reads a chain, its key and the roots of the mesh, and checks them at `now`.
    ///
    /// # Errors
    /// Something is unreadable, does not belong together, is not valid now, or names not exactly one SPIFFE id.
    pub fn from_pem(chain_pem: &str, key_pem: &str, roots_pem: &str, now: SystemTime) -> Result<Self, MaterialError> {
        let chain = KeyedChain::from_pem(chain_pem, key_pem)?;
        chain.check_validity(now)?;
        let id = {
            let first = pki::parse_certificate("own", &chain.certificates()[0])
                .map_err(|error| MaterialError::UnreadableCertificate(error.to_string()))?;
            let uris = pki::uri_names(&first).unwrap_or_default();
            let [uri] = uris.as_slice() else { return Err(MaterialError::UriCount(uris.len())) };
            uri.parse()?
        };
        Ok(Self { id, chain, roots: Roots::from_pem(roots_pem)? })
    }

    /// The same chain and key with other roots, for when only the roots have changed.
    ///
    /// # Errors
    /// The roots are unreadable.
    pub fn with_roots(&self, roots_pem: &str) -> Result<Self, MaterialError> {
        Ok(Self { roots: Roots::from_pem(roots_pem)?, ..self.clone() })
    }

    /// Who it stands for.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The chain with its key.
    pub fn chain(&self) -> &KeyedChain {
        &self.chain
    }

    /// The roots of the mesh.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }
}

/// The publishing end. When it is dropped, the last credential stays in force until it expires.
#[derive(Debug)]
pub struct CredentialsPublisher(watch::Sender<Option<Arc<Credential>>>);

/// The reading end; clones read the same value.
#[derive(Clone, Debug)]
pub struct Credentials(watch::Receiver<Option<Arc<Credential>>>);

impl Credentials {
    /// Both ends, with no credential yet.
    pub fn closed() -> (CredentialsPublisher, Self) {
        let (sender, receiver) = watch::channel(None);
        (CredentialsPublisher(sender), Self(receiver))
    }

    /// The credential in force, if there is one: read it anew at each handshake.
    pub fn current(&self) -> Option<Arc<Credential>> {
        self.0.borrow().clone()
    }

    /// Waits until there is a credential. `None` when the publisher is gone without ever having published one.
    pub async fn ready(&mut self) -> Option<Arc<Credential>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|current| current.clone())
    }

    /// Waits for the next publication or withdrawal. `false` when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl CredentialsPublisher {
    /// Puts a credential in force for every handshake from now on.
    pub fn publish(&self, credential: Credential) {
        self.0.send_replace(Some(Arc::new(credential)));
    }

    /// Withdraws the credential: nothing is accepted or dialled until the next one.
    pub fn withdraw(&self) {
        self.0.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::SigningRequest;
    use crate::mesh_authority::{LEAF_LIFETIME, MeshAuthority};
    use lictor_runtime::SystemRng;
    use std::time::Duration;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    #[tokio::test]
    async fn there_is_no_credential_until_one_is_published_and_none_after_withdrawal() {
        let authority = MeshAuthority::create("abc.consul".parse().unwrap(), "dc1", now(), &SystemRng).unwrap();
        let id = SpiffeId::service(authority.trust_domain(), "dc1", "web").unwrap();
        let request = SigningRequest::create(&id).unwrap();
        let leaf = authority.sign_leaf(&request.csr_pem, &id, LEAF_LIFETIME, now(), &SystemRng).unwrap();
        let credential = Credential::from_pem(&leaf.chain_pem, &request.key_pem, authority.root_pem(), now()).unwrap();
        assert_eq!(*credential.id(), id);
        assert!(!format!("{credential:?}").contains("PRIVATE"));

        let (publisher, mut credentials) = Credentials::closed();
        assert!(credentials.current().is_none());
        publisher.publish(credential);
        assert_eq!(*credentials.ready().await.unwrap().id(), id);
        publisher.withdraw();
        assert!(credentials.current().is_none());
        drop(publisher);
        assert!(credentials.ready().await.is_none());
    }

    #[test]
    fn an_expired_certificate_a_foreign_key_and_missing_roots_make_no_credential() {
        let authority = MeshAuthority::create("abc.consul".parse().unwrap(), "dc1", now(), &SystemRng).unwrap();
        let id = SpiffeId::service(authority.trust_domain(), "dc1", "web").unwrap();
        let request = SigningRequest::create(&id).unwrap();
        let other = SigningRequest::create(&id).unwrap();
        let leaf = authority.sign_leaf(&request.csr_pem, &id, LEAF_LIFETIME, now(), &SystemRng).unwrap();
        let read = |key: &str, roots: &str, at| Credential::from_pem(&leaf.chain_pem, key, roots, at);
        let roots = authority.root_pem();
        assert!(matches!(read(&request.key_pem, roots, leaf.valid_before), Err(MaterialError::Expired(_))));
        assert!(matches!(read(&request.key_pem, roots, SystemTime::UNIX_EPOCH), Err(MaterialError::NotYetValid(_))));
        assert!(matches!(read(&other.key_pem, roots, now()), Err(MaterialError::KeyMismatch)));
        assert!(matches!(read("", roots, now()), Err(MaterialError::NoKey)));
        assert!(matches!(read(&request.key_pem, "", now()), Err(MaterialError::NoCertificate)));
    }
}
