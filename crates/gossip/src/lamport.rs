//! Lamport's clocks: order without time.

use crate::wire::MAX_LAMPORT;

/// Counts what was said and heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LamportClock(u64);

impl LamportClock {
    pub(crate) fn time(self) -> u64 {
        self.0
    }

    pub(crate) fn increment(&mut self) {
        self.0 += 1;
    }

    /// Something was said at `time`: this clock is later.
    pub(crate) fn witness(&mut self, time: u64) {
        if time >= self.0 && time <= MAX_LAMPORT {
            self.0 = time + 1;
        }
    }
}
