//! Who a peer is, by the certificates it presented.
//!
//! Invariants
//! - A server is a chain to the server CA *and* the name `server.<datacenter>.<domain>`, letter by letter (no wildcard).
//! - A chain to the mesh CA is a client agent or a workload, never a server, whatever names stand in it.
//! - A mesh certificate with no URI, or with more than one, is nobody.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use lictor_runtime::PeerIdentity;
use lictor_runtime::transport::{ALPN_LOGIN, ALPN_RAFT, ALPN_RPC};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error as TlsError, OtherError};
use x509_parser::extensions::GeneralName;

use crate::material::{MaterialError, Roots};
use crate::pki;
use crate::server_authority::server_name;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};

/// Why a peer is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// The protocol takes certificates only.
    #[error("{protocol} takes no peer without a client certificate; log in first to get one")]
    NoCertificate {
        /// The protocol chosen.
        protocol: String,
    },
    /// The peer chose a protocol that is not spoken, or none.
    #[error("the peer speaks {0:?}; raft/1, h2 and login/1 are spoken here")]
    Protocol(String),
    /// The role may not speak the protocol.
    #[error("{peer} may not speak {protocol}: only servers may")]
    Role {
        /// Who it is.
        peer: String,
        /// What it wanted to speak.
        protocol: String,
    },
    /// The chain does not end at a trusted root, or is not valid now.
    #[error("the peer's certificate is not trusted: {0}")]
    Untrusted(TlsError),
    /// The certificate cannot be parsed.
    #[error("the peer's certificate cannot be read")]
    Unreadable,
    /// Of the server CA, but without the server's name.
    #[error("the peer's certificate does not carry the name {0}, which makes a server")]
    NotAServer(String),
    /// None or several identities.
    #[error("the peer's certificate names {0} URIs; exactly one, a SPIFFE id, is needed")]
    UriCount(usize),
    /// The identity is malformed.
    #[error("the peer's identity is refused: {0}")]
    Identity(#[from] SpiffeError),
    /// An identity of another installation, another datacenter or another kind.
    #[error("the peer is {found}; {wanted} is needed")]
    OtherIdentity {
        /// Who the peer is.
        found: String,
        /// Who would be right.
        wanted: String,
    },
}

impl From<PeerError> for TlsError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Untrusted(error) => error,
            other => Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(other)))),
        }
    }
}

/// The one SPIFFE id in a certificate whose chain has been verified.
///
/// # Errors
/// The certificate is unreadable, or names not exactly one URI, or that is no SPIFFE id.
pub fn peer_spiffe_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerError> {
    let first = chain.first().ok_or(PeerError::UriCount(0))?;
    let certificate = pki::parse_certificate("peer", first).map_err(|_| PeerError::Unreadable)?;
    let uris = pki::uri_names(&certificate).ok_or(PeerError::Unreadable)?;
    let [uri] = uris.as_slice() else { return Err(PeerError::UriCount(uris.len())) };
    Ok(uri.parse()?)
}

/// Whether a certificate carries a DNS name, letter by letter.
pub(crate) fn has_dns_name(certificate: &CertificateDer<'_>, wanted: &str) -> Result<bool, PeerError> {
    let certificate = pki::parse_certificate("peer", certificate).map_err(|_| PeerError::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Unreadable)?;
    Ok(names.is_some_and(|names| {
        names.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) => name.eq_ignore_ascii_case(wanted),
            _ => false,
        })
    }))
}

/// The mesh's roots, as they stand in the replicated state.
#[derive(Debug)]
struct MeshTrust {
    trust_domain: TrustDomain,
    roots: Roots,
}

/// Whom the server port trusts. The roots are replaced while it runs; every handshake reads them anew.
#[derive(Debug)]
pub struct RpcTrust {
    server_roots: ArcSwap<Roots>,
    mesh: ArcSwapOption<MeshTrust>,
    datacenter: String,
    role: String,
    name: ServerName<'static>,
}

impl RpcTrust {
    /// Trust in the server CA alone: no mesh certificate is taken until [`RpcTrust::set_mesh_roots`].
    ///
    /// # Errors
    /// There is no readable certificate in the text, or datacenter and domain do not make a DNS name.
    pub fn new(server_roots: Roots, datacenter: &str, domain: &str) -> Result<Self, SpiffeError> {
        let role = server_name(datacenter, domain);
        let name = ServerName::try_from(role.clone()).map_err(|_| SpiffeError::Segment(role.clone()))?;
        Ok(Self {
            server_roots: ArcSwap::from_pointee(server_roots),
            mesh: ArcSwapOption::empty(),
            datacenter: datacenter.to_owned(),
            role,
            name,
        })
    }

    /// Replaces the server CA, when its file has changed.
    pub fn set_server_roots(&self, roots: Roots) {
        self.server_roots.store(Arc::new(roots));
    }

    /// Replaces the mesh's roots: the PEM texts of every root that is still to be trusted.
    ///
    /// # Errors
    /// The text holds no readable certificate.
    pub fn set_mesh_roots(&self, trust_domain: TrustDomain, roots_pem: &str) -> Result<(), MaterialError> {
        let roots = Roots::from_pem(roots_pem)?;
        self.mesh.store(Some(Arc::new(MeshTrust { trust_domain, roots })));
        Ok(())
    }

    /// The name `server.<datacenter>.<domain>` that servers are dialled by.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Who presented this chain; everything about it is verified here.
    ///
    /// # Errors
    /// It is nobody that the server port knows.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<PeerIdentity, PeerError> {
        let Some(first) = chain.first() else { return Err(PeerError::UriCount(0)) };
        let as_server = self.server_roots.load().verify_client(chain, now);
        let Err(not_a_server) = as_server else {
            return if has_dns_name(first, &self.role)? {
                Ok(PeerIdentity::Server)
            } else {
                Err(PeerError::NotAServer(self.role.clone()))
            };
        };
        let Some(mesh) = self.mesh.load_full() else { return Err(PeerError::Untrusted(not_a_server)) };
        if let Err(not_of_the_mesh) = mesh.roots.verify_client(chain, now) {
            let stranger = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
            return Err(PeerError::Untrusted(if not_a_server == stranger { not_of_the_mesh } else { not_a_server }));
        }
        self.identify_member(&mesh, peer_spiffe_id(chain)?)
    }

    fn identify_member(&self, mesh: &MeshTrust, id: SpiffeId) -> Result<PeerIdentity, PeerError> {
        let ours = *id.trust_domain() == mesh.trust_domain;
        match &id {
            SpiffeId::Client { datacenter, node, .. } if ours && datacenter.as_str() == self.datacenter => {
                Ok(PeerIdentity::Client { node: node.to_string() })
            }
            SpiffeId::Service { datacenter, service, .. } if ours && datacenter.as_str() == self.datacenter => {
                Ok(PeerIdentity::Workload { service: service.to_string() })
            }
            _ => Err(PeerError::OtherIdentity {
                found: id.to_string(),
                wanted: format!("a client or a service of {} in {}", mesh.trust_domain, self.datacenter),
            }),
        }
    }

    /// Who a peer is and whether it may speak the protocol it chose: the decision of the server port.
    ///
    /// # Errors
    /// It presented no certificate on a protocol that needs one, is nobody known, or may not speak the protocol.
    pub fn classify(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        protocol: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<PeerIdentity, PeerError> {
        let protocol = String::from_utf8_lossy(protocol.unwrap_or_default()).into_owned();
        if protocol == ALPN_LOGIN {
            // Login goes by the proof in its message alone; a certificate must not add to it.
            return Ok(PeerIdentity::Anonymous);
        }
        if protocol != ALPN_RAFT && protocol != ALPN_RPC {
            return Err(PeerError::Protocol(protocol));
        }
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else {
            return Err(PeerError::NoCertificate { protocol });
        };
        let peer = self.identify(chain, unix_time(now))?;
        if protocol == ALPN_RAFT && peer != PeerIdentity::Server {
            return Err(PeerError::Role { peer: format!("{peer:?}"), protocol });
        }
        Ok(peer)
    }

    /// Verifies a server that was dialled: its chain and its name.
    pub(crate) fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        self.server_roots.load().verify_server(end_entity, intermediates, now)?;
        if has_dns_name(end_entity, &self.role)? {
            Ok(())
        } else {
            Err(PeerError::NotAServer(self.role.clone()).into())
        }
    }
}

pub(crate) fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
