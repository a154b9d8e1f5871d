//! What a configuration takes from the machine where it leaves a choice open.

use std::net::Ipv4Addr;

/// The machine, as far as defaults need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its host name; the node name where none is given.
    pub name: String,
    /// Its private IPv4 addresses; the advertised address where none is given and every address is bound.
    pub private_addresses: Vec<Ipv4Addr>,
}

impl Host {
    /// The machine we run on. What it does not tell is left empty, and an error only where it is needed.
    pub fn of_this_machine() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        Self { name, private_addresses: private_addresses(&table) }
    }
}

/// The private addresses among the local ones of a kernel's `fib_trie`: a line `|-- ADDRESS` and below it `/32 host LOCAL`.
fn private_addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(Ipv4Addr::is_private)
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
        assert_eq!(private_addresses(table), [Ipv4Addr::new(10, 1, 2, 3)]);
    }
}
