//! The mesh CA as replicated state, and what readers see of it.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Index;

/// The mesh CA: public parts in the clear, keys sealed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuthorityRecord {
    /// `<cluster id>.consul`.
    #[n(0)]
    pub trust_domain: String,
    /// The root that is used now; others are still trusted.
    #[n(1)]
    pub root: CaRoot,
    /// Certificate of the intermediate that signs leaves, PEM.
    #[n(2)]
    pub intermediate_pem: String,
    /// The root's key, sealed.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sealed_root_key: Vec<u8>,
    /// The intermediate's key, sealed.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub sealed_intermediate_key: Vec<u8>,
    /// How it signs; the defaults until somebody sets it.
    #[n(60)]
    pub settings: Option<AuthoritySettings>,
}

/// How the mesh CA signs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuthoritySettings {
    /// Seconds that the leaf of a service is valid (`LeafCertTTL`).
    #[n(0)]
    pub leaf_seconds: u64,
    /// Leaves that one server signs in a second (`CSRMaxPerSecond`); 0 for any number.
    #[n(1)]
    pub signatures_per_second: u32,
    /// When it was set.
    #[n(2)]
    pub modify_index: Index,
}

/// Seconds of an hour.
const HOUR: u64 = 3600;

impl AuthoritySettings {
    /// The shortest life of a leaf; Consul's.
    pub const LEAF_SECONDS_MIN: u64 = HOUR;
    /// The longest: three of it fit into the intermediate's 8760 hours, so that a leaf never comes near its issuer's end.
    pub const LEAF_SECONDS_MAX: u64 = 8760 * HOUR / 3;

    /// Whether the CA can sign like that.
    ///
    /// # Errors
    /// Says what is wrong, as Consul does.
    pub fn check(&self) -> Result<(), String> {
        if self.leaf_seconds < Self::LEAF_SECONDS_MIN {
            return Err("leaf cert TTL must be greater or equal than 1h".into());
        }
        if self.leaf_seconds > Self::LEAF_SECONDS_MAX {
            return Err(format!(
                "Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=3h): it is 8760h, so LeafCertTTL \
                 can be {}h at most",
                Self::LEAF_SECONDS_MAX / HOUR
            ));
        }
        Ok(())
    }
}

impl Default for AuthoritySettings {
    /// Consul's defaults.
    fn default() -> Self {
        Self { leaf_seconds: 72 * HOUR, signatures_per_second: 50, modify_index: Index(0) }
    }
}

/// A root certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct CaRoot {
    /// Hash of the certificate.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// For people.
    #[n(1)]
    pub name: String,
    /// Serial number.
    #[n(2)]
    pub serial_number: u64,
    /// Key id of the key that signs leaves, hex with colons.
    #[n(3)]
    #[serde(rename = "SigningKeyID")]
    pub signing_key_id: String,
    /// Trust domain of a root of somebody else; always empty here.
    #[n(4)]
    #[serde(default)]
    pub external_trust_domain: String,
    /// RFC 3339.
    #[n(5)]
    pub not_before: String,
    /// RFC 3339.
    #[n(6)]
    pub not_after: String,
    /// PEM.
    #[n(7)]
    #[serde(rename = "RootCert")]
    pub root_cert: String,
    /// PEM of the intermediates that leaves come with.
    #[n(8)]
    pub intermediate_certs: Option<Vec<String>>,
    /// New leaves chain to it.
    #[n(9)]
    pub active: bool,
    /// `ec`.
    #[n(10)]
    pub private_key_type: String,
    /// 256.
    #[n(11)]
    pub private_key_bits: u32,
    /// When it was made.
    #[n(12)]
    pub create_index: Index,
    /// When it last changed.
    #[n(13)]
    pub modify_index: Index,
}

/// What `connect/ca/roots` answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct CaRoots {
    /// Id of the active root.
    #[n(0)]
    #[serde(rename = "ActiveRootID")]
    pub active_root_id: String,
    /// `<cluster id>.consul`.
    #[n(1)]
    pub trust_domain: String,
    /// Every root that is trusted.
    #[n(2)]
    pub roots: Vec<CaRoot>,
}

/// A leaf certificate as the servers hand it out: without its key, which never left the workload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LeafCertificate {
    /// Hex with colons.
    #[n(0)]
    pub serial_number: String,
    /// The leaf and its intermediate, PEM.
    #[n(1)]
    pub chain_pem: String,
    /// The SPIFFE id in it.
    #[n(2)]
    pub uri: String,
    /// Milliseconds since the epoch.
    #[n(3)]
    pub valid_after: crate::Timestamp,
    /// Milliseconds since the epoch.
    #[n(4)]
    pub valid_before: crate::Timestamp,
    /// Index of the roots it was made under.
    #[n(5)]
    pub roots_index: Index,
}
