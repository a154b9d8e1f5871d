#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
//! Two authorities, a clock that stands still, and a forger who holds the mesh's signing key.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_identity::csr::SigningRequest;
use lictor_identity::mesh_authority::LEAF_LIFETIME;
use lictor_identity::{
    Credential, KeyedChain, MeshAuthority, Roots, RpcTrust, ServerAuthority, ServerCertificateRequest, SpiffeId, Tls,
    TrustDomain,
};
use lictor_runtime::{Clock, SystemRng};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub struct StandingClock(pub SystemTime);

impl Clock for StandingClock {
    fn now(&self) -> SystemTime {
        self.0
    }
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

pub fn tls_at(now: SystemTime) -> Tls {
    Tls::new(Arc::new(StandingClock(now)))
}

pub struct World {
    pub server_authority: ServerAuthority,
    pub mesh: MeshAuthority,
    pub trust: Arc<RpcTrust>,
}

impl World {
    pub fn new() -> Self {
        let server_authority = ServerAuthority::create("dc1", "consul", now()).unwrap();
        let mesh = mesh("11111111-2222-3333-4444-555555555555.consul");
        let roots = Roots::from_pem(server_authority.certificate_pem()).unwrap();
        let trust = RpcTrust::new(roots, "dc1", "consul").unwrap();
        trust.set_mesh_roots(mesh.trust_domain().clone(), mesh.root_pem()).unwrap();
        Self { server_authority, mesh, trust: Arc::new(trust) }
    }

    pub fn server(&self) -> KeyedChain {
        server_of(&self.server_authority, "dc1")
    }

    pub fn domain(&self) -> &TrustDomain {
        self.mesh.trust_domain()
    }

    pub fn service(&self, name: &str) -> SpiffeId {
        SpiffeId::service(self.domain(), "dc1", name).unwrap()
    }

    pub fn client(&self) -> Credential {
        credential(&self.mesh, &SpiffeId::client(self.domain(), "dc1", "node-1").unwrap())
    }

    pub fn workload(&self, name: &str) -> Credential {
        credential(&self.mesh, &self.service(name))
    }
}

pub fn mesh(domain: &str) -> MeshAuthority {
    MeshAuthority::create(domain.parse().unwrap(), "dc1", now(), &SystemRng).unwrap()
}

pub fn server_of(authority: &ServerAuthority, datacenter: &str) -> KeyedChain {
    let issued = authority.sign_server(&ServerCertificateRequest::new(datacenter, "consul"), now()).unwrap();
    KeyedChain::from_pem(&issued.chain_pem, &issued.key_pem).unwrap()
}

pub fn credential(mesh: &MeshAuthority, id: &SpiffeId) -> Credential {
    let request = SigningRequest::create(id).unwrap();
    let leaf = mesh.sign_leaf(&request.csr_pem, id, LEAF_LIFETIME, now(), &SystemRng).unwrap();
    Credential::from_pem(&leaf.chain_pem, &request.key_pem, mesh.root_pem(), now()).unwrap()
}

pub fn uri(id: &SpiffeId) -> SanType {
    SanType::URI(id.to_string().try_into().unwrap())
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// What whoever has stolen a signing key could sign: any names.
pub fn forged(certificate_pem: &str, key_pem: &str, names: Vec<SanType>) -> KeyedChain {
    let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().pem();
    KeyedChain::from_pem(&format!("{leaf}{certificate_pem}"), &key.serialize_pem()).unwrap()
}

pub fn forged_by_mesh(mesh: &MeshAuthority, names: Vec<SanType>) -> KeyedChain {
    let parts = mesh.to_parts();
    forged(&parts.intermediate_certificate_pem, &parts.intermediate_key_pem, names)
}

/// A configuration that presents any chain, whatever our own ones would refuse.
pub fn server_presenting(chain: &KeyedChain, trust: &Arc<RpcTrust>) -> Arc<ServerConfig> {
    tls_at(now()).rpc_server(chain, trust).unwrap()
}

pub type Shaken = (io::Result<server::TlsStream<DuplexStream>>, io::Result<client::TlsStream<DuplexStream>>);

/// Both ends of a handshake in memory.
pub async fn shake(listener: Arc<ServerConfig>, dialler: Arc<ClientConfig>, name: ServerName<'static>) -> Shaken {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::join!(TlsAcceptor::from(listener).accept(near), TlsConnector::from(dialler).connect(name, far))
}
