//! What both authorities share: reading PEM, validity arithmetic, certificate fields.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;

/// How far back a certificate's beginning is set, so that a host whose clock is a little behind takes it at once.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The longest PEM text that is parsed: a chain of a few certificates is a few kilobytes.
pub(crate) const MAX_PEM_BYTES: usize = 64 * 1024;

/// A certificate that may sign, with its key.
pub(crate) struct SigningPair {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
    pub(crate) not_after: SystemTime,
    pub(crate) not_before: SystemTime,
    issuer: Issuer<'static, KeyPair>,
    what: &'static str,
}

impl SigningPair {
    /// Reads a signing certificate and its key, and checks that they belong together and may sign.
    pub(crate) fn from_pem(what: &'static str, certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let der = certificate_from_pem(what, certificate_pem)?;
        let certificate = parse_certificate(what, &der)?;
        if !certificate.is_ca() {
            return Err(AuthorityError::NotAnAuthority { what });
        }
        let key = key_from_pem(what, key_pem)?;
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Err(AuthorityError::KeyMismatch { what });
        }
        let (not_before, not_after) = validity_of(&certificate);
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_owned()),
            not_before,
            not_after,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            what,
        })
    }

    /// The issuer, if its certificate is valid at `now`.
    pub(crate) fn issuer_at(&self, now: SystemTime) -> Result<&Issuer<'static, KeyPair>, AuthorityError> {
        if now < self.not_before || now >= self.not_after {
            return Err(AuthorityError::OutsideValidity {
                what: self.what,
                not_before: OffsetDateTime::from(self.not_before).to_string(),
                not_after: OffsetDateTime::from(self.not_after).to_string(),
            });
        }
        Ok(&self.issuer)
    }
}

/// A new P-256 key pair.
pub(crate) fn new_key() -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// The key's PEM text, wiped when dropped.
pub(crate) fn key_to_pem(key: &KeyPair) -> Zeroizing<String> {
    Zeroizing::new(key.serialize_pem())
}

/// Reads a private key from PEM text.
pub(crate) fn key_from_pem(what: &'static str, pem: &str) -> Result<KeyPair, AuthorityError> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(AuthorityError::UnreadableKey { what, reason: format!("longer than {MAX_PEM_BYTES} bytes") });
    }
    KeyPair::from_pem(pem).map_err(|error| AuthorityError::UnreadableKey { what, reason: error.to_string() })
}

/// The first certificate in PEM text.
pub(crate) fn certificate_from_pem(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    let unreadable = |reason: String| AuthorityError::UnreadableCertificate { what, reason };
    if pem.len() > MAX_PEM_BYTES {
        return Err(unreadable(format!("longer than {MAX_PEM_BYTES} bytes")));
    }
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unreadable(error.to_string()))
}

/// Parses DER; nothing may follow the certificate.
pub(crate) fn parse_certificate<'a>(what: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, AuthorityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(AuthorityError::UnreadableCertificate { what, reason: "bytes follow the certificate".into() }),
        Err(error) => Err(AuthorityError::UnreadableCertificate { what, reason: error.to_string() }),
    }
}

/// From when to when a certificate is valid.
pub(crate) fn validity_of(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |timestamp: i64| match u64::try_from(timestamp) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => SystemTime::UNIX_EPOCH,
    };
    (at(certificate.validity().not_before.timestamp()), at(certificate.validity().not_after.timestamp()))
}

/// Every URI among the subject alternative names. `None` when the extension is damaged or stands there twice.
pub(crate) fn uri_names<'a>(certificate: &'a X509Certificate<'_>) -> Option<Vec<&'a str>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    Some(
        names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect(),
    )
}

/// Fields of a certificate that may sign others. `path_length` is how many authorities may follow below it.
pub(crate) fn authority_params(common_name: &str, path_length: u8) -> CertificateParams {
    let mut params = named_params(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Fields of a certificate that may sign none: for either end of a connection.
pub(crate) fn end_entity_params(common_name: &str) -> CertificateParams {
    let mut params = named_params(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// Sets validity from a little before `now` to `valid_for` after it, cut at `limit`, to whole seconds. Returns both ends.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    valid_for: Duration,
    limit: Option<SystemTime>,
) -> (SystemTime, SystemTime) {
    let wanted = now + valid_for;
    let not_after = whole_seconds(limit.map_or(wanted, |limit| wanted.min(limit)));
    let not_before = whole_seconds(now.checked_sub(CLOCK_SKEW).unwrap_or(SystemTime::UNIX_EPOCH));
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(not_after);
    (not_before, not_after)
}

fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// Bytes as lower case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as lower case hexadecimal pairs with colons between, as Consul writes serial numbers and fingerprints.
pub(crate) fn colon_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
