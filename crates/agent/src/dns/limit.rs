//! How much one source may have: of UDP questions, and of TCP connections. Over UDP replies are larger than questions and sources can be forged, so an open door would serve
//! as an amplifier. Pure: time comes in as a value.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
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

/// Counts open TCP connections by source, so that one source leaves places to the others. This machine is not limited.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    source: IpAddr,
}

impl Connections {
    /// A place for one more connection of `source`, of which it has `limit` at most.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr, limit: usize) -> Option<Place> {
        let mut open = self.open.lock();
        let count = open.entry(source).or_default();
        if *count >= limit && !source.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { connections: Arc::clone(self), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_connections_to_the_others() {
        let connections = Arc::new(Connections::default());
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held: Vec<Place> = (0..5).filter_map(|_| connections.admit(one, 3)).collect();
        assert_eq!((held.len(), connections.admit(two, 3).is_some()), (3, true));
        drop(held);
        assert!(connections.admit(one, 3).is_some(), "a place is free again");
        let own: Vec<Place> = (0..5).filter_map(|_| connections.admit([127, 0, 0, 1].into(), 3)).collect();
        assert_eq!(own.len(), 5);
        drop(own);
        assert!(connections.open.lock().is_empty(), "nobody who is gone is remembered");
    }

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
