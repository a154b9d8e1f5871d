//! A member of a pool without sockets, clock and randomness of its own.
//!
//! ```text
//!  packet, stream, time, command ──> Core ──> packets, streams to open, events
//! ```
//!
//! Every input carries the time: a duration since any fixed moment. After an input, take what [`Core::poll`] has, and call
//! [`Core::handle_timers`] at [`Core::next_wake`].
//!
//! Invariants
//! - Same inputs and same randomness, same outputs.
//! - An older word about a member never beats a newer one: a member that left or died does not come back but by its own word.
//! - Every table here has a limit: members by [`Config::max_members`], queues, queries and intents by the constants below.

mod conflicts;
mod detector;
mod events;
mod exchange;
mod filters;
mod keys;
mod lifecycle;
mod membership;
mod queries;
mod rumours;
mod sending;
mod timers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lictor_runtime::Rng;

use crate::broadcast::{Broadcasts, Told};
use crate::config::Config;
use crate::coordinate::{Coordinate, Locator};
use crate::event::{Event, Member};
use crate::lamport::LamportClock;
use crate::members::{Life, Members, Moment, Place, Slot, Status};
use crate::record::{Record, RecordPool};
use crate::suspicion::{Awareness, Suspicion};
use crate::wire::swim::Alive;
use crate::wire::{WireError, tags};
use timers::{Timer, Timers};

pub use events::{EventError, MAX_EVENT};
pub use exchange::ExchangeId;
pub use keys::{KeyOperation, KeyReport};
pub use queries::{LONGEST_QUERY, MAX_QUERY, MAX_RUNNING, QueryError, QueryOptions, Question};

/// The most messages that wait in one queue.
pub const MAX_BROADCASTS: usize = 8192;
/// The most outputs that wait for [`Core::poll`]; packets beyond are lost, as packets are.
pub const MAX_OUTPUTS: usize = 65_536;
/// How many packet buffers are kept to be used again.
const SPARE_BUFFERS: usize = 32;

/// What a core wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a packet. Give the buffer back with [`Core::recycle`] if you like.
    Packet {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Open a stream, write this, read one whole message and hand it to [`Core::exchange_ended`].
    Exchange {
        /// To be handed back.
        id: ExchangeId,
        /// To whom.
        to: SocketAddr,
        /// What to write.
        bytes: Vec<u8>,
        /// How long it may take.
        within: Duration,
    },
    /// Something happened.
    Event(Event),
}

/// How far leaving has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Present,
    /// The intent is being told.
    Intending,
    /// The farewell is being told.
    Departing,
    /// The farewell is being passed on.
    Fading,
    Gone,
}

/// A member of a pool. See the module's text.
pub struct Core {
    config: Config,
    rng: Arc<dyn Rng>,
    now: Duration,
    outputs: VecDeque<Output>,
    timers: Timers,
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,

    members: Members,
    me: Place,
    incarnation: u32,
    sequence: u32,
    /// The members that the failure detector has, in the order of probing.
    order: Vec<Place>,
    next_probe: usize,
    /// How many of `order` are neither dead nor left.
    living: usize,
    probes: HashMap<u32, detector::Probe>,
    relays: HashMap<u32, detector::Relay>,
    suspicions: HashMap<Place, Suspicion>,
    challenged: HashMap<Place, Duration>,
    awareness: Awareness,
    locator: Locator,

    rumours: Broadcasts,
    intents: Broadcasts,
    questions: Broadcasts,
    user_events: Broadcasts,
    gossip_at: Option<Duration>,
    last_gossip: Option<Duration>,

    exchanges: HashMap<ExchangeId, exchange::Purpose>,
    next_exchange: u64,
    joins: HashMap<u64, exchange::Join>,
    rejoin: VecDeque<SocketAddr>,

    clock: LamportClock,
    event_clock: LamportClock,
    query_clock: LamportClock,
    failed: Vec<Place>,
    left: Vec<Place>,
    early_intents: HashMap<Box<str>, membership::EarlyIntent>,
    phase: Phase,
    /// When the present phase has taken long enough.
    phase_ends: Duration,
    removals: HashSet<u64>,
    seen_events: events::SeenEvents,
    seen_queries: queries::SeenQueries,
    running: HashMap<u64, queries::Running>,
    conflict_query: bool,
    /// When the pool was last told of this member's new address.
    told_of_move: Option<Duration>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Core").field("name", &self.config.name).field("members", &self.members.len()).finish()
    }
}

impl Core {
    /// A member that knows itself alone.
    ///
    /// # Errors
    /// Its tags do not fit into meta data, or its name or label is empty where it must not be or too long.
    pub fn new(config: Config, rng: Arc<dyn Rng>, pool: RecordPool, now: Duration) -> Result<Self, WireError> {
        let meta = tags::encode(&config.tags)?;
        if config.name.is_empty() || config.name.len() > crate::wire::MAX_NAME {
            return Err(WireError::TooLarge { what: "the name of a member", limit: crate::wire::MAX_NAME });
        }
        if config.label.len() > crate::wire::MAX_LABEL {
            return Err(WireError::TooLarge { what: "the label", limit: crate::wire::MAX_LABEL });
        }
        let incarnation = 1;
        let (node, address, versions) = (config.name.as_str(), config.address, config.versions());
        let record = pool.record(&Alive { incarnation, node, address, meta: &meta, versions });
        let mut members = Members::new(pool);
        let (life, status) = (Life::Alive, Status::Alive);
        let me = members.insert(Slot { record, status_time: 0, incarnation, changed: Moment::of(now), life, status });
        let mut core = Self {
            awareness: Awareness::new(config.timing.awareness),
            seen_events: events::SeenEvents::new(config.clocks.events),
            seen_queries: queries::SeenQueries::new(config.clocks.queries),
            config,
            rng,
            now,
            outputs: VecDeque::new(),
            timers: Timers::default(),
            spare: Vec::new(),
            scratch: Vec::new(),
            members,
            me,
            incarnation,
            sequence: 0,
            order: vec![me],
            next_probe: 0,
            living: 1,
            probes: HashMap::new(),
            relays: HashMap::new(),
            suspicions: HashMap::new(),
            challenged: HashMap::new(),
            locator: Locator::default(),
            rumours: Broadcasts::new(MAX_BROADCASTS),
            intents: Broadcasts::new(MAX_BROADCASTS),
            questions: Broadcasts::new(MAX_BROADCASTS),
            user_events: Broadcasts::new(MAX_BROADCASTS),
            gossip_at: None,
            last_gossip: None,
            exchanges: HashMap::new(),
            next_exchange: 0,
            joins: HashMap::new(),
            rejoin: VecDeque::new(),
            clock: LamportClock::default(),
            event_clock: LamportClock::default(),
            query_clock: LamportClock::default(),
            failed: Vec::new(),
            left: Vec::new(),
            early_intents: HashMap::new(),
            phase: Phase::Present,
            phase_ends: Duration::ZERO,
            removals: HashSet::new(),
            running: HashMap::new(),
            conflict_query: false,
            told_of_move: None,
        };
        core.start();
        Ok(core)
    }

    fn start(&mut self) {
        for (clock, seen) in [
            (&mut self.clock, self.config.clocks.members),
            (&mut self.event_clock, self.config.clocks.events),
            (&mut self.query_clock, self.config.clocks.queries),
        ] {
            clock.increment();
            clock.witness(seen);
        }
        // Members that start together do not beat together.
        let timing = self.config.timing;
        for (interval, timer) in [
            (timing.probe_interval, Timer::Probe),
            (timing.push_pull_interval, Timer::PushPull),
            (timing.reap_interval, Timer::Reap),
            (timing.reconnect_interval, Timer::Reconnect),
        ] {
            let stagger = self.random_below(interval);
            self.timers.set(self.now + interval.min(timing.probe_interval) + stagger, timer);
        }
    }

    /// A core of a pool that stands already, all of whose members it knows: for simulations, which cannot wait for thousands to
    /// join one by one. Nothing is told to anybody.
    pub fn assume_members(&mut self, records: &[Arc<Record>]) {
        self.members.reserve(records.len());
        self.order.reserve_exact(records.len());
        for record in records {
            if record.is_named(&self.config.name) {
                continue;
            }
            let place = self.members.insert(Slot {
                record: record.clone(),
                status_time: 0,
                incarnation: 1,
                changed: Moment::of(self.now),
                life: Life::Alive,
                status: Status::Alive,
            });
            self.order.push(place);
            self.living += 1;
        }
        self.shuffle_order();
    }

    /// The record of this member.
    pub fn own_record(&self) -> Arc<Record> {
        match self.members.get(self.me) {
            Some(slot) => slot.record.clone(),
            // The own slot is made with the core and never removed.
            None => unreachable!("a core knows itself"),
        }
    }

    /// What to do next; none when all is done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Core::handle_timers`] wants to be called.
    pub fn next_wake(&self) -> Duration {
        self.timers.next().unwrap_or(Duration::MAX)
    }

    /// Takes back the buffer of a packet.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Time has passed.
    pub fn handle_timers(&mut self, now: Duration) {
        self.pass(now);
        while let Some(timer) = self.timers.pop(self.now) {
            if self.phase == Phase::Gone {
                return;
            }
            match timer {
                Timer::Probe => self.probe_next(),
                Timer::ProbeTimeout(sequence) => self.probe_timed_out(sequence),
                Timer::ProbeDeadline(sequence) => self.probe_ended(sequence),
                Timer::RelayTimeout(sequence) => self.relay_timed_out(sequence),
                Timer::Gossip => self.gossip(),
                Timer::PushPull => self.push_pull(),
                Timer::Suspicion(place) => self.suspicion_ended(place),
                Timer::Reap => self.reap(),
                Timer::Reconnect => self.reconnect(),
                Timer::QueryDeadline(time) => self.query_ended(time),
                Timer::Leave if self.now >= self.phase_ends => self.leave_step(),
                Timer::Leave => {}
                Timer::Removal(number) => self.removal_told(number, false),
                Timer::Prune(place, status_time) => self.prune_later(place, status_time),
            }
        }
    }

    fn pass(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn random_below(&self, limit: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(limit.as_nanos() as u64))
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn told(&mut self, done: Vec<Told>) {
        for told in done {
            match told {
                Told::LeaveIntent if self.phase == Phase::Intending => self.leave_step(),
                Told::Farewell if self.phase == Phase::Departing => self.leave_step(),
                Told::Removal(number) => self.removal_told(number, true),
                Told::Tags => self.emit(Event::TagsTold),
                Told::LeaveIntent | Told::Farewell => {}
            }
        }
    }

    fn own_slot(&self) -> Option<&Slot> {
        self.members.get(self.me)
    }

    fn queue_rumour(&mut self, bytes: Bytes, about: Place, told: Option<Told>) {
        let mut done = Vec::new();
        self.rumours.push(bytes, Some(about), told, &mut done);
        self.told(done);
        self.wake_gossip();
    }

    /// Everybody this member knows, itself included.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.members.iter().map(|(_, slot)| Member { record: slot.record.clone(), status: slot.status })
    }

    /// One member.
    pub fn member(&self, name: &str) -> Option<Member> {
        let slot = self.members.get(self.members.place(name)?)?;
        Some(Member { record: slot.record.clone(), status: slot.status })
    }

    /// How many members there are, whatever their status.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// How many are not dead and have not left.
    pub fn living_count(&self) -> usize {
        self.living
    }

    /// Where this member lies.
    pub fn coordinate(&self) -> Coordinate {
        self.locator.own()
    }

    /// Where that member said it lies.
    pub fn coordinate_of(&self, name: &str) -> Option<Coordinate> {
        let place = self.members.place(name)?;
        if place == self.me { Some(self.locator.own()) } else { self.locator.of(place) }
    }

    /// The last times of joins and leaves, events and queries that were seen: what a snapshot remembers.
    pub fn seen_clocks(&self) -> crate::wire::serf::Clocks {
        crate::wire::serf::Clocks {
            members: self.clock.time().saturating_sub(1),
            events: self.seen_events.last(),
            queries: self.seen_queries.last(),
        }
    }

    /// Figures for people, with Serf's names.
    pub fn stats(&self) -> Vec<(&'static str, String)> {
        vec![
            ("members", self.members.len().to_string()),
            ("failed", self.failed.len().to_string()),
            ("left", self.left.len().to_string()),
            ("health_score", self.awareness.score().to_string()),
            ("member_time", self.clock.time().to_string()),
            ("event_time", self.event_clock.time().to_string()),
            ("query_time", self.query_clock.time().to_string()),
            ("intent_queue", self.intents.len().to_string()),
            ("event_queue", self.user_events.len().to_string()),
            ("query_queue", self.questions.len().to_string()),
            ("encrypted", self.config.keyring.is_some().to_string()),
            ("coordinate_resets", self.locator.resets().to_string()),
        ]
    }

    /// The keys in base64, the primary first; none for a pool without.
    pub fn keys(&self) -> Vec<String> {
        self.config.keyring.as_ref().map(crate::keyring::Keyring::to_base64).unwrap_or_default()
    }
}
