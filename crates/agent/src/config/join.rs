//! Addresses of servers from what people write.

/// The `host:port` of the server port behind an entry of `retry_join`: Consul's entries are a host, or a host with its LAN
/// gossip port, which says nothing about RPC, so the host counts and `server_port` is dialled.
pub(super) fn server_address(entry: &str, server_port: u16) -> Result<String, String> {
    let (host, _) = host_and_port("retry_join", entry)?;
    Ok(format!("{host}:{server_port}"))
}

/// The `host:port` of gossip behind an entry of the list `key`: the entry's own port, or `port`.
pub(crate) fn gossip_address(key: &str, entry: &str, port: u16) -> Result<String, String> {
    let (host, own) = host_and_port(key, entry)?;
    Ok(format!("{host}:{}", own.unwrap_or(port)))
}

/// The host of an entry, in brackets if it is an IPv6 address, and its port if it has one.
fn host_and_port(key: &str, entry: &str) -> Result<(String, Option<u16>), String> {
    let entry = entry.trim();
    if entry.is_empty() {
        return Err(format!("an entry of {key} is empty: write a host, or host:port"));
    }
    if entry.starts_with("provider=") || entry.contains(' ') {
        return Err(format!(
            "{key} {entry:?}: cloud auto-join is not served; list the servers' names or addresses instead"
        ));
    }
    if entry.contains("{{") {
        return Err(format!("{key} {entry:?}: templates are not served; write a name or an address"));
    }
    let port_of = |port: &str| port.parse().map_err(|_| format!("{key} {entry:?}: {port:?} is not a port"));
    match entry.strip_prefix('[') {
        Some(rest) => {
            let (host, after) =
                rest.split_once(']').ok_or_else(|| format!("{key} {entry:?}: the bracket is not closed"))?;
            let port = (!after.is_empty()).then(|| port_of(after.trim_start_matches(':'))).transpose()?;
            Ok((format!("[{host}]"), port))
        }
        None if entry.matches(':').count() > 1 => Ok((format!("[{entry}]"), None)),
        None => match entry.split_once(':') {
            Some((host, port)) => Ok((host.to_owned(), Some(port_of(port)?))),
            None => Ok((entry.to_owned(), None)),
        },
    }
}

/// Whether `address` is `host:port`.
pub(super) fn check_server_address(key: &str, address: &str) -> Result<(), String> {
    let wrong = || format!("{key} {address:?} must be host:port, for example \"server-0.example:8300\"");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || port.parse::<u16>().is_err() || (host.contains(':') && !host.starts_with('[')) {
        return Err(wrong());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_entry_is_dialled_on_the_server_port() {
        for (entry, address) in [
            ("server-0", "server-0:8300"),
            ("10.0.0.1:8301", "10.0.0.1:8300"),
            ("[fd00::1]:8301", "[fd00::1]:8300"),
            ("fd00::1", "[fd00::1]:8300"),
        ] {
            assert_eq!(server_address(entry, 8300).as_deref(), Ok(address), "{entry}");
        }
    }

    #[test]
    fn gossip_is_dialled_on_the_port_of_an_entry_or_on_ours() {
        for (entry, address) in [
            ("server-0", "server-0:8301"),
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            ("[fd00::1]:7000", "[fd00::1]:7000"),
            ("fd00::1", "[fd00::1]:8301"),
        ] {
            assert_eq!(gossip_address("retry_join", entry, 8301).as_deref(), Ok(address), "{entry}");
        }
    }

    #[test]
    fn what_is_not_served_or_not_a_host_is_refused() {
        for entry in ["", "provider=k8s label_selector=\"app=x\"", "a:b", "[::1", "{{ GetPrivateIP }}"] {
            assert!(server_address(entry, 8300).is_err(), "{entry}");
        }
    }
}
