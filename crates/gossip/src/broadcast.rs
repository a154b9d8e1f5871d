//! What waits to be told to others, each a limited number of times, the freshest first.
//!
//! Invariants
//! - A message about a member replaces the one before it about that member.
//! - A queue holds [`Broadcasts::limit`] messages at most; the most often told is dropped first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::members::Place;

/// What to do when a message has been told often enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// This member's intent to leave.
    LeaveIntent,
    /// This member's death by its own hand.
    Farewell,
    /// Another member's removal.
    Removal(u64),
    /// This member's new tags.
    Tags,
}

#[derive(Debug)]
struct Message {
    bytes: Bytes,
    about: Option<Place>,
    told: Option<Told>,
}

/// How often it was sent, then longer before shorter, then newer before older.
type Rank = (u32, Reverse<usize>, Reverse<u64>);

/// A queue of broadcasts.
#[derive(Debug)]
pub(crate) struct Broadcasts {
    limit: usize,
    waiting: BTreeMap<Rank, Message>,
    about: HashMap<Place, Rank>,
    next: u64,
}

impl Broadcasts {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, waiting: BTreeMap::new(), about: HashMap::new(), next: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a message; about a member, it replaces the last about that member. Answers what is told thereby or dropped.
    pub(crate) fn push(&mut self, bytes: Bytes, about: Option<Place>, told: Option<Told>, done: &mut Vec<Told>) {
        if let Some(rank) = about.and_then(|place| self.about.remove(&place))
            && let Some(old) = self.waiting.remove(&rank)
        {
            done.extend(old.told);
        }
        while self.waiting.len() >= self.limit {
            let Some((_, dropped)) = self.waiting.pop_last() else { break };
            if let Some(place) = dropped.about {
                self.about.remove(&place);
            }
            done.extend(dropped.told);
        }
        self.next += 1;
        let rank = (0, Reverse(bytes.len()), Reverse(self.next));
        if let Some(place) = about {
            self.about.insert(place, rank);
        }
        self.waiting.insert(rank, Message { bytes, about, told });
    }

    /// Appends to `taken` as many messages as fit into `room` bytes with `overhead` bytes each, and answers how many bytes
    /// that are. A message that was sent `transmissions` times is told.
    pub(crate) fn take(
        &mut self,
        overhead: usize,
        room: usize,
        transmissions: u32,
        taken: &mut Vec<Bytes>,
        done: &mut Vec<Told>,
    ) -> usize {
        let (mut used, mut again) = (0, Vec::new());
        let mut sent = self.waiting.first_key_value().map(|(rank, _)| rank.0);
        while let Some(times) = sent {
            let free = room.saturating_sub(used + overhead);
            if free == 0 {
                break;
            }
            // The longest that fits among those that were sent so many times; then those sent more often.
            let from = (times, Reverse(free), Reverse(u64::MAX));
            let Some((rank, _)) = self.waiting.range(from..).next() else { break };
            let rank = *rank;
            if rank.0 != times {
                sent = Some(rank.0);
                continue;
            }
            let Some(message) = self.waiting.remove(&rank) else { break };
            used += overhead + message.bytes.len();
            taken.push(message.bytes.clone());
            if times + 1 >= transmissions {
                if let Some(place) = message.about {
                    self.about.remove(&place);
                }
                done.extend(message.told);
            } else {
                again.push(((times + 1, rank.1, rank.2), message));
            }
        }
        for (rank, message) in again {
            if let Some(place) = message.about {
                self.about.insert(place, rank);
            }
            self.waiting.insert(rank, message);
        }
        used
    }

    /// A place is given to another member: what waits about the old one is no longer about this place.
    pub(crate) fn forget(&mut self, place: Place) {
        if let Some(rank) = self.about.remove(&place)
            && let Some(message) = self.waiting.get_mut(&rank)
        {
            message.about = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &mut Broadcasts, room: usize) -> (Vec<Bytes>, Vec<Told>) {
        let (mut taken, mut done) = (Vec::new(), Vec::new());
        queue.take(2, room, 2, &mut taken, &mut done);
        (taken, done)
    }

    #[test]
    fn the_least_told_goes_first_and_each_only_so_often() {
        let (mut queue, mut done) = (Broadcasts::new(10), Vec::new());
        queue.push(Bytes::from_static(b"old"), None, Some(Told::Tags), &mut done);
        assert_eq!(take(&mut queue, 100).0, [&b"old"[..]]);
        queue.push(Bytes::from_static(b"new"), None, None, &mut done);
        assert_eq!(take(&mut queue, 5).0, [&b"new"[..]]);
        let (taken, told) = take(&mut queue, 100);
        assert_eq!((taken.len(), told), (2, vec![Told::Tags]));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_does_not_fit_waits_and_what_is_shorter_goes() {
        let (mut queue, mut done) = (Broadcasts::new(10), Vec::new());
        queue.push(Bytes::from(vec![1; 50]), None, None, &mut done);
        queue.push(Bytes::from(vec![2; 10]), None, None, &mut done);
        let taken = take(&mut queue, 20).0;
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0][0], 2);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn news_of_a_member_replace_the_older() {
        let (mut queue, mut done) = (Broadcasts::new(10), Vec::new());
        queue.push(Bytes::from_static(b"suspect"), Some(3), Some(Told::Farewell), &mut done);
        take(&mut queue, 100);
        queue.push(Bytes::from_static(b"alive"), Some(3), None, &mut done);
        assert_eq!((queue.len(), done), (1, vec![Told::Farewell]));
        assert_eq!(take(&mut queue, 100).0, [&b"alive"[..]]);
    }

    #[test]
    fn a_full_queue_drops_what_was_told_most() {
        let (mut queue, mut done) = (Broadcasts::new(2), Vec::new());
        queue.push(Bytes::from_static(b"a"), None, None, &mut done);
        take(&mut queue, 100);
        queue.push(Bytes::from_static(b"b"), None, None, &mut done);
        queue.push(Bytes::from_static(b"c"), None, None, &mut done);
        assert_eq!(take(&mut queue, 100).0, [&b"c"[..], b"b"]);
    }
}
