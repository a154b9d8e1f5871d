//! User events: told to everybody, each taken once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Core;
use super::membership::as_user_message;
use crate::event::Event;
use crate::wire::serf::{MAX_EVENTS_AT_ONCE, UserEvent};

/// How far back in Lamport's time events and queries are known again.
pub(super) const REMEMBERED: u64 = 512;
/// The longest event that any configuration allows.
pub const MAX_EVENT: usize = 9 * 1024;

/// Why an event was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It is too long.
    #[error("user event of {size} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// How long it is.
        size: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// The events of one Lamport time: names and payloads.
type AtOnce = Vec<(String, Vec<u8>)>;

/// The events that were taken already.
#[derive(Debug)]
pub(super) struct SeenEvents {
    by_time: BTreeMap<u64, AtOnce>,
    /// What is older is not taken.
    from: u64,
}

impl SeenEvents {
    /// Events up to `before` were taken in an earlier life.
    pub(super) fn new(before: u64) -> Self {
        Self { by_time: BTreeMap::new(), from: if before == 0 { 0 } else { before + 1 } }
    }

    /// The latest time of one that was taken.
    pub(super) fn last(&self) -> u64 {
        self.by_time.last_key_value().map_or(self.from.saturating_sub(1), |(time, _)| *time)
    }

    pub(super) fn ignore_before(&mut self, time: u64) {
        self.from = self.from.max(time);
    }

    /// Takes an event at the clock's time `now`, unless it was taken or is too old.
    fn take(&mut self, event: &UserEvent<'_>, now: u64) -> bool {
        if event.time < self.from || event.time.saturating_add(REMEMBERED) < now {
            return false;
        }
        let at_once = self.by_time.entry(event.time).or_default();
        let known = at_once.iter().any(|(name, payload)| name == event.name && payload == event.payload);
        if known || at_once.len() >= MAX_EVENTS_AT_ONCE {
            return false;
        }
        at_once.push((event.name.to_owned(), event.payload.to_vec()));
        let oldest = now.saturating_sub(REMEMBERED);
        while self.by_time.first_key_value().is_some_and(|(time, _)| *time < oldest) {
            self.by_time.pop_first();
        }
        true
    }

    /// All of them, for a push/pull.
    pub(super) fn all(&self) -> Vec<crate::wire::serf::AtOnce<'_>> {
        self.by_time
            .iter()
            .map(|(time, events)| {
                (*time, events.iter().map(|(name, payload)| (name.as_str(), payload.as_slice())).collect())
            })
            .collect()
    }
}

impl Core {
    /// Tells everybody something.
    ///
    /// # Errors
    /// It is longer than [`crate::Config::event_size`].
    pub fn user_event(&mut self, now: Duration, name: &str, payload: &[u8], coalesce: bool) -> Result<u64, EventError> {
        self.pass(now);
        let limit = self.config.event_size.min(MAX_EVENT);
        let event = UserEvent { time: self.event_clock.time(), name, payload, coalesce };
        let mut message = Vec::new();
        event.encode(&mut message);
        let size = message.len();
        if name.len() + payload.len() > limit || size > limit {
            return Err(EventError::TooLong { size: size.max(name.len() + payload.len()), limit });
        }
        self.event_clock.increment();
        self.hear_user_event(&event);
        self.queue_user_event(&message);
        Ok(event.time)
    }

    pub(super) fn hear_user_event(&mut self, event: &UserEvent<'_>) -> bool {
        self.event_clock.witness(event.time);
        if !self.seen_events.take(event, self.event_clock.time()) {
            return false;
        }
        self.emit(Event::User {
            time: event.time,
            name: event.name.to_owned(),
            payload: event.payload.to_vec(),
            coalesce: event.coalesce,
        });
        true
    }

    pub(super) fn queue_user_event(&mut self, message: &[u8]) {
        let mut done = Vec::new();
        self.user_events.push(as_user_message(message), None, None, &mut done);
        self.told(done);
        self.wake_gossip();
    }
}
