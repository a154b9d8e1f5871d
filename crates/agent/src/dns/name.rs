//! What a name asks for. Pure: labels in, meaning out, read from the right as Consul does.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `<node>.node`.
    Node(String),
    /// `[<tag>.]<service>.service`, `_<service>._<tag>`, `<service>.connect`.
    Service(WantedService),
    /// `<hex>.addr`.
    Address(IpAddr),
    /// `<service>.virtual`: the address that stands for a service in the mesh.
    Virtual(String),
    /// `<service>.ingress`: the gateways that let callers of a service in.
    Ingress(String),
    /// `<query>.query`, `_<query>._tcp.query`: a prepared query by its name or id.
    Query(String),
}

/// Instances of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedService {
    /// Its name in lower case.
    pub(super) name: String,
    /// Only instances with this tag.
    pub(super) tag: Option<String>,
    /// Those that serve it over mutual TLS, instead of the plain ones.
    pub(super) connect: bool,
}

/// The address that a name of the reverse tree stands for.
pub(super) fn pointer(name: &Name) -> Option<IpAddr> {
    let labels: Vec<String> = name.iter().map(label).collect::<Option<_>>()?;
    let words: Vec<&str> = labels.iter().map(String::as_str).collect();
    match words.as_slice() {
        [parts @ .., "in-addr", "arpa"] if parts.len() == 4 => {
            let number = |at: usize| parts[at].parse::<u8>().ok();
            Some([number(3)?, number(2)?, number(1)?, number(0)?].into())
        }
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let hex: String = nibbles.iter().rev().copied().collect();
            let one_each = nibbles.iter().all(|nibble| nibble.len() == 1);
            one_each.then(|| u128::from_str_radix(&hex, 16).ok()).flatten().map(|bits| IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

/// A name within our domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// What it asks for; none when it is spelled in no way that names anything.
    pub(super) wanted: Option<Wanted>,
    /// The datacenter it names.
    pub(super) datacenter: Option<String>,
}

impl Question {
    const NOTHING: Self = Self { wanted: None, datacenter: None };

    /// Reads `name`, which is inside `domain`.
    pub(super) fn parse(name: &Name, domain: &Name, kind: RecordType) -> Self {
        let count = usize::from(name.num_labels()).saturating_sub(usize::from(domain.num_labels()));
        let labels: Option<Vec<String>> = name.iter().take(count).map(label).collect();
        // A name that is not text names nothing: ours are text.
        labels.map_or(Self::NOTHING, |labels| Self::of(&labels, kind))
    }

    fn of(labels: &[String], kind: RecordType) -> Self {
        for (at, word) in labels.iter().enumerate().rev() {
            let (before, after) = (&labels[..at], &labels[at + 1..]);
            let wanted = match word.as_str() {
                "service" => service(before),
                "connect" => before.last().map(|name| plain(name, None, true)),
                "node" => (!before.is_empty()).then(|| Wanted::Node(before.join("."))),
                "addr" => address(before),
                "query" => query(before),
                "virtual" => before.last().map(|name| Wanted::Virtual(name.clone())),
                "ingress" => before.last().map(|name| Wanted::Ingress(name.clone())),
                // In a question for SRV the word `service` may be left out after `_web._tcp`.
                _ if kind == RecordType::SRV && word.starts_with('_') => service(&labels[..=at]),
                _ => continue,
            };
            return match locality(after) {
                Some(datacenter) => Self { wanted, datacenter },
                None => Self::NOTHING,
            };
        }
        Self::NOTHING
    }
}

fn label(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_ascii_lowercase)
}

fn plain(name: &str, tag: Option<String>, connect: bool) -> Wanted {
    Wanted::Service(WantedService { name: name.to_owned(), tag, connect })
}

fn service(before: &[String]) -> Option<Wanted> {
    if let [name, tag] = before
        && let (Some(name), Some(tag)) = (name.strip_prefix('_'), tag.strip_prefix('_'))
    {
        // RFC 2782; `_tcp` asks for no tag.
        return Some(plain(name, (tag != "tcp").then(|| tag.to_owned()), false));
    }
    let (name, tags) = before.split_last()?;
    Some(plain(name, (!tags.is_empty()).then(|| tags.join(".")), false))
}

/// The name of a query may hold dots. In the form of RFC 2782 the second label says nothing.
fn query(before: &[String]) -> Option<Wanted> {
    match before {
        [] => None,
        [name, protocol] if name.starts_with('_') && protocol.starts_with('_') => {
            Some(Wanted::Query(name[1..].to_owned()))
        }
        labels => Some(Wanted::Query(labels.join("."))),
    }
}

fn address(before: &[String]) -> Option<Wanted> {
    let [hex] = before else { return None };
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let address = match hex.len() {
        8 => IpAddr::V4(u32::from_str_radix(hex, 16).ok()?.into()),
        32 => IpAddr::V6(u128::from_str_radix(hex, 16).ok()?.into()),
        _ => return None,
    };
    Some(Wanted::Address(address))
}

/// The datacenter in `[<dc>][.dc]`; `None` for any other locality, which names nothing here.
fn locality(after: &[String]) -> Option<Option<String>> {
    match after {
        [] => Some(None),
        [datacenter] => Some(Some(datacenter.clone())),
        [datacenter, word] if word == "dc" => Some(Some(datacenter.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, kind: RecordType) -> Question {
        let domain = Name::from_ascii("consul.").unwrap();
        Question::parse(&Name::from_ascii(name).unwrap(), &domain, kind)
    }

    fn named(name: &str, tag: Option<&str>, connect: bool) -> Option<Wanted> {
        Some(plain(name, tag.map(Into::into), connect))
    }

    #[test]
    fn a_name_is_read_from_the_right() {
        let node = |name: &str| Some(Wanted::Node(name.into()));
        for (name, wanted, datacenter) in [
            ("web.service.consul.", named("web", None, false), None),
            ("WEB.Service.Consul.", named("web", None, false), None),
            ("v2.web.service.dc2.consul.", named("web", Some("v2"), false), Some("dc2")),
            ("v2.web.service.dc2.dc.consul.", named("web", Some("v2"), false), Some("dc2")),
            ("a.b.web.service.consul.", named("web", Some("a.b"), false), None),
            ("_web._tcp.service.consul.", named("web", None, false), None),
            ("_web._v2.service.dc1.consul.", named("web", Some("v2"), false), Some("dc1")),
            ("web.connect.consul.", named("web", None, true), None),
            ("web.virtual.consul.", Some(Wanted::Virtual("web".into())), None),
            ("web.ingress.dc1.consul.", Some(Wanted::Ingress("web".into())), Some("dc1")),
            ("node.service.consul.", named("node", None, false), None),
            ("n1.node.consul.", node("n1"), None),
            ("a.b.node.dc1.consul.", node("a.b"), Some("dc1")),
            ("0a000001.addr.dc1.consul.", Some(Wanted::Address([10, 0, 0, 1].into())), Some("dc1")),
            (
                "20010db8000000000000000000000001.addr.consul.",
                Some(Wanted::Address("2001:db8::1".parse().unwrap())),
                None,
            ),
        ] {
            let expected = Question { wanted, datacenter: datacenter.map(Into::into) };
            assert_eq!(parse(name, RecordType::A), expected, "{name}");
        }
    }

    #[test]
    fn a_query_has_dots_or_the_form_of_rfc_2782() {
        for (name, query) in [
            ("web.query.consul.", "web"),
            ("Geo.Web.query.dc1.consul.", "geo.web"),
            ("_web._tcp.query.consul.", "web"),
            ("_web._anything.query.dc1.dc.consul.", "web"),
            ("_web.query.consul.", "_web"),
            ("service.query.consul.", "service"),
        ] {
            assert_eq!(parse(name, RecordType::SRV).wanted, Some(Wanted::Query(query.into())), "{name}");
        }
    }

    #[test]
    fn the_word_service_may_be_left_out_for_srv_only() {
        assert_eq!(parse("_web._tcp.consul.", RecordType::SRV).wanted, named("web", None, false));
        assert_eq!(parse("_web._v2.dc1.consul.", RecordType::SRV).wanted, named("web", Some("v2"), false));
        assert_eq!(parse("_web._tcp.consul.", RecordType::A).wanted, None);
    }

    #[test]
    fn a_name_of_the_reverse_tree_is_an_address() {
        let read = |name: &str| pointer(&Name::from_ascii(name).unwrap());
        assert_eq!(read("4.3.2.10.in-addr.arpa."), Some("10.2.3.4".parse().unwrap()));
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6.arpa.";
        assert_eq!(read(six), Some("2001:db8::1".parse().unwrap()));
        for name in ["3.2.10.in-addr.arpa.", "4.3.2.256.in-addr.arpa.", "1.ip6.arpa.", "arpa.", "web.service.consul."] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn what_names_nothing_is_nothing() {
        for name in [
            "consul.",
            "web.consul.",
            "service.consul.",
            "node.consul.",
            "web.service.dc1.peer.consul.",
            "web.service.a.b.c.consul.",
            "0a00001.addr.consul.",
            "zz000001.addr.consul.",
            "x.0a000001.addr.consul.",
            "query.consul.",
            "virtual.consul.",
            "web.virtual.dc1.peer.consul.",
        ] {
            assert_eq!(parse(name, RecordType::A).wanted, None, "{name}");
        }
        let domain = Name::from_ascii("consul.").unwrap();
        let binary = Name::from_labels([&b"\xff\xfe"[..], b"node", b"consul"]).unwrap();
        assert_eq!(Question::parse(&binary, &domain, RecordType::A).wanted, None);
    }
}
