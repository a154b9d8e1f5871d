//! What a member does with itself and with those who are gone: leave, change tags, remove, forget, reach out again.

use std::time::Duration;

use super::exchange::Purpose;
use super::{Core, Phase, Timer};
use crate::broadcast::Told;
use crate::event::{Change, Event, Member};
use crate::members::{Place, Status};
use crate::wire::serf::{Intent, kind};
use crate::wire::swim::{Accusation, Alive};
use crate::wire::{WireError, tags};

impl Core {
    /// Says goodbye. [`Event::Gone`] comes when it was told and has had time to be passed on.
    pub fn leave(&mut self, now: Duration) {
        self.pass(now);
        if self.phase == Phase::Gone {
            self.emit(Event::Gone);
        }
        if self.phase != Phase::Present {
            return;
        }
        self.phase = Phase::Intending;
        let intent = self.own_intent(false);
        if self.living > 1 {
            self.queue_intent(&intent, Some(Told::LeaveIntent));
            self.end_phase_in(self.config.timing.broadcast_timeout);
        } else {
            self.leave_step();
        }
    }

    fn own_intent(&mut self, prune: bool) -> Vec<u8> {
        let name = self.config.name.clone();
        self.leave_intent(&name, prune)
    }

    /// Makes an intent to leave, for this member or another, and hears it.
    fn leave_intent(&mut self, node: &str, prune: bool) -> Vec<u8> {
        let intent = Intent { time: self.clock.time(), node, prune };
        self.clock.increment();
        let mut message = Vec::new();
        intent.encode(kind::LEAVE, &mut message);
        self.hear_leave(&intent);
        message
    }

    fn end_phase_in(&mut self, limit: Duration) {
        self.phase_ends = self.now + limit;
        self.timers.set(self.phase_ends, Timer::Leave);
    }

    /// The present step of leaving is done, or took too long.
    pub(super) fn leave_step(&mut self) {
        match self.phase {
            Phase::Present | Phase::Gone => {}
            Phase::Intending => {
                self.phase = Phase::Departing;
                let name = self.config.name.clone();
                let incarnation = self.incarnation;
                self.bury_at(self.me, &Accusation { incarnation, node: &name, from: &name });
                let limit = if self.living > 0 { self.config.timing.broadcast_timeout } else { Duration::ZERO };
                self.end_phase_in(limit);
            }
            Phase::Departing => {
                self.phase = Phase::Fading;
                let limit = if self.living > 0 { self.config.timing.leave_propagate } else { Duration::ZERO };
                self.end_phase_in(limit);
            }
            Phase::Fading => {
                self.phase = Phase::Gone;
                self.emit(Event::Gone);
            }
        }
    }

    /// Makes a failed member one that left; with `prune`, forgets it everywhere. [`Event::RemovalTold`] with the answered
    /// number comes when the pool knows.
    pub fn remove(&mut self, now: Duration, node: &str, prune: bool) -> u64 {
        self.pass(now);
        self.next_exchange += 1;
        let number = self.next_exchange;
        let message = self.leave_intent(node, prune);
        self.removals.insert(number);
        if self.living > 1 {
            self.queue_intent(&message, Some(Told::Removal(number)));
            self.timers.set(self.now + self.config.timing.broadcast_timeout, Timer::Removal(number));
        } else {
            self.removal_told(number, true);
        }
        number
    }

    pub(super) fn removal_told(&mut self, removal: u64, told: bool) {
        if self.removals.remove(&removal) {
            self.emit(Event::RemovalTold { removal, told });
        }
    }

    /// Takes other tags. [`Event::TagsTold`] comes when they were told.
    ///
    /// # Errors
    /// They do not fit into meta data.
    pub fn set_tags(&mut self, now: Duration, tags: tags::Tags) -> Result<(), WireError> {
        self.pass(now);
        let meta = tags::encode(&tags)?;
        self.config.tags = tags;
        let (node, address, versions) = (self.config.name.as_str(), self.config.address, self.config.versions());
        let record = self.members.pool().record(&Alive { incarnation: 0, node, address, meta: &meta, versions });
        if let Some(own) = self.members.get_mut(self.me) {
            own.record = record;
            let member = Member { record: own.record.clone(), status: own.status };
            self.emit(Event::Member { change: Change::Updated, member });
        }
        self.announce(0, Some(Told::Tags));
        if self.living < 2 {
            self.emit(Event::TagsTold);
        }
        Ok(())
    }

    /// Forgets those who have been gone long enough.
    pub(super) fn reap(&mut self) {
        self.timers.set(self.now + self.config.timing.reap_interval, Timer::Reap);
        let timing = self.config.timing;
        for (gone, kept) in
            [(self.failed.clone(), timing.reconnect_timeout), (self.left.clone(), timing.tombstone_timeout)]
        {
            for place in gone {
                let Some(slot) = self.members.get(place) else { continue };
                let own = self.config.kept_for.filter(|_| slot.status == Status::Failed);
                let kept = own.and_then(|of| of(&tags::decode(slot.record.meta()))).unwrap_or(kept);
                if slot.changed.age(self.now) > kept {
                    self.erase(place);
                }
            }
        }
        self.forget_early_intents();
        let (now, kept) = (self.now, timing.reap_interval);
        self.challenged.retain(|_, last| now.saturating_sub(*last) <= kept);
    }

    /// Tries to reach one of the failed; the fewer they are, the more seldom, for all members do so.
    pub(super) fn reconnect(&mut self) {
        self.timers.set(self.now + self.config.timing.reconnect_interval, Timer::Reconnect);
        if self.failed.is_empty() || self.phase != Phase::Present {
            return;
        }
        let others = self.members.len().saturating_sub(self.failed.len() + self.left.len()).max(1);
        if self.rng.below(others as u64) >= self.failed.len() as u64 {
            return;
        }
        let place: Place = self.failed[self.rng.below(self.failed.len() as u64) as usize];
        let Some(slot) = self.members.get(place) else { return };
        let to = slot.record.address();
        self.start_push_pull(to, true, Purpose::PushPull);
    }
}
