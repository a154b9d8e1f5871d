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
pub mod server_authority;

mod pki;

pub use authority_error::AuthorityError;
pub use server_authority::{IssuedCertificate, ServerAuthority, ServerCertificateRequest, server_name};
