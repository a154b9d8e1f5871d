//! Serf's view of members: intents to join and leave, ordered by Lamport's clock, over what the failure detector says.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Core, Phase, Timer};
use crate::broadcast::Told;
use crate::event::{Change, Event, Member};
use crate::members::{Life, Place, Status};
use crate::wire::serf::{self, Clocks, Intent, Known, UserEvent, kind};
use crate::wire::{WireError, kind as swim_kind};

/// The most intents that are kept of members nobody has heard of yet.
const MAX_EARLY_INTENTS: usize = 4096;
/// How long such an intent is kept.
const EARLY_INTENT_TIMEOUT: Duration = Duration::from_secs(300);
/// The most events that are believed of one push/pull.
const MAX_MERGED_EVENTS: usize = 4096;

/// An intent of a member that is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyIntent {
    leaves: bool,
    time: u64,
    heard: Duration,
}

impl Core {
    /// A message of Serf's came, by packet, stream or from this member itself.
    pub(super) fn hear_serf(&mut self, message: &[u8]) -> Result<(), WireError> {
        let (kind, body) = message.split_first().ok_or(WireError::Truncated)?;
        match *kind {
            kind::LEAVE => {
                if self.hear_leave(&Intent::decode(body)?) {
                    self.queue_intent(message, None);
                }
            }
            kind::JOIN => {
                let intent = Intent::decode(body)?;
                if self.hear_join(intent.node, intent.time, 0).1 {
                    self.queue_intent(message, None);
                }
            }
            kind::USER_EVENT => {
                if self.hear_user_event(&UserEvent::decode(body)?) {
                    self.queue_user_event(message);
                }
            }
            kind::QUERY => {
                if self.hear_query(&serf::Query::decode(body)?) {
                    self.queue_question(message);
                }
            }
            kind::QUERY_RESPONSE => self.hear_query_response(&serf::QueryResponse::decode(body)?),
            kind::RELAY => {
                let (to, inner) = serf::decode_relay(body)?;
                // Only members are passed on to: nobody else can be hit through this one.
                if self.members.iter().any(|(_, slot)| slot.record.address() == to) {
                    self.send_serf(to, inner);
                }
            }
            other => return Err(WireError::Kind(other)),
        }
        Ok(())
    }

    pub(super) fn queue_intent(&mut self, message: &[u8], told: Option<Told>) {
        let mut done = Vec::new();
        self.intents.push(as_user_message(message), None, told, &mut done);
        self.told(done);
        self.wake_gossip();
    }

    /// A member says that it, or another, leaves. Answers whether that is worth passing on.
    pub(super) fn hear_leave(&mut self, intent: &Intent<'_>) -> bool {
        self.clock.witness(intent.time);
        let Some(place) = self.members.place(intent.node) else {
            return self.hear_early(intent.node, true, intent.time);
        };
        self.leave_at(place, intent.time, intent.prune)
    }

    /// Another one holds a member for left since `time`. Serf makes a new leave of that each time it is told, which lets the
    /// clocks of a pool run without anything happening; what is known already is left alone here.
    fn hear_of_left(&mut self, node: &str, time: u64) {
        let known = self.members.place(node).and_then(|place| self.members.get(place));
        let news =
            known.is_none_or(|slot| time >= slot.status_time && !matches!(slot.status, Status::Left | Status::Leaving));
        if news {
            self.hear_leave(&Intent { time: time + 1, node, prune: false });
        }
    }

    fn leave_at(&mut self, place: Place, time: u64, prune: bool) -> bool {
        self.clock.witness(time);
        let Some(slot) = self.members.get_mut(place) else { return false };
        if time <= slot.status_time {
            return false;
        }
        if place == self.me && self.phase == Phase::Present {
            // An older life of mine left: I say that I am here.
            self.announce_join();
            return false;
        }
        slot.status_time = time;
        match slot.status {
            Status::Alive => slot.status = Status::Leaving,
            Status::Failed => {
                slot.status = Status::Left;
                self.failed.retain(|it| *it != place);
                self.left.push(place);
                self.emit_change(place, Change::Left);
            }
            Status::Leaving | Status::Left => {}
        }
        if prune {
            self.prune(place);
        }
        true
    }

    /// Forgets a member at once; one that is still leaving, when it has had time to.
    fn prune(&mut self, place: Place) {
        let Some(slot) = self.members.get(place) else { return };
        if slot.status == Status::Leaving {
            let wait = self.config.timing.broadcast_timeout + self.config.timing.leave_propagate;
            self.timers.set(self.now + wait, Timer::Prune(place, slot.status_time));
        } else if slot.is_gone() {
            self.erase(place);
        }
    }

    pub(super) fn prune_later(&mut self, place: Place, status_time: u64) {
        let still = self.members.get(place).is_some_and(|slot| slot.status_time == status_time && slot.is_gone());
        if still {
            self.erase(place);
        }
    }

    /// A member says that it joins. Answers its place, and whether that is worth passing on.
    fn hear_join(&mut self, node: &str, time: u64, guess: Place) -> (Option<Place>, bool) {
        self.clock.witness(time);
        let Some(place) = self.members.place_near(node, guess) else {
            return (None, self.hear_early(node, false, time));
        };
        let Some(slot) = self.members.get_mut(place) else { return (Some(place), false) };
        if time <= slot.status_time {
            return (Some(place), false);
        }
        slot.status_time = time;
        if slot.status == Status::Leaving {
            slot.status = Status::Alive;
        }
        (Some(place), true)
    }

    fn hear_early(&mut self, node: &str, leaves: bool, time: u64) -> bool {
        let known = self.early_intents.get(node).map(|it| it.time);
        if known.is_some_and(|it| time <= it) || (known.is_none() && self.early_intents.len() >= MAX_EARLY_INTENTS) {
            return false;
        }
        self.early_intents.insert(node.into(), EarlyIntent { leaves, time, heard: self.now });
        true
    }

    pub(super) fn forget_early_intents(&mut self) {
        let now = self.now;
        self.early_intents.retain(|_, intent| now.saturating_sub(intent.heard) <= EARLY_INTENT_TIMEOUT);
    }

    /// The failure detector has a new member.
    pub(super) fn came_first(&mut self, place: Place) {
        let Some(slot) = self.members.get_mut(place) else { return };
        if let Some(intent) = self.early_intents.remove(slot.record.name()) {
            slot.status_time = intent.time;
            if intent.leaves {
                slot.status = Status::Leaving;
            }
        }
        self.emit_change(place, Change::Joined);
    }

    /// The failure detector has a member again that was gone.
    pub(super) fn came_back(&mut self, place: Place) {
        let Some(slot) = self.members.get_mut(place) else { return };
        slot.status = Status::Alive;
        self.failed.retain(|it| *it != place);
        self.left.retain(|it| *it != place);
        self.challenged.remove(&place);
        self.emit_change(place, Change::Joined);
    }

    pub(super) fn changed_tags(&mut self, place: Place) {
        self.emit_change(place, Change::Updated);
    }

    /// The failure detector has lost a member.
    pub(super) fn went(&mut self, place: Place) {
        let Some(slot) = self.members.get_mut(place) else { return };
        let change = match slot.status {
            // The goodbye may come before the intent, or without it when that was lost.
            Status::Alive if slot.life == Life::Left => {
                slot.status = Status::Left;
                self.left.push(place);
                Change::Left
            }
            Status::Leaving => {
                slot.status = Status::Left;
                self.left.push(place);
                Change::Left
            }
            Status::Alive => {
                slot.status = Status::Failed;
                self.failed.push(place);
                Change::Failed
            }
            Status::Left | Status::Failed => return,
        };
        self.emit_change(place, change);
    }

    fn emit_change(&mut self, place: Place, change: Change) {
        let Some(slot) = self.members.get(place) else { return };
        let member = Member { record: slot.record.clone(), status: slot.status };
        self.emit(Event::Member { change, member });
    }

    /// Forgets a member for good.
    pub(super) fn erase(&mut self, place: Place) {
        if place == self.me {
            return;
        }
        self.emit_change(place, Change::Reaped);
        let Some(slot) = self.members.remove(place) else { return };
        if !slot.is_gone() {
            self.living = self.living.saturating_sub(1);
        }
        self.order.retain(|it| *it != place);
        self.failed.retain(|it| *it != place);
        self.left.retain(|it| *it != place);
        self.suspicions.remove(&place);
        self.challenged.remove(&place);
        self.locator.forget(place);
        self.rumours.forget(place);
    }

    /// Says that this member is here, later than whatever was said of it before.
    pub(super) fn announce_join(&mut self) {
        let time = self.clock.time();
        let mut message = Vec::new();
        Intent { time, node: &self.config.name, prune: false }.encode(kind::JOIN, &mut message);
        self.clock.witness(time);
        if let Some(own) = self.members.get_mut(self.me) {
            own.status_time = own.status_time.max(time);
        }
        self.queue_intent(&message, None);
    }

    pub(super) fn write_serf_state(&self, out: &mut Vec<u8>) {
        let clocks =
            Clocks { members: self.clock.time(), events: self.event_clock.time(), queries: self.query_clock.time() };
        let left: Vec<&str> =
            self.left.iter().filter_map(|place| self.members.get(*place)).map(|slot| slot.record.name()).collect();
        let statuses: StatusTimes<'_, _> = StatusTimes(
            self.members.iter().map(|(_, slot)| (slot.record.name(), slot.status_time)),
            self.members.len(),
        );
        serf::encode_push_pull(clocks, statuses, &left, &self.seen_events.all(), out);
    }

    /// Takes over what another one's Serf knows.
    pub(super) fn merge_serf_state(&mut self, state: &[u8], ignore_old: bool) -> Result<(), WireError> {
        let body = match state.split_first() {
            Some((&kind::PUSH_PULL, body)) => body,
            Some((other, _)) => return Err(WireError::Kind(*other)),
            None => return Ok(()),
        };
        let (mut left, mut events, mut guess) = (BTreeSet::new(), Vec::new(), 0);
        let clocks = serf::read_push_pull(body, |known| match known {
            Known::Left(node) => {
                left.insert(node);
            }
            Known::Status(node, time) if left.contains(node) => {
                left.remove(node);
                self.hear_of_left(node, time);
            }
            Known::Status(node, time) => {
                let place = self.hear_join(node, time, guess).0;
                guess = place.unwrap_or(guess) + 1;
            }
            Known::Event(event) if events.len() < MAX_MERGED_EVENTS => events.push(event),
            Known::Event(_) => {}
        })?;
        // Of those whose time came first, the time is known by now.
        for node in left {
            let known = self.members.place(node).and_then(|place| self.members.get(place));
            if let Some(time) = known.map(|slot| slot.status_time) {
                self.hear_of_left(node, time);
            }
        }
        self.clock.witness(clocks.members.saturating_sub(1));
        self.event_clock.witness(clocks.events.saturating_sub(1));
        self.query_clock.witness(clocks.queries.saturating_sub(1));
        if ignore_old {
            self.seen_events.ignore_before(clocks.events);
        }
        for event in events {
            self.hear_user_event(&event);
        }
        Ok(())
    }
}

/// A message of Serf's as memberlist carries it.
pub(super) fn as_user_message(message: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(1 + message.len());
    whole.push(swim_kind::USER);
    whole.extend_from_slice(message);
    Bytes::from(whole)
}

/// An iterator whose length is known beside it.
struct StatusTimes<'a, I: Iterator<Item = (&'a str, u64)>>(I, usize);

impl<'a, I: Iterator<Item = (&'a str, u64)>> Iterator for StatusTimes<'a, I> {
    type Item = (&'a str, u64);

    fn next(&mut self) -> Option<Self::Item> {
        self.1 = self.1.saturating_sub(1);
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.1, Some(self.1))
    }
}

impl<'a, I: Iterator<Item = (&'a str, u64)>> ExactSizeIterator for StatusTimes<'a, I> {}
