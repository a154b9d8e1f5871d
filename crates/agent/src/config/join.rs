//! Addresses of servers from what people write.

/// The `host:port` of the server port behind an entry of `retry_join`: Consul's entries are a host, or a host with its LAN
/// gossip port, which says nothing about RPC, so the host counts and `server_port` is dialled.
pub(super) fn server_address(entry: &str, server_port: u16) -> Result<String, String> {
    let entry = entry.trim();
    if entry.is_empty() {
        return Err("an entry of retry_join is empty: write a host, or host:port".into());
    }
    if entry.starts_with("provider=") || entry.contains(' ') {
        return Err(format!(
            "retry_join {entry:?}: cloud auto-join is not served; list the servers' names or addresses instead"
        ));
    }
    if entry.contains("{{") {
        return Err(format!("retry_join {entry:?}: templates are not served; write a name or an address"));
    }
    let host = match entry.strip_prefix('[') {
        Some(rest) => {
            let (host, after) =
                rest.split_once(']').ok_or_else(|| format!("retry_join {entry:?}: the bracket is not closed"))?;
            if !after.is_empty() {
                port_of(entry, after.trim_start_matches(':'))?;
            }
            format!("[{host}]")
        }
        None if entry.matches(':').count() > 1 => format!("[{entry}]"),
        None => match entry.split_once(':') {
            Some((host, port)) => {
                port_of(entry, port)?;
                host.to_owned()
            }
            None => entry.to_owned(),
        },
    };
    Ok(format!("{host}:{server_port}"))
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

fn port_of(entry: &str, port: &str) -> Result<u16, String> {
    port.parse().map_err(|_| format!("retry_join {entry:?}: {port:?} is not a port"))
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
    fn what_is_not_served_or_not_a_host_is_refused() {
        for entry in ["", "provider=k8s label_selector=\"app=x\"", "a:b", "[::1", "{{ GetPrivateIP }}"] {
            assert!(server_address(entry, 8300).is_err(), "{entry}");
        }
    }
}
