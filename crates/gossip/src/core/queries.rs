//! Queries: asked of everybody that a filter leaves, answered directly, and through others when packets get lost.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::events::REMEMBERED;
use super::membership::as_user_message;
use super::{Core, Timer, conflicts, keys};
use crate::event::Event;
use crate::members::Status;
use crate::wire::serf::{FLAG_ACK, FLAG_NO_BROADCAST, Filter, Query, QueryResponse, encode_relay};

/// The longest query and the longest answer, as they are encoded.
pub const MAX_QUERY: usize = 1024;
/// The most queries of this member that run at once.
pub const MAX_RUNNING: usize = 128;
/// The longest a query may run.
pub const LONGEST_QUERY: Duration = Duration::from_secs(600);
/// The most queries of one Lamport time.
const MAX_AT_ONCE: usize = 256;
/// Serf's own queries begin so; they never reach those who listen.
pub(super) const INTERNAL: &str = "_serf_";
/// From this version on a member passes answers on.
const RELAY_SINCE: u8 = 5;

/// Why a query was not asked, or not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is too long.
    #[error("a query or response of {0} bytes exceeds the limit of {MAX_QUERY} bytes")]
    TooLong(usize),
    /// Too many run.
    #[error("{MAX_RUNNING} queries run already; wait for one to end")]
    TooMany,
    /// Its time is over.
    #[error("response is past the deadline")]
    Late,
}

/// Who is asked, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Only these members; all, for none.
    pub nodes: Vec<String>,
    /// Only members whose tags match: names and regular expressions.
    pub tags: Vec<(String, String)>,
    /// Whether to hear who received it.
    pub acknowledge: bool,
    /// Through how many others each answer comes too.
    pub relay: u8,
    /// How long to wait; scaled by the pool's size, for none.
    pub timeout: Option<Duration>,
}

/// Somebody's query, as those who listen get it.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub name: String,
    /// What about it.
    pub payload: Vec<u8>,
    /// Who asks.
    pub from: String,
    pub(super) time: u64,
    pub(super) id: u32,
    source: Option<SocketAddr>,
    relay: u8,
    deadline: Duration,
}

/// The queries that were taken already.
#[derive(Debug)]
pub(super) struct SeenQueries {
    by_time: BTreeMap<u64, Vec<u32>>,
    from: u64,
}

impl SeenQueries {
    /// Queries up to `before` were taken in an earlier life.
    pub(super) fn new(before: u64) -> Self {
        Self { by_time: BTreeMap::new(), from: if before == 0 { 0 } else { before + 1 } }
    }

    /// The latest time of one that was taken.
    pub(super) fn last(&self) -> u64 {
        self.by_time.last_key_value().map_or(self.from.saturating_sub(1), |(time, _)| *time)
    }

    fn take(&mut self, time: u64, id: u32, now: u64) -> bool {
        if time < self.from || time.saturating_add(REMEMBERED) < now {
            return false;
        }
        let ids = self.by_time.entry(time).or_default();
        if ids.contains(&id) || ids.len() >= MAX_AT_ONCE {
            return false;
        }
        ids.push(id);
        let oldest = now.saturating_sub(REMEMBERED);
        while self.by_time.first_key_value().is_some_and(|(time, _)| *time < oldest) {
            self.by_time.pop_first();
        }
        true
    }
}

/// What becomes of the answers to a query of this member.
#[derive(Debug)]
pub(super) enum Purpose {
    /// They are told as they come.
    User,
    /// They are counted.
    Keys(keys::KeyReport),
    /// They are counted.
    Conflict(conflicts::Votes),
}

/// A query of this member that runs.
#[derive(Debug)]
pub(super) struct Running {
    id: u32,
    pub(super) purpose: Purpose,
    received: HashSet<String>,
    answered: HashSet<String>,
}

impl Core {
    /// Asks. Answers the query's time, which its answers carry.
    ///
    /// # Errors
    /// It is too long, or too many run.
    pub fn query(
        &mut self,
        now: Duration,
        name: &str,
        payload: &[u8],
        options: &QueryOptions,
    ) -> Result<u64, QueryError> {
        self.pass(now);
        self.ask(name, payload, options, Purpose::User)
    }

    pub(super) fn ask(
        &mut self,
        name: &str,
        payload: &[u8],
        options: &QueryOptions,
        purpose: Purpose,
    ) -> Result<u64, QueryError> {
        if self.running.len() >= MAX_RUNNING {
            return Err(QueryError::TooMany);
        }
        let mut filters = Vec::new();
        if !options.nodes.is_empty() {
            filters.push(Filter::Nodes(options.nodes.iter().map(String::as_str).collect()).encode());
        }
        filters.extend(options.tags.iter().map(|(tag, expression)| Filter::Tag { tag, expression }.encode()));
        let timeout = options.timeout.unwrap_or_else(|| self.default_query_timeout()).min(LONGEST_QUERY);
        let source_node = self.config.name.clone();
        let query = Query {
            time: self.query_clock.time(),
            id: (self.rng.next_u64() >> 33) as u32,
            source: Some(self.config.address),
            source_node: &source_node,
            filters: filters.iter().map(Vec::as_slice).collect(),
            flags: if options.acknowledge { FLAG_ACK } else { 0 },
            relay: options.relay,
            timeout,
            name,
            payload,
        };
        let mut message = Vec::new();
        query.encode(&mut message);
        if message.len() > MAX_QUERY {
            return Err(QueryError::TooLong(message.len()));
        }
        let running = Running { id: query.id, purpose, received: HashSet::new(), answered: HashSet::new() };
        self.running.insert(query.time, running);
        self.timers.set(self.now + timeout, Timer::QueryDeadline(query.time));
        self.hear_query(&query);
        self.queue_question(&message);
        Ok(query.time)
    }

    fn default_query_timeout(&self) -> Duration {
        let timing = self.config.timing;
        let scale = ((self.living + 1) as f64).log10().ceil().max(1.0) as u32;
        timing.gossip_interval * timing.query_timeout * scale
    }

    pub(super) fn queue_question(&mut self, message: &[u8]) {
        let mut done = Vec::new();
        self.questions.push(as_user_message(message), None, None, &mut done);
        self.told(done);
        self.wake_gossip();
    }

    /// A query came. Answers whether it is worth passing on.
    pub(super) fn hear_query(&mut self, query: &Query<'_>) -> bool {
        self.query_clock.witness(query.time);
        if !self.seen_queries.take(query.time, query.id, self.query_clock.time()) {
            return false;
        }
        let pass_on = query.flags & FLAG_NO_BROADCAST == 0;
        if !self.is_meant(&query.filters) {
            return pass_on;
        }
        let question = Question {
            name: query.name.to_owned(),
            payload: query.payload.to_vec(),
            from: query.source_node.to_owned(),
            time: query.time,
            id: query.id,
            source: query.source,
            relay: query.relay,
            deadline: self.now + query.timeout.min(LONGEST_QUERY),
        };
        if query.flags & FLAG_ACK != 0 {
            self.answer(&question, FLAG_ACK, &[]);
        }
        match query.name.strip_prefix(INTERNAL) {
            Some(internal) => self.hear_internal_query(internal, &question),
            None => self.emit(Event::Query(question)),
        }
        pass_on
    }

    /// Answers somebody's query.
    ///
    /// # Errors
    /// The answer is too long or too late.
    pub fn respond(&mut self, now: Duration, question: &Question, payload: &[u8]) -> Result<(), QueryError> {
        self.pass(now);
        if self.now > question.deadline {
            return Err(QueryError::Late);
        }
        let size = self.response_size(question, payload);
        if size > MAX_QUERY {
            return Err(QueryError::TooLong(size));
        }
        self.answer(question, 0, payload);
        Ok(())
    }

    fn encode_response(&self, question: &Question, flags: u32, payload: &[u8]) -> Vec<u8> {
        let (time, id, from) = (question.time, question.id, self.config.name.as_str());
        let mut message = Vec::new();
        QueryResponse { time, id, from, flags, payload }.encode(&mut message);
        message
    }

    pub(super) fn response_size(&self, question: &Question, payload: &[u8]) -> usize {
        self.encode_response(question, 0, payload).len()
    }

    pub(super) fn answer(&mut self, question: &Question, flags: u32, payload: &[u8]) {
        let Some(to) = question.source else { return };
        let message = self.encode_response(question, flags, payload);
        self.send_serf(to, &message);
        if question.relay == 0 || self.members.len() < usize::from(question.relay) + 1 {
            return;
        }
        let mut relayed = Vec::new();
        encode_relay(to, &question.from, &message, &mut relayed);
        if relayed.len() > MAX_QUERY {
            return;
        }
        let helpers = self.random_members(usize::from(question.relay), |slot| {
            slot.status == Status::Alive && slot.record.versions().protocol_max >= RELAY_SINCE
        });
        for helper in helpers {
            if let Some(slot) = self.members.get(helper) {
                let address = slot.record.address();
                self.send_serf(address, &relayed);
            }
        }
    }

    pub(super) fn hear_query_response(&mut self, response: &QueryResponse<'_>) {
        let Some(running) = self.running.get_mut(&response.time) else { return };
        if running.id != response.id || running.received.len() + running.answered.len() > 2 * self.members.len() {
            return;
        }
        let query = response.time;
        if response.flags & FLAG_ACK != 0 {
            if running.received.insert(response.from.to_owned()) {
                self.emit(Event::QueryReceived { query, from: response.from.to_owned() });
            }
            return;
        }
        if !running.answered.insert(response.from.to_owned()) {
            return;
        }
        match &mut running.purpose {
            Purpose::User => {
                let (from, payload) = (response.from.to_owned(), response.payload.to_vec());
                self.emit(Event::QueryAnswered { query, from, payload });
            }
            Purpose::Keys(report) => {
                report.count(response.from, response.payload);
                // Nobody is left to answer.
                if report.responses >= report.members {
                    self.query_ended(query);
                }
            }
            Purpose::Conflict(votes) => votes.count(response.payload, self.config.address),
        }
    }

    pub(super) fn query_ended(&mut self, query: u64) {
        let Some(running) = self.running.remove(&query) else { return };
        match running.purpose {
            Purpose::User => self.emit(Event::QueryEnded { query }),
            Purpose::Keys(report) => self.emit(Event::Keys { query, report }),
            Purpose::Conflict(votes) => self.conflict_decided(votes),
        }
    }
}
