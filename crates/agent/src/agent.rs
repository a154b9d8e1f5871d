//! An agent: what its HTTP, DNS and local parts share.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use lictor_runtime::fs::{self, Fs, Open};
use lictor_runtime::{Clock, Rng};
use lictor_types::member::RECONNECT_TIMEOUT_TAG;
use lictor_types::{Member, MemberStatus, NodeName};

use crate::config::Config;
use crate::datacenter::SharedDatacenter;
use crate::events::Ring;
use crate::figures::Figures;
use crate::local::Local;
use crate::orders::Orders;
use crate::pools::Pools;
use crate::tokens::AgentTokens;

/// The release of Consul whose interfaces we speak; clients parse it.
pub const CONSUL_VERSION: &str = "1.21.4";
/// Our own release.
pub const LICTOR_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The file in the data directory that keeps the node id.
const NODE_ID_FILE: &str = "node-id";

/// One agent, whatever its mode.
pub struct Agent {
    /// Who it is.
    pub identity: AgentIdentity,
    /// The replicated state behind it.
    pub datacenter: SharedDatacenter,
    /// Its own services and checks.
    pub local: Arc<Local>,
    /// What it asks with where a request brings no token.
    pub tokens: Arc<AgentTokens>,
    /// The last user events that were meant for it.
    pub events: Arc<Ring>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// What it was told and is in force; [`crate::reload`] replaces it.
    pub config: ArcSwap<Config>,
    /// The gossip pools it is in.
    pub pools: Arc<Pools>,
    /// What it counts.
    pub figures: Figures,
    /// What people order it to do as a process.
    pub orders: Orders,
}

/// Who an agent is, as it tells others.
#[derive(Clone, Debug)]
pub struct AgentIdentity {
    /// Its name in the catalog.
    pub node_name: NodeName,
    /// Its node id, a UUID; for a server raft's node id too.
    pub node_id: String,
    /// The datacenter it is in.
    pub datacenter: String,
    /// It runs as a server.
    pub server: bool,
    /// How many servers start the cluster; 0 for a client.
    pub bootstrap_expect: u32,
    /// The IP address that others dial.
    pub address: String,
    /// The server port.
    pub server_port: u16,
    /// The LAN gossip port, which Consul's API shows; 0 without gossip.
    pub serf_lan_port: u16,
    /// The WAN gossip port of a server, if it is on.
    pub serf_wan_port: Option<u16>,
    /// The DNS domain, with a dot at its end.
    pub domain: String,
    /// Tokens are asked for.
    pub acl_enabled: bool,
    /// What no rule speaks of is allowed.
    pub default_allow: bool,
    /// It is the single in-memory agent of `-dev`.
    pub dev: bool,
    /// The port of plain HTTP, if it is on.
    pub http_port: Option<u16>,
    /// The port of HTTPS, if it is on.
    pub https_port: Option<u16>,
    /// The port of DNS, if it is on.
    pub dns_port: Option<u16>,
    /// How long the others keep it when it has failed, where it is not their own setting.
    pub reconnect_timeout: Option<Duration>,
    /// Node meta at the start, our version among it; a reload may change what the catalog is told.
    pub meta: BTreeMap<String, String>,
}

impl AgentIdentity {
    /// The identity that `config` gives the agent with this node id.
    pub fn new(config: &Config, node_id: String) -> Self {
        Self {
            node_name: config.node_name.clone(),
            node_id,
            datacenter: config.datacenter.clone(),
            server: config.server,
            bootstrap_expect: config.bootstrap_expect,
            address: config.addresses.advertise.to_string(),
            server_port: config.ports.server,
            serf_lan_port: config.ports.serf_lan.unwrap_or(0),
            serf_wan_port: config.gossip.wan.map(|pool| pool.advertise.port()),
            domain: config.dns.domain.clone(),
            acl_enabled: config.acl.enabled,
            default_allow: config.acl.default_allow,
            dev: config.dev,
            http_port: config.ports.http,
            https_port: config.ports.https,
            dns_port: config.ports.dns,
            reconnect_timeout: config.gossip.advertised_reconnect_timeout,
            meta: node_meta(config),
        }
    }

    /// The addresses of the node by purpose, as Consul registers them.
    pub fn tagged_addresses(&self) -> BTreeMap<String, String> {
        tagged_addresses(&self.address)
    }

    /// The agent as a living member, with Consul's tags.
    pub fn member(&self) -> Member {
        let mut tags: BTreeMap<String, String> = [
            ("role", if self.server { "consul" } else { "node" }.to_owned()),
            ("dc", self.datacenter.clone()),
            ("id", self.node_id.clone()),
            ("build", CONSUL_VERSION.to_owned()),
            ("segment", String::new()),
            ("vsn", "2".to_owned()),
            ("vsn_min", "2".to_owned()),
            ("vsn_max", "3".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let kept = self.reconnect_timeout.map(lictor_types::duration::format);
        tags.extend(kept.map(|kept| (RECONNECT_TIMEOUT_TAG.to_owned(), kept)));
        if self.server {
            tags.insert("port".into(), self.server_port.to_string());
            tags.extend(self.serf_wan_port.map(|port| ("wan_join_port".into(), port.to_string())));
            tags.insert("raft_vsn".into(), "3".into());
            tags.insert("acls".into(), if self.acl_enabled { "1" } else { "0" }.into());
            if self.bootstrap_expect == 1 {
                tags.insert("bootstrap".into(), "1".into());
            } else if self.bootstrap_expect > 1 {
                tags.insert("expect".into(), self.bootstrap_expect.to_string());
            }
        }
        Member {
            name: self.node_name.clone(),
            id: self.node_id.clone(),
            address: self.address.clone(),
            port: self.serf_lan_port,
            tags,
            meta: self.meta.clone(),
            status: MemberStatus::Alive,
            protocols: None,
        }
    }
}

/// What `config` says of the node, and our version.
pub(crate) fn node_meta(config: &Config) -> BTreeMap<String, String> {
    let mut meta = config.node_meta.clone();
    meta.insert("consul-network-segment".into(), String::new());
    meta.insert("consul-version".into(), CONSUL_VERSION.into());
    meta.insert("lictor-version".into(), LICTOR_VERSION.into());
    meta
}

/// The addresses of a node at `address` by purpose, as Consul registers them.
pub fn tagged_addresses(address: &str) -> BTreeMap<String, String> {
    let family = if address.contains(':') { "ipv6" } else { "ipv4" };
    ["lan".to_owned(), format!("lan_{family}"), "wan".to_owned(), format!("wan_{family}")]
        .into_iter()
        .map(|purpose| (purpose, address.to_owned()))
        .collect()
}

/// The agent's node id: the configured one, else the one kept in the data directory, else a random one, which is kept
/// there. A wiped directory is a new node.
///
/// # Errors
/// The file cannot be read or written.
pub fn node_id(config: &Config, fs: &dyn Fs, rng: &dyn Rng) -> io::Result<String> {
    if let Some(id) = &config.node_id {
        return Ok(id.clone());
    }
    let Some(directory) = &config.data_dir else { return Ok(rng.uuid()) };
    kept_node_id(directory, fs, rng)
}

/// The node id that is kept in `directory`; a random one that is kept there from now on, if there is none.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn kept_node_id(directory: &Path, fs: &dyn Fs, rng: &dyn Rng) -> io::Result<String> {
    fs.create_dir_all(directory)?;
    let path = directory.join(NODE_ID_FILE);
    match fs.open(&path, Open::Existing) {
        Ok(file) => {
            let text = String::from_utf8(fs::read_all(&*file)?)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the node id is not UTF-8"))?;
            let id = text.trim().to_ascii_lowercase();
            if id.len() == 36 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
                return Ok(id);
            }
            let reason = format!("{} must hold a UUID, not {id:?}; remove it to become a new node", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = rng.uuid();
            crate::local::write_whole(fs, &path, id.as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// The same id for the same name on the same machine, for an agent that keeps nothing: made of the machine's own id,
/// which nobody else knows.
pub fn derived_node_id(machine_id: &str, datacenter: &str, node: &NodeName) -> String {
    let text = format!("lictor node id 1\n{machine_id}\n{datacenter}\n{}", node.key());
    uuid_of(digest(&SHA256, text.as_bytes()).as_ref())
}

/// A UUID of the first 16 bytes of a digest.
pub(crate) fn uuid_of(digest: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // Version 8: a UUID of our own making.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;
    use lictor_runtime::fs::MemoryFs;

    use super::*;

    #[test]
    fn a_derived_id_is_the_same_for_the_same_name_on_the_same_machine() {
        let id = |machine: &str, node: &str| derived_node_id(machine, "dc1", &node.parse().unwrap());
        assert_eq!(id("m", "web-1"), id("m", "Web-1"));
        assert_eq!(id("m", "web-1").len(), 36);
        assert!(id("m", "web-1") != id("m", "web-2") && id("m", "web-1") != id("n", "web-1"));
    }

    #[test]
    fn a_node_id_is_made_once_and_kept() {
        let (fs, rng) = (MemoryFs::new(), SeededRng::new(1));
        let first = kept_node_id(Path::new("/data"), &fs, &rng).unwrap();
        assert_eq!(kept_node_id(Path::new("/data"), &fs, &rng).unwrap(), first);
        let file = fs.open(Path::new("/data/node-id"), Open::Empty).unwrap();
        file.write_all_at(b"half", 0).unwrap();
        let error = kept_node_id(Path::new("/data"), &fs, &rng).unwrap_err();
        assert!(error.to_string().contains("must hold a UUID"), "{error}");
    }
}
