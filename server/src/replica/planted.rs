//! Bugs of the state machine that a test plants. Without one, and in every release build, nothing here does anything.

use std::io;

use lictor_state::{Changes, Store};
use lictor_types::command::Effect;
use lictor_types::{Command, Envelope, KvVerb, Outcome, Transaction};
use minicbor::{Decoder, Encoder};
use parking_lot::Mutex;

use crate::raft::{Bug, Faults};

/// So far the leader's time jumps when everything is forgotten at once: beyond every age that the state knows.
const BEYOND_EVERY_AGE: u64 = 16 * 60 * 1000;

/// The planted bug of one server's state machine, and what it needs to remember.
pub(super) struct Planted {
    faults: Faults,
    /// What differs between servers.
    salt: u64,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    applied: u64,
    earlier: Option<Store>,
}

impl Planted {
    pub(super) fn new(faults: Faults, salt: u64) -> Self {
        Self { faults, salt, memory: Mutex::default() }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.faults.has(bug)
    }

    /// How often the envelopes are applied.
    pub(super) fn rounds(&self) -> usize {
        if !self.has(Bug::AppliedTwiceAfterRestart) {
            return 1;
        }
        let mut memory = self.memory.lock();
        memory.applied += 1;
        if memory.applied == 1 { 2 } else { 1 }
    }

    /// Spoils an envelope before it is applied.
    pub(super) fn spoil(&self, envelope: &mut Envelope, round: usize) {
        if self.has(Bug::AppliedTwiceAfterRestart) && round > 0 {
            envelope.request_id[0] ^= 0xff;
        }
        if self.has(Bug::RetryAppliedTwice) {
            // A repeat comes at another time of the leader.
            for (byte, time) in envelope.request_id.iter_mut().zip(envelope.leader_time.0.to_le_bytes()) {
                *byte ^= time;
            }
        }
        if self.has(Bug::ReapedTooEarly) {
            let mut memory = self.memory.lock();
            memory.applied += 1;
            envelope.leader_time.0 += memory.applied * BEYOND_EVERY_AGE;
        }
        if self.has(Bug::ApplyNotDeterministic) {
            envelope.leader_time.0 += self.salt % 1_000;
        }
        if self.has(Bug::CasIgnoresIndex)
            && let Command::Kv(command) = &mut envelope.command
            && matches!(command.verb, KvVerb::Cas(_))
        {
            command.verb = KvVerb::Set;
        }
    }

    /// What of a transaction that failed is applied all the same.
    pub(super) fn half(&self, envelope: &Envelope, outcome: &Outcome) -> Option<Envelope> {
        let (Command::Transaction(transaction), Effect::Transaction(it)) = (&envelope.command, &outcome.effect) else {
            return None;
        };
        let first = it.errors.first().filter(|_| self.has(Bug::TransactionPartlyApplied))?;
        let done = transaction.operations[..first.op_index as usize].to_vec();
        let mut half = Envelope { command: Command::Transaction(Transaction::new(done)), ..envelope.clone() };
        half.request_id[0] ^= 0xff;
        Some(half)
    }

    /// What readers are told of.
    pub(super) fn changes(&self, changes: Changes) -> Changes {
        if self.has(Bug::LostWakeup) { Changes::default() } else { changes }
    }

    /// The state that a snapshot is made of.
    pub(super) fn frozen(&self, store: Store) -> Store {
        if !self.has(Bug::StaleSnapshot) {
            return store;
        }
        self.memory.lock().earlier.replace(store.clone()).unwrap_or(store)
    }

    /// The bytes that a snapshot is restored from.
    pub(super) fn restored(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let section = [
            (Bug::SnapshotDropsIndex, 1),
            (Bug::SnapshotDropsNodes, 6),
            (Bug::SnapshotDropsChecks, 8),
            (Bug::SnapshotDropsKv, 9),
            (Bug::SnapshotDropsTombstones, 10),
            (Bug::SnapshotDropsOutcomes, 19),
            (Bug::SnapshotDropsSessions, 20),
            (Bug::SnapshotDropsLockDelays, 21),
        ]
        .into_iter()
        .find(|(bug, _)| self.has(*bug));
        match section {
            None => Ok(bytes),
            Some((_, section)) => without(&bytes, section).map_err(io::Error::other),
        }
    }
}

/// A snapshot without one of its sections.
fn without(bytes: &[u8], section: u32) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.map()?.unwrap_or_default();
    let mut kept = Vec::new();
    let mut dropped = 0;
    for _ in 0..count {
        let start = decoder.position();
        let number = decoder.u32()?;
        decoder.skip()?;
        if number == section {
            dropped += 1;
        } else {
            kept.extend_from_slice(&bytes[start..decoder.position()]);
        }
    }
    let mut encoder = Encoder::new(Vec::new());
    // Memory takes every write.
    let _ = encoder.map(count - dropped);
    let mut rest = encoder.into_writer();
    rest.extend_from_slice(&kept);
    Ok(rest)
}
