//! The pause between attempts.

use std::time::Duration;

use crate::Rng;

/// A pause that doubles with every failure up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct RetryPause {
    /// After the first failure.
    pub shortest: Duration,
    /// The limit.
    pub longest: Duration,
}

impl RetryPause {
    /// The pause after so many failures before the last: spread over its upper half, so that many who failed together do
    /// not come back together.
    pub fn after(&self, failures: u32, rng: &dyn Rng) -> Duration {
        let half = self.shortest.saturating_mul(1 << failures.min(16)).min(self.longest) / 2;
        half + Duration::from_millis(rng.below(half.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRng;

    #[test]
    fn pauses_grow_and_stay_within_their_limit() {
        let (shortest, longest) = (Duration::from_millis(200), Duration::from_secs(10));
        let (pause, rng) = (RetryPause { shortest, longest }, SeededRng::new(7));
        let pauses: Vec<Duration> = (0..40).map(|failures| pause.after(failures, &rng)).collect();
        assert!(pauses.iter().all(|pause| *pause >= shortest / 2 && *pause <= longest), "{pauses:?}");
        assert!(pauses[39] >= longest / 2);
    }
}
