//! User events: small messages to agents, delivered at most once and in no order that is promised.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::json;

/// Bytes in the largest payload: as much as Consul's fits into one gossip packet.
pub const PAYLOAD_BYTES_MAX: usize = 300;
/// The version of the message that is spoken.
pub const EVENT_VERSION: u32 = 1;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct UserEvent {
    /// A random UUID.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Whatever its sender says.
    #[cbor(n(2), with = "minicbor::bytes")]
    #[serde(with = "json::base64_or_null")]
    pub payload: Vec<u8>,
    /// Only for agents whose node name this regular expression finds something in.
    #[n(3)]
    pub node_filter: String,
    /// Only for agents with an instance whose id this finds something in.
    #[n(4)]
    pub service_filter: String,
    /// Only for agents with such an instance that has a tag this finds something in.
    #[n(5)]
    pub tag_filter: String,
    /// [`EVENT_VERSION`].
    #[n(6)]
    pub version: u32,
    /// Its place in the order of events, by the leader's Lamport clock; 0 until it has one.
    #[n(7)]
    #[serde(rename = "LTime")]
    pub lamport_time: u64,
}

impl UserEvent {
    /// What a blocking reader waits on.
    pub fn index(&self) -> u64 {
        index_of(&self.id)
    }
}

/// The index that Consul makes of an event's id: its two halves, one over the other. 0 for what is no UUID.
pub fn index_of(id: &str) -> u64 {
    let hex: String = id.chars().filter(|c| *c != '-').collect();
    let half = |at: std::ops::Range<usize>| hex.get(at).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    match (half(0..16), half(16..32)) {
        (Some(low), Some(high)) => low ^ high,
        _ => 0,
    }
}

/// Asks a server for the events after a place in its ring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FollowEvents {
    /// The ring that `after` is a place in; empty to begin at the end of whatever ring there is.
    #[n(0)]
    pub ring: String,
    /// The place of the last event that was taken from it.
    #[n(1)]
    pub after: u64,
    /// How long to wait for one.
    #[n(2)]
    pub wait_millis: u64,
}

/// Events of one ring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EventBatch {
    /// The ring's id: made anew at each start of its server.
    #[n(0)]
    pub ring: String,
    /// The place to go on from.
    #[n(1)]
    pub next: u64,
    /// The Lamport time of the newest event that the ring knows of.
    #[n(2)]
    pub clock: u64,
    /// The events, the oldest first. All that the ring holds when it was asked about another ring.
    #[n(3)]
    pub events: Vec<UserEvent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_one_that_consul_derives_from_the_id() {
        let event = |id: &str| UserEvent {
            id: id.into(),
            name: "deploy".into(),
            payload: Vec::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            version: EVENT_VERSION,
            lamport_time: 0,
        };
        // Both as a real Consul 1.8.7 told them.
        assert_eq!(event("22342204-6fb0-44af-e497-561d3d0f062e").index(), 14_313_411_692_824_838_785);
        assert_eq!(event("no UUID").index(), 0);
    }
}
