//! The failure detector: probes, by oneself, through others, and by stream.

use std::net::SocketAddr;
use std::time::Duration;

use super::exchange::Purpose;
use super::{Core, Timer};
use crate::coordinate::Coordinate;
use crate::members::{Life, Place};
use crate::wire::envelope::fold;
use crate::wire::swim::{Accusation, Ack, IndirectPing, Ping, decode_nack, encode_nack};
use crate::wire::{WireError, kind, serf};

/// The most probes that are made for others at once.
const MAX_RELAYS: usize = 4096;
/// From this version on a member answers probes by stream.
const STREAM_PROBE_SINCE: u8 = 3;
/// From this version on a member says that a probe for another was not answered.
const NACK_SINCE: u8 = 4;

/// A probe that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    target: Place,
    sent: Duration,
    /// How many were asked and promise to say so when they hear nothing either.
    nacks_expected: i32,
    nacks: i32,
    others_asked: bool,
    /// The target answered a stream.
    reached_by_stream: bool,
}

/// A probe made for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    asker: SocketAddr,
    sequence: u32,
    nack: bool,
}

impl Core {
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Probes the next member in the order; at its end the long dead are left out, and the rest is shuffled.
    pub(super) fn probe_next(&mut self) {
        self.timers.set(self.now + self.config.timing.probe_interval, Timer::Probe);
        // A probe that doubt has stretched is still under way.
        if !self.probes.is_empty() {
            return;
        }
        let mut looked = 0;
        while looked < self.order.len() {
            if self.next_probe >= self.order.len() {
                self.drop_long_dead();
                self.shuffle_order();
                self.next_probe = 0;
                looked += 1;
                continue;
            }
            let place = self.order[self.next_probe];
            self.next_probe += 1;
            if place != self.me && self.members.get(place).is_some_and(|slot| !slot.is_gone()) {
                self.probe(place);
                return;
            }
            looked += 1;
        }
    }

    pub(super) fn shuffle_order(&mut self) {
        for at in (1..self.order.len()).rev() {
            self.order.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
    }

    fn drop_long_dead(&mut self) {
        let (now, dead_for) = (self.now, self.config.timing.gossip_to_the_dead);
        let members = &mut self.members;
        self.order.retain(|place| match members.get_mut(*place) {
            Some(slot) if slot.is_gone() && slot.changed.age(now) > dead_for => {
                slot.life = Life::Forgotten;
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    fn probe(&mut self, target: Place) {
        let Some(slot) = self.members.get(target) else { return };
        let (record, life, incarnation) = (slot.record.clone(), slot.life, slot.incarnation);
        let sequence = self.next_sequence();
        let interval = self.awareness.scale(self.config.timing.probe_interval);
        let (nacks_expected, nacks, others_asked, reached_by_stream) = (0, 0, false, false);
        let probe = Probe { target, sent: self.now, nacks_expected, nacks, others_asked, reached_by_stream };
        self.probes.insert(sequence, probe);
        self.timers.set(self.now + self.config.timing.probe_timeout.min(interval), Timer::ProbeTimeout(sequence));
        self.timers.set(self.now + interval, Timer::ProbeDeadline(sequence));
        let to = record.address();
        if life == Life::Alive {
            self.send(to, |core, out| core.own_ping(sequence, record.name()).encode(out));
            return;
        }
        // A suspect is told of its suspicion with the probe, so that it can refute at once.
        let (mut ping, mut suspect, mut both) = (Vec::new(), Vec::new(), Vec::new());
        self.own_ping(sequence, record.name()).encode(&mut ping);
        let from = self.config.name.as_str();
        Accusation { incarnation, node: record.name(), from }.encode(kind::SUSPECT, &mut suspect);
        fold(&[ping, suspect], &mut both);
        self.send_alone(to, &both, false);
    }

    fn own_ping<'a>(&'a self, sequence: u32, node: &'a str) -> Ping<'a> {
        Ping { sequence, node, source: Some(self.config.address), source_node: &self.config.name }
    }

    /// No answer in time: others are asked, and a stream is tried.
    pub(super) fn probe_timed_out(&mut self, sequence: u32) {
        let Some(probe) = self.probes.get(&sequence) else { return };
        let target_place = probe.target;
        let Some(target) = self.members.get(target_place).map(|slot| slot.record.clone()) else { return };
        let helpers = self.random_members(self.config.timing.indirect_checks, |slot| {
            slot.life == Life::Alive && slot.record.address() != target.address()
        });
        let mut expected = 0;
        for helper in helpers {
            let Some(slot) = self.members.get(helper) else { continue };
            let (to, nack) = (slot.record.address(), slot.record.versions().protocol_max >= NACK_SINCE);
            expected += i32::from(nack);
            self.send(to, |core, out| {
                let (source, source_node) = (Some(core.config.address), core.config.name.as_str());
                let (node, target) = (target.name(), target.address());
                IndirectPing { sequence, target, node, nack, source, source_node }.encode(out);
            });
        }
        if target.versions().protocol_max >= STREAM_PROBE_SINCE {
            let mut ping = Vec::new();
            self.own_ping(sequence, target.name()).encode(&mut ping);
            let deadline = self.awareness.scale(self.config.timing.probe_interval);
            let sent = self.probes.get(&sequence).map_or(self.now, |probe| probe.sent);
            let within = (sent + deadline).saturating_sub(self.now);
            self.open_exchange(target.address(), &ping, within, Purpose::Probe(sequence));
        }
        if let Some(probe) = self.probes.get_mut(&sequence) {
            probe.others_asked = true;
            probe.nacks_expected = expected;
        }
    }

    /// The time of a probe is over, and no answer came.
    pub(super) fn probe_ended(&mut self, sequence: u32) {
        let Some(probe) = self.probes.remove(&sequence) else { return };
        if probe.reached_by_stream {
            let name = self.members.get(probe.target).map(|slot| slot.record.name().to_owned()).unwrap_or_default();
            tracing::warn!(member = name, "a member answers streams and no packets: is UDP blocked?");
            self.awareness.apply(-1);
            return;
        }
        // Whom nobody hears is likelier dead than a member that I alone do not hear: silence of the helpers is my own fault.
        let doubt = if probe.nacks_expected > 0 { (probe.nacks_expected - probe.nacks).max(0) } else { 1 };
        self.awareness.apply(doubt);
        let Some(slot) = self.members.get(probe.target) else { return };
        let (record, incarnation, from) = (slot.record.clone(), slot.incarnation, self.config.name.clone());
        tracing::debug!(member = record.name(), "suspect: no answer to any probe");
        self.suspect(&Accusation { incarnation, node: record.name(), from: &from });
    }

    pub(super) fn probe_reached_by_stream(&mut self, sequence: u32) {
        if let Some(probe) = self.probes.get_mut(&sequence) {
            probe.reached_by_stream = true;
        }
    }

    pub(super) fn hear_ping(&mut self, body: &[u8], from: SocketAddr) -> Result<(), WireError> {
        let ping = Ping::decode(body)?;
        if !ping.node.is_empty() && ping.node != self.config.name {
            tracing::debug!(%from, node = ping.node, "a probe for another name came here");
            return Ok(());
        }
        let (to, sequence) = (ping.source.unwrap_or(from), ping.sequence);
        self.send(to, |core, out| {
            let mut payload = Vec::new();
            core.write_coordinate(&mut payload);
            Ack { sequence, payload: &payload }.encode(out);
        });
        Ok(())
    }

    fn write_coordinate(&self, out: &mut Vec<u8>) {
        if self.config.coordinates {
            let own = self.locator.own();
            serf::encode_coordinate(&own.vector, own.error, own.adjustment, own.height, out);
        }
    }

    pub(super) fn hear_indirect_ping(&mut self, body: &[u8], from: SocketAddr) -> Result<(), WireError> {
        let request = IndirectPing::decode(body)?;
        if self.relays.len() >= MAX_RELAYS {
            return Ok(());
        }
        let sequence = self.next_sequence();
        let asker = request.source.unwrap_or(from);
        self.relays.insert(sequence, Relay { asker, sequence: request.sequence, nack: request.nack });
        self.timers.set(self.now + self.config.timing.probe_timeout, Timer::RelayTimeout(sequence));
        self.send(request.target, |core, out| core.own_ping(sequence, request.node).encode(out));
        Ok(())
    }

    pub(super) fn relay_timed_out(&mut self, sequence: u32) {
        if let Some(relay) = self.relays.remove(&sequence)
            && relay.nack
        {
            self.send(relay.asker, |_, out| encode_nack(relay.sequence, out));
        }
    }

    pub(super) fn hear_ack(&mut self, body: &[u8]) -> Result<(), WireError> {
        let ack = Ack::decode(body)?;
        if let Some(relay) = self.relays.remove(&ack.sequence) {
            self.send(relay.asker, |_, out| Ack { sequence: relay.sequence, payload: &[] }.encode(out));
            return Ok(());
        }
        let Some(probe) = self.probes.remove(&ack.sequence) else { return Ok(()) };
        self.awareness.apply(-1);
        // Only a direct answer tells a round trip.
        if self.config.coordinates && !probe.others_asked && !ack.payload.is_empty() {
            let read = serf::decode_coordinate(ack.payload)?;
            if let Some(coordinate) = Coordinate::from_wire(&read) {
                let round_trip = self.now.saturating_sub(probe.sent);
                self.locator.observe(probe.target, coordinate, round_trip, &*self.rng);
            }
        }
        Ok(())
    }

    pub(super) fn hear_nack(&mut self, body: &[u8]) -> Result<(), WireError> {
        let sequence = decode_nack(body)?;
        if let Some(probe) = self.probes.get_mut(&sequence) {
            probe.nacks += 1;
        }
        Ok(())
    }
}
