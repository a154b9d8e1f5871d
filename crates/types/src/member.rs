//! Members: who is alive, failed or left.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::{NodeName, duration};

/// The tag by which an agent says how long it is kept when it has failed: a Go duration.
pub const RECONNECT_TIMEOUT_TAG: &str = "rc_tm";

/// How long such a member is kept when it has failed, where it says so.
pub fn reconnect_timeout(tags: &BTreeMap<String, String>) -> Option<Duration> {
    duration::parse(tags.get(RECONNECT_TIMEOUT_TAG)?).ok().filter(|kept| !kept.is_zero())
}

/// How a member is. The numbers are Serf's, which Consul's API shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MemberStatus {
    /// It was heard of in time.
    #[n(1)]
    Alive,
    /// It is about to leave.
    #[n(2)]
    Leaving,
    /// It left on purpose.
    #[n(3)]
    Left,
    /// It was not heard of in time.
    #[n(4)]
    Failed,
}

impl MemberStatus {
    /// Serf's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Alive => 1,
            Self::Leaving => 2,
            Self::Left => 3,
            Self::Failed => 4,
        }
    }

    /// Serf's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Failed => "failed",
        }
    }
}

/// The protocols that a member speaks, as gossip tells them: memberlist's lowest, highest and present one, then Serf's.
pub const PROTOCOLS: [u8; 6] = [1, 5, 2, 2, 5, 4];

/// An agent as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// Its node name.
    #[n(0)]
    pub name: NodeName,
    /// Its node id, a UUID.
    #[n(1)]
    pub id: String,
    /// Its IP address.
    #[n(2)]
    pub address: String,
    /// Its LAN gossip port, which Consul's API shows.
    #[n(3)]
    pub port: u16,
    /// Consul's tags: `role`, `dc`, `id`, `build`, `vsn`, `port` and so on.
    #[n(4)]
    pub tags: BTreeMap<String, String>,
    /// Node meta that goes into the catalog.
    #[n(5)]
    pub meta: BTreeMap<String, String>,
    /// How it is.
    #[n(6)]
    pub status: MemberStatus,
    /// The protocols it speaks, where they are not [`PROTOCOLS`].
    #[n(130)]
    pub protocols: Option<[u8; 6]>,
}

impl Member {
    /// Whether it runs as a server.
    pub fn is_server(&self) -> bool {
        self.tags.get("role").is_some_and(|role| role == "consul")
    }
}
