//! How an agent takes part in gossip.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lictor_gossip::{Keyring, Timing};
use zeroize::Zeroizing;

use super::build::rendered;
use super::merged::Keys;
use super::{Block, Host, Ports, join};

/// The shortest time that a failed member is kept: a machine that is repaired must find its place again.
const RECONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(8 * 3600);
/// The word that turns encryption off, in the place of a key.
const ENCRYPTION_OFF: &str = "off";

/// How an agent takes part in gossip.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// The pool of the datacenter; none when `ports.serf_lan` is off.
    pub lan: Option<PoolConfig>,
    /// The pool of all servers; none for clients, or when `ports.serf_wan` is off.
    pub wan: Option<PoolConfig>,
    /// How long a failed member of the datacenter may come back before it is forgotten, whether or not it gossips.
    pub reconnect_timeout: Duration,
    /// The same for this agent alone, which tells it the others.
    pub advertised_reconnect_timeout: Option<Duration>,
    /// Where members of the datacenter's pool may be; empty for everywhere.
    pub allowed_lan: Vec<Block>,
    /// Where servers of the pool of all datacenters may be; empty for everywhere.
    pub allowed_wan: Vec<Block>,
    /// With what packets are encrypted.
    pub encryption: GossipEncryption,
    /// Whether what comes in must be encrypted, given keys.
    pub verify_incoming: bool,
    /// Whether what goes out is encrypted, given keys.
    pub verify_outgoing: bool,
    /// Changed keys are kept in the data directory.
    pub keyring_file: bool,
    /// An agent that left joins again when it starts, by what it remembers.
    pub rejoin_after_leave: bool,
    /// Servers of other datacenters: `host`, or `host:port` of WAN gossip.
    pub retry_join_wan: Vec<String>,
    /// Between two rounds over all of them.
    pub retry_interval_wan: Duration,
    /// Rounds before the agent gives up; 0 for ever.
    pub retry_max_wan: u32,
}

impl GossipConfig {
    /// Whether packets of the datacenter's pool are encrypted from the start.
    pub fn is_encrypted(&self) -> bool {
        match self.encryption {
            GossipEncryption::Key(_) => true,
            GossipEncryption::ByDefault => self.lan.is_some_and(|pool| !pool.bind.ip().is_loopback()),
            GossipEncryption::Off => false,
        }
    }
}

/// One pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Where it listens, for packets and streams.
    pub bind: SocketAddr,
    /// What others are told.
    pub advertise: SocketAddr,
    /// How it behaves.
    pub timing: Timing,
}

/// With what packets are encrypted.
#[derive(Clone, Debug)]
pub enum GossipEncryption {
    /// With this key, until the keyring is changed.
    Key(GossipKey),
    /// With the key that servers derive from the datacenter's seal key and clients ask them for; not at all on loopback.
    ByDefault,
    /// Not at all, on purpose.
    Off,
}

/// A key of the pools in base64, which shows itself to nobody.
#[derive(Clone)]
pub struct GossipKey(Zeroizing<String>);

impl GossipKey {
    /// A key in base64.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Its text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GossipKey(<hidden>)")
    }
}

/// What the keys say of gossip. `bound` is where the agent listens and what it tells others.
pub(super) fn gossip(
    keys: &mut Keys<'_>,
    server: bool,
    bound: (IpAddr, IpAddr),
    ports: &Ports,
    host: &Host,
) -> GossipConfig {
    let (bind, advertise) = bound;
    let mut address = |key: &str| address(keys, key, host);
    let advertise_wan = address("advertise_addr_wan").unwrap_or(advertise);
    let (lan_bind, wan_bind) = (address("serf_lan").unwrap_or(bind), address("serf_wan").unwrap_or(bind));
    let lan_timing = timing(keys, "gossip_lan", "reconnect_timeout", Timing::lan());
    let wan_timing = timing(keys, "gossip_wan", "reconnect_timeout_wan", Timing::wan());
    let pool = |bind: IpAddr, advertise: IpAddr, port: Option<u16>, timing: Timing| {
        let port = port?;
        Some(PoolConfig { bind: SocketAddr::new(bind, port), advertise: SocketAddr::new(advertise, port), timing })
    };
    let retry_join_wan = keys.texts("retry_join_wan");
    for entry in &retry_join_wan {
        if let Err(problem) = join::gossip_address("retry_join_wan", entry, ports.serf_wan.unwrap_or_default()) {
            keys.invalid(problem);
        }
    }
    if !retry_join_wan.is_empty() && (!server || ports.serf_wan.is_none()) {
        keys.invalid("retry_join_wan is for servers with ports.serf_wan on: only they take part in WAN gossip".into());
    }
    let advertised_reconnect_timeout = keys.duration("advertise_reconnect_timeout").filter(|kept| !kept.is_zero());
    if server && advertised_reconnect_timeout.is_some() {
        keys.invalid("advertise_reconnect_timeout can only be used on a client".into());
    }
    GossipConfig {
        advertised_reconnect_timeout,
        allowed_lan: blocks(keys, "serf_lan_allowed_cidrs"),
        allowed_wan: blocks(keys, "serf_wan_allowed_cidrs"),
        lan: pool(lan_bind, advertise, ports.serf_lan, lan_timing),
        wan: pool(wan_bind, advertise_wan, ports.serf_wan.filter(|_| server), wan_timing),
        reconnect_timeout: lan_timing.reconnect_timeout,
        encryption: encryption(keys, bind),
        verify_incoming: keys.flag("encrypt_verify_incoming").unwrap_or(true),
        verify_outgoing: keys.flag("encrypt_verify_outgoing").unwrap_or(true),
        keyring_file: !keys.flag("disable_keyring_file").unwrap_or(false),
        rejoin_after_leave: keys.flag("rejoin_after_leave").unwrap_or(false),
        retry_join_wan,
        retry_interval_wan: keys.duration("retry_interval_wan").unwrap_or(Duration::from_secs(30)),
        retry_max_wan: keys.count("retry_max_wan").unwrap_or(0),
    }
}

fn encryption(keys: &mut Keys<'_>, bind: IpAddr) -> GossipEncryption {
    match keys.text("encrypt") {
        None => GossipEncryption::ByDefault,
        Some(text) if text == ENCRYPTION_OFF => {
            if !bind.is_loopback() {
                keys.warnings.push("encrypt = \"off\": whoever is on the network reads and forges gossip".into());
            }
            GossipEncryption::Off
        }
        Some(text) => {
            // The text itself is a secret and is not shown.
            if let Err(error) = Keyring::from_base64(&[&text]) {
                keys.invalid(format!(
                    "encrypt is no gossip key ({error}); make one with `lictor keygen`, or write \"off\" to go without"
                ));
            }
            GossipEncryption::Key(GossipKey::new(text))
        }
    }
}

fn address(keys: &mut Keys<'_>, key: &str, host: &Host) -> Option<IpAddr> {
    let text = keys.text(key)?;
    let text = rendered(keys, key, text, host);
    let parsed = text.parse();
    if parsed.is_err() {
        keys.invalid(format!("{key} {text:?} must be an IP address"));
    }
    parsed.ok()
}

fn blocks(keys: &mut Keys<'_>, key: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for text in keys.texts(key) {
        match text.parse() {
            Ok(block) => blocks.push(block),
            Err(problem) => keys.invalid(format!("{key}: {problem}")),
        }
    }
    blocks
}

fn timing(keys: &mut Keys<'_>, pool: &str, reconnect: &str, default: Timing) -> Timing {
    let duration = |keys: &mut Keys<'_>, name: &str, default: Duration| {
        let key = format!("{pool}.{name}");
        match keys.duration(&key) {
            Some(Duration::ZERO) => {
                keys.invalid(format!("{key} must be more than 0"));
                default
            }
            found => found.unwrap_or(default),
        }
    };
    let count = |keys: &mut Keys<'_>, name: &str, default: u32| {
        let key = format!("{pool}.{name}");
        match keys.count(&key) {
            Some(number @ (0 | 101..)) => {
                keys.invalid(format!("{key} must be from 1 to 100, not {number}"));
                default
            }
            found => found.unwrap_or(default),
        }
    };
    let reconnect_timeout = keys.duration(reconnect).unwrap_or(default.reconnect_timeout);
    if reconnect_timeout < RECONNECT_TIMEOUT_MIN {
        keys.invalid(format!("{reconnect} must be at least {} hours", RECONNECT_TIMEOUT_MIN.as_secs() / 3600));
    }
    Timing {
        gossip_interval: duration(keys, "gossip_interval", default.gossip_interval),
        gossip_nodes: count(keys, "gossip_nodes", default.gossip_nodes as u32) as usize,
        probe_interval: duration(keys, "probe_interval", default.probe_interval),
        probe_timeout: duration(keys, "probe_timeout", default.probe_timeout),
        retransmit: count(keys, "retransmit_mult", default.retransmit),
        suspicion: count(keys, "suspicion_mult", default.suspicion),
        reconnect_timeout,
        ..default
    }
}
