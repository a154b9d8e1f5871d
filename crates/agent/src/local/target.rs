//! Where a check connects to.

use std::net::IpAddr;

use http::Uri;

/// The target of an HTTP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpTarget {
    /// `https`.
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// A port.
    pub(super) port: u16,
    /// The `Host` header.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl HttpTarget {
    /// Reads a URL; only `http` and `https` are ever dialled.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("HTTP {url:?} {reason}: write http://host:port/path or https://...");
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("has another scheme")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it; use Header"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// Host and port of a check of this kind.
pub(super) fn split_host_port(kind: &str, address: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{kind} {address:?} must be host:port, for example \"127.0.0.1:5432\"");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() || (bare.contains(':') && !host.starts_with('[')) {
        return Err(wrong());
    }
    Ok((bare.to_owned(), port))
}

impl HttpTarget {
    /// The target that a `Location` header of this one's answer names.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, String> {
        if location.starts_with("http://") || location.starts_with("https://") {
            return Self::parse(location);
        }
        let scheme = if self.tls { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let directory = self.path.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(it, _)| it);
        let path = if location.starts_with('/') { location.to_owned() } else { format!("{directory}/{location}") };
        Self::parse(&format!("{scheme}://{}{path}", self.authority))
    }
}

/// Why nothing at `address` is ever checked: link-local addresses are where clouds serve their secrets.
pub(super) fn forbidden(address: IpAddr) -> Option<String> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_link_local())
        }
    };
    link_local.then(|| format!("{address} is link-local, where clouds serve credentials; checks do not connect there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_urls_with_a_host_are_targets() {
        let target = HttpTarget::parse("https://[::1]/x?y=1").unwrap();
        assert_eq!((target.tls, target.host.as_str(), target.port, target.path.as_str()), (true, "::1", 443, "/x?y=1"));
        assert_eq!(HttpTarget::parse("http://web:8080").unwrap().path, "/");
        for url in ["file:///etc/passwd", "web:80", "/health", "http://user@web/", ""] {
            assert!(HttpTarget::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_redirect_is_read_beside_where_it_was_found() {
        let target = HttpTarget::parse("http://web:8080/a/b?c=1").unwrap();
        for (location, found) in [
            ("/x?y", "web:8080 /x?y"),
            ("x", "web:8080 /a/x"),
            ("//other/x", "other /x"),
            ("https://other:1/", "other:1 /"),
        ] {
            let target = target.redirected(location).unwrap();
            assert_eq!(format!("{} {}", target.authority, target.path), found, "{location}");
        }
        assert!(target.redirected("https://user@other/").is_err());
    }

    #[test]
    fn link_local_addresses_are_out_of_bounds() {
        for address in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(forbidden(address.parse().unwrap()).is_some(), "{address}");
        }
        assert_eq!(forbidden("10.0.0.1".parse().unwrap()), None);
    }
}
