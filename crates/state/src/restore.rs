//! A restore that people ask for: the new state comes in parts through the log, is laid aside, and replaces the present
//! one by a single command.
//!
//! Invariants
//! - Until the commit nobody sees anything of it; a commit without all the parts is refused.
//! - The index never goes backwards: the restored state gets one above both, and no answer has a smaller one.
//! - What makes this cluster this one stays: its id, the ids of removed servers, and the outcomes of recent requests.

use std::sync::Arc;
use std::time::Duration;

use lictor_types::archive::{RestoreCommit, RestorePart, TransferId};
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::{Refusal, Timestamp};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::changes::{Changes, Commit};
use crate::store::Store;

/// What was laid aside is dropped when no part has come for so long.
pub(crate) const STAGED_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of a row that came in several parts.
pub(crate) const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A state that is being put together.
#[derive(Clone)]
pub(crate) struct Staged {
    id: TransferId,
    parts: u64,
    time: Timestamp,
    /// The beginning of rows whose end has not come yet.
    pending: Vec<u8>,
    store: Store,
}

impl<C> Encode<C> for Staged {
    fn encode<W: Write>(&self, to: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        to.array(5)?.bytes(&self.id)?.u64(self.parts)?.u64(self.time.0)?;
        to.bytes(&self.pending)?.bytes(&self.store.snapshot())?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Staged {
    fn decode(from: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        from.array()?;
        let id = from.bytes()?.try_into().map_err(|_| DecodeError::message("the id of a restore has 16 bytes"))?;
        let (parts, time) = (from.u64()?, Timestamp(from.u64()?));
        let pending = from.bytes()?.to_vec();
        let store = Store::restore(from.bytes()?).map_err(DecodeError::message)?;
        Ok(Self { id, parts, time, pending, store })
    }
}

fn conflict(text: String) -> Refusal {
    Refusal::new(RefusalKind::Conflict, text)
}

impl Store {
    /// What a person keeps of this state: without what only matters to requests that are under way.
    pub fn for_archive(&self) -> Self {
        Self { replies: Default::default(), staged: None, ..self.clone() }
    }

    pub(crate) fn restore_part(&mut self, commit: &mut Commit, part: &RestorePart) -> Result<Effect, Refusal> {
        if part.sequence == 0 {
            let store = Self::new();
            self.staged =
                Some(Arc::new(Staged { id: part.id, parts: 0, time: commit.now, pending: Vec::new(), store }));
        }
        let staged = self.staged.as_mut().filter(|staged| staged.id == part.id && staged.parts == part.sequence);
        let Some(staged) = staged.map(Arc::make_mut) else {
            return Err(conflict(format!(
                "part {} of a restore does not follow what was laid aside: another restore has begun, or this one took \
                 longer than {STAGED_AGE_MAX:?} between two parts",
                part.sequence
            )));
        };
        if staged.pending.len() + part.bytes.len() > PENDING_BYTES_MAX {
            self.staged = None;
            return Err(Refusal::failed(format!("a row of the snapshot has more than {PENDING_BYTES_MAX} bytes")));
        }
        staged.parts += 1;
        staged.time = commit.now;
        staged.pending.extend_from_slice(&part.bytes);
        if !part.continues {
            let rows = std::mem::take(&mut staged.pending);
            if let Err(error) = staged.store.read_part(&rows) {
                self.staged = None;
                return Err(Refusal::failed(error.to_string()));
            }
        }
        Ok(Effect::Applied)
    }

    pub(crate) fn restore_commit(&mut self, commit: &mut Commit, what: &RestoreCommit) -> Result<Effect, Refusal> {
        let whole = |staged: &Arc<Staged>| {
            staged.id == what.id && staged.parts == what.parts && what.parts > 0 && staged.pending.is_empty()
        };
        let Some(staged) = self.staged.take_if(|staged| whole(staged)) else {
            return Err(conflict(format!("the {} parts of this restore were not all laid aside", what.parts)));
        };
        let mut next = Arc::unwrap_or_clone(staged).store;
        commit.at = commit.at.max(next.index.next());
        commit.changes = Changes::everything();
        next.index = commit.at;
        next.floor = commit.at;
        next.leader_time = next.leader_time.max(self.leader_time);
        next.replies = std::mem::take(&mut self.replies);
        next.staged = None;
        next.cluster.identity = self.cluster.identity.take().or(next.cluster.identity);
        next.cluster.authority = next.cluster.authority.or(self.cluster.authority.take());
        next.cluster.removed_servers.extend(self.cluster.removed_servers.iter().cloned());
        *self = next;
        Ok(Effect::Applied)
    }

    pub(crate) fn restore_abort(&mut self, id: &TransferId) -> Effect {
        match self.staged.take_if(|staged| staged.id == *id) {
            Some(_) => Effect::Applied,
            None => Effect::NotApplied,
        }
    }

    /// Drops what was laid aside by a restore that does not go on.
    pub(crate) fn reap_staged(&mut self) {
        let now = self.leader_time;
        drop(self.staged.take_if(|staged| now.since(staged.time) > STAGED_AGE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::command::{ClusterIdentity, KvCommand, KvVerb};
    use lictor_types::{Command, Envelope, Index, Query};

    use super::*;
    use crate::access::{Authorized, Duty};
    use crate::parts::Parts;

    struct Driver {
        store: Store,
        requests: u64,
        time: u64,
    }

    impl Driver {
        fn new(time: u64) -> Self {
            Self { store: Store::new(), requests: time << 32, time }
        }

        fn apply(&mut self, command: Command) -> (Index, Effect) {
            self.requests += 1;
            let mut request_id = [0; 16];
            request_id[..8].copy_from_slice(&self.requests.to_be_bytes());
            let outcome =
                self.store.apply(&Envelope { request_id, leader_time: Timestamp(self.time), command }).outcome;
            (outcome.index, outcome.effect)
        }

        fn put(&mut self, key: &str, value: &[u8]) {
            let command = KvCommand { verb: KvVerb::Set, key: key.into(), value: value.to_vec(), flags: 0 };
            self.apply(Command::Kv(command));
        }

        fn part(&mut self, id: u8, sequence: u64, bytes: &[u8], continues: bool) -> Effect {
            let part = RestorePart { id: [id; 16], sequence, bytes: bytes.to_vec(), continues };
            self.apply(Command::RestorePart(part)).1
        }

        fn commit(&mut self, id: u8, parts: u64) -> (Index, Effect) {
            self.apply(Command::RestoreCommit(RestoreCommit { id: [id; 16], parts }))
        }

        fn index_of(&self, key: &str) -> Index {
            let query = Authorized::system(Duty::Reconcile, Query::KvGet(key.into()));
            self.store.answer(&query).index
        }
    }

    fn name(id: &str) -> Command {
        Command::ClusterInitialize(ClusterIdentity { cluster_id: id.into(), seal_key_id: "k".into() })
    }

    #[test]
    fn a_restore_in_parts_replaces_everything_at_once_and_the_index_goes_on() {
        let mut source = Driver::new(1);
        source.apply(name("old"));
        (0..300).for_each(|number| source.put(&format!("k/{number}"), &[7; 100]));
        let bytes = source.store.for_archive().snapshot();
        let parts: Vec<Vec<u8>> = Parts::new(&bytes[..], 4096).collect::<Result<_, _>>().unwrap();
        assert!(parts.len() > 5, "{}", parts.len());

        let mut target = Driver::new(2);
        target.apply(name("new"));
        target.apply(Command::ServerRemoved("gone".into()));
        target.put("k/0", b"other");
        target.put("only-here", b"x");
        let mut sequence = 0;
        for part in &parts {
            // Each in two halves, as a row that is larger than an entry.
            let (first, second) = part.split_at(part.len() / 2);
            assert_eq!(target.part(1, sequence, first, true), Effect::Applied);
            assert_eq!(
                target.commit(1, sequence + 1).1,
                Effect::Refused(conflict(format!(
                    "the {} parts of this restore were not all laid aside",
                    sequence + 1
                )))
            );
            assert_eq!(target.part(1, sequence + 1, second, false), Effect::Applied);
            sequence += 2;
            assert!(target.store.kv.get("only-here").is_some(), "seen before the commit");
            // A server that joins in the middle gets what is laid aside as well.
            let copy = Store::restore(&target.store.snapshot()).unwrap();
            assert!(copy.snapshot() == target.store.snapshot());
            target.store = copy;
        }
        let before = target.store.index();
        let (at, effect) = target.commit(1, sequence);
        assert_eq!(effect, Effect::Applied);
        assert!(at > before && at > source.store.index(), "{at:?} is not above {before:?}");
        assert_eq!(target.store.index(), at);
        assert!(target.store.kv.get("only-here").is_none());
        assert_eq!(target.store.kv.get("k/0"), source.store.kv.get("k/0"));
        assert_eq!(target.store.cluster().unwrap().cluster_id, "new");
        assert!(target.store.is_removed_server("gone"));
        assert_eq!((target.index_of("k/0"), target.index_of("absent")), (at, at));
        target.put("k/0", b"later");
        assert!(target.index_of("k/0") > at);
    }

    #[test]
    fn parts_out_of_order_or_of_another_restore_are_refused_and_an_old_one_is_dropped() {
        let mut target = Driver::new(1);
        let empty = [0xa0];
        assert!(matches!(target.part(1, 1, &empty, false), Effect::Refused(_)));
        assert_eq!(target.part(1, 0, &empty, false), Effect::Applied);
        assert!(matches!(target.part(2, 1, &empty, false), Effect::Refused(_)));
        assert!(matches!(target.part(1, 2, &empty, false), Effect::Refused(_)));
        assert!(matches!(target.commit(2, 1).1, Effect::Refused(_)));
        assert_eq!(target.part(2, 0, &empty, false), Effect::Applied, "a new one takes the place of another");
        assert!(matches!(target.commit(1, 1).1, Effect::Refused(_)));
        assert_eq!(target.apply(Command::RestoreAbort([1; 16])).1, Effect::NotApplied);
        assert_eq!(target.apply(Command::RestoreAbort([2; 16])).1, Effect::Applied);
        assert!(matches!(target.commit(2, 1).1, Effect::Refused(_)));
        assert_eq!(target.part(3, 0, &empty, false), Effect::Applied);
        target.time += STAGED_AGE_MAX.as_millis() as u64 + 1;
        assert!(matches!(target.commit(3, 1).1, Effect::Refused(_)), "too old");
        assert!(matches!(target.part(4, 0, b"not a snapshot", false), Effect::Refused(_)));
        assert!(target.store.staged.is_none());
    }
}
