//! The mesh CA: a root that signs one intermediate, and the intermediate that signs clients, sidecars and workloads.
//!
//! It is made by the first leader and lives in replicated state; its keys are sealed by the caller before they go there.
//!
//! Invariants
//! - It signs only [`SpiffeId::Service`] and [`SpiffeId::Client`]: never a server, never an authority.
//! - A leaf carries exactly the one URI that was authorised, no DNS name and no address, and may not sign.
//! - A leaf never outlives the intermediate, nor the intermediate the root.

use std::fmt;
use std::time::{Duration, SystemTime};

use lictor_runtime::Rng;
use rcgen::{CertificateParams, SanType, SerialNumber};
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;
use crate::csr::{self, RequestError};
use crate::pki::{self, SigningPair};
use crate::spiffe::{SpiffeId, TrustDomain};

/// How long a root is valid (Consul's `RootCertTTL`).
pub const ROOT_LIFETIME: Duration = Duration::from_secs(87_600 * 60 * 60);
/// How long an intermediate is valid (Consul's `IntermediateCertTTL`).
pub const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(8_760 * 60 * 60);
/// How long a leaf is valid unless asked otherwise (Consul's `LeafCertTTL`).
pub const LEAF_LIFETIME: Duration = Duration::from_secs(72 * 60 * 60);
/// The shortest leaf.
pub const MIN_LEAF_LIFETIME: Duration = Duration::from_secs(60);
/// The longest leaf.
pub const MAX_LEAF_LIFETIME: Duration = Duration::from_secs(8_760 * 60 * 60);

/// Bytes of a serial number: 126 random bits, so two are never the same.
const SERIAL_BYTES: usize = 16;

/// Why the mesh CA does not sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The authority cannot sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// This authority does not sign such an identity.
    #[error("the mesh authority signs services and clients of {trust_domain} only, not {id}")]
    NotOurs {
        /// The authority's trust domain.
        trust_domain: String,
        /// The identity asked for.
        id: String,
    },
}

/// The parts of a [`MeshAuthority`] as they are stored. The keys are secrets: seal them.
#[derive(Clone)]
pub struct MeshAuthorityParts {
    /// The trust domain's text.
    pub trust_domain: String,
    /// The root's certificate: public.
    pub root_certificate_pem: String,
    /// The root's key.
    pub root_key_pem: Zeroizing<String>,
    /// The intermediate's certificate: public.
    pub intermediate_certificate_pem: String,
    /// The intermediate's key.
    pub intermediate_key_pem: Zeroizing<String>,
}

impl fmt::Debug for MeshAuthorityParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MeshAuthorityParts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// A signed leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafChain {
    /// The leaf alone.
    pub leaf_pem: String,
    /// The leaf, then the intermediate: what a TLS end presents.
    pub chain_pem: String,
    /// The serial number, as Consul writes it: hexadecimal with colons.
    pub serial: String,
    /// From when it is valid.
    pub valid_after: SystemTime,
    /// Until when it is valid.
    pub valid_before: SystemTime,
    /// The identity in it.
    pub uri: String,
}

/// The mesh CA with its keys.
pub struct MeshAuthority {
    trust_domain: TrustDomain,
    root: SigningPair,
    intermediate: SigningPair,
}

impl fmt::Debug for MeshAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MeshAuthority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl MeshAuthority {
    /// Makes a new root and an intermediate of `datacenter` under it, valid from `now`.
    ///
    /// # Errors
    /// Key generation or signing failed.
    pub fn create(
        trust_domain: TrustDomain,
        datacenter: &str,
        now: SystemTime,
        rng: &dyn Rng,
    ) -> Result<Self, AuthorityError> {
        let name = |kind: &str| {
            let mut tag = [0; 4];
            rng.fill(&mut tag);
            let tag = pki::hex(&tag);
            format!("{kind}-{tag}.consul.ca.{}.consul", trust_domain.short())
        };
        let identity = SpiffeId::Authority { trust_domain: trust_domain.clone() }.to_string();

        let root_key = pki::new_key()?;
        let mut root = pki::authority_params(&name("pri"), 1);
        root.subject_alt_names = vec![SanType::URI(identity.clone().try_into()?)];
        root.serial_number = Some(new_serial(rng));
        pki::set_validity(&mut root, now, ROOT_LIFETIME, None);
        let root_pem = root.self_signed(&root_key)?.pem();
        let root = SigningPair::from_pem("mesh root", &root_pem, &pki::key_to_pem(&root_key))?;

        let intermediate_key = pki::new_key()?;
        let datacenter: String = datacenter.chars().take(16).collect();
        let mut intermediate = pki::authority_params(&name(&datacenter), 0);
        intermediate.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        intermediate.serial_number = Some(new_serial(rng));
        pki::set_validity(&mut intermediate, now, INTERMEDIATE_LIFETIME, Some(root.not_after));
        let intermediate_pem = intermediate.signed_by(&intermediate_key, root.issuer_at(now)?)?.pem();
        let intermediate =
            SigningPair::from_pem("mesh intermediate", &intermediate_pem, &pki::key_to_pem(&intermediate_key))?;
        Ok(Self { trust_domain, root, intermediate })
    }

    /// Reads an authority made before.
    ///
    /// # Errors
    /// A certificate or key is unreadable, or they do not belong together.
    pub fn from_parts(parts: &MeshAuthorityParts) -> Result<Self, AuthorityError> {
        let trust_domain = parts.trust_domain.parse().map_err(|_| AuthorityError::InvalidName {
            name: parts.trust_domain.clone(),
            reason: "it is not a trust domain",
        })?;
        Ok(Self {
            trust_domain,
            root: SigningPair::from_pem("mesh root", &parts.root_certificate_pem, &parts.root_key_pem)?,
            intermediate: SigningPair::from_pem(
                "mesh intermediate",
                &parts.intermediate_certificate_pem,
                &parts.intermediate_key_pem,
            )?,
        })
    }

    /// Everything that must be stored to read it back.
    pub fn to_parts(&self) -> MeshAuthorityParts {
        MeshAuthorityParts {
            trust_domain: self.trust_domain.to_string(),
            root_certificate_pem: self.root.certificate_pem.clone(),
            root_key_pem: self.root.key_pem.clone(),
            intermediate_certificate_pem: self.intermediate.certificate_pem.clone(),
            intermediate_key_pem: self.intermediate.key_pem.clone(),
        }
    }

    /// The installation it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root's certificate, which everyone in the mesh trusts.
    pub fn root_pem(&self) -> &str {
        &self.root.certificate_pem
    }

    /// The intermediate's certificate.
    pub fn intermediate_pem(&self) -> &str {
        &self.intermediate.certificate_pem
    }

    /// Signs the key of a request for exactly the identity that the caller authorised.
    ///
    /// # Errors
    /// The request is not honest or asks for another identity, the identity is none that this authority signs, the
    /// lifetime is out of range, or the intermediate is not valid at `now`.
    pub fn sign_leaf(
        &self,
        csr_pem: &str,
        authorised: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
        rng: &dyn Rng,
    ) -> Result<LeafChain, SignError> {
        let signable = matches!(authorised, SpiffeId::Service { .. } | SpiffeId::Client { .. });
        if !signable || *authorised.trust_domain() != self.trust_domain {
            return Err(SignError::NotOurs { trust_domain: self.trust_domain.to_string(), id: authorised.to_string() });
        }
        if lifetime < MIN_LEAF_LIFETIME || lifetime > MAX_LEAF_LIFETIME {
            return Err(SignError::Authority(AuthorityError::InvalidLifetime {
                seconds: lifetime.as_secs(),
                least: MIN_LEAF_LIFETIME.as_secs(),
                most: MAX_LEAF_LIFETIME.as_secs(),
            }));
        }
        let key = csr::verified_key(csr_pem, authorised)?;
        let issuer = self.intermediate.issuer_at(now)?;
        let uri = authorised.to_string();
        let mut params: CertificateParams = pki::end_entity_params(&authorised.common_name());
        params.subject_alt_names = vec![SanType::URI(uri.clone().try_into().map_err(AuthorityError::from)?)];
        let serial = new_serial(rng);
        params.serial_number = Some(serial.clone());
        let (valid_after, valid_before) =
            pki::set_validity(&mut params, now, lifetime, Some(self.intermediate.not_after));
        let leaf_pem = params.signed_by(&key, issuer).map_err(AuthorityError::from)?.pem();
        let chain_pem = format!("{}\n{}", leaf_pem.trim_end(), self.intermediate.certificate_pem);
        Ok(LeafChain { leaf_pem, chain_pem, serial: pki::colon_hex(serial.as_ref()), valid_after, valid_before, uri })
    }
}

/// A random serial number: positive, never with a leading zero byte, so that its bytes and its encoding agree.
fn new_serial(rng: &dyn Rng) -> SerialNumber {
    let mut bytes = [0; SERIAL_BYTES];
    rng.fill(&mut bytes);
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::SigningRequest;
    use lictor_runtime::SystemRng;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    fn domain() -> TrustDomain {
        "11111111-2222-3333-4444-555555555555.consul".parse().unwrap()
    }

    fn authority() -> MeshAuthority {
        MeshAuthority::create(domain(), "dc1", now(), &SystemRng).unwrap()
    }

    fn sign(authority: &MeshAuthority, id: &SpiffeId, at: SystemTime) -> Result<LeafChain, SignError> {
        let request = SigningRequest::create(id).unwrap();
        authority.sign_leaf(&request.csr_pem, id, LEAF_LIFETIME, at, &SystemRng)
    }

    #[test]
    fn a_leaf_carries_one_uri_and_cannot_sign() {
        let id = SpiffeId::service(&domain(), "dc1", "web").unwrap();
        let leaf = sign(&authority(), &id, now()).unwrap();
        let der = pki::certificate_from_pem("leaf", &leaf.leaf_pem).unwrap();
        let certificate = pki::parse_certificate("leaf", &der).unwrap();
        assert_eq!(pki::uri_names(&certificate).unwrap(), [id.to_string()]);
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert!(!certificate.is_ca());
        assert_eq!(pki::validity_of(&certificate), (leaf.valid_after, leaf.valid_before));
        assert_eq!(leaf.valid_before, now() + LEAF_LIFETIME);
        assert_eq!(certificate.raw_serial_as_string(), leaf.serial);
        assert_eq!(leaf.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn names_and_authority_in_the_request_do_not_reach_the_leaf() {
        let id = SpiffeId::service(&domain(), "dc1", "web").unwrap();
        let mut params = pki::authority_params("server.dc1.consul", 3);
        params.use_authority_key_identifier_extension = false;
        params.subject_alt_names = vec![
            SanType::DnsName("server.dc1.consul".try_into().unwrap()),
            SanType::URI(id.to_string().try_into().unwrap()),
        ];
        let csr = params.serialize_request(&pki::new_key().unwrap()).unwrap().pem().unwrap();
        let leaf = authority().sign_leaf(&csr, &id, LEAF_LIFETIME, now(), &SystemRng).unwrap();
        let der = pki::certificate_from_pem("leaf", &leaf.leaf_pem).unwrap();
        let certificate = pki::parse_certificate("leaf", &der).unwrap();
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert!(!certificate.subject().to_string().contains("server.dc1"));
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer_and_an_ended_issuer_signs_nothing() {
        let authority = authority();
        let id = SpiffeId::client(&domain(), "dc1", "node-1").unwrap();
        let end = authority.intermediate.not_after;
        let leaf = sign(&authority, &id, end - Duration::from_secs(3600)).unwrap();
        assert_eq!(leaf.valid_before, end);
        assert!(matches!(
            sign(&authority, &id, end),
            Err(SignError::Authority(AuthorityError::OutsideValidity { .. }))
        ));
    }

    #[test]
    fn servers_authorities_and_strangers_are_not_signed() {
        let authority = authority();
        let other: TrustDomain = "99999999-2222-3333-4444-555555555555.consul".parse().unwrap();
        for id in [
            SpiffeId::Server { trust_domain: domain(), datacenter: "dc1".parse().unwrap() },
            SpiffeId::Authority { trust_domain: domain() },
            SpiffeId::service(&other, "dc1", "web").unwrap(),
        ] {
            assert!(matches!(sign(&authority, &id, now()), Err(SignError::NotOurs { .. })), "{id}");
        }
    }

    #[test]
    fn an_authority_read_back_signs_under_the_same_root_with_fresh_serials() {
        let first = authority();
        let again = MeshAuthority::from_parts(&first.to_parts()).unwrap();
        assert_eq!(first.root_pem(), again.root_pem());
        let id = SpiffeId::service(&domain(), "dc1", "web").unwrap();
        assert_ne!(sign(&first, &id, now()).unwrap().serial, sign(&again, &id, now()).unwrap().serial);
        assert!(!format!("{first:?}{:?}", first.to_parts()).contains("PRIVATE"));
    }

    #[test]
    fn a_lifetime_out_of_range_is_refused() {
        let id = SpiffeId::service(&domain(), "dc1", "web").unwrap();
        let request = SigningRequest::create(&id).unwrap();
        for lifetime in [Duration::from_secs(1), MAX_LEAF_LIFETIME + Duration::from_secs(1)] {
            let refused = authority().sign_leaf(&request.csr_pem, &id, lifetime, now(), &SystemRng);
            assert!(matches!(refused, Err(SignError::Authority(AuthorityError::InvalidLifetime { .. }))));
        }
    }
}
