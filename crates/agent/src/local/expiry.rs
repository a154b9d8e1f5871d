//! The guard against mass expiry: checks of one service that run out all at once say more of who listens, or of what is between
//! it and their owners, than of the instances. Pure: time comes in as a value. An agent guards the TTL checks of its services,
//! a leader its members.
//!
//! The first of a service to run out are critical at once. When they are more than a share of the service's checks within a
//! window, the rest gets one more chance: each is held back once, for half its time and no longer than [`GRACE_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How close together expiries are one event.
const WINDOW: Duration = Duration::from_secs(10);
/// One in so many checks of a service may run out in one window; more is damped. 15 %, as Eureka's self-preservation.
const PERCENT: usize = 15;
/// Services with fewer checks here are not looked at: one of them is more than the share.
const CHECKS_MIN: usize = 10;
/// The longest time that an expiry is held back.
const GRACE_MAX: Duration = Duration::from_secs(30);

/// What to do with a check that has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is critical.
    Expired,
    /// It is looked at again after so long. `first`: nothing of this service was held back before in this window.
    Held {
        /// How long it is held back.
        grace: Duration,
        /// Worth a line in the log.
        first: bool,
    },
}

/// The expiries of late, by service.
#[derive(Debug, Default)]
pub struct Expiries {
    services: BTreeMap<String, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    expired: VecDeque<Instant>,
    reported: Option<Instant>,
}

impl Expiries {
    /// What to do with a check of `service`, which has `checks` of its kind here and runs out after `ttl`. `held` before: it had
    /// its chance.
    pub fn judge(&mut self, service: &str, checks: usize, ttl: Duration, held: bool, now: Instant) -> Verdict {
        let over = |at: &Instant| now.duration_since(*at) > WINDOW;
        self.services.retain(|_, recent| {
            while recent.expired.front().is_some_and(over) {
                recent.expired.pop_front();
            }
            !recent.expired.is_empty()
        });
        let recent = self.services.entry(service.to_owned()).or_default();
        let many = (recent.expired.len() + 1) * 100 > checks * PERCENT;
        if held || checks < CHECKS_MIN || !many {
            recent.expired.push_back(now);
            return Verdict::Expired;
        }
        let first = recent.reported.as_ref().is_none_or(over);
        recent.reported = Some(now);
        Verdict::Held { grace: (ttl / 2).min(GRACE_MAX), first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn the_first_of_many_expire_and_the_rest_is_held_back_once() {
        let mut expiries = Expiries::default();
        let now = Instant::now();
        let verdicts: Vec<Verdict> = (0..100).map(|_| expiries.judge("web", 100, TTL, false, now)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Expired).count(), 15);
        let held = |first| Verdict::Held { grace: Duration::from_secs(10), first };
        assert_eq!((verdicts[15], verdicts[16]), (held(true), held(false)));
        assert_eq!(expiries.judge("web", 100, TTL, true, now), Verdict::Expired, "its chance is over");
        assert_eq!(
            expiries.judge("other", 100, TTL, false, now),
            Verdict::Expired,
            "another service is another matter"
        );
        assert_eq!(expiries.judge("web", 100, TTL, false, now + WINDOW * 2), Verdict::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_with_few_checks_is_not_guarded() {
        let mut expiries = Expiries::default();
        let now = Instant::now();
        assert!((0..9).all(|_| expiries.judge("web", 9, TTL, false, now) == Verdict::Expired));
    }
}
