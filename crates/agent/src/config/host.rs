//! What a configuration takes from the machine where it leaves a choice open.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The machine, as far as defaults need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its host name; the node name where none is given.
    pub name: String,
    /// Its private IPv4 addresses; the advertised address where none is given and every address is bound.
    pub private_addresses: Vec<Ipv4Addr>,
    /// Its IPv4 addresses by network interface.
    pub interfaces: BTreeMap<String, Vec<Ipv4Addr>>,
}

impl Host {
    /// The machine we run on. What it does not tell is left empty, and an error only where it is needed.
    pub fn of_this_machine() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let local = local_addresses(&table);
        Self { name, private_addresses: private_addresses(&local), interfaces: interfaces(&local, &routes) }
    }

    /// `text` with the addresses that its templates stand for: those of go-sockaddr's that take no more than an argument.
    ///
    /// # Errors
    /// A template is another one, or this machine has no such address.
    pub(super) fn render(&self, text: &str) -> Result<String, String> {
        let mut rendered = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (template, after) = after.split_once("}}").ok_or_else(|| format!("{text:?}: a template has no end"))?;
            rendered += before;
            rendered += &self.template(template.trim())?;
            rest = after;
        }
        Ok(rendered + rest)
    }

    fn template(&self, template: &str) -> Result<String, String> {
        let mut words = template.split_whitespace();
        let (function, argument) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let argument = argument.trim_matches('"');
        let all = self.interfaces.values().flatten();
        let found: Vec<Ipv4Addr> = match function {
            "GetPrivateIP" | "GetPrivateIPs" if argument.is_empty() => self.private_addresses.clone(),
            "GetPublicIP" | "GetPublicIPs" if argument.is_empty() => {
                all.filter(|it| !it.is_private() && !it.is_loopback() && !it.is_link_local()).copied().collect()
            }
            "GetInterfaceIP" | "GetInterfaceIPs" if !argument.is_empty() && words.next().is_none() => {
                self.interfaces.get(argument).cloned().unwrap_or_default()
            }
            _ => {
                return Err(format!(
                    "{{{{ {template} }}}}: of templates GetPrivateIP, GetPublicIP and GetInterfaceIP \"NAME\" are served"
                ));
            }
        };
        if found.is_empty() {
            return Err(format!("{{{{ {template} }}}}: this machine has no such IPv4 address"));
        }
        let wanted = if function.ends_with('s') { found.len() } else { 1 };
        Ok(found[..wanted].iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(" "))
    }
}

/// The addresses by interface: each belongs to the one whose network it is in.
fn interfaces(local: &[Ipv4Addr], routes: &str) -> BTreeMap<String, Vec<Ipv4Addr>> {
    let mut interfaces: BTreeMap<String, Vec<Ipv4Addr>> = BTreeMap::new();
    let networks: Vec<(&str, u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (name, network, mask) = (*fields.first()?, *fields.get(1)?, *fields.get(7)?);
            // The kernel writes them in the machine's own order of bytes, which is that of the network the other way round.
            let number = |text| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
            Some((name, number(network)?, number(mask)?)).filter(|(_, _, mask)| *mask != 0)
        })
        .collect();
    for address in local {
        let holds = |(_, network, mask): &&(&str, u32, u32)| u32::from(*address) & mask == *network;
        let narrowest = networks.iter().filter(holds).max_by_key(|(_, _, mask)| *mask);
        let name = if address.is_loopback() { Some("lo") } else { narrowest.map(|(name, _, _)| *name) };
        if let Some(name) = name {
            interfaces.entry(name.to_owned()).or_default().push(*address);
        }
    }
    interfaces
}

fn private_addresses(local: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    local.iter().filter(|address| address.is_private()).copied().collect()
}

/// The local addresses of a kernel's `fib_trie`: a line `|-- ADDRESS` and below it `/32 host LOCAL`.
fn local_addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_local_addresses_are_taken() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.0.0\n        /16 link UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.255.255\n        /32 link BROADCAST\n";
        assert_eq!(private_addresses(&local_addresses(table)), [Ipv4Addr::new(10, 1, 2, 3)]);
    }

    #[test]
    fn a_template_stands_for_an_address_of_this_machine() {
        let local = ["10.1.2.3", "127.0.0.1", "10.2.0.1", "203.0.113.9"].map(|text| text.parse().unwrap());
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t0100010A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t0000010A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                      eth1\t0000020A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                      eth2\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let interfaces = interfaces(&local, routes);
        let host = Host { name: String::new(), private_addresses: private_addresses(&local), interfaces };
        for (text, rendered) in [
            ("10.0.0.1", "10.0.0.1"),
            ("{{ GetPrivateIP }}", "10.1.2.3"),
            ("{{GetPrivateIPs}} 127.0.0.1", "10.1.2.3 10.2.0.1 127.0.0.1"),
            ("{{ GetInterfaceIP \"eth1\" }}", "10.2.0.1"),
            ("{{ GetInterfaceIP \"lo\" }}", "127.0.0.1"),
            ("{{ GetPublicIP }}", "203.0.113.9"),
        ] {
            assert_eq!(host.render(text).as_deref(), Ok(rendered), "{text}");
        }
        for text in ["{{ GetInterfaceIP \"eth9\" }}", "{{ GetPrivateIP", "{{ GetAllInterfaces | attr \"address\" }}"] {
            assert!(host.render(text).is_err(), "{text}");
        }
    }
}
