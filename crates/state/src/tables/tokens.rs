//! ACL tokens and join tokens. Secrets are recognised by their HMAC and never readable here.
//!
//! Invariants
//! - A node has at most one token of its logins, and none once it is removed.
//! - A secret is one token; what has expired by the leader's time goes by itself, on every server at the same command.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::token::{ANONYMOUS_ACCESSOR, JoinToken};
use lictor_types::{NodeName, Refusal, Timestamp, Token};

use super::Key;
use crate::changes::Commit;

/// HMAC of a secret.
pub(crate) type Lookup = [u8; 32];

#[derive(Clone, Default)]
pub(crate) struct Tokens {
    rows: OrdMap<Key, Arc<Token>>,
    by_lookup: OrdMap<Lookup, Key>,
    by_expiration: OrdSet<(Timestamp, Key)>,
    /// The token that a node's last login made, by node.
    by_login_node: OrdMap<Key, Key>,
    join_tokens: OrdMap<Lookup, Arc<JoinToken>>,
    join_tokens_by_expiration: OrdSet<(Timestamp, Lookup)>,
}

impl Tokens {
    pub(crate) fn get(&self, accessor_id: &str) -> Option<&Arc<Token>> {
        self.rows.get(accessor_id)
    }

    pub(crate) fn by_lookup(&self, lookup: &Lookup) -> Option<&Arc<Token>> {
        self.by_lookup.get(lookup).and_then(|accessor_id| self.rows.get(accessor_id))
    }

    pub(crate) fn join_token(&self, lookup: &Lookup) -> Option<&Arc<JoinToken>> {
        self.join_tokens.get(lookup)
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.rows.values().map(|token| &**token)
    }

    pub(crate) fn join_tokens(&self) -> impl ExactSizeIterator<Item = &JoinToken> {
        self.join_tokens.values().map(|token| &**token)
    }

    /// The token of the login of the node with this key.
    pub(crate) fn of_login(&self, node: &str) -> Option<&Arc<Token>> {
        self.by_login_node.get(node).and_then(|accessor_id| self.rows.get(accessor_id))
    }

    /// Whether a token can be set.
    pub(crate) fn check(&self, token: &Token) -> Result<(), Refusal> {
        if token.accessor_id.is_empty() {
            return Err(Refusal::bad_request("a token needs an AccessorID: a UUID that the leader makes"));
        }
        if self.by_lookup.get(&token.lookup).is_some_and(|owner| **owner != *token.accessor_id) {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                "another token has this SecretID already: leave it out, and one is made",
            ));
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, commit: &Commit, token: &Token) -> Result<Effect, Refusal> {
        self.check(token)?;
        let mut token = token.clone();
        match self.rows.get(&*token.accessor_id) {
            Some(old) => {
                token.create_index = old.create_index;
                token.create_time = old.create_time;
                token.modify_index = old.modify_index;
                if **old == token {
                    return Ok(Effect::Applied);
                }
            }
            None => token.create_index = commit.at,
        }
        token.modify_index = commit.at;
        self.restore(token);
        Ok(Effect::Applied)
    }

    pub(crate) fn delete(&mut self, accessor_id: &str) -> Result<Effect, Refusal> {
        if accessor_id == ANONYMOUS_ACCESSOR {
            return Err(Refusal::failed("Delete operation not permitted on the anonymous token"));
        }
        self.remove(accessor_id);
        Ok(Effect::Applied)
    }

    pub(crate) fn restore(&mut self, token: Token) {
        self.remove(&token.accessor_id);
        let key = Key::from(&*token.accessor_id);
        self.by_lookup.insert(token.lookup, key.clone());
        if let Some(node) = &token.login_node {
            self.remove_login(&node.to_ascii_lowercase());
            self.by_login_node.insert(Key::from(node.to_ascii_lowercase()), key.clone());
        }
        if let Some(time) = token.expiration_time {
            self.by_expiration.insert((time, key.clone()));
        }
        self.rows.insert(key, Arc::new(token));
    }

    fn remove(&mut self, accessor_id: &str) {
        if let Some(token) = self.rows.remove(accessor_id) {
            self.by_lookup.remove(&token.lookup);
            if let Some(time) = token.expiration_time {
                self.by_expiration.remove(&(time, Key::from(accessor_id)));
            }
            if let Some(node) = &token.login_node {
                self.by_login_node.remove(&*node.to_ascii_lowercase());
            }
        }
    }

    /// Removes the token that the login of the node with this key made.
    pub(crate) fn remove_login(&mut self, node: &str) {
        if let Some(accessor_id) = self.by_login_node.get(node).cloned() {
            self.remove(&accessor_id);
        }
    }

    pub(crate) fn set_join_token(&mut self, token: JoinToken) -> Effect {
        self.remove_join_token(&token.lookup);
        self.join_tokens_by_expiration.insert((token.expiration_time, token.lookup));
        self.join_tokens.insert(token.lookup, Arc::new(token));
        Effect::Applied
    }

    /// Whether whoever shows this join token may be `node`.
    pub(crate) fn check_join_token(&self, lookup: &Lookup, node: &NodeName) -> Result<(), Refusal> {
        let token = self.join_tokens.get(lookup).ok_or_else(unknown_join_token)?;
        match &token.node {
            Some(only) if only.key() != node.key() => Err(Refusal::permission_denied(format!(
                "this join token is for the node {:?} and not for {:?}",
                only.as_str(),
                node.as_str()
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn use_join_token(&mut self, lookup: &Lookup) -> Result<Effect, Refusal> {
        let token = self.join_tokens.get(lookup).ok_or_else(unknown_join_token)?;
        if !token.reusable {
            self.remove_join_token(lookup);
        }
        Ok(Effect::Applied)
    }

    fn remove_join_token(&mut self, lookup: &Lookup) {
        if let Some(token) = self.join_tokens.remove(lookup) {
            self.join_tokens_by_expiration.remove(&(token.expiration_time, *lookup));
        }
    }

    /// Removes what has expired.
    pub(crate) fn reap(&mut self, now: Timestamp) {
        while let Some((time, accessor_id)) = self.by_expiration.get_min().cloned() {
            if time > now {
                break;
            }
            self.remove(&accessor_id);
        }
        while let Some((time, lookup)) = self.join_tokens_by_expiration.get_min().copied() {
            if time > now {
                break;
            }
            self.remove_join_token(&lookup);
        }
    }
}

fn unknown_join_token() -> Refusal {
    Refusal::permission_denied(
        "the join token is unknown, used up or expired: make a new one with `lictor join-token create`",
    )
}
