//! The sockets of a pool's member, and the one task that owns its core.
//!
//! ```text
//!  UDP ──────────────────────────> ┌────────┐ ──> UDP
//!  TCP ─> a task per stream ─────> │  task  │ ──> a task per stream ─> TCP
//!  handles ──bounded queue───────> │ + Core │ ──> events, snapshot file, keyring file
//!  timer ────────────────────────> └────────┘
//! ```
//!
//! Invariants
//! - Nobody but the task touches the core.
//! - Streams, their bytes altogether, commands and events have limits; what is beyond is refused, or told as lost.

mod files;
mod handle;
mod streams;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::fs::Fs;
use lictor_runtime::{Resolver, Rng, Tasks};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Config;
use crate::core::{Core, ExchangeId, Output};
use crate::event::Event;
use crate::keyring::KeyError;
use crate::record::RecordPool;
use crate::wire::WireError;
use files::Files;
pub use handle::{Answer, Answers, Gossip, GossipError};
use handle::{Command, Wait};
use streams::Inbound;

/// The most commands that wait.
const MAX_COMMANDS: usize = 64;
/// The most events that a slow listener may be behind.
const MAX_EVENTS: usize = 256;
/// The most packets that are read at a time.
const PACKETS_AT_ONCE: usize = 64;
/// The largest packet that is read: what UDP can carry.
const LARGEST_PACKET: usize = 64 * 1024;
/// The longest the task sleeps when nothing is to be done.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How often the task tries to find one port for packets and streams.
const BIND_ATTEMPTS: usize = 10;

/// What a member of a pool needs from outside.
pub struct Settings {
    /// What it is. The port of its address may be 0: that of the socket is taken then.
    pub config: Config,
    /// Where it listens, for packets and streams.
    pub bind: SocketAddr,
    /// Where it remembers whom it knew, to join them when it starts again.
    pub snapshot: Option<PathBuf>,
    /// Whether it joins those again though it left.
    pub rejoin_after_leave: bool,
    /// Where changed keys are kept: a JSON list, the primary first.
    pub keyring_file: Option<PathBuf>,
    /// The file system of both files.
    pub files: Arc<dyn Fs>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Where names to join become addresses.
    pub resolver: Resolver,
    /// Records shared with other pools of this process.
    pub records: RecordPool,
}

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sockets.
    #[error(
        "cannot listen for gossip on {address}: {error}; name another port, or -1 to go without (ports.serf_lan, ports.serf_wan)"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// No address to tell others.
    #[error("the address {0} cannot be told to others: give one they can reach")]
    Unspecified(SocketAddr),
    /// The configuration.
    #[error("the gossip configuration is refused: {0}")]
    Config(#[from] WireError),
    /// The keys.
    #[error("the gossip keys are refused: {0}")]
    Keyring(#[from] KeyError),
    /// The snapshot.
    #[error("cannot open the gossip snapshot: {0}")]
    Snapshot(io::Error),
}

/// Packets and streams on one port.
async fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let streams = TcpListener::bind(address).await?;
        match UdpSocket::bind(streams.local_addr()?).await {
            Ok(packets) => return Ok((streams, packets)),
            // A free port for streams may be taken for packets.
            Err(_) if address.port() == 0 && attempts < BIND_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

impl Gossip {
    /// Starts a member; its tasks belong to `tasks`.
    ///
    /// # Errors
    /// It cannot listen, its configuration is refused, or its snapshot cannot be opened.
    pub async fn start(settings: Settings, tasks: &Tasks) -> Result<Self, StartError> {
        let Settings { mut config, bind: address, files: fs, .. } = settings;
        let (streams, packets) = bind(address).await.map_err(|error| StartError::Bind { address, error })?;
        let bound = streams.local_addr().map_err(|error| StartError::Bind { address, error })?;
        if config.address.port() == 0 {
            config.address.set_port(bound.port());
        }
        if config.address.ip().is_unspecified() {
            return Err(StartError::Unspecified(config.address));
        }
        let own = config.address;
        let name = config.name.clone();
        let (files, remembered) =
            Files::open(fs, settings.snapshot, settings.rejoin_after_leave, settings.keyring_file)
                .map_err(StartError::Snapshot)?;
        config.clocks = remembered.clocks;
        let stream_timeout = config.timing.stream_timeout;
        let mut core = Core::new(config, settings.rng.clone(), settings.records, Duration::ZERO)?;
        let mut before: Vec<SocketAddr> =
            remembered.alive.iter().filter(|(other, _)| **other != name).map(|(_, address)| *address).collect();
        for at in (1..before.len()).rev() {
            before.swap(at, settings.rng.below(at as u64 + 1) as usize);
        }
        core.rejoin(Duration::ZERO, before);

        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let (inbound, arrived) = mpsc::channel(MAX_COMMANDS);
        streams::accept(streams, inbound, stream_timeout, tasks);
        let (results, ended) = mpsc::channel(MAX_COMMANDS);
        let member = Driver {
            core,
            files,
            packets,
            tasks: tasks.clone(),
            start: Instant::now(),
            commands: received,
            arrived,
            results,
            ended,
            events: events.clone(),
            waiting: HashMap::new(),
            answers: HashMap::new(),
        };
        tasks.spawn_to_end(member.run());
        Ok(Self { commands, events, address: own, resolver: settings.resolver })
    }
}

struct Driver {
    core: Core,
    files: Files,
    packets: UdpSocket,
    tasks: Tasks,
    start: Instant,
    commands: mpsc::Receiver<Command>,
    arrived: mpsc::Receiver<Inbound>,
    results: mpsc::Sender<(ExchangeId, Result<Vec<u8>, String>)>,
    ended: mpsc::Receiver<(ExchangeId, Result<Vec<u8>, String>)>,
    events: broadcast::Sender<Event>,
    waiting: HashMap<Wait, Vec<oneshot::Sender<Event>>>,
    answers: HashMap<u64, mpsc::Sender<Answer>>,
}

impl Driver {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn run(mut self) {
        let mut buffer = vec![0; LARGEST_PACKET];
        let stopping = self.tasks.clone();
        self.settle().await;
        loop {
            let now = self.now();
            let next = self.core.next_wake().min(self.files.next_flush(now));
            let wake = self.start + next.min(now + LONGEST_SLEEP);
            tokio::select! {
                biased;
                () = stopping.stopping() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // Nobody holds a handle any longer.
                    None => break,
                },
                Some((id, result)) = self.ended.recv() => {
                    let now = self.now();
                    self.core.exchange_ended(now, id, result);
                }
                Some(Inbound { from, stream, reply }) = self.arrived.recv() => {
                    let now = self.now();
                    // Who no longer waits needs no answer.
                    let _ = reply.send(self.core.serve_stream(now, from, &stream));
                }
                readable = self.packets.readable() => match readable {
                    Ok(()) => self.read_packets(&mut buffer),
                    Err(error) => tracing::warn!(%error, "the gossip socket is broken"),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            // Also when packets never end.
            let now = self.now();
            if self.core.next_wake() <= now {
                self.core.handle_timers(now);
            }
            self.settle().await;
            self.files.flush_if_due(now, self.core.seen_clocks());
        }
        self.files.close(self.core.seen_clocks());
    }

    fn read_packets(&mut self, buffer: &mut [u8]) {
        for _ in 0..PACKETS_AT_ONCE {
            match self.packets.try_recv_from(buffer) {
                Ok((length, from)) => {
                    let now = self.now();
                    self.core.handle_packet(now, canonical(from), &buffer[..length]);
                }
                // Also what an earlier packet to a closed port left behind.
                Err(_) => break,
            }
        }
    }

    /// Does everything that the core wants done.
    async fn settle(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Packet { to, bytes } => {
                    // A packet that does not go is a packet that is lost.
                    if let Err(error) = self.packets.send_to(&bytes, to).await {
                        tracing::trace!(%to, %error, "a gossip packet was not sent");
                    }
                    self.core.recycle(bytes);
                }
                Output::Exchange { id, to, bytes, within } => {
                    let results = self.results.clone();
                    self.tasks.spawn(async move {
                        let result = streams::exchange(to, &bytes, within).await;
                        // The member has stopped.
                        let _ = results.send((id, result)).await;
                    });
                }
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.files.note(&event);
        let wait = match &event {
            Event::Joined { join, .. } => Some(Wait::Join(*join)),
            Event::RemovalTold { removal, .. } => Some(Wait::Removal(*removal)),
            Event::Keys { query, .. } => Some(Wait::Keys(*query)),
            Event::TagsTold => Some(Wait::Tags),
            Event::Gone => {
                self.files.left();
                Some(Wait::Gone)
            }
            Event::QueryReceived { query, from } => {
                return self.answer(*query, Answer::Received { from: from.clone() });
            }
            Event::QueryAnswered { query, from, payload } => {
                return self.answer(*query, Answer::Response { from: from.clone(), payload: payload.clone() });
            }
            Event::QueryEnded { query } => {
                self.answers.remove(query);
                return;
            }
            _ => None,
        };
        for waiting in wait.and_then(|wait| self.waiting.remove(&wait)).into_iter().flatten() {
            let _ = waiting.send(event.clone());
        }
        // Nobody listens: nobody misses it.
        let _ = self.events.send(event);
    }

    fn answer(&mut self, query: u64, answer: Answer) {
        if let Some(asker) = self.answers.get(&query)
            && asker.try_send(answer).is_err()
        {
            tracing::debug!("an answer to a query was dropped: the asker reads too slowly or has gone");
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Run(work) => work(&mut self.core, now),
            Command::Await(work, reply) => {
                if let Some(wait) = work(&mut self.core, now) {
                    self.waiting.entry(wait).or_default().push(reply);
                }
            }
            Command::Query { name, payload, options, answers, reply } => {
                let asked = self.core.query(now, &name, &payload, &options);
                if let Ok(query) = asked {
                    self.answers.insert(query, answers);
                }
                let _ = reply.send(asked);
            }
        }
    }
}

/// An IPv4 address that came through an IPv6 socket, as the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
