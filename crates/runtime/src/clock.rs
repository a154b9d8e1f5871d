//! Wall time as a value that can be steered.
//!
//! Waiting uses tokio's timers, which a simulation pauses and advances; only reading the wall clock goes through here.

use std::time::SystemTime;

/// Tells the wall time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> SystemTime;

    /// The present moment in milliseconds since the Unix epoch; 0 for a clock set before it.
    fn unix_millis(&self) -> u64 {
        self.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one door to the machine's clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that follows tokio's timers from a fixed start: with paused time it moves only when a test moves it.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedClock {
    start: SystemTime,
    origin: tokio::time::Instant,
}

impl SimulatedClock {
    /// A clock that shows `start` now.
    pub fn starting_at(start: SystemTime) -> Self {
        Self { start, origin: tokio::time::Instant::now() }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> SystemTime {
        self.start + self.origin.elapsed()
    }
}
