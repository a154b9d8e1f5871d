//! TLS configurations: TLS 1.3 only between our own parts, one provider passed explicitly, no resumption.
//!
//! A configuration is cheap to build (the keys in it were parsed before), so it is built for each handshake from what is
//! in force at that moment: rotation of certificates and roots needs no restart.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lictor_runtime::Clock;
use lictor_runtime::transport::{ALPN_LOGIN, ALPN_RAFT, ALPN_RPC};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
};

use crate::credentials::Credential;
use crate::material::{KeyedChain, Roots, provider};
use crate::peers::{PeerError, RpcTrust, peer_spiffe_id, unix_time};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Makes the configurations; holds the clock that certificates are judged by.
#[derive(Clone)]
pub struct Tls {
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Certificates are judged by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    /// The clock that certificates are judged by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(ClockTime(Arc::clone(&self.clock)))
    }

    /// The server port: a client certificate is optional here, and [`RpcTrust::classify`] decides after the handshake.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which aws-lc-rs does not.
    pub fn rpc_server(&self, own: &KeyedChain, trust: &Arc<RpcTrust>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_details(provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(RpcClientVerifier { trust: Arc::clone(trust) }))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified())));
        config.alpn_protocols = [ALPN_RAFT, ALPN_RPC, ALPN_LOGIN].map(|protocol| protocol.as_bytes().to_vec()).into();
        forget_sessions(&mut config);
        Ok(Arc::new(config))
    }

    /// Dials the server port for `protocol`, with a certificate of one's own or none. Use [`RpcTrust::server_name`].
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which aws-lc-rs does not.
    pub fn rpc_client(
        &self,
        own: Option<&KeyedChain>,
        trust: &Arc<RpcTrust>,
        protocol: &str,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = RpcServerVerifier { trust: Arc::clone(trust) };
        let mut config = self.client(Arc::new(verifier), own)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Arc::new(config))
    }

    /// The inbound side of a sidecar: takes only services of its own trust domain. Who it was is [`peer_spiffe_id`] of
    /// the connection's certificates; whether it may is for the intentions to say.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which aws-lc-rs does not.
    pub fn mesh_server(&self, credential: &Credential) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = MeshClientVerifier {
            roots: credential.roots().clone(),
            trust_domain: credential.id().trust_domain().clone(),
        };
        let mut config = ServerConfig::builder_with_details(provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(credential.chain().certified())));
        forget_sessions(&mut config);
        Ok(Arc::new(config))
    }

    /// The outbound side of a sidecar: the far end must be exactly `expected`. Use [`mesh_server_name`].
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which aws-lc-rs does not.
    pub fn mesh_client(&self, credential: &Credential, expected: &SpiffeId) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = MeshServerVerifier { roots: credential.roots().clone(), expected: expected.clone() };
        Ok(Arc::new(self.client(Arc::new(verifier), Some(credential.chain()))?))
    }

    /// HTTPS for people and tools: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, and a client certificate of
    /// `clients`, if any are given.
    ///
    /// # Errors
    /// The provider lacks TLS, which aws-lc-rs does not.
    pub fn https_server(
        &self,
        own: &Arc<RenewableChain>,
        clients: Option<Arc<RenewableRoots>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let builder =
            ServerConfig::builder_with_details(provider(), self.time()).with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match clients {
            Some(roots) => builder.with_client_cert_verifier(roots),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(own) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn client(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        own: Option<&KeyedChain>,
    ) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_details(provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified()))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// A certificate that can be replaced while connections are taken: each handshake shows the one in force.
pub struct RenewableChain(ArcSwap<KeyedChain>);

impl RenewableChain {
    /// Begins with `chain`.
    pub fn new(chain: KeyedChain) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(chain)))
    }

    /// Puts a certificate in force for every handshake from now on.
    pub fn set(&self, chain: KeyedChain) {
        self.0.store(Arc::new(chain));
    }
}

impl fmt::Debug for RenewableChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RenewableChain").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for RenewableChain {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified())
    }
}

/// Authorities that can be replaced while connections are taken: each handshake goes by those in force.
pub struct RenewableRoots(ArcSwap<Roots>);

impl RenewableRoots {
    /// Begins with `roots`.
    pub fn new(roots: Roots) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(roots)))
    }

    /// Puts authorities in force for every handshake from now on.
    pub fn set(&self, roots: Roots) {
        self.0.store(Arc::new(roots));
    }
}

impl fmt::Debug for RenewableRoots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RenewableRoots").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for RenewableRoots {
    /// No hints: those of today may not be those of the next handshake, and a client that has one certificate shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.0.load().clients().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.load().clients().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.load().clients().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().clients().supported_verify_schemes()
    }
}

/// The SNI that a sidecar sends for a service, as Consul's proxies do: `<service>.default.<dc>.internal.<trust domain>`.
///
/// # Errors
/// The identity is no service, or its names do not fit into a DNS name.
pub fn mesh_server_name(expected: &SpiffeId) -> Result<ServerName<'static>, PeerError> {
    let wanted = || PeerError::OtherIdentity {
        found: expected.to_string(),
        wanted: "a service whose names fit into a DNS name".into(),
    };
    let SpiffeId::Service { trust_domain, datacenter, service } = expected else { return Err(wanted()) };
    let name = format!("{service}.default.{datacenter}.internal.{trust_domain}");
    ServerName::try_from(name).map_err(|_| wanted())
}

/// A resumed session skips the verification of certificates: none is kept and no ticket is given.
fn forget_sessions(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

struct ClockTime(Arc<dyn Clock>);

impl fmt::Debug for ClockTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// The signature half of both verifier traits: the same for all of ours.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            Err(TlsError::General("TLS 1.2 is not spoken between agents".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// The whole chain as one list.
fn joined<'a>(end_entity: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(end_entity).chain(intermediates).cloned().collect()
}

/// Server port, incoming: no certificate, or one of somebody known.
#[derive(Debug)]
struct RpcClientVerifier {
    trust: Arc<RpcTrust>,
}

impl ClientCertVerifier for RpcClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.trust.identify(&joined(end_entity, intermediates), now)?;
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!();
}

/// Server port, outgoing: a server of this datacenter.
#[derive(Debug)]
struct RpcServerVerifier {
    trust: Arc<RpcTrust>,
}

impl ServerCertVerifier for RpcServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.trust.verify_server(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// Sidecar, incoming: a service of our trust domain.
#[derive(Debug)]
struct MeshClientVerifier {
    roots: Roots,
    trust_domain: TrustDomain,
}

impl ClientCertVerifier for MeshClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.roots.verify_client(&joined(end_entity, intermediates), now)?;
        match peer_spiffe_id(std::slice::from_ref(end_entity))? {
            SpiffeId::Service { trust_domain, .. } if trust_domain == self.trust_domain => {
                Ok(ClientCertVerified::assertion())
            }
            other => Err(PeerError::OtherIdentity {
                found: other.to_string(),
                wanted: format!("a service of {}", self.trust_domain),
            }
            .into()),
        }
    }

    verify_signatures!();
}

/// Sidecar, outgoing: exactly the service that was meant. Names of other kinds in the certificate count for nothing.
#[derive(Debug)]
struct MeshServerVerifier {
    roots: Roots,
    expected: SpiffeId,
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.roots.verify_server(end_entity, intermediates, now)?;
        let found = peer_spiffe_id(std::slice::from_ref(end_entity))?;
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(PeerError::OtherIdentity { found: found.to_string(), wanted: self.expected.to_string() }.into())
        }
    }

    verify_signatures!();
}
