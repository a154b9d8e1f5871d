//! The whole state as bytes and back.
//!
//! A CBOR map of sections by number, one per table, each an array of rows; secondary indexes are made anew from the
//! rows. A section that a reader does not know is skipped, one that is missing is an empty table. Rows come in the
//! order of their keys, so equal states have equal bytes.

use std::io;

use lictor_types::authority::AuthorityRecord;
use lictor_types::autopilot::AutopilotConfig;
use lictor_types::command::{ClusterIdentity, ServiceClaim};
use lictor_types::config_entry::ConfigEntry;
use lictor_types::gateway::VirtualAddress;
use lictor_types::prepared_query::PreparedQuery;
use lictor_types::token::JoinToken;
use lictor_types::{
    HealthCheck, Index, KvEntry, Node, NodeCoordinate, NodeService, ServiceIntentions, Session, Timestamp, Token,
};
use minicbor::encode::write::Writer;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::changes::Table;
use crate::replies::Reply;
use crate::restore::Staged;
use crate::store::Store;
use crate::tables::Key;
use crate::tables::kv::Tombstone;
use crate::tables::nodes::node_key;

/// The form that is written. A later one is refused: it may mean other things by the same numbers.
const VERSION: u32 = 1;

/// Bytes that go into the checksum of a state at once.
const HASHED_AT_ONCE: usize = 64 * 1024;

/// The numbers of the sections: append, never reuse.
mod section {
    pub(super) const VERSION: u32 = 0;
    pub(super) const INDEX: u32 = 1;
    pub(super) const LEADER_TIME: u32 = 2;
    pub(super) const TABLE_INDEXES: u32 = 3;
    pub(super) const KEY_INDEXES: u32 = 4;
    pub(super) const EXTINCTIONS: u32 = 5;
    pub(super) const NODES: u32 = 6;
    pub(super) const SERVICES: u32 = 7;
    pub(super) const CHECKS: u32 = 8;
    pub(super) const KV: u32 = 9;
    pub(super) const TOMBSTONES: u32 = 10;
    pub(super) const REAPED: u32 = 11;
    pub(super) const INTENTIONS: u32 = 12;
    pub(super) const TOKENS: u32 = 13;
    pub(super) const JOIN_TOKENS: u32 = 14;
    pub(super) const CLUSTER: u32 = 15;
    pub(super) const AUTHORITY: u32 = 16;
    pub(super) const REMOVED_SERVERS: u32 = 17;
    pub(super) const CLAIMS: u32 = 18;
    pub(super) const REPLIES: u32 = 19;
    pub(super) const SESSIONS: u32 = 20;
    pub(super) const LOCK_DELAYS: u32 = 21;
    pub(super) const FLOOR: u32 = 70;
    pub(super) const STAGED: u32 = 71;
    pub(super) const AUTOPILOT: u32 = 50;
    pub(super) const COORDINATES: u32 = 30;
    pub(super) const PREPARED_QUERIES: u32 = 40;
    pub(super) const CONFIG_ENTRIES: u32 = 80;
    pub(super) const VIRTUAL_ADDRESSES: u32 = 81;
    pub(super) const VIRTUAL_FREE: u32 = 82;
    pub(super) const VIRTUAL_HIGHEST: u32 = 83;
    /// How many there are.
    pub(super) const COUNT: u64 = 31;
}

/// Bytes that are not a snapshot that this release can read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They are cut short, or are something else.
    #[error("cannot read the snapshot: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// A later release wrote them.
    #[error(
        "the snapshot has version {0}, this release reads up to {VERSION}: restore it with the release that made it"
    )]
    Version(u32),
}

type Written<W> = Result<(), minicbor::encode::Error<<W as minicbor::encode::Write>::Error>>;

impl Store {
    /// The whole state as bytes. Equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        match self.write(&mut encoder) {
            Ok(()) => encoder.into_writer(),
            // A Vec takes every write and no encoder of ours returns an error of its own.
            Err(error) => unreachable!("encoding to memory cannot fail: {error}"),
        }
    }

    /// A checksum of the whole state, to compare servers by: that of its snapshot, which is never in memory as bytes.
    pub fn hash(&self) -> u32 {
        let mut sum = Sum(0);
        let mut to = io::BufWriter::with_capacity(HASHED_AT_ONCE, &mut sum);
        if let Err(error) = self.write_snapshot(&mut to).and_then(|()| io::Write::flush(&mut to)) {
            unreachable!("a checksum takes every write: {error}");
        }
        drop(to);
        sum.0
    }

    /// The state that a snapshot was taken of.
    ///
    /// # Errors
    /// The bytes are no snapshot, or one of a later release.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut store = Self::new();
        store.read_part(bytes)?;
        Ok(store)
    }

    /// The whole state, written as it is encoded: it is never in memory as bytes.
    ///
    /// # Errors
    /// As `to` reports them.
    pub fn write_snapshot(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut encoder = Encoder::new(Writer::new(to));
        self.write(&mut encoder).map_err(io::Error::other)
    }

    /// Adds the rows of a snapshot, or of a part of one, to those that are there.
    ///
    /// # Errors
    /// The bytes are no snapshot, or one of a later release; some rows may have been added.
    pub fn read_part(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let mut decoder = Decoder::new(bytes);
        let sections = decoder.map()?.ok_or_else(|| malformed("its sections are not counted"))?;
        for _ in 0..sections {
            let section = decoder.u32()?;
            self.read_section(section, &mut decoder)?;
        }
        if decoder.position() != bytes.len() {
            return Err(malformed("bytes follow its end"));
        }
        Ok(())
    }

    fn write<W: minicbor::encode::Write>(&self, to: &mut Encoder<W>) -> Written<W> {
        to.map(section::COUNT)?;
        to.u32(section::VERSION)?.u32(VERSION)?;
        to.u32(section::INDEX)?.encode(self.index)?;
        to.u32(section::LEADER_TIME)?.encode(self.leader_time)?;
        rows(to, section::TABLE_INDEXES, self.indexes.tables.iter())?;
        rows(to, section::KEY_INDEXES, self.indexes.keys.iter().map(|((table, key), index)| (table, &**key, index)))?;
        rows(to, section::EXTINCTIONS, self.indexes.extinctions.iter())?;
        rows(to, section::NODES, self.nodes.rows())?;
        rows(to, section::SERVICES, self.services.rows().map(|(node, service)| (&**node, service)))?;
        rows(to, section::CHECKS, self.checks.rows().map(|(_, check)| &**check))?;
        rows(to, section::KV, self.kv.rows())?;
        rows(to, section::TOMBSTONES, self.kv.tombstones().map(|(key, tombstone)| (&**key, tombstone)))?;
        to.u32(section::REAPED)?.encode(self.kv.reaped())?;
        rows(to, section::INTENTIONS, self.intentions.rows())?;
        rows(to, section::TOKENS, self.tokens.rows())?;
        rows(to, section::JOIN_TOKENS, self.tokens.join_tokens())?;
        to.u32(section::CLUSTER)?.encode(self.cluster())?;
        to.u32(section::AUTHORITY)?.encode(self.authority())?;
        rows(to, section::REMOVED_SERVERS, self.cluster.removed_servers.iter().map(|id| &**id))?;
        rows(
            to,
            section::CLAIMS,
            self.cluster.claims.iter().map(|(service, namespace)| ServiceClaim {
                service: service.as_ref().to_owned(),
                namespace: namespace.as_ref().to_owned(),
            }),
        )?;
        rows(to, section::REPLIES, self.replies.rows())?;
        rows(to, section::SESSIONS, self.sessions.rows())?;
        rows(to, section::LOCK_DELAYS, self.lock_delays.rows().map(|(key, deadline)| (&**key, deadline)))?;
        to.u32(section::FLOOR)?.encode(self.floor)?;
        to.u32(section::STAGED)?.encode(self.staged.as_deref())?;
        to.u32(section::AUTOPILOT)?.encode(self.autopilot())?;
        rows(to, section::COORDINATES, self.coordinates.rows())?;
        rows(to, section::PREPARED_QUERIES, self.prepared_queries.rows())?;
        rows(to, section::CONFIG_ENTRIES, self.config_entries.rows())?;
        rows(to, section::VIRTUAL_ADDRESSES, self.virtual_addresses.rows())?;
        rows(to, section::VIRTUAL_FREE, self.virtual_addresses.free())?;
        to.u32(section::VIRTUAL_HIGHEST)?.u32(self.virtual_addresses.highest())?;
        Ok(())
    }

    fn read_section(&mut self, section: u32, from: &mut Decoder<'_>) -> Result<(), SnapshotError> {
        match section {
            section::VERSION => {
                let version = from.u32()?;
                if version > VERSION {
                    return Err(SnapshotError::Version(version));
                }
            }
            section::INDEX => self.index = from.decode()?,
            section::LEADER_TIME => self.leader_time = from.decode()?,
            section::TABLE_INDEXES => each(from, |(table, index): (Table, Index)| {
                self.indexes.tables.insert(table, index);
            })?,
            section::KEY_INDEXES => each(from, |(table, key, index): (Table, &str, Index)| {
                self.indexes.keys.insert((table, Key::from(key)), index);
            })?,
            section::EXTINCTIONS => each(from, |(table, index): (Table, Index)| {
                self.indexes.extinctions.insert(table, index);
            })?,
            section::NODES => each(from, |node: Node| self.nodes.insert(node))?,
            section::SERVICES => each(from, |(node, service): (&str, NodeService)| {
                self.services.insert(&Key::from(node), service);
            })?,
            section::CHECKS => each(from, |check: HealthCheck| {
                // A stored check always names its node.
                if let Some(node) = check.node.as_ref().map(node_key) {
                    self.checks.insert(&node, check);
                }
            })?,
            section::KV => each(from, |entry: KvEntry| self.kv.restore_entry(entry))?,
            section::TOMBSTONES => each(from, |(key, tombstone): (&str, Tombstone)| {
                self.kv.restore_tombstone(key, tombstone);
            })?,
            section::REAPED => self.kv.restore_reaped(from.decode()?),
            section::INTENTIONS => each(from, |entry: ServiceIntentions| self.intentions.restore(entry))?,
            section::TOKENS => each(from, |token: Token| self.tokens.restore(token))?,
            section::JOIN_TOKENS => each(from, |token: JoinToken| {
                self.tokens.set_join_token(token);
            })?,
            section::CLUSTER => self.cluster.identity = from.decode::<Option<ClusterIdentity>>()?.map(Into::into),
            section::AUTHORITY => self.cluster.authority = from.decode::<Option<AuthorityRecord>>()?.map(Into::into),
            section::REMOVED_SERVERS => each(from, |id: &str| {
                self.cluster.removed_servers.insert(Key::from(id));
            })?,
            section::CLAIMS => each(from, |claim: ServiceClaim| {
                self.cluster.claims.insert(Key::from(claim.service), Key::from(claim.namespace));
            })?,
            section::SESSIONS => each(from, |session: Session| self.sessions.insert(session))?,
            section::LOCK_DELAYS => each(from, |(key, deadline): (&str, Timestamp)| {
                self.lock_delays.shut(&Key::from(key), deadline);
            })?,
            section::AUTOPILOT => self.cluster.autopilot = from.decode::<Option<AutopilotConfig>>()?.map(Into::into),
            section::REPLIES => each(from, |reply: Reply| self.replies.insert(reply))?,
            section::FLOOR => self.floor = from.decode()?,
            section::STAGED => self.staged = from.decode::<Option<Staged>>()?.map(Into::into),
            section::COORDINATES => each(from, |row: NodeCoordinate| self.coordinates.insert(row))?,
            section::PREPARED_QUERIES => each(from, |query: PreparedQuery| self.prepared_queries.insert(query))?,
            section::CONFIG_ENTRIES => each(from, |entry: ConfigEntry| self.config_entries.insert(entry))?,
            section::VIRTUAL_ADDRESSES => each(from, |row: VirtualAddress| {
                self.virtual_addresses.insert(Key::from(row.service.to_ascii_lowercase()), row);
            })?,
            section::VIRTUAL_FREE => each(from, |place: u32| self.virtual_addresses.restore_free(place))?,
            section::VIRTUAL_HIGHEST => self.virtual_addresses.restore_highest(from.u32()?),
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// What a section holds, as people are told of it.
pub fn section_name(section: u32) -> Option<&'static str> {
    Some(match section {
        section::VERSION => "Version",
        section::INDEX => "Index",
        section::LEADER_TIME => "LeaderTime",
        section::TABLE_INDEXES => "TableIndex",
        section::KEY_INDEXES => "KeyIndex",
        section::EXTINCTIONS => "Extinction",
        section::NODES => "Node",
        section::SERVICES => "Service",
        section::CHECKS => "Check",
        section::KV => "KVS",
        section::TOMBSTONES => "Tombstone",
        section::REAPED => "Reaped",
        section::INTENTIONS => "Intention",
        section::TOKENS => "ACLToken",
        section::JOIN_TOKENS => "JoinToken",
        section::CLUSTER => "Cluster",
        section::AUTHORITY => "ConnectCA",
        section::REMOVED_SERVERS => "RemovedServer",
        section::CLAIMS => "ServiceClaim",
        section::REPLIES => "Reply",
        section::SESSIONS => "Session",
        section::LOCK_DELAYS => "LockDelay",
        section::AUTOPILOT => "Autopilot",
        section::COORDINATES => "Coordinate",
        section::PREPARED_QUERIES => "PreparedQuery",
        section::FLOOR => "Floor",
        section::STAGED => "Staged",
        section::CONFIG_ENTRIES => "ConfigEntry",
        section::VIRTUAL_ADDRESSES => "ServiceVirtualIP",
        section::VIRTUAL_FREE => "FreeVirtualIP",
        section::VIRTUAL_HIGHEST => "HighestVirtualIP",
        _ => return None,
    })
}

fn malformed(reason: &'static str) -> SnapshotError {
    SnapshotError::Malformed(minicbor::decode::Error::message(reason))
}

/// Takes bytes and keeps their checksum.
struct Sum(u32);

impl io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = crc32c::crc32c_append(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one section.
fn rows<W: minicbor::encode::Write, T: Encode<()>>(
    to: &mut Encoder<W>,
    section: u32,
    rows: impl ExactSizeIterator<Item = T>,
) -> Written<W> {
    to.u32(section)?.array(rows.len() as u64)?;
    for row in rows {
        to.encode(row)?;
    }
    Ok(())
}

/// Reads one section row by row, so that it is never in memory twice.
fn each<'b, T: Decode<'b, ()>>(from: &mut Decoder<'b>, mut take: impl FnMut(T)) -> Result<(), SnapshotError> {
    for row in from.array_iter::<T>()? {
        take(row?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lictor_types::command::{KvCommand, KvVerb};
    use lictor_types::{Command, Envelope};

    use super::*;

    fn store() -> Store {
        let mut store = Store::new();
        let command = KvCommand { verb: KvVerb::Set, key: "a".into(), value: b"1".to_vec(), flags: 0 };
        store.apply(&Envelope { request_id: [1; 16], leader_time: Timestamp(5), command: Command::Kv(command) });
        store
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_and_another_state_has_another() {
        let mut store = store();
        let before = store.hash();
        assert_eq!(before, crc32c::crc32c(&store.snapshot()));
        // A repeated request takes no index but moves the leader's time: that is another state.
        let index = store.index();
        let command = KvCommand { verb: KvVerb::Set, key: "a".into(), value: b"1".to_vec(), flags: 0 };
        store.apply(&Envelope { request_id: [1; 16], leader_time: Timestamp(6), command: Command::Kv(command) });
        assert_eq!(store.index(), index);
        assert_ne!(store.hash(), before);
    }

    #[test]
    fn a_section_of_a_later_release_is_skipped() {
        let bytes = store().snapshot();
        let mut decoder = Decoder::new(&bytes);
        let count = decoder.map().unwrap().unwrap();
        // One section more, number 99, a map that nobody knows.
        let mut encoder = Encoder::new(Vec::new());
        encoder.map(count + 1).unwrap();
        let mut later = encoder.into_writer();
        later.extend_from_slice(&bytes[decoder.position()..]);
        later.extend_from_slice(&[0x18, 99, 0xa1, 0x01, 0x62, b'h', b'i']);
        assert_eq!(Store::restore(&later).unwrap().snapshot(), bytes);
    }

    #[test]
    fn a_missing_section_is_an_empty_table() {
        let bytes = [0xa1, 0x01, 0x07];
        assert_eq!(Store::restore(&bytes).unwrap().index(), Index(7));
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_refused() {
        let error = Store::restore(&[0xa1, 0x00, 0x02]).err().unwrap();
        assert!(matches!(error, SnapshotError::Version(2)), "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn cut_or_padded_bytes_are_refused() {
        let bytes = store().snapshot();
        for length in 0..bytes.len() {
            assert!(Store::restore(&bytes[..length]).is_err(), "{length} of {} bytes are taken", bytes.len());
        }
        assert!(Store::restore(&[&bytes[..], &[0]].concat()).is_err());
    }
}
