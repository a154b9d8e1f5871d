//! Sessions: making them, and what their end does.
//!
//! Invariants
//! - A session lives on a node that is registered, and hangs on checks of that node that are not critical. The command
//!   that takes one of these away ends the session too, so no reader sees the one without the other.
//! - The end of a session, whatever its reason, gives back or deletes every key it holds, and shuts their locks for its
//!   lock-delay. Only giving a lock back by oneself leaves it open.

use std::time::Duration;

use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::session::{CHECKS_MAX, SessionBehavior, SessionDestroy, TTL_MAX};
use lictor_types::{CheckStatus, Index, Refusal, Session, Timestamp, duration};

use crate::changes::{Commit, Table};
use crate::store::Store;
use crate::tables::Key;
use crate::tables::nodes::node_key;

impl Store {
    pub(crate) fn create_session(
        &mut self,
        commit: &mut Commit,
        asked: &Session,
        ttl_min: Duration,
    ) -> Result<Effect, Refusal> {
        check_form(asked, ttl_min)?;
        if self.sessions.get(&asked.id).is_some() {
            return Err(Refusal::new(RefusalKind::Conflict, format!("there is a session {:?} already", asked.id)));
        }
        let node = node_key(&asked.node);
        let Some(row) = self.nodes.get(&node) else { return Err(Refusal::failed("Missing node registration")) };
        let name = row.name.clone();
        for check in asked.checks() {
            match self.checks.get(&node, check).map(|check| check.status) {
                None => return Err(Refusal::failed(format!("Missing check '{check}' registration"))),
                Some(CheckStatus::Critical) => {
                    return Err(Refusal::failed(format!("Check '{check}' is in critical state")));
                }
                Some(CheckStatus::Passing | CheckStatus::Warning) => {}
            }
        }
        let session = Session { node: name, create_index: commit.at, modify_index: commit.at, ..asked.clone() };
        let id = Key::from(&*session.id);
        self.sessions.insert(session);
        self.indexes.changed(commit, Table::Sessions, id);
        self.indexes.settled(commit, Table::NodeSessions, node, true);
        Ok(Effect::Applied)
    }

    pub(crate) fn destroy_session(&mut self, commit: &mut Commit, what: &SessionDestroy) -> Result<Effect, Refusal> {
        let found = self.sessions.get(&what.id).map_or("", |session| session.node.as_str());
        if what.authorized_node.as_ref().is_some_and(|authorized| authorized != found) {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("the session {:?} belongs to {found:?} now: look again and retry", what.id),
            ));
        }
        self.end_session(commit, &what.id);
        Ok(Effect::Applied)
    }

    pub(crate) fn expire_sessions(&mut self, commit: &mut Commit, ids: &[String]) -> Effect {
        for id in ids {
            self.end_session(commit, id);
        }
        Effect::Applied
    }

    /// Ends the sessions of a node that is gone.
    pub(crate) fn end_sessions_of_node(&mut self, commit: &mut Commit, node: &Key) {
        let ids: Vec<Key> = self.sessions.on_node(node).map(|session| Key::from(&*session.id)).collect();
        for id in ids {
            self.end_session(commit, &id);
        }
    }

    /// Ends the sessions that hang on a check which is critical or gone.
    pub(crate) fn end_sessions_of_check(&mut self, commit: &mut Commit, node: &Key, check: &str) {
        if self.sessions.hang_on(node) {
            for id in self.sessions.on_check(node, check) {
                self.end_session(commit, &id);
            }
        }
    }

    /// Ends a session, with everything that is bound to it. Nothing when there is none.
    pub(crate) fn end_session(&mut self, commit: &mut Commit, id: &str) {
        let Some(session) = self.sessions.remove(id) else { return };
        let node = node_key(&session.node);
        self.indexes.removed(commit, Table::Sessions, Key::from(id));
        let has_more = self.sessions.on_node(&node).next().is_some();
        self.indexes.settled(commit, Table::NodeSessions, node, has_more);
        self.end_locks(commit, &session);
        self.prepared_queries.remove_of_session(commit, &mut self.indexes, id);
    }

    fn end_locks(&mut self, commit: &mut Commit, session: &Session) {
        let deadline: Timestamp = commit.now.after(session.effective_lock_delay());
        for key in self.kv.held_by(&session.id) {
            if deadline > commit.now {
                self.lock_delays.shut(&key, deadline);
            }
            match session.behavior {
                SessionBehavior::Release => self.kv.let_go(commit, &mut self.indexes, &key),
                SessionBehavior::Delete => self.kv.remove(commit, &mut self.indexes, &key),
            }
        }
    }

    /// The session with this id.
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.get(id).map(|session| &**session)
    }

    /// The sessions with a TTL that were made after `index`, oldest first: what the leader must set timers for.
    pub fn sessions_with_ttl_after(&self, index: Index) -> impl Iterator<Item = &Session> {
        self.sessions.with_ttl_after(index).map(|session| &**session)
    }

    /// How many sessions have a TTL.
    pub fn count_sessions_with_ttl(&self) -> usize {
        self.sessions.count_with_ttl()
    }
}

/// What a session must be like, in Consul's words.
fn check_form(session: &Session, ttl_min: Duration) -> Result<(), Refusal> {
    if session.id.is_empty() {
        return Err(Refusal::failed("Must provide ID"));
    }
    if session.checks().count() > CHECKS_MAX {
        return Err(Refusal::bad_request(format!("a session can hang on at most {CHECKS_MAX} checks")));
    }
    if session.ttl.is_empty() {
        return Ok(());
    }
    let wrong = |text: &str| Refusal::failed(format!("Session TTL '{text}' invalid: time: {}", go_complaint(text)));
    let ttl = duration::parse(&session.ttl).map_err(|_| wrong(&session.ttl))?;
    if !ttl.is_zero() && !(ttl_min..=TTL_MAX).contains(&ttl) {
        return Err(Refusal::failed(format!(
            "Invalid Session TTL '{}', must be between [{}={}]",
            ttl.as_nanos(),
            duration::format(ttl_min),
            duration::format(TTL_MAX)
        )));
    }
    Ok(())
}

/// Go's words for a text that is no duration.
fn go_complaint(text: &str) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let what = if is_number { "missing unit in duration" } else { "invalid duration" };
    format!("{what} {text:?}")
}
