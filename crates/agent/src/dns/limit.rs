//! How much one source may ask over UDP: replies are larger than questions and sources can be forged, so an open door would serve
//! as an amplifier. Pure: time comes in as a value.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Sources that are counted at once. When there are more, those of the last second are forgotten and counted anew.
const SOURCES_MAX: usize = 16_384;
/// How long questions are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts questions by source.
#[derive(Debug, Default)]
pub(super) struct Sources {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    since: Option<Instant>,
    questions: HashMap<IpAddr, u32>,
}

impl Sources {
    /// Whether a question from `source` is answered, at most `limit` of them in a second; 0 is no limit. This machine is not
    /// limited: it could do worse.
    pub(super) fn admit(&self, source: IpAddr, limit: u32, now: Instant) -> bool {
        if limit == 0 || source.is_loopback() {
            return true;
        }
        let mut counted = self.counted.lock();
        let over = counted.since.is_none_or(|since| now.duration_since(since) >= WINDOW);
        if over || counted.questions.len() >= SOURCES_MAX {
            counted.questions.clear();
            counted.since = Some(now);
        }
        let count = counted.questions.entry(source).or_default();
        *count += 1;
        *count <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_source_is_limited_and_others_are_not_touched() {
        let sources = Sources::default();
        let (now, one, two) = (Instant::now(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let admitted = |source, now| (0..20).filter(|_| sources.admit(source, 5, now)).count();
        assert_eq!((admitted(one, now), admitted(two, now)), (5, 5));
        assert_eq!(admitted(one, now + WINDOW), 5, "a second later");
        assert_eq!(admitted([127, 0, 0, 1].into(), now), 20, "this machine");
        assert_eq!((0..20).filter(|_| sources.admit(one, 0, now)).count(), 20, "no limit");
    }
}
