//! Streams: push/pulls that join and that keep everybody even, and probes where packets do not pass.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Core, Output, Phase, Timer};
use crate::event::Event;
use crate::members::{Life, Place};
use crate::suspicion::push_pull_interval;
use crate::wire::stream::{PushPull, decode_user, encode_header};
use crate::wire::swim::{self, Accusation, Ack, Ping};
use crate::wire::{WireError, kind};

/// The most streams that this member has open at once.
const MAX_EXCHANGES: usize = 128;
/// The most addresses of one attempt to join.
const MAX_JOIN_ADDRESSES: usize = 64;

/// A stream that a core asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(u64);

/// Why a stream was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To join, as part of that attempt.
    Join(u64, SocketAddr),
    /// To be even with somebody.
    PushPull,
    /// To join where this member was before it stopped.
    Rejoin,
    /// To see whether a member that answers no packets answers this.
    Probe(u32),
}

/// An attempt to join.
#[derive(Debug, Default)]
pub(super) struct Join {
    waiting: usize,
    reached: usize,
    failures: Vec<String>,
    ignore_old: bool,
}

impl Core {
    /// Joins the pool of the members at these addresses. [`Event::Joined`] with the answered number tells how it went.
    /// `ignore_old` passes over events that were told before.
    pub fn join(&mut self, now: Duration, addresses: &[SocketAddr], ignore_old: bool) -> u64 {
        self.pass(now);
        self.next_exchange += 1;
        let number = self.next_exchange;
        self.joins.insert(number, Join { ignore_old, waiting: addresses.len(), ..Join::default() });
        for (position, address) in addresses.iter().enumerate() {
            if position < MAX_JOIN_ADDRESSES && self.phase == Phase::Present {
                self.start_push_pull(*address, true, Purpose::Join(number, *address));
            } else {
                let reason =
                    format!("at most {MAX_JOIN_ADDRESSES} addresses are tried, by a member that is not leaving");
                self.join_ended(number, *address, Err(reason));
            }
        }
        if addresses.is_empty() {
            self.joins.remove(&number);
            self.emit(Event::Joined { join: number, reached: 0, failures: vec!["there is no address to join".into()] });
        }
        number
    }

    /// Joins the first of these that answers: where this member was before it stopped.
    pub fn rejoin(&mut self, now: Duration, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.pass(now);
        self.rejoin = addresses.into_iter().filter(|it| *it != self.config.address).collect();
        self.rejoin_next();
    }

    fn rejoin_next(&mut self) {
        if let Some(address) = self.rejoin.pop_front() {
            self.start_push_pull(address, true, Purpose::Rejoin);
        }
    }

    pub(super) fn push_pull(&mut self) {
        let interval = push_pull_interval(self.config.timing.push_pull_interval, self.order.len());
        self.timers.set(self.now + interval, Timer::PushPull);
        let chosen = self.random_members(1, |slot| slot.life == Life::Alive);
        let Some(slot) = chosen.first().and_then(|place| self.members.get(*place)) else { return };
        let to = slot.record.address();
        self.start_push_pull(to, false, Purpose::PushPull);
    }

    pub(super) fn start_push_pull(&mut self, to: SocketAddr, join: bool, purpose: Purpose) {
        let mut message = Vec::new();
        self.write_state(join, &mut message);
        self.open_exchange(to, &message, self.config.timing.stream_timeout, purpose);
    }

    pub(super) fn open_exchange(&mut self, to: SocketAddr, message: &[u8], within: Duration, purpose: Purpose) {
        self.next_exchange += 1;
        let id = ExchangeId(self.next_exchange);
        self.exchanges.insert(id, purpose);
        if self.exchanges.len() > MAX_EXCHANGES {
            let now = self.now;
            self.exchange_ended(now, id, Err("too many streams are open already".into()));
            return;
        }
        let bytes = self.seal_stream(message);
        self.outputs.push_back(Output::Exchange { id, to, bytes, within });
    }

    fn seal_stream(&self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.envelope().seal_stream(message, self.config.compress, &*self.rng, &mut bytes);
        bytes
    }

    /// Everything this member knows, as a message.
    fn write_state(&self, join: bool, out: &mut Vec<u8>) {
        let mut serf = Vec::new();
        self.write_serf_state(&mut serf);
        let told = self.members.iter().filter(|(_, slot)| slot.life != Life::Forgotten);
        out.reserve(160 * self.members.len() + serf.len());
        encode_header(told.clone().count(), serf.len(), join, out);
        for (_, slot) in told {
            let life = match slot.life {
                Life::Alive => swim::Life::Alive,
                Life::Suspect => swim::Life::Suspect,
                Life::Dead => swim::Life::Dead,
                Life::Left | Life::Forgotten => swim::Life::Left,
            };
            swim::encode_state(slot.record.fixed(), slot.incarnation, life, out);
        }
        out.extend_from_slice(&serf);
    }

    /// A stream that a core asked for is over: all that came back, or why nothing did.
    pub fn exchange_ended(&mut self, now: Duration, id: ExchangeId, result: Result<Vec<u8>, String>) {
        self.pass(now);
        let Some(purpose) = self.exchanges.remove(&id) else { return };
        if self.phase == Phase::Gone {
            return;
        }
        if let Purpose::Probe(sequence) = purpose {
            if result.is_ok_and(|bytes| self.is_ack(&bytes, sequence)) {
                self.probe_reached_by_stream(sequence);
            }
            return;
        }
        let joining = matches!(purpose, Purpose::Join(..) | Purpose::Rejoin);
        let ignore_old = match purpose {
            Purpose::Join(number, _) => self.joins.get(&number).is_some_and(|join| join.ignore_old),
            _ => false,
        };
        let merged = result.and_then(|bytes| {
            let message = self.envelope().open_stream(&bytes).map_err(|error| error.to_string())?.into_owned();
            match message.split_first() {
                Some((&kind::PUSH_PULL, body)) => {
                    self.merge_state(body, joining && ignore_old).map_err(|error| error.to_string())
                }
                Some((&kind::ERROR, body)) => {
                    Err(format!("the other side refused: {}", swim::decode_error(body).unwrap_or_default()))
                }
                _ => Err("the other side answered something else".into()),
            }
        });
        match purpose {
            Purpose::Join(number, address) => self.join_ended(number, address, merged),
            Purpose::Rejoin if merged.is_ok() => {
                self.rejoin.clear();
                self.announce_join();
            }
            Purpose::Rejoin => self.rejoin_next(),
            Purpose::PushPull | Purpose::Probe(_) => {
                if let Err(error) = merged {
                    tracing::debug!(error, "a push/pull failed");
                }
            }
        }
    }

    fn is_ack(&self, bytes: &[u8], sequence: u32) -> bool {
        let Ok(message) = self.envelope().open_stream(bytes) else { return false };
        matches!(message.split_first(), Some((&kind::ACK, body))
            if Ack::decode(body).is_ok_and(|ack| ack.sequence == sequence))
    }

    fn join_ended(&mut self, number: u64, address: SocketAddr, result: Result<(), String>) {
        let Some(join) = self.joins.get_mut(&number) else { return };
        join.waiting -= 1;
        match result {
            Ok(()) => join.reached += 1,
            Err(error) => join.failures.push(format!("Failed to join {address}: {error}")),
        }
        if join.waiting > 0 {
            return;
        }
        let Some(Join { reached, failures, .. }) = self.joins.remove(&number) else { return };
        if reached > 0 {
            self.announce_join();
        }
        self.emit(Event::Joined { join: number, reached, failures });
    }

    /// A stream came from `from` and is whole. Answers what to write back.
    pub fn serve_stream(&mut self, now: Duration, from: SocketAddr, stream: &[u8]) -> Option<Vec<u8>> {
        self.pass(now);
        if self.phase == Phase::Gone {
            return None;
        }
        match self.serve(stream) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%from, %error, "a gossip stream was refused");
                let mut refusal = Vec::new();
                swim::encode_error(&error.to_string(), &mut refusal);
                Some(self.seal_stream(&refusal))
            }
        }
    }

    fn serve(&mut self, stream: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        let message = self.envelope().open_stream(stream)?.into_owned();
        let (kind, body) = message.split_first().ok_or(WireError::Truncated)?;
        match *kind {
            kind::PUSH_PULL => {
                // What I know goes out before theirs comes in: they need not hear their own words.
                let mut answer = Vec::new();
                self.write_state(false, &mut answer);
                let answer = self.seal_stream(&answer);
                self.merge_state(body, false)?;
                Ok(Some(answer))
            }
            kind::USER => {
                self.hear_serf(decode_user(body)?)?;
                Ok(None)
            }
            kind::PING => {
                let ping = Ping::decode(body)?;
                if !ping.node.is_empty() && ping.node != self.config.name {
                    return Ok(None);
                }
                let mut answer = Vec::new();
                Ack { sequence: ping.sequence, payload: &[] }.encode(&mut answer);
                Ok(Some(self.seal_stream(&answer)))
            }
            other => Err(WireError::Kind(other)),
        }
    }

    /// Takes over what another one knows.
    fn merge_state(&mut self, body: &[u8], ignore_old: bool) -> Result<(), WireError> {
        let state = PushPull::decode(body)?;
        let (name, mut guess) = (self.config.name.clone(), 0);
        let serf = state.read(|member| {
            let alive = &member.alive;
            let place = match member.life {
                swim::Life::Alive => self.hear_alive(alive, guess),
                swim::Life::Left => {
                    let place = self.members.place_near(alive.node, guess);
                    let (incarnation, node) = (alive.incarnation, alive.node);
                    if let Some(place) = place {
                        self.bury_at(place, &Accusation { incarnation, node, from: node });
                    }
                    place
                }
                // Another one's death certificate is a suspicion here: the dead may refute it.
                swim::Life::Dead | swim::Life::Suspect => {
                    let place = self.members.place_near(alive.node, guess);
                    let (incarnation, node) = (alive.incarnation, alive.node);
                    if let Some(place) = place {
                        self.suspect_at(place, &Accusation { incarnation, node, from: &name });
                    }
                    place
                }
            };
            guess = place.unwrap_or(guess) as Place + 1;
        })?;
        if serf.is_empty() { Ok(()) } else { self.merge_serf_state(serf, ignore_old) }
    }
}
