//! The state machine as consensus drives it: committed batches in, outcomes out, snapshots both ways.

mod planted;

use std::io::{self, Read, Write};
use std::sync::Arc;

use lictor_runtime::Rng;
use lictor_state::published::Published;
use lictor_state::{Changes, Store};
use lictor_types::{Command, Envelope, Outcome, encoding};

use crate::equality::Looks;
use crate::raft::{Bug, Faults, SnapshotView, StateMachine};
use planted::Planted;

/// The replicated state behind its published face. Only consensus writes, one call after another.
pub struct Replica {
    published: Arc<Published>,
    looks: Arc<Looks>,
    planted: Planted,
}

impl Replica {
    /// The writer of `published`, which shows the state to `looks` where the log asks for it, with the bugs that a test
    /// planted.
    pub fn new(published: Arc<Published>, looks: Arc<Looks>, faults: Faults, rng: &dyn Rng) -> Self {
        let salt = if faults.has(Bug::ApplyNotDeterministic) { rng.next_u64() } else { 0 };
        Self { published, looks, planted: Planted::new(faults, salt) }
    }
}

impl StateMachine for Replica {
    fn apply(&self, envelopes: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut store = Store::clone(&self.published.load());
        let mut changes = Changes::default();
        let mut outcomes = Vec::with_capacity(envelopes.len());
        let rounds = self.planted.rounds();
        for round in 0..rounds {
            outcomes.clear();
            for (at, bytes) in envelopes.iter().enumerate() {
                // The leader decoded it before the log, so it is of a newer release. To go on would make this server
                // differ from the others without a word; a stopped one is rebuilt from its peers.
                let mut envelope: Envelope = encoding::decode(bytes)
                    .unwrap_or_else(|error| panic!("a committed command cannot be read by this release: {error}"));
                self.planted.spoil(&mut envelope, round);
                let before = (at > 0 && self.planted.has(Bug::BatchPartlyApplied)).then(|| store.clone());
                let index = store.index();
                let applied = store.apply(&envelope);
                if matches!(envelope.command, Command::StateCompare) && store.index() != index {
                    self.looks.look(&store);
                }
                changes.merge(applied.changes);
                if let Some(half) = self.planted.half(&envelope, &applied.outcome) {
                    changes.merge(store.apply(&half).changes);
                }
                outcomes.push(encoding::encode::<Outcome>(&applied.outcome));
                if let (Some(before), true) = (before, at + 1 == envelopes.len()) {
                    store = before;
                }
            }
        }
        self.published.publish(store, &self.planted.changes(changes));
        outcomes
    }

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.planted.frozen(Store::clone(&self.published.load()))))
    }

    fn restore(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let bytes = self.planted.restored(bytes)?;
        let store = Store::restore(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.published.replace(store);
        Ok(())
    }
}

struct View(Store);

impl SnapshotView for View {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        self.0.write_snapshot(to)
    }
}
