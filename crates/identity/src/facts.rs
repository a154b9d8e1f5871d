//! What Consul's API tells about a certificate authority's certificate.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::extensions::ParsedExtension;

use crate::authority_error::AuthorityError;
use crate::pki;

/// The fields of `/v1/connect/ca/roots` that come from the certificate itself, in Consul's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// `ID`: the SHA-1 fingerprint, as colon-separated hexadecimal. A name, not a proof.
    pub fingerprint: String,
    /// `SerialNumber`: its lowest 64 bits, as Consul cuts it.
    pub serial_number: u64,
    /// The key's identifier, colon-separated hexadecimal. `SigningKeyID` is that of the certificate that signs leaves:
    /// of the intermediate.
    pub key_id: String,
    /// `NotBefore`.
    pub not_before: SystemTime,
    /// `NotAfter`.
    pub not_after: SystemTime,
}

/// Reads the facts of the first certificate in PEM text.
///
/// # Errors
/// There is no readable certificate in it.
pub fn certificate_facts(pem: &str) -> Result<CertificateFacts, AuthorityError> {
    let der = pki::certificate_from_pem("given", pem)?;
    let certificate = pki::parse_certificate("given", &der)?;
    let (not_before, not_after) = pki::validity_of(&certificate);
    let key_id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(pki::colon_hex(id.0)),
        _ => None,
    });
    let serial_number = certificate.raw_serial().iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    Ok(CertificateFacts {
        fingerprint: pki::colon_hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref()),
        serial_number,
        key_id: key_id.unwrap_or_default(),
        not_before,
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn facts_stand_in_consuls_notation() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let authority = crate::ServerAuthority::create("dc1", "consul", now).unwrap();
        let facts = certificate_facts(authority.certificate_pem()).unwrap();
        for text in [&facts.fingerprint, &facts.key_id] {
            let pairs: Vec<&str> = text.split(':').collect();
            assert_eq!(pairs.len(), 20, "{text}");
            assert!(pairs.iter().all(|pair| pair.len() == 2 && u8::from_str_radix(pair, 16).is_ok()), "{text}");
        }
        assert_eq!(facts.not_after, authority.not_after());
        assert_ne!(facts.serial_number, 0);
    }
}
