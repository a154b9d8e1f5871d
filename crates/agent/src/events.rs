//! User events at an agent: a ring of the last ones that were meant for it.
//!
//! ```text
//!  PUT /v1/event/fire ─> the leader's ring ─> every server's ring ─> every agent's ring ─> GET /v1/event/list
//! ```
//!
//! Each step is a long poll of the one before it ([`Ring`] keeps what is asked for). The leader tells the gossip pool too, and a
//! client that gossips with servers has its events from there and asks nobody; an event that comes twice is one. Nothing is on disk: an event is delivered
//! at most once, in no order that is promised, and not to who was away when it was overwritten or its server ended.
//!
//! Invariants
//! - A ring holds [`EVENTS_MAX`] events, and takes none whose id is among the last [`IDS_MAX`] that it took.
//! - An agent takes no event that is older than itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lictor_types::event::{EVENT_VERSION, EventBatch, FollowEvents, PAYLOAD_BYTES_MAX, UserEvent};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Credential, Refusal};
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use tokio::sync::watch;

use crate::agent::Agent;

/// Events that a ring holds; the oldest goes first.
pub const EVENTS_MAX: usize = 256;
/// Ids that a ring remembers: as many as could come again by changing to the rings of servers that are behind.
const IDS_MAX: usize = 4 * EVENTS_MAX;
/// How long a server is asked to wait for an event.
pub const FOLLOW_WAIT: Duration = Duration::from_secs(60);
/// Between a failed question and the next, times the failures in a row.
const RETRY_STEP: Duration = Duration::from_millis(250);
/// The longest pause between two questions.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Bytes of the longest filter.
const FILTER_BYTES_MAX: usize = 512;
/// Bytes of memory that a compiled filter may take.
const EXPRESSION_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 256;

/// The last events, and who waits for the next one.
pub struct Ring {
    id: String,
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    /// Events with their places.
    events: VecDeque<(u64, UserEvent)>,
    /// The ids of those, and of some that were there before.
    ids: VecDeque<String>,
    /// The place of the last one.
    place: u64,
    clock: u64,
}

impl Ring {
    /// An empty ring. Its id tells it from others, and from itself before its process ended.
    pub fn new(id: String) -> Self {
        Self { id, kept: Mutex::default(), last: watch::channel(0).0 }
    }

    /// Keeps an event that has its Lamport time; whether it was new.
    pub fn push(&self, event: UserEvent) -> bool {
        let mut kept = self.kept.lock();
        if kept.ids.contains(&event.id) {
            return false;
        }
        kept.ids.push_back(event.id.clone());
        if kept.ids.len() > IDS_MAX {
            kept.ids.pop_front();
        }
        kept.clock = kept.clock.max(event.lamport_time);
        kept.place += 1;
        let place = kept.place;
        kept.events.push_back((place, event));
        if kept.events.len() > EVENTS_MAX {
            kept.events.pop_front();
        }
        drop(kept);
        self.last.send_replace(place);
        true
    }

    /// Keeps an event that is sent here, one tick after the newest.
    pub fn fire(&self, event: UserEvent) {
        let lamport_time = self.kept.lock().clock + 1;
        self.push(UserEvent { lamport_time, ..event });
    }

    /// The events that are kept, the oldest first.
    pub fn events(&self) -> Vec<UserEvent> {
        self.kept.lock().events.iter().map(|(_, event)| event.clone()).collect()
    }

    /// Becomes another number with every event.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The events after the place that was asked for, waiting for one if there is none.
    pub async fn follow(&self, asked: &FollowEvents) -> EventBatch {
        let mut changes = self.changes();
        changes.borrow_and_update();
        let batch = self.after(asked);
        if asked.ring != self.id || !batch.events.is_empty() {
            return batch;
        }
        let wait = Duration::from_millis(asked.wait_millis).min(FOLLOW_WAIT);
        // Either way what there is now is the answer.
        let _ = tokio::time::timeout(wait, changes.changed()).await;
        self.after(asked)
    }

    fn after(&self, asked: &FollowEvents) -> EventBatch {
        let kept = self.kept.lock();
        let from = match asked.ring.as_str() {
            "" => kept.place,
            ring if ring == self.id => asked.after,
            _ => 0,
        };
        let events = kept.events.iter().filter(|(place, _)| *place > from).map(|(_, event)| event.clone()).collect();
        EventBatch { ring: self.id.clone(), next: kept.place, clock: kept.clock, events }
    }
}

/// What remembers where a ring was read up to.
#[derive(Default)]
pub struct Cursor {
    ring: String,
    after: u64,
    /// Events up to this Lamport time are older than the reader.
    floor: u64,
}

impl Cursor {
    /// One that takes what a ring holds already, too.
    pub fn from_the_start() -> Self {
        // No ring has this id, so the first answer is all of it.
        Self { ring: "none".into(), ..Self::default() }
    }

    /// What to ask for next.
    pub fn question(&self) -> FollowEvents {
        FollowEvents { ring: self.ring.clone(), after: self.after, wait_millis: FOLLOW_WAIT.as_millis() as u64 }
    }

    /// The events of an answer that are not older than the reader.
    pub fn take(&mut self, batch: EventBatch) -> Vec<UserEvent> {
        // Before its first answer a reader has missed nothing; and clocks begin anew when all servers do.
        if self.ring.is_empty() || batch.clock < self.floor {
            self.floor = if self.ring.is_empty() { batch.clock } else { 0 };
        }
        self.ring = batch.ring;
        self.after = batch.next;
        let floor = self.floor;
        batch.events.into_iter().filter(|event| event.lamport_time > floor).collect()
    }
}

/// Follows the servers' events and keeps those that are meant for this agent, until it is dropped.
pub async fn follow(agent: Arc<Agent>) {
    let mut cursor = Cursor::default();
    let mut failures = 0u32;
    loop {
        // Where gossip brings events nobody needs to be asked for them; a server's agent asks its own server, which is dear to
        // nobody.
        if !agent.identity.server && agent.pools.hears_a_server().await {
            tokio::time::sleep(FOLLOW_WAIT).await;
            continue;
        }
        let question = Operation::FollowEvents(cursor.question());
        match agent.datacenter.operate(&Credential::anonymous(), question).await {
            Ok(Report::Events(batch)) => {
                failures = 0;
                for event in cursor.take(batch) {
                    take(&agent, event);
                }
            }
            Ok(_) => failures += 1,
            Err(refusal) => {
                tracing::debug!(%refusal, "cannot follow user events");
                failures += 1;
            }
        }
        if failures > 0 {
            tokio::time::sleep((RETRY_STEP * failures).min(RETRY_MAX)).await;
        }
    }
}

/// Keeps an event if it is meant for this agent and new.
pub(crate) fn take(agent: &Agent, event: UserEvent) {
    if is_meant(&event, agent) && agent.events.push(event.clone()) {
        tracing::debug!(name = event.name, id = event.id, "new event");
    }
}

/// Whether an event can be sent at all; in Consul's words.
///
/// # Errors
/// What is wrong with it.
pub fn check(event: &UserEvent) -> Result<(), Refusal> {
    if event.name.is_empty() {
        return Err(Refusal::failed("User event missing name"));
    }
    if event.name.len() > NAME_BYTES_MAX {
        let text = format!("the name has {} bytes, at most {NAME_BYTES_MAX} are allowed", event.name.len());
        return Err(Refusal::bad_request(text));
    }
    if event.payload.len() > PAYLOAD_BYTES_MAX {
        let received = event.payload.len();
        return Err(Refusal::new(
            RefusalKind::TooLarge,
            format!("Event payload too large, received {received} bytes, max size: {PAYLOAD_BYTES_MAX} bytes."),
        ));
    }
    if !event.tag_filter.is_empty() && event.service_filter.is_empty() {
        return Err(Refusal::failed("Cannot provide tag filter without service filter"));
    }
    for (what, filter) in [("node", &event.node_filter), ("service", &event.service_filter), ("tag", &event.tag_filter)]
    {
        self::filter(what, filter)?;
    }
    Ok(())
}

/// What a filter that stands in a request finds.
///
/// # Errors
/// In Consul's words: it is no regular expression.
pub(crate) fn filter(what: &str, text: &str) -> Result<Regex, Refusal> {
    expression(text).map_err(|reason| Refusal::failed(format!("Invalid {what} filter: {reason}")))
}

fn expression(text: &str) -> Result<Regex, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {FILTER_BYTES_MAX} are allowed", text.len()));
    }
    RegexBuilder::new(text).size_limit(EXPRESSION_BYTES_MAX).build().map_err(|error| {
        let words = error.to_string();
        let reason = words.rsplit("error: ").next().unwrap_or_default().trim();
        format!("error parsing regexp: {reason}: `{text}`")
    })
}

/// Whether this agent is one that the event is for.
fn is_meant(event: &UserEvent, agent: &Agent) -> bool {
    let services = agent.local.services();
    let services: Vec<(&str, &[String])> =
        services.values().map(|service| (service.id_text(), service.tags.as_slice())).collect();
    passes(event, agent.identity.node_name.as_str(), &services)
}

fn passes(event: &UserEvent, node: &str, services: &[(&str, &[String])]) -> bool {
    if event.version > EVENT_VERSION {
        tracing::warn!(version = event.version, name = event.name, "an event of a version that is not spoken here");
        return false;
    }
    let found = |filter: &str, text: &str| expression(filter).is_ok_and(|expression| expression.is_match(text));
    if !event.node_filter.is_empty() && !found(&event.node_filter, node) {
        return false;
    }
    if event.service_filter.is_empty() {
        return true;
    }
    services.iter().any(|(id, tags)| {
        found(&event.service_filter, id)
            && (event.tag_filter.is_empty() || tags.iter().any(|tag| found(&event.tag_filter, tag)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64) -> UserEvent {
        UserEvent {
            id: format!("{id:032x}"),
            name: "deploy".into(),
            payload: Vec::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            version: EVENT_VERSION,
            lamport_time: 0,
        }
    }

    fn ids(events: &[UserEvent]) -> Vec<u64> {
        events.iter().map(|event| u64::from_str_radix(&event.id, 16).unwrap()).collect()
    }

    #[test]
    fn a_ring_keeps_the_newest_and_no_event_twice() {
        let ring = Ring::new("r".into());
        for id in 0..300 {
            ring.fire(event(id));
        }
        assert!(!ring.push(event(299)));
        assert!(!ring.push(event(3)), "one that it no longer holds came again");
        let events = ring.events();
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(ids(&events)[..2], [44, 45]);
        assert_eq!(events.last().map(|event| event.lamport_time), Some(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_each_event_once_and_none_of_before_its_time() {
        let ring = Ring::new("r".into());
        let mut cursor = Cursor::default();
        ring.fire(event(1));
        assert!(cursor.take(ring.follow(&cursor.question()).await).is_empty());
        ring.fire(event(2));
        assert_eq!(ids(&cursor.take(ring.follow(&cursor.question()).await)), [2]);
        let question = cursor.question();
        let (batch, ()) = tokio::join!(ring.follow(&question), async { ring.fire(event(3)) });
        assert_eq!(ids(&cursor.take(batch)), [3]);
        // Nobody fires: the wait has an end.
        assert!(cursor.take(ring.follow(&cursor.question()).await).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_another_server_a_reader_catches_up_with_what_it_missed() {
        let (one, other) = (Ring::new("one".into()), Ring::new("other".into()));
        one.fire(event(1));
        other.push(one.events().remove(0));
        let mut cursor = Cursor::default();
        cursor.take(one.follow(&cursor.question()).await);
        other.fire(event(2));
        assert_eq!(ids(&cursor.take(other.follow(&cursor.question()).await)), [2]);
        // All servers began anew, so their clock is behind.
        let fresh = Ring::new("fresh".into());
        cursor.floor = 10;
        fresh.fire(event(3));
        assert_eq!(ids(&cursor.take(fresh.follow(&cursor.question()).await)), [3]);
    }

    #[test]
    fn an_event_is_for_whom_its_filters_find() {
        let tags = ["v1".to_owned(), "primary".to_owned()];
        let services: [(&str, &[String]); 2] = [("web-1", &tags), ("db", &[])];
        let passes = |node: &str, service: &str, tag: &str| {
            let filtered = UserEvent {
                node_filter: node.into(),
                service_filter: service.into(),
                tag_filter: tag.into(),
                ..event(1)
            };
            check(&filtered).unwrap();
            passes(&filtered, "node-7", &services)
        };
        assert!(
            passes("", "", "") && passes("^node-\\d$", "", "") && passes("", "web", "") && passes("7", "web", "^v")
        );
        assert!(
            !passes("^7", "", "") && !passes("", "^eb", "") && !passes("", "db", "v1") && !passes("8", "web", "v1")
        );
        assert!(!super::passes(&UserEvent { version: 2, ..event(1) }, "n", &[]));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_consuls_words() {
        let refused = |event: UserEvent| check(&event).unwrap_err().text;
        assert_eq!(
            refused(UserEvent { payload: vec![0; 301], ..event(1) }),
            "Event payload too large, received 301 bytes, max size: 300 bytes."
        );
        assert_eq!(
            refused(UserEvent { tag_filter: "a".into(), ..event(1) }),
            "Cannot provide tag filter without service filter"
        );
        assert!(
            refused(UserEvent { node_filter: "(".into(), ..event(1) })
                .starts_with("Invalid node filter: error parsing regexp: unclosed group")
        );
    }
}
