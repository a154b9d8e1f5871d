//! How a member of a pool behaves.

use std::net::SocketAddr;
use std::time::Duration;

use lictor_runtime::Block;

use crate::keyring::Keyring;
use crate::wire::Versions;
use crate::wire::tags::Tags;

/// Serf's protocol, unless another is asked for.
pub const SERF_PROTOCOL: u8 = 5;
/// The most members that are believed to exist, unless another limit is set.
pub const MAX_MEMBERS: usize = 1 << 17;

/// Intervals, timeouts and fan-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two rounds of gossip.
    pub gossip_interval: Duration,
    /// To how many each round goes.
    pub gossip_nodes: usize,
    /// For how long the dead are still told of their death: they may not be dead.
    pub gossip_to_the_dead: Duration,
    /// After so long news leave without waiting for the next round, if the last was an interval ago. None keeps the beat
    /// whether there are news or not, as memberlist does.
    pub eager: Option<Duration>,
    /// Between two probes.
    pub probe_interval: Duration,
    /// How long a probe waits before others are asked to probe.
    pub probe_timeout: Duration,
    /// How many others are asked.
    pub indirect_checks: usize,
    /// Between two push/pulls, in a pool of up to 32 members.
    pub push_pull_interval: Duration,
    /// How long a stream may take.
    pub stream_timeout: Duration,
    /// How often a message is sent, times the logarithm of the pool's size.
    pub retransmit: u32,
    /// How long a suspect has, times the logarithm of the pool's size, in probe intervals.
    pub suspicion: u32,
    /// How much longer it has while nobody confirms.
    pub suspicion_longest: u32,
    /// How far this member's doubt of itself stretches its probes.
    pub awareness: u32,
    /// The largest packet.
    pub packet_size: usize,
    /// How long a query waits, times the logarithm of the pool's size, in gossip intervals.
    pub query_timeout: u32,
    /// After how long a dead member's name may be taken by another address.
    pub reclaim: Duration,
    /// How long a goodbye waits to be told.
    pub broadcast_timeout: Duration,
    /// How long a goodbye waits after it was told, to be passed on.
    pub leave_propagate: Duration,
    /// Between two looks for members to forget.
    pub reap_interval: Duration,
    /// Between two attempts to reach a failed member.
    pub reconnect_interval: Duration,
    /// How long a failed member is kept.
    pub reconnect_timeout: Duration,
    /// How long a member that left is kept.
    pub tombstone_timeout: Duration,
}

impl Timing {
    /// For members of one network: memberlist's and Consul's defaults.
    pub const fn lan() -> Self {
        Self {
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            gossip_to_the_dead: Duration::from_secs(30),
            eager: Some(Duration::from_millis(10)),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_checks: 3,
            push_pull_interval: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(10),
            retransmit: 4,
            suspicion: 4,
            suspicion_longest: 6,
            awareness: 8,
            packet_size: 1400,
            query_timeout: 16,
            reclaim: Duration::from_secs(30),
            broadcast_timeout: Duration::from_secs(5),
            leave_propagate: Duration::from_secs(1),
            reap_interval: Duration::from_secs(15),
            reconnect_interval: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(72 * 3600),
            tombstone_timeout: Duration::from_secs(24 * 3600),
        }
    }

    /// For servers of several datacenters.
    pub const fn wan() -> Self {
        Self {
            gossip_interval: Duration::from_millis(500),
            gossip_nodes: 4,
            gossip_to_the_dead: Duration::from_secs(60),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            push_pull_interval: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(30),
            suspicion: 6,
            ..Self::lan()
        }
    }

    /// For members of one machine: what Serf's `-profile=local` is.
    pub const fn local() -> Self {
        Self {
            gossip_interval: Duration::from_millis(100),
            gossip_to_the_dead: Duration::from_secs(15),
            probe_timeout: Duration::from_millis(200),
            indirect_checks: 1,
            push_pull_interval: Duration::from_secs(15),
            stream_timeout: Duration::from_secs(1),
            retransmit: 2,
            suspicion: 3,
            ..Self::lan()
        }
    }
}

/// What a member is, and how it behaves.
#[derive(Debug)]
pub struct Config {
    /// Its name: unique in the pool.
    pub name: String,
    /// Where others reach it, by packets and streams.
    pub address: SocketAddr,
    /// Its tags.
    pub tags: Tags,
    /// Serf's protocol that it speaks, 2 to 5.
    pub protocol: u8,
    /// The pool's keys; without them nothing is encrypted.
    pub keyring: Option<Keyring>,
    /// Whether what comes in must be encrypted, given keys. Off only while a pool moves to encryption.
    pub verify_incoming: bool,
    /// Whether what goes out is encrypted, given keys.
    pub verify_outgoing: bool,
    /// The pool's label; empty for none.
    pub label: String,
    /// Intervals and timeouts.
    pub timing: Timing,
    /// Whether what goes out by streams is compressed.
    pub compress: bool,
    /// Whether packets are compressed too. They are not larger without, only more bytes are sent; in a pool of 1,000 agents it
    /// took a sixth of all that gossip costs.
    pub compress_packets: bool,
    /// Whether network coordinates are kept.
    pub coordinates: bool,
    /// Whether a member that lost its name to another stops.
    pub resolve_conflicts: bool,
    /// The most members that are believed to exist.
    pub max_members: usize,
    /// The longest event, name and payload together.
    pub event_size: usize,
    /// Where members may be; empty for everywhere.
    pub allowed: Vec<Block>,
    /// What of a member's tags says how long it is kept when it has failed, where not all are kept equally long.
    pub kept_for: Option<fn(&Tags) -> Option<Duration>>,
    /// The clocks that a snapshot remembers.
    pub clocks: crate::wire::serf::Clocks,
}

impl Config {
    /// A member with LAN timing, without keys, label and tags.
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            tags: Tags::new(),
            protocol: SERF_PROTOCOL,
            keyring: None,
            verify_incoming: true,
            verify_outgoing: true,
            label: String::new(),
            timing: Timing::lan(),
            compress: true,
            compress_packets: false,
            coordinates: true,
            resolve_conflicts: true,
            max_members: MAX_MEMBERS,
            event_size: 512,
            allowed: Vec::new(),
            kept_for: None,
            clocks: crate::wire::serf::Clocks::default(),
        }
    }

    /// What this member says that it speaks.
    pub(crate) fn versions(&self) -> Versions {
        Versions {
            protocol_min: 1,
            protocol_max: 5,
            protocol_now: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate_now: self.protocol,
        }
    }
}
