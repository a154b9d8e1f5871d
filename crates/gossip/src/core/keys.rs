//! Changes of the pool's keys, as queries to all members.

use std::collections::BTreeMap;
use std::time::Duration;

use super::queries::{INTERNAL, MAX_QUERY, Purpose, Question};
use super::{Core, QueryError, QueryOptions};
use crate::event::Event;
use crate::keyring::{KeyError, Keyring};
use crate::wire::serf::{self, KeyResponse, kind};

/// What to do with a key, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    /// Add it to decrypt with.
    Install,
    /// Encrypt with it.
    Use,
    /// Take it out.
    Remove,
    /// Tell which there are; no key is given.
    List,
}

impl KeyOperation {
    const fn query(self) -> &'static str {
        match self {
            Self::Install => "install-key",
            Self::Use => "use-key",
            Self::Remove => "remove-key",
            Self::List => "list-keys",
        }
    }

    fn of(query: &str) -> Option<Self> {
        [Self::Install, Self::Use, Self::Remove, Self::List].into_iter().find(|it| it.query() == query)
    }
}

/// How a change of keys went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// How many members were alive when it was asked.
    pub members: usize,
    /// How many answered.
    pub responses: usize,
    /// How many could not do it.
    pub errors: usize,
    /// What members said, by name.
    pub messages: BTreeMap<String, String>,
    /// The keys in base64, and how many hold each.
    pub keys: BTreeMap<String, usize>,
    /// The primary keys, and how many encrypt with each.
    pub primary_keys: BTreeMap<String, usize>,
}

impl KeyReport {
    /// Whether every member did it.
    pub fn is_complete(&self) -> bool {
        self.errors == 0 && self.responses == self.members
    }

    pub(super) fn count(&mut self, from: &str, payload: &[u8]) {
        self.responses += 1;
        let response = match payload.split_first() {
            Some((&kind::KEY_RESPONSE, body)) => KeyResponse::decode(body),
            _ => Err(crate::wire::WireError::Kind(payload.first().copied().unwrap_or_default())),
        };
        match response {
            Ok(response) => {
                if !response.done {
                    self.errors += 1;
                }
                if !response.message.is_empty() {
                    self.messages.insert(from.to_owned(), response.message);
                }
                for key in response.keys {
                    *self.keys.entry(key).or_default() += 1;
                }
                if !response.primary.is_empty() {
                    *self.primary_keys.entry(response.primary).or_default() += 1;
                }
            }
            Err(error) => {
                self.errors += 1;
                self.messages.insert(from.to_owned(), format!("Failed to decode key query response: {error}"));
            }
        }
    }
}

impl Core {
    /// Does something with a key at every member; [`Event::Keys`] with the answered number tells how it went.
    ///
    /// # Errors
    /// Too many queries run.
    pub fn change_keys(
        &mut self,
        now: Duration,
        operation: KeyOperation,
        key: &[u8],
        relay: u8,
    ) -> Result<u64, QueryError> {
        self.pass(now);
        let mut payload = Vec::new();
        serf::encode_key_request(key, &mut payload);
        let report = KeyReport { members: self.living, ..KeyReport::default() };
        let options = QueryOptions { relay, ..QueryOptions::default() };
        self.ask(&format!("{INTERNAL}{}", operation.query()), &payload, &options, Purpose::Keys(report))
    }

    /// Takes other keys at once and tells nobody: for a member that learnt by another way which ones the pool has. Without keys
    /// so far it begins to encrypt.
    pub fn adopt_keys(&mut self, now: Duration, keys: Keyring) {
        self.pass(now);
        self.config.keyring = Some(keys);
        self.emit(Event::KeyringChanged(self.keys()));
    }

    pub(super) fn hear_internal_query(&mut self, name: &str, question: &Question) {
        match (name, KeyOperation::of(name)) {
            (_, Some(operation)) => self.hear_key_query(operation, question),
            ("conflict", _) => self.hear_conflict_query(question),
            ("ping", _) => {}
            _ => tracing::debug!(name, "an internal query of Serf's is not known"),
        }
    }

    fn hear_key_query(&mut self, operation: KeyOperation, question: &Question) {
        let key = match question.payload.split_first() {
            Some((&kind::KEY_REQUEST, body)) => serf::decode_key_request(body).unwrap_or_default(),
            _ => &[],
        };
        let mut response = KeyResponse::default();
        match &mut self.config.keyring {
            None if operation == KeyOperation::List => {
                response.message = "Keyring is empty (encryption not enabled)".into();
            }
            None => response.message = "No keyring to modify (encryption not enabled)".into(),
            Some(keyring) => match operate(keyring, operation, key) {
                Ok(()) => response.done = true,
                Err(error) => response.message = error.to_string(),
            },
        }
        if operation == KeyOperation::List {
            response.keys = self.keys();
            response.primary = response.keys.first().cloned().unwrap_or_default();
        } else if response.done {
            self.emit(Event::KeyringChanged(self.keys()));
        }
        let payload = self.fitting(question, response);
        self.answer(question, 0, &payload);
    }

    /// The response, with as many keys as fit into an answer.
    fn fitting(&self, question: &Question, mut response: KeyResponse) -> Vec<u8> {
        let all = response.keys.len();
        loop {
            let mut payload = Vec::new();
            response.encode(&mut payload);
            if self.response_size(question, &payload) <= MAX_QUERY || response.keys.pop().is_none() {
                return payload;
            }
            let shown = response.keys.len();
            response.message = format!("truncated key list response, showing first {shown} of {all} keys");
        }
    }
}

fn operate(keyring: &mut Keyring, operation: KeyOperation, key: &[u8]) -> Result<(), KeyError> {
    match operation {
        KeyOperation::Install => keyring.install(key),
        KeyOperation::Use => keyring.make_primary(key),
        KeyOperation::Remove => keyring.remove(key),
        KeyOperation::List => Ok(()),
    }
}
