//! The whole state, and how a command changes it.

use std::sync::Arc;
use std::time::Duration;

use lictor_types::authority::AuthorityRecord;
use lictor_types::autopilot::AutopilotConfig;
use lictor_types::command::{ClusterIdentity, Effect};
use lictor_types::session::TTL_MIN;
use lictor_types::token::JoinToken;
use lictor_types::{Command, Envelope, Index, Outcome, Refusal, Timestamp, Token};

use crate::changes::{Changes, Commit};
use crate::indexes::Indexes;
use crate::replies::{Replies, Reply};
use crate::restore::Staged;
use crate::tables::checks::Checks;
use crate::tables::cluster::Cluster;
use crate::tables::config_entries::ConfigEntries;
use crate::tables::coordinates::Coordinates;
use crate::tables::intentions::Intentions;
use crate::tables::kv::{Holders, Kv};
use crate::tables::lock_delays::LockDelays;
use crate::tables::nodes::Nodes;
use crate::tables::prepared_queries::PreparedQueries;
use crate::tables::services::Services;
use crate::tables::sessions::Sessions;
use crate::tables::tokens::Tokens;
use crate::tables::virtual_addresses::VirtualAddresses;

/// The replicated state. A clone is cheap and is a consistent snapshot.
#[derive(Clone)]
pub struct Store {
    pub(crate) index: Index,
    pub(crate) leader_time: Timestamp,
    pub(crate) indexes: Indexes,
    pub(crate) nodes: Nodes,
    pub(crate) services: Services,
    pub(crate) checks: Checks,
    pub(crate) kv: Kv,
    pub(crate) sessions: Sessions,
    pub(crate) lock_delays: LockDelays,
    pub(crate) intentions: Intentions,
    pub(crate) tokens: Tokens,
    pub(crate) cluster: Cluster,
    pub(crate) coordinates: Coordinates,
    pub(crate) prepared_queries: PreparedQueries,
    pub(crate) config_entries: ConfigEntries,
    pub(crate) virtual_addresses: VirtualAddresses,
    pub(crate) replies: Replies,
    /// The index of the last restore: no answer has a smaller one.
    pub(crate) floor: Index,
    /// A snapshot that is being restored.
    pub(crate) staged: Option<Arc<Staged>>,
}

/// What applying a command did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What the client gets.
    pub outcome: Outcome,
    /// What readers may be waiting for.
    pub changes: Changes,
}

/// The index of the empty state. No reader is ever told a smaller one, so the first command must have a greater one, or
/// who waits from here would sleep through it.
pub(crate) const BIRTH: Index = Index(1);

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// The state before the first command.
    pub fn new() -> Self {
        Self {
            index: BIRTH,
            leader_time: Timestamp::default(),
            indexes: Indexes::default(),
            nodes: Nodes::default(),
            services: Services::default(),
            checks: Checks::default(),
            kv: Kv::default(),
            sessions: Sessions::default(),
            lock_delays: LockDelays::default(),
            intentions: Intentions::default(),
            tokens: Tokens::default(),
            cluster: Cluster::default(),
            coordinates: Coordinates::default(),
            prepared_queries: PreparedQueries::default(),
            config_entries: ConfigEntries::default(),
            virtual_addresses: VirtualAddresses::default(),
            replies: Replies::default(),
            floor: Index::default(),
            staged: None,
        }
    }

    /// The index of the last command; of the empty state before there is one.
    pub fn index(&self) -> Index {
        self.index
    }

    /// The time of the last command by the leaders' clocks. A repeated request moves it on and takes no index, so states
    /// are the same when both this and the index are.
    pub fn leader_time(&self) -> Timestamp {
        self.leader_time
    }

    /// Applies one committed command: same commands in, same state and outcome out, on every server.
    ///
    /// A refusal is an ordinary outcome. A repeated request id gets its first outcome and changes nothing.
    pub fn apply(&mut self, envelope: &Envelope) -> Applied {
        // A new leader's clock may be behind the old one's; time in the state only goes forward.
        self.leader_time = self.leader_time.max(envelope.leader_time);
        self.replies.reap(self.leader_time);
        if let Some(outcome) = self.replies.get(&envelope.request_id) {
            return Applied { outcome: outcome.clone(), changes: Changes::default() };
        }
        self.kv.reap(self.leader_time);
        self.lock_delays.reap(self.leader_time);
        self.tokens.reap(self.leader_time);
        self.reap_staged();
        self.index = self.index.next();
        let mut commit = Commit { at: self.index, now: self.leader_time, changes: Changes::default() };
        let effect = self.carry_out(&mut commit, &envelope.command).unwrap_or_else(Effect::Refused);
        let outcome = Outcome { index: commit.at, effect };
        self.replies.insert(Reply { request_id: envelope.request_id, time: commit.now, outcome: outcome.clone() });
        Applied { outcome, changes: commit.changes }
    }

    /// A command that is refused has changed nothing: each checks everything before its first change.
    fn carry_out(&mut self, commit: &mut Commit, command: &Command) -> Result<Effect, Refusal> {
        let indexes = &mut self.indexes;
        match command {
            Command::Register(it) => self.register(commit, it),
            Command::RegisterWithin(it) => self.register_within(commit, it),
            Command::Deregister(it) => self.deregister(commit, it),
            Command::Kv(it) => {
                let holders = Holders { sessions: &self.sessions, delays: &self.lock_delays };
                self.kv.apply(commit, indexes, holders, it)
            }
            Command::SessionCreate(it) => self.create_session(commit, it, TTL_MIN),
            Command::SessionCreateWithin(it) => {
                self.create_session(commit, &it.session, Duration::from_nanos(it.ttl_min_nanos))
            }
            Command::SessionDestroy(it) => self.destroy_session(commit, it),
            Command::SessionsExpire(ids) => Ok(self.expire_sessions(commit, ids)),
            Command::Transaction(it) => self.transact(commit, it),
            Command::IntentionsSet(it) => self.intentions.set_entry(commit, indexes, it),
            Command::IntentionsDelete(it) => Ok(self.intentions.delete_entry(commit, indexes, it)),
            Command::IntentionUpsert(it) => self.intentions.upsert(commit, indexes, it),
            Command::IntentionDelete(it) => Ok(self.intentions.delete(commit, indexes, it)),
            Command::TokenSet(it) => self.tokens.set(commit, it),
            Command::TokenDelete(accessor_id) => self.tokens.delete(accessor_id),
            Command::JoinTokenSet(it) => Ok(self.tokens.set_join_token(it.clone())),
            Command::JoinTokenUse(lookup) => self.tokens.use_join_token(lookup),
            Command::ClusterInitialize(it) => Ok(self.cluster.initialize(it)),
            Command::AuthorityInitialize(it) => Ok(self.cluster.initialize_authority(commit, indexes, it)),
            Command::ServiceClaim(it) => self.cluster.claim(it),
            Command::CoordinatesSet(rows) => Ok(self.set_coordinates(commit, rows)),
            Command::ServerRemoved(id) => Ok(self.cluster.remember_removed(id)),
            Command::NodeLogin(it) => self.node_login(commit, it),
            Command::AuthorityConfigure(it) => self.cluster.configure_authority(commit, indexes, it),
            Command::LoginRenew(it) => self.login_renew(commit, it),
            Command::RestorePart(it) => self.restore_part(commit, it),
            Command::RestoreCommit(it) => self.restore_commit(commit, it),
            Command::RestoreAbort(id) => Ok(self.restore_abort(id)),
            Command::AutopilotSet(it) => Ok(self.cluster.set_autopilot(commit, indexes, it)),
            Command::PreparedQuerySet(it) => self.set_prepared_query(commit, it),
            Command::PreparedQueryDelete(it) => self.prepared_queries.delete(commit, indexes, it),
            Command::ConfigEntrySet(it) => self.set_config_entry(commit, it),
            Command::ConfigEntryDelete(it) => self.delete_config_entry(commit, it),
            Command::VirtualAddressesSet(it) => self.set_virtual_addresses(commit, it),
            Command::StateCompare => Ok(Effect::Applied),
        }
    }

    /// What makes this cluster this one; none before the first leader has named it.
    pub fn cluster(&self) -> Option<&ClusterIdentity> {
        self.cluster.identity.as_deref()
    }

    /// The mesh CA with its sealed keys, for the server that signs; none before the first leader has made it.
    pub fn authority(&self) -> Option<&AuthorityRecord> {
        self.cluster.authority.as_deref()
    }

    /// How the leader looks after the servers of raft; none before the first leader has said it.
    pub fn autopilot(&self) -> Option<&AutopilotConfig> {
        self.cluster.autopilot.as_deref()
    }

    /// Whether the server with this raft id was removed for ever.
    pub fn is_removed_server(&self, id: &str) -> bool {
        self.cluster.removed_servers.contains(id)
    }

    /// The token whose secret has this HMAC. It may have expired since the last command.
    pub fn token(&self, lookup: &[u8; 32]) -> Option<&Token> {
        self.tokens.by_lookup(lookup).map(|token| &**token)
    }

    /// The join token whose secret has this HMAC. It may have expired since the last command.
    pub fn join_token(&self, lookup: &[u8; 32]) -> Option<&JoinToken> {
        self.tokens.join_token(lookup).map(|token| &**token)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lictor_types::command::{KvCommand, KvVerb};

    use super::*;
    use crate::replies::{REPLIES_MAX, REPLY_AGE_MAX};
    use crate::tables::kv::TOMBSTONE_AGE_MAX;

    fn put(id: u64, time: u64, key: &str, value: &str) -> Envelope {
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&id.to_be_bytes());
        let command = KvCommand { verb: KvVerb::Set, key: key.into(), value: value.as_bytes().to_vec(), flags: 0 };
        Envelope { request_id, leader_time: Timestamp(time), command: Command::Kv(command) }
    }

    #[test]
    fn a_repeat_gets_the_first_outcome_and_takes_no_index() {
        let mut store = Store::new();
        let first = store.apply(&put(1, 0, "a", "1")).outcome;
        store.apply(&put(2, 0, "a", "2"));
        let again = store.apply(&put(1, 0, "a", "1"));
        assert_eq!(again.outcome, first);
        assert!(again.changes.is_empty());
        assert_eq!(store.index(), Index(3));
        assert_eq!(store.kv.get("a").unwrap().value, b"2");
    }

    #[test]
    fn outcomes_are_forgotten_by_time_and_by_count() {
        let mut store = Store::new();
        store.apply(&put(1, 0, "a", "1"));
        store.apply(&put(2, REPLY_AGE_MAX.as_millis() as u64, "b", "1"));
        assert!(store.replies.get(&put(1, 0, "", "").request_id).is_some());
        store.apply(&put(3, REPLY_AGE_MAX.as_millis() as u64 + 1, "b", "2"));
        assert!(store.replies.get(&put(1, 0, "", "").request_id).is_none());
        let now = REPLY_AGE_MAX.as_millis() as u64 + 2;
        for id in 0..REPLIES_MAX as u64 + 10 {
            store.apply(&put(100 + id, now, "c", "1"));
        }
        assert!(store.replies.rows().len() <= REPLIES_MAX + 1);
        assert!(store.replies.get(&put(2, 0, "", "").request_id).is_none());
    }

    #[test]
    fn an_index_under_a_prefix_survives_the_reaping_of_tombstones() {
        let mut store = Store::new();
        store.apply(&put(1, 0, "a/1", "x"));
        store.apply(&put(2, 0, "a/2", "x"));
        let mut delete = put(3, 0, "a/2", "");
        if let Command::Kv(kv) = &mut delete.command {
            kv.verb = KvVerb::Delete;
        }
        store.apply(&delete);
        assert_eq!(store.kv.index_under("a/", &store.indexes), Index(4));
        let later = Timestamp(0).after(TOMBSTONE_AGE_MAX + Duration::from_millis(1));
        store.apply(&put(4, later.0, "b", "x"));
        assert_eq!(store.kv.tombstones().len(), 0);
        assert_eq!(store.kv.index_under("a/", &store.indexes), Index(4));
    }

    #[test]
    fn time_never_goes_back() {
        let mut store = Store::new();
        store.apply(&put(1, 1000, "a", "1"));
        store.apply(&put(2, 10, "b", "1"));
        assert_eq!(store.leader_time, Timestamp(1000));
    }
}
