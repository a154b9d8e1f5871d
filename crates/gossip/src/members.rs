//! Every member that this one knows: a table by name over slots of a few words.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use crate::record::{Record, RecordPool};

/// What the failure detector thinks of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It answers.
    Alive,
    /// It does not, and may refute.
    Suspect,
    /// It is gone.
    Dead,
    /// It said goodbye.
    Left,
    /// It was dead or had left long enough not to be talked of. Its incarnation is kept: an older word does not raise it.
    Forgotten,
}

/// A member's standing, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It is there.
    Alive,
    /// It says goodbye.
    Leaving,
    /// It has said goodbye.
    Left,
    /// It went without a word.
    Failed,
}

impl Status {
    /// Serf's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Failed => "failed",
        }
    }

    /// Serf's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Alive => 1,
            Self::Leaving => 2,
            Self::Left => 3,
            Self::Failed => 4,
        }
    }
}

/// A moment, in tenths of a second since the start: enough for timeouts of seconds and hours, in half the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u32);

impl Moment {
    pub(crate) fn of(now: Duration) -> Self {
        Self(u32::try_from(now.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// How long ago it was, within a tenth of a second.
    pub(crate) fn age(self, now: Duration) -> Duration {
        Duration::from_millis(u64::from(Self::of(now).0.saturating_sub(self.0)) * 100)
    }
}

/// What is kept of a member besides its record.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) record: Arc<Record>,
    /// The Lamport time of its last join or leave.
    pub(crate) status_time: u64,
    pub(crate) incarnation: u32,
    /// When `life` changed last.
    pub(crate) changed: Moment,
    pub(crate) life: Life,
    pub(crate) status: Status,
}

impl Slot {
    /// Whether the failure detector holds it for gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Dead | Life::Left | Life::Forgotten)
    }
}

/// The place of a member in the table. It is used again when the member is forgotten for good.
pub(crate) type Place = u32;

/// Every member by name and by place.
#[derive(Debug)]
pub(crate) struct Members {
    pool: RecordPool,
    slots: Vec<Option<Slot>>,
    by_name: HashTable<Place>,
    free: Vec<Place>,
}

impl Members {
    pub(crate) fn new(pool: RecordPool) -> Self {
        Self { pool, slots: Vec::new(), by_name: HashTable::new(), free: Vec::new() }
    }

    pub(crate) fn pool(&self) -> &RecordPool {
        &self.pool
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.slots.reserve_exact(more);
        let slots = &self.slots;
        self.by_name.reserve(more, |place| hash_of(slots, *place));
    }

    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        let hash = self.pool.hash_name(name);
        self.by_name.find(hash, |place| self.is_named(*place, name)).copied()
    }

    /// The same, when it may be the one at `guess`: lists of members come in the same order again and again.
    pub(crate) fn place_near(&self, name: &str, guess: Place) -> Option<Place> {
        if self.is_named(guess, name) { Some(guess) } else { self.place(name) }
    }

    fn is_named(&self, place: Place, name: &str) -> bool {
        matches!(self.slots.get(place as usize), Some(Some(slot)) if slot.record.is_named(name))
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Slot> {
        self.slots.get(place as usize).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Slot> {
        self.slots.get_mut(place as usize).and_then(Option::as_mut)
    }

    /// Adds a member whose name is not in the table.
    pub(crate) fn insert(&mut self, slot: Slot) -> Place {
        let hash = slot.record.name_hash();
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(slot);
                place
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as Place
            }
        };
        let slots = &self.slots;
        self.by_name.insert_unique(hash, place, |place| hash_of(slots, *place));
        place
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<Slot> {
        let slot = self.slots.get_mut(place as usize)?.take()?;
        if let Ok(entry) = self.by_name.find_entry(slot.record.name_hash(), |it| *it == place) {
            entry.remove();
        }
        self.free.push(place);
        Some(slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &Slot)> + Clone {
        self.slots.iter().enumerate().filter_map(|(place, slot)| Some((place as Place, slot.as_ref()?)))
    }
}

fn hash_of(slots: &[Option<Slot>], place: Place) -> u64 {
    slots[place as usize].as_ref().map_or(0, |slot| slot.record.name_hash())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Versions;
    use crate::wire::swim::Alive;

    fn slot(pool: &RecordPool, node: &str) -> Slot {
        let address = "10.0.0.1:8301".parse().unwrap();
        Slot {
            record: pool.record(&Alive { incarnation: 1, node, address, meta: b"", versions: Versions::default() }),
            status_time: 0,
            incarnation: 1,
            changed: Moment::of(Duration::ZERO),
            life: Life::Alive,
            status: Status::Alive,
        }
    }

    #[test]
    fn members_are_found_by_name_until_they_are_removed() {
        let pool = RecordPool::new();
        let mut members = Members::new(pool.clone());
        let places: Vec<_> = (0..100).map(|number| members.insert(slot(&pool, &format!("n{number}")))).collect();
        assert_eq!(members.place("n42"), Some(places[42]));
        assert_eq!(members.place_near("n42", places[42]), Some(places[42]));
        assert_eq!(members.place_near("n42", places[41]), Some(places[42]));
        members.remove(places[42]);
        assert_eq!((members.place("n42"), members.len()), (None, 99));
        assert_eq!(members.insert(slot(&pool, "again")), places[42], "a free place is used again");
        assert_eq!(members.place("again"), Some(places[42]));
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Option<Slot>>() <= 32, "{}", size_of::<Option<Slot>>());
    }
}
