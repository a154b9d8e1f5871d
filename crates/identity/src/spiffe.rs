//! SPIFFE ids: who a certificate of the mesh CA stands for.
//!
//! Invariants
//! - A [`SpiffeId`] is one of the four forms, with segments of safe characters only: its text parses back to itself, and
//!   no name in it can pretend to be a path.
//! - Parsing is strict: no percent-encoding, no query, no port, no upper case scheme or trust domain, no empty segment.

use std::fmt;
use std::str::FromStr;

/// The longest id that is parsed, as the SPIFFE standard has it.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// The longest trust domain.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// The longest name in an id.
pub const MAX_SEGMENT_BYTES: usize = 255;

/// Why a text is no SPIFFE id of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than the standard allows.
    #[error("a SPIFFE id has at most {MAX_SPIFFE_ID_BYTES} bytes")]
    TooLong,
    /// The scheme is another one.
    #[error("{0:?} is not a SPIFFE id: it must begin with spiffe://")]
    Scheme(String),
    /// The trust domain has characters that are not allowed.
    #[error("{0:?} is not a trust domain: lower case letters, digits, dots, hyphens and underscores are allowed")]
    TrustDomain(String),
    /// The path is none of the known forms.
    #[error(
        "{0:?} is not the path of a known identity: /ns/default/dc/DC/svc/SERVICE, /agent/client/dc/DC/id/NODE and \
         /agent/server/dc/DC are"
    )]
    Path(String),
    /// A name in the id has characters that are not allowed.
    #[error("{0:?} cannot stand in a SPIFFE id: letters, digits, dots, hyphens and underscores are allowed")]
    Segment(String),
}

/// The part of an id that names the installation: `<cluster id>.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters, as they stand in common names.
    pub(crate) fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0).trim_end_matches(['.', '-'])
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let safe = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let edges = text.starts_with('.') || text.ends_with('.') || text.contains("..");
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_BYTES || edges || !text.bytes().all(safe) {
            return Err(SpiffeError::TrustDomain(shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name inside an id: a datacenter, a service or a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment(String);

impl Segment {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Segment {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let relative = text == "." || text == "..";
        if text.is_empty() || text.len() > MAX_SEGMENT_BYTES || relative || !text.bytes().all(safe) {
            return Err(SpiffeError::Segment(shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpiffeId {
    /// A workload, by the service it is.
    Service {
        /// The installation.
        trust_domain: TrustDomain,
        /// The datacenter it is registered in.
        datacenter: Segment,
        /// The service's name.
        service: Segment,
    },
    /// A client agent.
    Client {
        /// The installation.
        trust_domain: TrustDomain,
        /// The datacenter it is a member of.
        datacenter: Segment,
        /// The node's name.
        node: Segment,
    },
    /// A server. The mesh CA never signs one; the form is known so that it can be refused by name.
    Server {
        /// The installation.
        trust_domain: TrustDomain,
        /// The datacenter it serves.
        datacenter: Segment,
    },
    /// A certificate authority.
    Authority {
        /// The installation.
        trust_domain: TrustDomain,
    },
}

impl SpiffeId {
    /// The identity of a workload.
    ///
    /// # Errors
    /// A name has characters that cannot stand in an id.
    pub fn service(trust_domain: &TrustDomain, datacenter: &str, service: &str) -> Result<Self, SpiffeError> {
        Ok(Self::Service {
            trust_domain: trust_domain.clone(),
            datacenter: datacenter.parse()?,
            service: service.parse()?,
        })
    }

    /// The identity of a client agent.
    ///
    /// # Errors
    /// A name has characters that cannot stand in an id.
    pub fn client(trust_domain: &TrustDomain, datacenter: &str, node: &str) -> Result<Self, SpiffeError> {
        Ok(Self::Client { trust_domain: trust_domain.clone(), datacenter: datacenter.parse()?, node: node.parse()? })
    }

    /// The installation it belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Service { trust_domain, .. }
            | Self::Client { trust_domain, .. }
            | Self::Server { trust_domain, .. }
            | Self::Authority { trust_domain } => trust_domain,
        }
    }

    /// The common name that Consul gives such a certificate; at most 64 characters, for people only.
    pub(crate) fn common_name(&self) -> String {
        let domain = self.trust_domain().short();
        let (name, kind) = match self {
            Self::Service { service, .. } => (service.as_str(), "svc.default"),
            Self::Client { node, .. } => (node.as_str(), "agnt.client"),
            Self::Server { datacenter, .. } => (datacenter.as_str(), "agnt.server"),
            Self::Authority { .. } => ("authority", "ca"),
        };
        let tail = format!(".{kind}.{domain}.consul");
        let room = 64_usize.saturating_sub(tail.len());
        format!("{}{tail}", name.chars().take(room).collect::<String>())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { trust_domain, datacenter, service } => {
                write!(formatter, "spiffe://{trust_domain}/ns/default/dc/{datacenter}/svc/{service}")
            }
            Self::Client { trust_domain, datacenter, node } => {
                write!(formatter, "spiffe://{trust_domain}/agent/client/dc/{datacenter}/id/{node}")
            }
            Self::Server { trust_domain, datacenter } => {
                write!(formatter, "spiffe://{trust_domain}/agent/server/dc/{datacenter}")
            }
            Self::Authority { trust_domain } => write!(formatter, "spiffe://{trust_domain}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| SpiffeError::Scheme(shown(text)))?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let trust_domain: TrustDomain = domain.parse()?;
        if path.is_empty() {
            return Ok(Self::Authority { trust_domain });
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["ns", "default", "dc", datacenter, "svc", service]
            | ["ap", "default", "ns", "default", "dc", datacenter, "svc", service] => {
                Self::service(&trust_domain, datacenter, service)
            }
            ["agent", "client", "dc", datacenter, "id", node] => Self::client(&trust_domain, datacenter, node),
            ["agent", "server", "dc", datacenter] => Ok(Self::Server { trust_domain, datacenter: datacenter.parse()? }),
            _ => Err(SpiffeError::Path(shown(path))),
        }
    }
}

/// The beginning of a text, for messages: what a stranger sent must not fill a log.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";

    #[test]
    fn every_form_is_read_and_written_back() {
        for path in ["/ns/default/dc/dc1/svc/web", "/agent/client/dc/dc1/id/node-1.ns", "/agent/server/dc/dc1", ""] {
            let text = format!("spiffe://{DOMAIN}{path}");
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_default_partition_means_the_same_as_none() {
        let with = format!("spiffe://{DOMAIN}/ap/default/ns/default/dc/dc1/svc/web").parse::<SpiffeId>().unwrap();
        let without = format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web").parse::<SpiffeId>().unwrap();
        assert_eq!(with, without);
    }

    #[test]
    fn hostile_texts_are_refused() {
        let long = format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{}", "a".repeat(3000));
        let long_name = format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{}", "a".repeat(256));
        for text in [
            "",
            "spiffe://",
            "spiffe:///ns/default/dc/dc1/svc/web",
            "SPIFFE://td/ns/default/dc/dc1/svc/web",
            "https://td/ns/default/dc/dc1/svc/web",
            "spiffe:/td/ns/default/dc/dc1/svc/web",
            "spiffe://TD/ns/default/dc/dc1/svc/web",
            "spiffe://td:443/ns/default/dc/dc1/svc/web",
            "spiffe://user@td/ns/default/dc/dc1/svc/web",
            "spiffe://td../ns/default/dc/dc1/svc/web",
            "spiffe://td/",
            "spiffe://td/ns/default/dc/dc1/svc/",
            "spiffe://td/ns/default/dc/dc1/svc/web/",
            "spiffe://td/ns/default/dc/dc1/svc/web/../api",
            "spiffe://td/ns/default/dc/dc1/svc/..",
            "spiffe://td/ns/default/dc/dc1/svc/.",
            "spiffe://td/ns/default/dc/dc1/svc/we%62",
            "spiffe://td/ns/default/dc/dc1/svc/web?x=1",
            "spiffe://td/ns/default/dc/dc1/svc/web#x",
            "spiffe://td/ns/default/dc/dc1/svc/web\0",
            "spiffe://td/ns/default/dc/dc1/svc/web\n",
            "spiffe://td/ns/default/dc/dc1/svc/wéb",
            "spiffe://td//ns/default/dc/dc1/svc/web",
            "spiffe://td/ns/other/dc/dc1/svc/web",
            "spiffe://td/ap/other/ns/default/dc/dc1/svc/web",
            "spiffe://td/ap//ns/default/dc/dc1/svc/web",
            "spiffe://td/agent/client/dc/dc1/id/",
            "spiffe://td/agent/server/dc/dc1/id/x",
            "spiffe://td/agent/server/dc/",
            "spiffe://td/gateway/mesh/dc/dc1",
            "spiffe://td\\ns/default/dc/dc1/svc/web",
            &long,
            &long_name,
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_path_makes_no_id() {
        let domain: TrustDomain = DOMAIN.parse().unwrap();
        for name in ["web/../api", "web/svc/api", "", "..", "web api", "a\u{202e}b"] {
            assert!(SpiffeId::service(&domain, "dc1", name).is_err(), "{name:?}");
            assert!(SpiffeId::client(&domain, "dc1", name).is_err(), "{name:?}");
            assert!(SpiffeId::service(&domain, name, "web").is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_common_name_is_cut_to_what_a_certificate_may_hold() {
        let domain: TrustDomain = DOMAIN.parse().unwrap();
        assert_eq!(SpiffeId::service(&domain, "dc1", "web").unwrap().common_name(), "web.svc.default.11111111.consul");
        assert_eq!(SpiffeId::service(&domain, "dc1", &"a".repeat(200)).unwrap().common_name().len(), 64);
    }
}
