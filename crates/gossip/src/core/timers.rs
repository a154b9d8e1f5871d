//! What is to be done when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::members::Place;

/// A thing to do at a time. One that has been overtaken by events finds nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Probe the next member.
    Probe,
    /// The probe with this number was not answered: ask others.
    ProbeTimeout(u32),
    /// The probe with this number is over.
    ProbeDeadline(u32),
    /// The member asked to probe for another heard nothing: say so.
    RelayTimeout(u32),
    /// Tell what waits.
    Gossip,
    /// Exchange everything with somebody.
    PushPull,
    /// A suspicion may have become a death.
    Suspicion(Place),
    /// Forget the long gone.
    Reap,
    /// Try to reach a failed member.
    Reconnect,
    /// A query is over.
    QueryDeadline(u64),
    /// A step of leaving took too long, or is done.
    Leave,
    /// A removal of this number was not told in time.
    Removal(u64),
    /// A member that is leaving is to be forgotten.
    Prune(Place, u64),
}

/// Timers by time, then by order of setting.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, u64, Timer)>>,
    set: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Duration, timer: Timer) {
        self.set += 1;
        self.heap.push(Reverse((at, self.set, timer)));
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(super) fn pop(&mut self, now: Duration) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, timer))| timer)
    }
}
