//! The named ports of an instance that listens on several.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::NodeService;

/// Named ports that one instance may have.
const PORTS_MAX: usize = 64;

/// One of several ports that an instance listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ServicePort {
    /// What it is for.
    #[n(0)]
    pub name: String,
    /// The port.
    #[n(1)]
    pub port: u16,
    /// It is the one for whoever names none.
    #[n(2)]
    pub default: bool,
}

/// The ports of a list, and the one that they tell as that of the whole instance.
///
/// # Errors
/// What is wrong with them, in the words of Consul's client.
pub fn default_of(ports: &[ServicePort]) -> Result<Option<u16>, String> {
    if ports.len() > PORTS_MAX {
        return Err(format!("Ports has {} entries, and {PORTS_MAX} are allowed", ports.len()));
    }
    for (position, port) in ports.iter().enumerate() {
        if port.name.trim().is_empty() {
            return Err("Ports.Name cannot be empty".into());
        }
        if port.port == 0 {
            return Err("Ports.Port must be non-zero".into());
        }
        if ports[..position].iter().any(|earlier| earlier.name == port.name) {
            return Err(format!("Ports.Name {:?} has to be unique", port.name));
        }
    }
    let mut defaults = ports.iter().filter(|port| port.default);
    match (defaults.next(), defaults.next()) {
        (_, Some(_)) => Err("only one port can be marked as default".into()),
        (None, _) if !ports.is_empty() => Err("one of the Ports must be marked as Default".into()),
        (default, _) => Ok(default.map(|port| port.port)),
    }
}

impl NodeService {
    /// The port for whoever names none: that of `port`, or the default one of `ports`.
    ///
    /// # Errors
    /// The named ports are wrong, or say another default than `port` does.
    pub fn settled_port(&self) -> Result<u16, String> {
        match default_of(self.ports.as_deref().unwrap_or_default())? {
            None => Ok(self.port),
            Some(default) if self.port == 0 || self.port == default => Ok(default),
            Some(default) => {
                Err(format!("Port {} must be the default one of Ports, {default}, or left out", self.port))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, port: u16, default: bool) -> ServicePort {
        ServicePort { name: name.into(), port, default }
    }

    #[test]
    fn one_of_several_ports_is_the_default_one() {
        let settled = |own: u16, ports: &[ServicePort]| {
            let ports = Some(ports.to_vec()).filter(|ports| !ports.is_empty());
            NodeService { port: own, ports, ..NodeService::new("web".parse().unwrap()) }.settled_port()
        };
        let two = [port("http", 80, false), port("admin", 81, true)];
        assert_eq!((settled(0, &two), settled(81, &two)), (Ok(81), Ok(81)));
        assert_eq!((settled(0, &[]), settled(7, &[])), (Ok(0), Ok(7)));
        for (own, ports, text) in [
            (0, vec![port(" ", 80, true)], "Ports.Name cannot be empty"),
            (0, vec![port("a", 0, true)], "Ports.Port must be non-zero"),
            (0, vec![port("a", 1, true), port("a", 2, false)], "Ports.Name \"a\" has to be unique"),
            (0, vec![port("a", 1, true), port("b", 2, true)], "only one port can be marked as default"),
            (0, vec![port("a", 1, false)], "one of the Ports must be marked as Default"),
            (80, two.to_vec(), "Port 80 must be the default one of Ports, 81, or left out"),
        ] {
            assert_eq!(settled(own, &ports), Err(text.to_owned()));
        }
        assert!(settled(0, &vec![port("a", 1, true); PORTS_MAX + 1]).is_err());
    }
}
