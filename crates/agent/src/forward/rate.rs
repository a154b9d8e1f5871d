//! How often an agent may ask its servers (`limits.rpc_rate`, `limits.rpc_max_burst`).

use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A bucket of questions that fills with time. Nobody waits for it: who finds it empty is refused.
#[derive(Default)]
pub(super) struct Rate(Mutex<Option<Bucket>>);

struct Bucket {
    per_second: f64,
    burst: u32,
    left: f64,
    at: Instant,
}

impl Rate {
    /// From now on so many a second and so many at once; none for any number.
    pub(super) fn set(&self, per_second: Option<f64>, burst: u32) {
        let at = Instant::now();
        let mut bucket = self.0.lock();
        let left = bucket.as_ref().map_or(f64::from(burst), |old| old.left.min(f64::from(burst)));
        *bucket = per_second.map(|per_second| Bucket { per_second, burst, left, at });
    }

    /// Takes one question.
    ///
    /// # Errors
    /// 429: none is left.
    pub(super) fn take(&self) -> Result<(), Refusal> {
        let mut bucket = self.0.lock();
        let Some(bucket) = &mut *bucket else { return Ok(()) };
        let now = Instant::now();
        let filled = bucket.left + now.duration_since(bucket.at).as_secs_f64() * bucket.per_second;
        bucket.left = filled.min(f64::from(bucket.burst));
        bucket.at = now;
        if bucket.left < 1.0 {
            let (per_second, burst) = (bucket.per_second, bucket.burst);
            return Err(Refusal::new(
                RefusalKind::TooMany,
                format!(
                    "RPC rate limit exceeded: this agent asks its servers {per_second} times a second at most, and \
                     {burst} times at once (limits.rpc_rate and limits.rpc_max_burst)"
                ),
            ));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_lets_a_burst_pass_and_then_as_many_as_time_brings() {
        let rate = Rate::default();
        assert!((0..1000).all(|_| rate.take().is_ok()), "without a limit");
        rate.set(Some(2.0), 3);
        assert_eq!((0..10).filter(|_| rate.take().is_ok()).count(), 3);
        tokio::time::advance(Duration::from_millis(1000)).await;
        assert_eq!((0..10).filter(|_| rate.take().is_ok()).count(), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..10).filter(|_| rate.take().is_ok()).count(), 3);
        let refusal = rate.take().unwrap_err();
        assert!(refusal.status() == 429 && refusal.text.contains("limits.rpc_rate"), "{refusal}");
        rate.set(None, 3);
        assert!(rate.take().is_ok());
    }
}
