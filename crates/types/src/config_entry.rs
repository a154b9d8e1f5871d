//! Config entries: what people say once, in the servers, of services, proxies and gateways.
//!
//! An entry is its kind, its name and a body: the JSON of all its other fields in one spelling ([`canonical`]), which is
//! how a reader gets it and how the log keeps it. The fields of each kind are a table ([`schema`]); what they may say is
//! [`validate`]. `service-intentions` is a kind of its own: [`crate::ServiceIntentions`] is its one truth.
//!
//! Invariants
//! - A body that came through [`ConfigEntry::parse`] has only fields of its kind, each of its shape and in one spelling,
//!   so that equal settings are equal bodies.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::json::Opaque;
use crate::name::NAME_BYTES_MAX;
use crate::{Index, ServiceIntentions};

mod canonical;
mod defaults;
mod schema;
mod validate;

pub use canonical::fold;

/// Bytes of the largest body.
pub const BODY_BYTES_MAX: usize = 512 * 1024;
/// The only name of a `proxy-defaults`.
pub const PROXY_DEFAULTS_NAME: &str = "global";
/// The only name of a `mesh`.
pub const MESH_NAME: &str = "mesh";
/// The protocol of a service of which nobody has said one.
pub const DEFAULT_PROTOCOL: &str = "tcp";

/// The kinds of config entries, `service-intentions` excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ConfigKind {
    /// What holds for one service.
    #[n(0)]
    ServiceDefaults,
    /// What holds for all proxies.
    #[n(1)]
    ProxyDefaults,
    /// Which instances are meant by a service, and what stands in for it.
    #[n(2)]
    ServiceResolver,
    /// Shares of the requests to a service.
    #[n(3)]
    ServiceSplitter,
    /// Where requests to a service go by what they say.
    #[n(4)]
    ServiceRouter,
    /// What holds for the whole mesh.
    #[n(5)]
    Mesh,
    /// What peers may call.
    #[n(6)]
    ExportedServices,
    /// Who is let in from outside, and to which services.
    #[n(7)]
    IngressGateway,
    /// Services outside of the mesh that are called through a gateway.
    #[n(8)]
    TerminatingGateway,
    /// Listeners of an API gateway.
    #[n(9)]
    ApiGateway,
    /// What an API gateway has bound; only a controller writes it.
    #[n(10)]
    BoundApiGateway,
    /// HTTP routes of API gateways.
    #[n(11)]
    HttpRoute,
    /// TCP routes of API gateways.
    #[n(12)]
    TcpRoute,
    /// A certificate with its key.
    #[n(13)]
    InlineCertificate,
    /// A certificate in the files of a gateway.
    #[n(14)]
    FileSystemCertificate,
    /// Who issues tokens for requests.
    #[n(15)]
    JwtProvider,
}

impl ConfigKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ServiceDefaults,
        Self::ProxyDefaults,
        Self::ServiceResolver,
        Self::ServiceSplitter,
        Self::ServiceRouter,
        Self::Mesh,
        Self::ExportedServices,
        Self::IngressGateway,
        Self::TerminatingGateway,
        Self::ApiGateway,
        Self::BoundApiGateway,
        Self::HttpRoute,
        Self::TcpRoute,
        Self::InlineCertificate,
        Self::FileSystemCertificate,
        Self::JwtProvider,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceDefaults => "service-defaults",
            Self::ProxyDefaults => "proxy-defaults",
            Self::ServiceResolver => "service-resolver",
            Self::ServiceSplitter => "service-splitter",
            Self::ServiceRouter => "service-router",
            Self::Mesh => "mesh",
            Self::ExportedServices => "exported-services",
            Self::IngressGateway => "ingress-gateway",
            Self::TerminatingGateway => "terminating-gateway",
            Self::ApiGateway => "api-gateway",
            Self::BoundApiGateway => "bound-api-gateway",
            Self::HttpRoute => "http-route",
            Self::TcpRoute => "tcp-route",
            Self::InlineCertificate => "inline-certificate",
            Self::FileSystemCertificate => "file-system-certificate",
            Self::JwtProvider => "jwt-provider",
        }
    }

    /// Whether it says how requests to a service find its instances.
    pub fn is_of_chain(self) -> bool {
        matches!(self, Self::ServiceResolver | Self::ServiceSplitter | Self::ServiceRouter)
    }
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ConfigKind {
    type Err = String;

    /// Reads `service-defaults`, `ServiceDefaults` and `service_defaults` as one.
    fn from_str(text: &str) -> Result<Self, String> {
        let written = fold(text);
        let kind = Self::ALL.into_iter().find(|kind| fold(kind.as_str()) == written);
        kind.ok_or_else(|| format!("invalid config entry kind: {text}"))
    }
}

/// Whether a word is that of [`ServiceIntentions`], in any spelling.
pub fn is_intentions(kind: &str) -> bool {
    fold(kind) == fold(ServiceIntentions::KIND)
}

/// One config entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConfigEntry {
    /// Its kind.
    #[n(0)]
    pub kind: ConfigKind,
    /// Its name; unique within its kind.
    #[n(1)]
    pub name: String,
    /// Whatever its owner says of it.
    #[n(2)]
    pub meta: BTreeMap<String, String>,
    /// All its other fields, in one spelling.
    #[n(3)]
    pub body: Opaque,
    /// When it was made.
    #[n(4)]
    pub create_index: Index,
    /// When it last changed.
    #[n(5)]
    pub modify_index: Index,
}

impl ConfigEntry {
    /// The entry that a request body says. Its kind has been read already.
    ///
    /// # Errors
    /// A field that the kind does not have, or one of another shape: the words say which.
    pub fn parse(kind: ConfigKind, written: &Value) -> Result<Self, String> {
        let Value::Object(written) = written else { return Err("a config entry must be a JSON object".into()) };
        let mut rest = serde_json::Map::new();
        let mut entry = Self {
            kind,
            name: String::new(),
            meta: BTreeMap::new(),
            body: Opaque::default(),
            create_index: Index(0),
            modify_index: Index(0),
        };
        for (key, value) in written {
            match fold(key).as_str() {
                // The indexes and the hash are what a reader sends back as it got them.
                "kind" | "createindex" | "modifyindex" | "hash" => {}
                "name" => entry.name = canonical::text(value).ok_or("Name must be a text")?,
                "meta" => entry.meta = canonical::text_map(value).ok_or("Meta must be an object of texts")?,
                _ => drop(rest.insert(key.clone(), value.clone())),
            }
        }
        let mut body = canonical::body(&rest, schema::of(kind)).map_err(|problem| problem.to_string())?;
        defaults::fill(kind, &mut body);
        entry.body = body.into();
        match kind {
            ConfigKind::ProxyDefaults if entry.name.is_empty() => entry.name = PROXY_DEFAULTS_NAME.into(),
            ConfigKind::Mesh if entry.name.is_empty() => entry.name = MESH_NAME.into(),
            _ => {}
        }
        Ok(entry)
    }

    /// Whether it makes sense by itself; what it says of other entries is not looked at.
    ///
    /// # Errors
    /// What is wrong, in Consul's words.
    pub fn validate(&self) -> Result<(), String> {
        if self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(format!("Name must have at most {NAME_BYTES_MAX} bytes and no control characters"));
        }
        validate::meta(&self.meta)?;
        let size = serde_json::to_vec(&self.body).map_or(usize::MAX, |bytes| bytes.len());
        if size > BODY_BYTES_MAX {
            return Err(format!("the entry has {size} bytes, at most {BODY_BYTES_MAX} are allowed"));
        }
        validate::entry(self)
    }

    /// What is under `name` in the body, null when there is nothing.
    pub fn field(&self, name: &str) -> &Value {
        self.body.get(name).unwrap_or(&Value::Null)
    }

    /// The rows of the list under `name`.
    pub fn rows(&self, name: &str) -> &[Value] {
        self.field(name).as_array().map_or(&[], Vec::as_slice)
    }

    /// A number that is another one when anything but the indexes is.
    pub fn hash(&self) -> u64 {
        // FNV-1a over the JSON, whose keys are sorted.
        let text = (self.kind.as_str(), &self.name, &self.meta, &self.body);
        let bytes = serde_json::to_vec(&text).unwrap_or_default();
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl Serialize for ConfigEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Kind", self.kind.as_str())?;
        // A mesh has one name, which Consul does not tell.
        if self.kind != ConfigKind::Mesh {
            map.serialize_entry("Name", &self.name)?;
        }
        for (key, value) in self.body.iter() {
            map.serialize_entry(key, value)?;
        }
        if !self.meta.is_empty() {
            map.serialize_entry("Meta", &self.meta)?;
        }
        map.serialize_entry("Hash", &self.hash())?;
        map.serialize_entry("CreateIndex", &self.create_index)?;
        map.serialize_entry("ModifyIndex", &self.modify_index)?;
        map.end()
    }
}

/// Sets a config entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConfigEntrySet {
    /// The new entry.
    #[n(0)]
    pub entry: ConfigEntry,
    /// Only if the stored entry has this modify index; 0 means that there must be none.
    #[n(1)]
    pub cas: Option<Index>,
}

/// Removes a config entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConfigEntryDelete {
    /// Its kind and name.
    #[n(0)]
    pub key: ConfigEntryKey,
    /// Only if the stored entry has this modify index.
    #[n(1)]
    pub cas: Option<Index>,
}

/// Which config entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConfigEntryKey {
    /// Its kind.
    #[n(0)]
    pub kind: ConfigKind,
    /// Its name.
    #[n(1)]
    pub name: String,
}

#[cfg(test)]
mod tests;
