//! How long a suspect has to refute, and how healthy this member holds itself: the two parts of Lifeguard.

use std::time::Duration;

/// A suspicion: the more members confirm it, the sooner it becomes a death.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    start: Duration,
    shortest: Duration,
    longest: Duration,
    /// How many confirmations bring it down to the shortest.
    wanted: u32,
    confirmed: u32,
    /// Who has said so already, this member or the first accuser included.
    accusers: Vec<Box<str>>,
}

impl Suspicion {
    pub(crate) fn new(now: Duration, from: &str, wanted: u32, shortest: Duration, longest: Duration) -> Self {
        Self { start: now, shortest, longest, wanted, confirmed: 0, accusers: vec![from.into()] }
    }

    /// When it becomes a death.
    pub(crate) fn deadline(&self) -> Duration {
        if self.wanted == 0 {
            return self.start + self.shortest;
        }
        let share = f64::from(self.confirmed + 1).ln() / f64::from(self.wanted + 1).ln();
        let seconds = self.longest.as_secs_f64() - share * (self.longest.as_secs_f64() - self.shortest.as_secs_f64());
        self.start + Duration::from_millis((seconds * 1000.0) as u64).max(self.shortest)
    }

    /// Another one says so. Answers whether that is news worth passing on.
    pub(crate) fn confirm(&mut self, from: &str) -> bool {
        if self.confirmed >= self.wanted || self.accusers.iter().any(|it| **it == *from) {
            return false;
        }
        self.accusers.push(from.into());
        self.confirmed += 1;
        true
    }
}

/// The shortest time a suspect has, among so many members.
pub fn suspicion_timeout(multiplier: u32, members: usize, interval: Duration) -> Duration {
    let scale = (members.max(1) as f64).log10().max(1.0);
    let scaled = (scale * 1000.0) as u32;
    multiplier * scaled * interval / 1000
}

/// How often a message is sent, among so many members.
pub fn retransmit_limit(multiplier: u32, members: usize) -> u32 {
    multiplier * ((members + 1) as f64).log10().ceil() as u32
}

/// How long to wait between two push/pulls, among so many members.
pub fn push_pull_interval(interval: Duration, members: usize) -> Duration {
    /// Up to so many members the interval is as it is.
    const UNSCALED: f64 = 32.0;
    if members as f64 <= UNSCALED {
        return interval;
    }
    interval * (((members as f64).log2() - UNSCALED.log2()).ceil() as u32 + 1)
}

/// How much this member doubts itself: the more, the longer it waits before it accuses others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awareness {
    score: u32,
    limit: u32,
}

impl Awareness {
    pub(crate) fn new(limit: u32) -> Self {
        Self { score: 0, limit }
    }

    pub(crate) fn apply(&mut self, delta: i32) {
        self.score = self.score.saturating_add_signed(delta).min(self.limit.saturating_sub(1));
    }

    pub(crate) fn score(self) -> u32 {
        self.score
    }

    pub(crate) fn scale(self, timeout: Duration) -> Duration {
        timeout * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn timeouts_follow_memberlists_formulas() {
        assert_eq!(suspicion_timeout(4, 5, SECOND), 4 * SECOND);
        assert_eq!(suspicion_timeout(4, 1_000, SECOND), Duration::from_secs(12));
        assert_eq!(suspicion_timeout(4, 10_000, SECOND), Duration::from_secs(16));
        assert_eq!((retransmit_limit(4, 1), retransmit_limit(4, 99), retransmit_limit(4, 10_000)), (4, 8, 20));
        assert_eq!(push_pull_interval(30 * SECOND, 32), 30 * SECOND);
        assert_eq!(push_pull_interval(30 * SECOND, 33), 60 * SECOND);
        assert_eq!(push_pull_interval(30 * SECOND, 65), 90 * SECOND);
    }

    #[test]
    fn confirmations_shorten_a_suspicion_and_count_once() {
        let mut suspicion = Suspicion::new(SECOND, "a", 3, 2 * SECOND, 30 * SECOND);
        assert_eq!(suspicion.deadline(), 31 * SECOND);
        assert!(!suspicion.confirm("a"));
        assert!(suspicion.confirm("b"));
        assert_eq!(suspicion.deadline(), SECOND + 16 * SECOND);
        assert!(!suspicion.confirm("b"));
        assert!(suspicion.confirm("c") && suspicion.confirm("d"));
        assert_eq!(suspicion.deadline(), 3 * SECOND);
        assert!(!suspicion.confirm("e"), "enough is enough");
    }

    #[test]
    fn nobody_to_confirm_means_the_shortest_time() {
        assert_eq!(Suspicion::new(SECOND, "a", 0, 2 * SECOND, 30 * SECOND).deadline(), 3 * SECOND);
    }

    #[test]
    fn doubt_stays_within_its_limits() {
        let mut awareness = Awareness::new(8);
        awareness.apply(-1);
        assert_eq!(awareness.scale(SECOND), SECOND);
        awareness.apply(100);
        assert_eq!((awareness.score(), awareness.scale(SECOND)), (7, 8 * SECOND));
    }
}
