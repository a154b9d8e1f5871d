//! How many leaves one server signs in a second: a signature is the dearest thing that a workload can ask for.

use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Signatures that are left. A second's worth may be asked for at once.
#[derive(Debug, Default)]
pub(crate) struct SignatureLimit(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl SignatureLimit {
    /// Takes one of `per_second`; 0 is no limit.
    ///
    /// # Errors
    /// 429: there were too many within this second.
    pub(crate) fn take(&self, per_second: u32) -> Result<(), Refusal> {
        if per_second == 0 {
            return Ok(());
        }
        let (now, most) = (Instant::now(), f64::from(per_second));
        let mut bucket = self.0.lock();
        let bucket = bucket.get_or_insert(Bucket { left: most, at: now });
        bucket.left = (bucket.left + now.duration_since(bucket.at).as_secs_f64() * most).min(most);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Refusal::new(
                RefusalKind::TooMany,
                format!(
                    "this server signs {per_second} certificates a second (CSRMaxPerSecond): try again in a moment"
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
    async fn a_second_gives_what_it_says_and_no_more() {
        let limit = SignatureLimit::default();
        let granted = |asked: usize| (0..asked).filter(|_| limit.take(5).is_ok()).count();
        assert_eq!(granted(10), 5);
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(granted(10), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(granted(10), 5);
        assert!((0..1000).all(|_| limit.take(0).is_ok()));
        assert_eq!(limit.take(5).unwrap_err().status(), 429);
    }
}
