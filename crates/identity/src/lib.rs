//! Who is who: SPIFFE ids, the two certificate authorities, sealing of secrets, TLS configurations and credentials.
//!
//! Two authorities, which never meet: the *server CA* signs server certificates only and is never in raft; the *mesh CA*
//! lives in replicated state and signs client agents, sidecars and workloads.
//!
//! Invariants
//! - A certificate of the mesh CA never classifies as a server, whatever names it carries.
//! - A workload certificate carries exactly one URI SAN, and it is the one that was authorised, not the one asked for.
//! - Everything that changes (credential, roots) is read at each handshake; a resumed session would skip that, so
//!   resumption is off.
//! - No secret shows in `Debug`, in an error or in a log line.

pub mod authority_error;
pub mod credentials;
pub mod csr;
pub mod facts;
pub mod files;
pub mod loopback;
pub mod material;
pub mod mesh_authority;
pub mod peers;
pub mod renewal;
pub mod seal;
pub mod server_authority;
pub mod spiffe;
pub mod tls;
pub mod transport;

mod pki;

pub use authority_error::AuthorityError;
pub use credentials::{Credential, Credentials, CredentialsPublisher};
pub use csr::{RequestError, SigningRequest, requested_id};
pub use facts::{CertificateFacts, certificate_facts};
pub use files::FileError;
pub use loopback::{LoopbackError, LoopbackMaterial};
pub use material::{KeyedChain, MaterialError, Roots};
pub use mesh_authority::{LeafChain, MeshAuthority, MeshAuthorityParts, SignError};
pub use peers::{PeerError, RpcTrust, peer_spiffe_id};
pub use renewal::renewal_moment;
pub use seal::{SealError, SealKey};
pub use server_authority::{
    HttpsCertificate, IssuedCertificate, ServerAuthority, ServerCertificateRequest, server_name,
};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use tls::{RenewableChain, RenewableRoots, Tls, mesh_server_name};
pub use transport::{RpcMaterial, TlsTransport};
