//! The state machine as consensus drives it: committed batches in, outcomes out, snapshots both ways.

use std::io::{self, Read, Write};
use std::sync::Arc;

use lictor_state::published::Published;
use lictor_state::{Changes, Store};
use lictor_types::{Envelope, Outcome, encoding};

use crate::raft::{SnapshotView, StateMachine};

/// The replicated state behind its published face. Only consensus writes, one call after another.
pub struct Replica {
    published: Arc<Published>,
}

impl Replica {
    /// The writer of `published`.
    pub fn new(published: Arc<Published>) -> Self {
        Self { published }
    }
}

impl StateMachine for Replica {
    fn apply(&self, envelopes: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut store = Store::clone(&self.published.load());
        let mut changes = Changes::default();
        let outcomes = envelopes
            .iter()
            .map(|bytes| {
                // The leader decoded it before the log, so it is of a newer release. To go on would make this server
                // differ from the others without a word; a stopped one is rebuilt from its peers.
                let envelope: Envelope = encoding::decode(bytes)
                    .unwrap_or_else(|error| panic!("a committed command cannot be read by this release: {error}"));
                let applied = store.apply(&envelope);
                changes.merge(applied.changes);
                encoding::encode::<Outcome>(&applied.outcome)
            })
            .collect();
        self.published.publish(store, &changes);
        outcomes
    }

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(View(Store::clone(&self.published.load())))
    }

    fn restore(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
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
