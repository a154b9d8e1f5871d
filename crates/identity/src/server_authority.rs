//! The server CA: signs server certificates and nothing else. It is never in raft.
//!
//! Invariants
//! - What makes a server is the chain to this CA together with the name `server.<datacenter>.<domain>`; no URI is set.
//! - A server certificate never outlives the CA, and may not sign others.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::SanType;
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;
use crate::pki::{self, SigningPair};

/// How long a new server CA is valid.
pub const SERVER_AUTHORITY_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);
/// How long a server certificate is valid unless asked otherwise.
pub const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// The shortest lifetime a server certificate can be asked for.
pub const MIN_SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(60);

const WHAT: &str = "server CA";

/// The DNS name that every server certificate of a datacenter carries and every client of its servers verifies.
pub fn server_name(datacenter: &str, domain: &str) -> String {
    format!("server.{}.{}", datacenter.to_ascii_lowercase(), domain.trim_matches('.').to_ascii_lowercase())
}

/// A certificate with its private key, as PEM text.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate, then what leads up to its root, without the root.
    pub chain_pem: String,
    /// The private key (PKCS#8), wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuedCertificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// What a server certificate should say.
#[derive(Clone, Debug)]
pub struct ServerCertificateRequest {
    /// The datacenter of the server.
    pub datacenter: String,
    /// The DNS domain of the installation, `consul` unless configured.
    pub domain: String,
    /// Names beside `server.<datacenter>.<domain>`, which is always there. A leading `*.` is allowed.
    pub dns_names: Vec<String>,
    /// Addresses under which the server is reached.
    pub ip_addresses: Vec<IpAddr>,
    /// How long it is valid; cut at the end of the CA.
    pub valid_for: Duration,
}

impl ServerCertificateRequest {
    /// A request with no further names and the usual lifetime.
    pub fn new(datacenter: impl Into<String>, domain: impl Into<String>) -> Self {
        Self {
            datacenter: datacenter.into(),
            domain: domain.into(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            valid_for: SERVER_CERTIFICATE_LIFETIME,
        }
    }
}

/// The server CA with its key.
pub struct ServerAuthority {
    pair: SigningPair,
}

impl fmt::Debug for ServerAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerAuthority")
            .field("certificate_pem", &self.pair.certificate_pem)
            .finish_non_exhaustive()
    }
}

impl ServerAuthority {
    /// Makes a new CA, valid from `now` for five years.
    ///
    /// # Errors
    /// The names cannot stand in a certificate, or key generation failed.
    pub fn create(datacenter: &str, domain: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        check_dns_name(&server_name(datacenter, domain))?;
        let key = pki::new_key()?;
        let mut params = pki::authority_params("", 0);
        let tag = pki::hex(&params.key_identifier(&key)[..4]);
        let domain = domain.trim_matches('.');
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("Lictor Server CA {tag} {datacenter}.{domain}").chars().take(64).collect::<String>(),
        );
        pki::set_validity(&mut params, now, SERVER_AUTHORITY_LIFETIME, None);
        let certificate = params.self_signed(&key)?;
        Self::from_pem(&certificate.pem(), &pki::key_to_pem(&key))
    }

    /// Reads a CA made before.
    ///
    /// # Errors
    /// Either text is unreadable, the certificate is no CA, or the key is not its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        Ok(Self { pair: SigningPair::from_pem(WHAT, certificate_pem, key_pem)? })
    }

    /// The CA's certificate: public.
    pub fn certificate_pem(&self) -> &str {
        &self.pair.certificate_pem
    }

    /// The CA's private key (PKCS#8 PEM).
    pub fn key_pem(&self) -> &str {
        &self.pair.key_pem
    }

    /// When the CA's certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.pair.not_after
    }

    /// Makes a key and signs a server certificate for it.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, the lifetime is out of range, or the CA is not valid at `now`.
    pub fn sign_server(
        &self,
        request: &ServerCertificateRequest,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.sign(&server_name(&request.datacenter, &request.domain), request, now)
    }

    /// Makes a key and signs a certificate for HTTPS: of an agent that is no server, or of a program that shows one. No
    /// name in it makes a server, so it cannot be shown on the server port.
    ///
    /// # Errors
    /// As for a server, or one of the names begins as those of servers do.
    pub fn sign_https(
        &self,
        whose: HttpsCertificate,
        request: &ServerCertificateRequest,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if let Some(name) = request.dns_names.iter().find(|name| is_of_servers(name)) {
            let reason = "names that begin with `server.` or `*.` are those of servers";
            return Err(AuthorityError::InvalidName { name: name.clone(), reason });
        }
        let (datacenter, domain) = (&request.datacenter, request.domain.trim_matches('.'));
        self.sign(&format!("{}.{datacenter}.{domain}", whose.as_str()), request, now)
    }

    fn sign(
        &self,
        role: &str,
        request: &ServerCertificateRequest,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let allowed = MIN_SERVER_CERTIFICATE_LIFETIME..=SERVER_AUTHORITY_LIFETIME;
        if !allowed.contains(&request.valid_for) {
            return Err(AuthorityError::InvalidLifetime {
                seconds: request.valid_for.as_secs(),
                least: allowed.start().as_secs(),
                most: allowed.end().as_secs(),
            });
        }
        let issuer = self.pair.issuer_at(now)?;
        let mut params = pki::end_entity_params(&role.chars().take(64).collect::<String>());
        params.subject_alt_names = alternative_names(role, request)?;
        pki::set_validity(&mut params, now, request.valid_for, Some(self.pair.not_after));
        let key = pki::new_key()?;
        let certificate = params.signed_by(&key, issuer)?;
        Ok(IssuedCertificate { chain_pem: certificate.pem(), key_pem: pki::key_to_pem(&key) })
    }
}

/// Whose certificate for HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpsCertificate {
    /// An agent that is no server.
    Client,
    /// The command line, or another program.
    Cli,
}

impl HttpsCertificate {
    /// The first label of its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Cli => "cli",
        }
    }
}

fn is_of_servers(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.starts_with("server.") || name.starts_with("*.")
}

fn alternative_names(role: &str, request: &ServerCertificateRequest) -> Result<Vec<SanType>, AuthorityError> {
    let mut texts = vec![role.to_owned()];
    for name in &request.dns_names {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !texts.contains(&name) {
            texts.push(name);
        }
    }
    let mut names = Vec::with_capacity(texts.len() + request.ip_addresses.len());
    for text in texts {
        check_dns_name(&text)?;
        names.push(SanType::DnsName(text.try_into()?));
    }
    names.extend(request.ip_addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, at most 253 in all; `*` alone as the first label.
fn check_dns_name(name: &str) -> Result<(), AuthorityError> {
    let invalid = |reason| Err(AuthorityError::InvalidName { name: name.to_owned(), reason });
    if name.is_empty() || name.len() > 253 {
        return invalid("it must have 1 to 253 characters");
    }
    let labels = name.strip_prefix("*.").unwrap_or(name);
    for label in labels.split('.') {
        if label.is_empty() || label.len() > 63 {
            return invalid("each label must have 1 to 63 characters");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return invalid(
                "labels hold letters, digits, hyphens and underscores, and `*` may only be the first label",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::extensions::GeneralName;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    fn names_of(pem: &str) -> Vec<String> {
        let der = pki::certificate_from_pem("test", pem).unwrap();
        let certificate = pki::parse_certificate("test", &der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        names
            .value
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::DNSName(name) => format!("dns:{name}"),
                GeneralName::IPAddress(bytes) => format!("ip:{bytes:?}"),
                other => format!("other:{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_server_certificate_carries_its_role_and_the_names_asked_for() {
        let authority = ServerAuthority::create("dc1", "consul.", now()).unwrap();
        let mut request = ServerCertificateRequest::new("dc1", "consul");
        request.dns_names = vec!["localhost".into(), "*.lictor-server.ns.svc".into(), "localhost".into()];
        request.ip_addresses = vec![[127, 0, 0, 1].into()];
        let issued = authority.sign_server(&request, now()).unwrap();
        assert_eq!(
            names_of(&issued.chain_pem),
            ["dns:server.dc1.consul", "dns:localhost", "dns:*.lictor-server.ns.svc", "ip:[127, 0, 0, 1]"]
        );
        assert!(issued.key_pem.contains("PRIVATE KEY"));
        assert!(!format!("{issued:?}{authority:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn an_authority_read_back_signs_and_one_with_a_foreign_key_is_refused() {
        let first = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let second = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let again = ServerAuthority::from_pem(first.certificate_pem(), first.key_pem()).unwrap();
        again.sign_server(&ServerCertificateRequest::new("dc1", "consul"), now()).unwrap();
        let mixed = ServerAuthority::from_pem(first.certificate_pem(), second.key_pem());
        assert!(matches!(mixed, Err(AuthorityError::KeyMismatch { .. })));
    }

    #[test]
    fn a_server_certificate_is_no_authority_and_does_not_outlive_its_own() {
        let authority = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let late = authority.not_after() - Duration::from_secs(3600);
        let issued = authority.sign_server(&ServerCertificateRequest::new("dc1", "consul"), late).unwrap();
        let der = pki::certificate_from_pem("test", &issued.chain_pem).unwrap();
        let certificate = pki::parse_certificate("test", &der).unwrap();
        assert_eq!(pki::validity_of(&certificate), (late - pki::CLOCK_SKEW, authority.not_after()));
        let as_authority = ServerAuthority::from_pem(&issued.chain_pem, &issued.key_pem);
        assert!(matches!(as_authority, Err(AuthorityError::NotAnAuthority { .. })));
    }

    #[test]
    fn an_ended_authority_and_senseless_requests_are_refused() {
        let authority = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let request = ServerCertificateRequest::new("dc1", "consul");
        let ended = authority.sign_server(&request, authority.not_after());
        assert!(matches!(ended, Err(AuthorityError::OutsideValidity { .. })));
        for name in ["", "a..b", "a.*.b", "with space", "nul\0byte", "*"] {
            let request = ServerCertificateRequest { dns_names: vec![name.into()], ..request.clone() };
            assert!(authority.sign_server(&request, now()).is_err(), "{name:?}");
        }
        let request = ServerCertificateRequest { valid_for: Duration::ZERO, ..request };
        assert!(matches!(authority.sign_server(&request, now()), Err(AuthorityError::InvalidLifetime { .. })));
    }
}
