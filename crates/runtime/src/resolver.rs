//! Names to addresses: the one resolver of the process.
//!
//! A static binary has no `getaddrinfo`, so names go through `/etc/hosts` and `resolv.conf` (search list and ndots) here.
//!
//! Invariants
//! - Every lookup ends within [`RESOLVE_LIMIT`].
//! - An answer is kept [`MAX_CACHED`] at most, whatever its record says: a pod that was replaced has a new address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};

/// The longest a lookup may take, retries and search list included.
pub const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// The longest an answer, or the lack of one, is kept.
pub const MAX_CACHED: Duration = Duration::from_secs(1);
/// How many names are kept.
const CACHED_NAMES: u64 = 256;
/// The longest one name server may take before the next is asked.
const SERVER_LIMIT: Duration = Duration::from_secs(2);

/// Resolves `host:port` texts. Cloning shares the cache.
#[derive(Clone)]
pub struct Resolver {
    names: Option<TokioResolver>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// The resolver of this machine, from `/etc/resolv.conf` and `/etc/hosts`.
    ///
    /// Without a usable `resolv.conf` it still resolves addresses and `localhost`, and says so once.
    pub fn from_system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.use_hosts_file = ResolveHosts::Always;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            options.cache_size = CACHED_NAMES;
            options.positive_max_ttl = Some(MAX_CACHED);
            options.negative_max_ttl = Some(MAX_CACHED);
            options.timeout = options.timeout.min(SERVER_LIMIT);
            builder.build()
        });
        match built {
            Ok(names) => Self { names: Some(names) },
            Err(error) => {
                tracing::warn!(%error, "no usable /etc/resolv.conf: only addresses and localhost resolve");
                Self { names: None }
            }
        }
    }

    /// The addresses behind `host:port`: an address literal (IPv6 in brackets) as it is, a name by lookup, never empty.
    ///
    /// # Errors
    /// The text is not `host:port`, the name is unknown, or no name server answered in time.
    pub async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(literal) = address.parse::<SocketAddr>() {
            return Ok(vec![literal]);
        }
        let (host, port) = split(address)?;
        let addresses = self.resolve_host(host).await?;
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The addresses of a host name or an address literal, never empty.
    ///
    /// # Errors
    /// The name is unknown, or no name server answered in time.
    pub async fn resolve_host(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(literal) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(vec![literal]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        }
        let Some(names) = &self.names else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("cannot resolve {host:?}: this machine has no usable /etc/resolv.conf; give an IP address"),
            ));
        };
        let lookup = tokio::time::timeout(RESOLVE_LIMIT, names.lookup_ip(host)).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("resolving {host:?} took longer than {} s", RESOLVE_LIMIT.as_secs()),
            )
        })?;
        let found = lookup
            .map_err(|error| io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {host:?}: {error}")))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host:?} has no addresses")));
        }
        Ok(addresses)
    }
}

/// Splits `host:port`.
fn split(address: &str) -> io::Result<(&str, u16)> {
    let invalid =
        |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not `host:port`: {reason}"));
    let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid("there is no port"))?;
    let port = port.parse().map_err(|_| invalid("the port must be a number from 0 to 65535"))?;
    if host.is_empty() {
        return Err(invalid("there is no host"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(invalid("an IPv6 address goes in brackets, as in [::1]:8300"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_localhost_need_no_name_server() {
        let resolver = Resolver { names: None };
        assert_eq!(resolver.resolve("127.0.0.1:8300").await.unwrap(), ["127.0.0.1:8300".parse().unwrap()]);
        assert_eq!(resolver.resolve("[::1]:8300").await.unwrap(), ["[::1]:8300".parse().unwrap()]);
        assert_eq!(resolver.resolve("localhost:1").await.unwrap(), ["127.0.0.1:1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_address_that_is_not_host_and_port_says_what_is_missing() {
        let resolver = Resolver { names: None };
        for (address, complaint) in [
            ("server-0", "there is no port"),
            ("server-0:http", "must be a number"),
            (":8300", "there is no host"),
            ("::1:8300:x", "must be a number"),
            ("fe80::1:2:99999", "must be a number"),
            ("fe80::g:1", "in brackets"),
        ] {
            let error = resolver.resolve(address).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{address}");
            assert!(error.to_string().contains(complaint), "{address}: {error}");
        }
    }

    #[tokio::test]
    async fn a_machine_without_name_servers_says_so() {
        let error = Resolver { names: None }.resolve("server-0:8300").await.unwrap_err();
        assert!(error.to_string().contains("resolv.conf"), "{error}");
    }

    #[tokio::test]
    async fn names_of_the_hosts_file_resolve() {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let known = hosts.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
            let mut words = line.split_whitespace();
            let ip: std::net::Ipv4Addr = words.next()?.parse().ok()?;
            let name = words.next()?;
            (name != "localhost").then(|| (IpAddr::from(ip), name.to_owned()))
        });
        let resolver = Resolver::from_system();
        if let (Some((ip, name)), Some(_)) = (known, &resolver.names) {
            assert!(resolver.resolve_host(&name).await.unwrap().contains(&ip), "{name}");
        }
    }
}
