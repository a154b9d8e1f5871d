//! Certificate signing requests: made by who wants a certificate, read by the leader.
//!
//! Of a request, two things count: its public key, proven by the self-signature, and its one URI SAN. Everything else in
//! it is ignored; policy comes from the signer.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;
use crate::pki;
use crate::spiffe::{SpiffeError, SpiffeId};

/// The longest request that is read, as PEM text.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Why a signing request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Longer than any honest request.
    #[error("the signing request has more than {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    /// Not a request at all.
    #[error("the signing request cannot be read: {0}; a PEM block `CERTIFICATE REQUEST` is needed")]
    Unreadable(String),
    /// Whoever sent it does not hold the key.
    #[error("the signature of the signing request does not verify with its own public key")]
    Signature,
    /// A key kind that is not taken.
    #[error("the key of the signing request is not taken: elliptic curve keys on P-256 or P-384 are")]
    KeyKind,
    /// None or several identities asked for (several: CVE-2022-40716).
    #[error("the signing request names {0} URIs; exactly one, a SPIFFE id, is needed")]
    UriCount(usize),
    /// The identity asked for is malformed.
    #[error("the signing request's URI is refused: {0}")]
    Identity(#[from] SpiffeError),
    /// The identity asked for is not the authorised one.
    #[error("the signing request is for {asked}, but {authorised} was authorised")]
    OtherIdentity {
        /// What the request says.
        asked: String,
        /// What may be signed.
        authorised: String,
    },
}

/// A key pair that was just made, with the request for its certificate.
pub struct SigningRequest {
    /// The request (PKCS#10 PEM), to be sent.
    pub csr_pem: String,
    /// The private key (PKCS#8 PEM), to be kept; wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningRequest").field("csr_pem", &self.csr_pem).finish_non_exhaustive()
    }
}

impl SigningRequest {
    /// Makes a P-256 key pair and a request for a certificate of `id`.
    ///
    /// # Errors
    /// Key generation or signing failed.
    pub fn create(id: &SpiffeId) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        let key = pki::new_key()?;
        let csr_pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { csr_pem, key_pem: pki::key_to_pem(&key) })
    }
}

/// The identity that a request asks for, so that the caller can decide whether to authorise it.
///
/// # Errors
/// The request is unreadable, not signed by its own key, or does not name exactly one SPIFFE id.
pub fn requested_id(csr_pem: &str) -> Result<SpiffeId, RequestError> {
    Ok(read(csr_pem)?.0)
}

/// The public key of a request for exactly `authorised`.
pub(crate) fn verified_key(csr_pem: &str, authorised: &SpiffeId) -> Result<SubjectPublicKeyInfo, RequestError> {
    let (asked, key) = read(csr_pem)?;
    if asked != *authorised {
        return Err(RequestError::OtherIdentity { asked: asked.to_string(), authorised: authorised.to_string() });
    }
    Ok(key)
}

fn read(csr_pem: &str) -> Result<(SpiffeId, SubjectPublicKeyInfo), RequestError> {
    if csr_pem.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLong);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|error| RequestError::Unreadable(error.to_string()))?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| RequestError::Unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(RequestError::Unreadable("bytes follow the request".into()));
    }
    let public_key = &request.certification_request_info.subject_pki;
    let curve = public_key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let known_curve = curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384);
    if public_key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || !known_curve {
        return Err(RequestError::KeyKind);
    }
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    let uris = uris_of(&request)?;
    let [uri] = uris.as_slice() else { return Err(RequestError::UriCount(uris.len())) };
    let key = SubjectPublicKeyInfo::from_der(public_key.raw).map_err(|_| RequestError::KeyKind)?;
    Ok((uri.parse()?, key))
}

/// Every URI SAN, over all attributes and all extensions: a second one must not hide behind the first.
fn uris_of<'a>(request: &'a X509CertificationRequest<'_>) -> Result<Vec<&'a str>, RequestError> {
    let mut uris = Vec::new();
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in &requested.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    uris.extend(names.general_names.iter().filter_map(|name| match name {
                        GeneralName::URI(uri) => Some(*uri),
                        _ => None,
                    }));
                }
                _ if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME => {
                    return Err(RequestError::Unreadable("its subject alternative names are damaged".into()));
                }
                _ => {}
            }
        }
    }
    Ok(uris)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spiffe::TrustDomain;

    fn web() -> SpiffeId {
        let domain: TrustDomain = "11111111-2222-3333-4444-555555555555.consul".parse().unwrap();
        SpiffeId::service(&domain, "dc1", "web").unwrap()
    }

    fn request_for(names: Vec<SanType>) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.serialize_request(&pki::new_key().unwrap()).unwrap().pem().unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_request_names_the_identity_it_was_made_for() {
        let request = SigningRequest::create(&web()).unwrap();
        assert_eq!(requested_id(&request.csr_pem).unwrap(), web());
        assert!(verified_key(&request.csr_pem, &web()).is_ok());
        assert!(!format!("{request:?}").contains("PRIVATE"));
    }

    #[test]
    fn cve_2022_40716_a_request_with_two_uris_is_refused() {
        let first = web().to_string();
        let second = first.replace("/svc/web", "/svc/admin");
        for names in [vec![uri(&first), uri(&second)], vec![uri(&second), uri(&first)], vec![uri(&first), uri(&first)]]
        {
            assert!(matches!(verified_key(&request_for(names), &web()), Err(RequestError::UriCount(2))));
        }
    }

    #[test]
    fn a_request_without_a_uri_or_for_another_identity_is_refused() {
        let none = request_for(vec![SanType::DnsName("server.dc1.consul".try_into().unwrap())]);
        assert!(matches!(requested_id(&none), Err(RequestError::UriCount(0))));
        let other = request_for(vec![uri(&web().to_string().replace("web", "admin"))]);
        assert!(matches!(verified_key(&other, &web()), Err(RequestError::OtherIdentity { .. })));
        let foreign = request_for(vec![uri("https://example.com/")]);
        assert!(matches!(requested_id(&foreign), Err(RequestError::Identity(_))));
    }

    #[test]
    fn a_request_whose_signature_was_not_made_with_its_key_is_refused() {
        let request = SigningRequest::create(&web()).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(request.csr_pem.as_bytes()).unwrap();
        let mut bytes = der.to_vec();
        // Another identity of the same length, under the old signature.
        let at = bytes.windows(7).position(|window| window == b"svc/web").unwrap();
        bytes[at + 4..at + 7].copy_from_slice(b"adm");
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(matches!(requested_id(&forged), Err(RequestError::Signature)));
    }

    #[test]
    fn garbage_and_giants_are_refused() {
        assert!(matches!(requested_id("hello"), Err(RequestError::Unreadable(_))));
        assert!(matches!(requested_id(&"x".repeat(MAX_REQUEST_BYTES + 1)), Err(RequestError::TooLong)));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(&web().to_string())];
        let edwards = params.serialize_request(&key).unwrap().pem().unwrap();
        assert!(matches!(requested_id(&edwards), Err(RequestError::KeyKind)));
    }
}
