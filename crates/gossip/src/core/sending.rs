//! What comes in and goes out: packets, and the broadcasts that ride on them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Core, MAX_OUTPUTS, Output, Phase, Timer};
use crate::members::{Life, Place};
use crate::suspicion::retransmit_limit;
use crate::wire::envelope::{COMPOUND_HEADER, COMPOUND_PART, Envelope, MAX_PARTS, fold, unfold};
use crate::wire::kind;

/// A shorter message is not worth compressing.
const SMALLEST_COMPRESSED: usize = 256;
/// From this version on a member checks a packet's sum.
const CHECKSUM_SINCE: u8 = 5;

impl Core {
    pub(super) fn envelope(&self) -> Envelope<'_> {
        Envelope {
            label: &self.config.label,
            keyring: self.config.keyring.as_ref(),
            verify_incoming: self.config.verify_incoming,
            verify_outgoing: self.config.verify_outgoing,
        }
    }

    /// A packet came from `from`.
    pub fn handle_packet(&mut self, now: Duration, from: SocketAddr, packet: &[u8]) {
        self.pass(now);
        if self.phase == Phase::Gone {
            return;
        }
        let opened = self.envelope().open_packet(packet);
        let read = opened.and_then(|message| unfold(&message, |kind, body| self.hear(kind, body, from)));
        if let Err(error) = read {
            tracing::debug!(%from, %error, "a gossip packet was refused");
        }
    }

    fn hear(&mut self, kind: u8, body: &[u8], from: SocketAddr) {
        let heard = match kind {
            kind::PING => self.hear_ping(body, from),
            kind::INDIRECT_PING => self.hear_indirect_ping(body, from),
            kind::ACK => self.hear_ack(body),
            kind::NACK => self.hear_nack(body),
            kind::SUSPECT | kind::DEAD => self.hear_accusation(kind, body),
            kind::ALIVE => self.hear_alive_message(body),
            kind::USER => self.hear_serf(body),
            other => Err(crate::wire::WireError::Kind(other)),
        };
        if let Err(error) = heard {
            tracing::debug!(%from, kind, %error, "a gossip message was refused");
        }
    }

    /// Sends a message alone.
    pub(super) fn send_alone(&mut self, to: SocketAddr, message: &[u8], checksum: bool) {
        if self.outputs.len() >= MAX_OUTPUTS {
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        let compress = self.config.compress_packets && message.len() >= SMALLEST_COMPRESSED;
        self.envelope().seal_packet(message, checksum, compress, &*self.rng, &mut bytes);
        self.outputs.push_back(Output::Packet { to, bytes });
    }

    /// Sends the message that `encode` appends, and what broadcasts fit beside it.
    pub(super) fn send(&mut self, to: SocketAddr, encode: impl FnOnce(&Self, &mut Vec<u8>)) {
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        encode(self, &mut message);
        let room = self.packet_room().saturating_sub(message.len() + COMPOUND_PART);
        let extra = self.take_broadcasts(room, MAX_PARTS - 1);
        if extra.is_empty() {
            self.send_alone(to, &message, false);
        } else {
            let mut parts = vec![Bytes::copy_from_slice(&message)];
            parts.extend(extra);
            message.clear();
            fold(&parts, &mut message);
            self.send_alone(to, &message, false);
        }
        self.scratch = message;
    }

    fn packet_room(&self) -> usize {
        self.config.timing.packet_size.saturating_sub(COMPOUND_HEADER + self.envelope().overhead())
    }

    fn has_broadcasts(&self) -> bool {
        !(self.rumours.is_empty()
            && self.intents.is_empty()
            && self.questions.is_empty()
            && self.user_events.is_empty())
    }

    /// Broadcasts that fit, the failure detector's first.
    fn take_broadcasts(&mut self, mut room: usize, most: usize) -> Vec<Bytes> {
        if !self.has_broadcasts() {
            return Vec::new();
        }
        let transmissions = retransmit_limit(self.config.timing.retransmit, self.order.len());
        let (mut taken, mut done) = (Vec::new(), Vec::new());
        // A part is two bytes at least beside its length: the number of parts is limited by the room, and cut for safety.
        for queue in [&mut self.rumours, &mut self.intents, &mut self.questions, &mut self.user_events] {
            let used = queue.take(COMPOUND_PART, room, transmissions, &mut taken, &mut done);
            room = room.saturating_sub(used);
        }
        taken.truncate(most);
        self.told(done);
        taken
    }

    /// Something waits to be told: sees to it that it is.
    pub(super) fn wake_gossip(&mut self) {
        if self.gossip_at.is_some() || self.config.timing.gossip_nodes == 0 {
            return;
        }
        let interval = self.config.timing.gossip_interval;
        let at = match self.config.timing.eager {
            Some(soon) => {
                let rested = self.last_gossip.map_or(Duration::ZERO, |last| last + interval);
                (self.now + soon).max(rested)
            }
            None => self.now + self.random_below(interval),
        };
        self.gossip_at = Some(at);
        self.timers.set(at, Timer::Gossip);
    }

    /// Tells some members what waits.
    pub(super) fn gossip(&mut self) {
        self.gossip_at = None;
        self.last_gossip = Some(self.now);
        let (now, dead_for) = (self.now, self.config.timing.gossip_to_the_dead);
        let targets = self.random_members(self.config.timing.gossip_nodes, |slot| match slot.life {
            Life::Alive | Life::Suspect => true,
            Life::Dead => slot.changed.age(now) <= dead_for,
            Life::Left | Life::Forgotten => false,
        });
        for place in targets {
            let messages = self.take_broadcasts(self.packet_room(), MAX_PARTS);
            if messages.is_empty() {
                break;
            }
            let Some(slot) = self.members.get(place) else { continue };
            let to = slot.record.address();
            let checksum = slot.record.versions().protocol_max >= CHECKSUM_SINCE;
            let mut message = std::mem::take(&mut self.scratch);
            message.clear();
            fold(&messages, &mut message);
            self.send_alone(to, &message, checksum);
            self.scratch = message;
        }
        if self.has_broadcasts() {
            let at = self.now + self.config.timing.gossip_interval;
            self.gossip_at = Some(at);
            self.timers.set(at, Timer::Gossip);
        }
    }

    /// Up to so many members of the failure detector, at random, this one never among them.
    pub(super) fn random_members(&self, count: usize, wanted: impl Fn(&crate::members::Slot) -> bool) -> Vec<Place> {
        let mut found = Vec::with_capacity(count);
        let tries = 3 * self.order.len();
        for _ in 0..tries {
            if found.len() >= count {
                break;
            }
            let place = self.order[self.rng.below(self.order.len() as u64) as usize];
            if place != self.me && !found.contains(&place) && self.members.get(place).is_some_and(&wanted) {
                found.push(place);
            }
        }
        found
    }

    /// Sends a message of Serf's to one member, or takes it here when this member is meant.
    pub(super) fn send_serf(&mut self, to: SocketAddr, message: &[u8]) {
        if to == self.config.address {
            if let Err(error) = self.hear_serf(message) {
                tracing::debug!(%error, "an own message was refused");
            }
            return;
        }
        let mut whole = Vec::with_capacity(1 + message.len());
        whole.push(kind::USER);
        whole.extend_from_slice(message);
        self.send_alone(to, &whole, false);
    }
}
