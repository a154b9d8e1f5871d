//! What is said of members: alive, suspect, dead. The higher incarnation wins, and only a member itself raises its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Core, Phase, Timer};
use crate::broadcast::Told;
use crate::event::Event;
use crate::members::{Life, Moment, Place, Slot, Status};
use crate::suspicion::{Suspicion, suspicion_timeout};
use crate::wire::swim::{Accusation, Alive};
use crate::wire::{WireError, kind, tags};

/// How long a member has to answer a challenge before the next; and between two complaints about one name.
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two announcements of a new address.
const MOVE_PAUSE: Duration = Duration::from_secs(5);

/// Whether both are one node by their tag `id`, which Consul's agents and ours have: then it has moved, and nobody took its name.
fn is_same_node(one: &[u8], other: &[u8]) -> bool {
    let id = |meta: &[u8]| tags::decode(meta).remove("id").filter(|id| !id.is_empty());
    id(one).is_some_and(|one| Some(one) == id(other))
}

impl Core {
    pub(super) fn hear_alive_message(&mut self, body: &[u8]) -> Result<(), WireError> {
        self.hear_alive(&Alive::decode(body)?, 0);
        Ok(())
    }

    /// A member is said to be alive. Answers its place, if it is known now; it may be at `guess`.
    pub(super) fn hear_alive(&mut self, alive: &Alive<'_>, guess: Place) -> Option<Place> {
        let Some(place) = self.members.place_near(alive.node, guess) else { return self.first_alive(alive) };
        if place == self.me {
            self.hear_alive_of_self(alive);
            return Some(place);
        }
        let slot = self.members.get(place)?;
        let old_word = alive.incarnation <= slot.incarnation;
        if slot.record.address() != alive.address {
            let is_moved = is_same_node(slot.record.meta(), alive.meta);
            let free = match slot.life {
                Life::Left | Life::Forgotten => true,
                Life::Dead => is_moved || slot.changed.age(self.now) > self.config.timing.reclaim,
                Life::Suspect => is_moved,
                Life::Alive => false,
            };
            if !free {
                self.conflict(place, alive.address);
                return Some(place);
            }
        } else if old_word {
            if slot.is_gone() {
                self.challenge(place);
            }
            return Some(place);
        }
        if !self.acceptable(alive) {
            return Some(place);
        }
        self.suspicions.remove(&place);
        self.broadcast_alive(alive, place, None);
        let record = self.members.pool().record(alive);
        let slot = self.members.get_mut(place)?;
        let (life, other_tags) = (slot.life, slot.record.meta() != alive.meta);
        let other_record = !std::sync::Arc::ptr_eq(&slot.record, &record);
        slot.record = record;
        slot.incarnation = alive.incarnation;
        if life != Life::Alive {
            slot.life = Life::Alive;
            slot.changed = Moment::of(self.now);
        }
        match life {
            Life::Forgotten => {
                self.order_at_random(place);
                self.living += 1;
                self.came_back(place);
            }
            Life::Dead | Life::Left => {
                self.living += 1;
                self.came_back(place);
            }
            Life::Alive | Life::Suspect if other_tags || other_record => self.changed_tags(place),
            Life::Alive | Life::Suspect => {}
        }
        Some(place)
    }

    fn first_alive(&mut self, alive: &Alive<'_>) -> Option<Place> {
        if !self.acceptable(alive) {
            return None;
        }
        if self.members.len() >= self.config.max_members {
            tracing::warn!(
                member = alive.node,
                limit = self.config.max_members,
                "the pool is full: a member is ignored"
            );
            return None;
        }
        let place = self.members.insert(Slot {
            record: self.members.pool().record(alive),
            status_time: 0,
            incarnation: alive.incarnation,
            changed: Moment::of(self.now),
            life: Life::Alive,
            status: Status::Alive,
        });
        self.order_at_random(place);
        self.living += 1;
        self.broadcast_alive(alive, place, None);
        self.came_first(place);
        Some(place)
    }

    /// Puts a member into the order of probing, at random: those that come together are not probed together.
    fn order_at_random(&mut self, place: Place) {
        self.order.push(place);
        let last = self.order.len() - 1;
        let other = self.rng.below(self.order.len() as u64) as usize;
        self.order.swap(last, other);
    }

    /// Somebody says that I am alive: with my own words, or with others that I must outdo.
    fn hear_alive_of_self(&mut self, alive: &Alive<'_>) {
        let Some(own) = self.own_slot() else { return };
        if self.phase != Phase::Present || alive.incarnation < own.incarnation {
            return;
        }
        let same = own.record.tells(alive);
        if own.record.address() != alive.address {
            if is_same_node(own.record.meta(), alive.meta) {
                self.tell_of_move(alive);
            } else {
                self.conflict(self.me, alive.address);
            }
        } else if alive.incarnation > own.incarnation || !same {
            self.refute(alive.incarnation);
        }
    }

    /// Others still know me where I was before: a machine or a pod that came back with another address. Not more often than
    /// they can take it in, so that two clones of one node do not outcry each other.
    fn tell_of_move(&mut self, alive: &Alive<'_>) {
        if self.told_of_move.is_some_and(|at| self.now - at < MOVE_PAUSE) {
            return;
        }
        tracing::info!(before = %alive.address, "this node has another address than the pool remembers; telling it");
        self.told_of_move = Some(self.now);
        self.refute(alive.incarnation);
    }

    /// Says louder than `accused` that I am alive.
    pub(super) fn refute(&mut self, accused: u32) {
        self.awareness.apply(1);
        self.announce(accused, None);
    }

    /// Tells what I am under a new incarnation, above `above`.
    pub(super) fn announce(&mut self, above: u32, told: Option<Told>) {
        self.incarnation = self.incarnation.max(above).saturating_add(1);
        let Some(own) = self.members.get_mut(self.me) else { return };
        own.incarnation = self.incarnation;
        let record = own.record.clone();
        let alive = Alive {
            incarnation: self.incarnation,
            node: record.name(),
            address: record.address(),
            meta: record.meta(),
            versions: record.versions(),
        };
        self.broadcast_alive(&alive, self.me, told);
    }

    fn broadcast_alive(&mut self, alive: &Alive<'_>, about: Place, told: Option<Told>) {
        let mut message = Vec::with_capacity(96 + alive.meta.len());
        alive.encode(&mut message);
        self.queue_rumour(Bytes::from(message), about, told);
    }

    /// An old word says that a member lives which left or died. Its own newer word would prove it: it is asked for that by
    /// being told of its death. A stale rumour raises nobody this way, and a member that came back is back in a round trip.
    fn challenge(&mut self, place: Place) {
        let recently = self.challenged.get(&place).is_some_and(|last| self.now < *last + CHALLENGE_INTERVAL);
        let Some(slot) = self.members.get(place) else { return };
        if recently {
            return;
        }
        let (record, incarnation, name) = (slot.record.clone(), slot.incarnation, self.config.name.clone());
        self.challenged.insert(place, self.now);
        let mut message = Vec::new();
        Accusation { incarnation, node: record.name(), from: &name }.encode(kind::DEAD, &mut message);
        self.send_alone(record.address(), &message, false);
    }

    pub(super) fn hear_accusation(&mut self, kind: u8, body: &[u8]) -> Result<(), WireError> {
        let accusation = Accusation::decode(body)?;
        if kind == kind::SUSPECT {
            self.suspect(&accusation)
        } else {
            self.bury(&accusation)
        }
        Ok(())
    }

    /// A member is said not to answer.
    pub(super) fn suspect(&mut self, accusation: &Accusation<'_>) {
        let Some(place) = self.members.place(accusation.node) else { return };
        self.suspect_at(place, accusation);
    }

    pub(super) fn suspect_at(&mut self, place: Place, accusation: &Accusation<'_>) {
        let Some(slot) = self.members.get(place) else { return };
        if accusation.incarnation < slot.incarnation {
            return;
        }
        if let Some(suspicion) = self.suspicions.get_mut(&place) {
            if suspicion.confirm(accusation.from) {
                let deadline = suspicion.deadline();
                self.timers.set(deadline, Timer::Suspicion(place));
                self.broadcast_accusation(kind::SUSPECT, accusation, place, None);
            }
            return;
        }
        if slot.life != Life::Alive {
            return;
        }
        if place == self.me {
            if self.phase == Phase::Present {
                tracing::debug!(from = accusation.from, "refuting a suspicion");
                self.refute(accusation.incarnation);
            }
            return;
        }
        self.broadcast_accusation(kind::SUSPECT, accusation, place, None);
        let moment = Moment::of(self.now);
        if let Some(slot) = self.members.get_mut(place) {
            slot.incarnation = accusation.incarnation;
            slot.life = Life::Suspect;
            slot.changed = moment;
        }
        let (timing, members) = (self.config.timing, self.order.len());
        let wanted = timing.suspicion.saturating_sub(2);
        let wanted = if members < wanted as usize + 2 { 0 } else { wanted };
        let shortest = suspicion_timeout(timing.suspicion, members, timing.probe_interval);
        let longest = shortest * timing.suspicion_longest;
        let suspicion = Suspicion::new(self.now, accusation.from, wanted, shortest, longest);
        self.timers.set(suspicion.deadline(), Timer::Suspicion(place));
        self.suspicions.insert(place, suspicion);
    }

    /// The time of a suspect may be over.
    pub(super) fn suspicion_ended(&mut self, place: Place) {
        let Some(suspicion) = self.suspicions.get(&place) else { return };
        if suspicion.deadline() > self.now {
            return;
        }
        let Some(slot) = self.members.get(place) else { return };
        let (record, incarnation, from) = (slot.record.clone(), slot.incarnation, self.config.name.clone());
        self.bury_at(place, &Accusation { incarnation, node: record.name(), from: &from });
    }

    /// A member is said to be gone.
    fn bury(&mut self, accusation: &Accusation<'_>) {
        let Some(place) = self.members.place(accusation.node) else { return };
        self.bury_at(place, accusation);
    }

    pub(super) fn bury_at(&mut self, place: Place, accusation: &Accusation<'_>) {
        let Some(slot) = self.members.get(place) else { return };
        if accusation.incarnation < slot.incarnation {
            return;
        }
        self.suspicions.remove(&place);
        if slot.is_gone() {
            return;
        }
        let told = if place == self.me {
            if self.phase == Phase::Present {
                tracing::debug!(from = accusation.from, "refuting the news of my death");
                self.refute(accusation.incarnation);
                return;
            }
            Some(Told::Farewell)
        } else {
            None
        };
        self.broadcast_accusation(kind::DEAD, accusation, place, told);
        let moment = Moment::of(self.now);
        if let Some(slot) = self.members.get_mut(place) {
            slot.incarnation = accusation.incarnation;
            slot.life = if accusation.node == accusation.from { Life::Left } else { Life::Dead };
            slot.changed = moment;
        }
        self.living = self.living.saturating_sub(1);
        self.went(place);
    }

    fn broadcast_accusation(&mut self, kind: u8, accusation: &Accusation<'_>, about: Place, told: Option<Told>) {
        let mut message = Vec::with_capacity(96);
        accusation.encode(kind, &mut message);
        self.queue_rumour(Bytes::from(message), about, told);
    }

    /// Another address claims a name.
    fn conflict(&mut self, place: Place, other: SocketAddr) {
        let recently = self.challenged.get(&place).is_some_and(|last| self.now < *last + CHALLENGE_INTERVAL);
        let Some(slot) = self.members.get(place) else { return };
        if recently {
            return;
        }
        let (name, own) = (slot.record.name().to_owned(), place == self.me);
        self.challenged.insert(place, self.now);
        tracing::warn!(member = name, mine = %slot.record.address(), theirs = %other, "two members claim one name");
        self.emit(Event::Conflict { name, other, own });
        if own && self.config.resolve_conflicts {
            self.ask_who_owns_my_name();
        }
    }
}

impl Core {
    /// Whether such a member may be in the pool: by where it is, and what it speaks.
    fn acceptable(&self, alive: &Alive<'_>) -> bool {
        let (allowed, address) = (&self.config.allowed, alive.address.ip());
        if !allowed.is_empty() && !allowed.iter().any(|block| block.holds(address)) {
            tracing::warn!(member = alive.node, %address, "a member is ignored: its address is none of the allowed ones");
            return false;
        }
        speaks(alive)
    }
}

/// Whether the versions in such a message can be spoken with.
fn speaks(alive: &Alive<'_>) -> bool {
    let versions = alive.versions;
    if versions == crate::wire::Versions::default() {
        return true;
    }
    let sound = versions.protocol_min > 0
        && versions.protocol_min <= versions.protocol_max
        && versions.protocol_max >= 2
        && versions.protocol_min <= 5;
    if !sound {
        tracing::warn!(member = alive.node, ?versions, "a member is ignored: its protocol is not between 2 and 5");
    }
    sound
}
