//! A network in one thread: every member a core, packets and streams as values in a queue by virtual time, all from one seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::wire::swim::Alive;
use lictor_gossip::{Change, Config, Core, Event, ExchangeId, Output, Record, RecordPool, Timing};
use lictor_runtime::{Rng, SeededRng};

/// Every member's port.
const PORT: u16 = 8301;
/// What a packet takes at least, and at most, on its way.
const WAY: (u64, u64) = (200_000, 2_000_000);

/// How a member's number becomes its address.
pub(crate) fn address(number: usize) -> SocketAddr {
    let [_, a, b, c] = (number as u32).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), PORT)
}

fn number(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [_, a, b, c] = ip.octets();
            u32::from_be_bytes([0, a, b, c]) as usize
        }
        IpAddr::V6(_) => usize::MAX,
    }
}

pub(crate) fn name(number: usize) -> String {
    format!("node-{number:05}")
}

enum Happening {
    Wake(u32),
    Packet { from: u32, to: u32, bytes: Vec<u8> },
    Request { from: u32, to: u32, id: ExchangeId, bytes: Vec<u8> },
    Reply { to: u32, id: ExchangeId, result: Result<Vec<u8>, String> },
}

struct Due {
    at: Duration,
    order: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Something a member was told.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Duration,
    pub(crate) by: usize,
    pub(crate) event: Event,
}

impl Heard {
    /// The member that changed, if one did so.
    pub(crate) fn changed(&self, wanted: Change) -> Option<String> {
        match &self.event {
            Event::Member { change, member } if *change == wanted => Some(member.record.name().to_owned()),
            _ => None,
        }
    }
}

/// All members, and what is under way between them.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) cores: Vec<Option<Core>>,
    pub(crate) heard: Vec<Heard>,
    /// Of a thousand packets, so many are lost.
    pub(crate) loss_per_mille: u64,
    /// Members of another side than mine do not hear me.
    pub(crate) side: Vec<u8>,
    /// Until then a member does nothing, and finds everything waiting.
    pub(crate) stalled: Vec<Duration>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    wakes: Vec<Duration>,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(crate) rng: Arc<SeededRng>,
    records: RecordPool,
    timing: Timing,
    change: Box<dyn Fn(&mut Config)>,
}

impl World {
    pub(crate) fn new(seed: u64, timing: Timing, change: impl Fn(&mut Config) + 'static) -> Self {
        Self {
            now: Duration::from_secs(1),
            cores: Vec::new(),
            heard: Vec::new(),
            loss_per_mille: 0,
            side: Vec::new(),
            stalled: Vec::new(),
            packets: 0,
            bytes: 0,
            wakes: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            rng: Arc::new(SeededRng::new(seed)),
            records: RecordPool::new(),
            timing,
            change: Box::new(change),
        }
    }

    fn core(&self, number: usize) -> Core {
        let mut config = Config::new(name(number), address(number));
        config.timing = self.timing;
        config.compress = false;
        (self.change)(&mut config);
        Core::new(config, self.rng.clone(), self.records.clone(), self.now).expect("a sound configuration")
    }

    /// Adds a member that knows nobody.
    pub(crate) fn add(&mut self) -> usize {
        let number = self.cores.len();
        let core = self.core(number);
        self.cores.push(Some(core));
        self.side.push(0);
        self.stalled.push(Duration::ZERO);
        self.wakes.push(Duration::MAX);
        self.settle(number);
        number
    }

    /// A member starts again, as a new process of the same name and address.
    pub(crate) fn restart(&mut self, number: usize) {
        self.cores[number] = Some(self.core(number));
        self.wakes[number] = Duration::MAX;
        self.settle(number);
    }

    /// So many members that know each other.
    pub(crate) fn formed(seed: u64, count: usize, timing: Timing, change: impl Fn(&mut Config) + 'static) -> Self {
        let mut world = Self::new(seed, timing, change);
        for _ in 0..count {
            world.add();
        }
        let records: Vec<Arc<Record>> = world.cores.iter().flatten().map(Core::own_record).collect();
        for core in world.cores.iter_mut().flatten() {
            core.assume_members(&records);
        }
        world
    }

    fn push(&mut self, at: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, what }));
    }

    fn way(&self) -> Duration {
        Duration::from_nanos(WAY.0 + self.rng.below(WAY.1 - WAY.0))
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.cores.get(to).is_some_and(Option::is_some) && self.side[from] == self.side[to]
    }

    /// Does something with a member, and then what it wants done.
    pub(crate) fn with<T>(&mut self, number: usize, work: impl FnOnce(&mut Core, Duration) -> T) -> T {
        let now = self.now;
        let done = work(self.cores[number].as_mut().expect("it lives"), now);
        self.settle(number);
        done
    }

    /// A member stops without a word.
    pub(crate) fn kill(&mut self, number: usize) {
        self.cores[number] = None;
    }

    fn settle(&mut self, number: usize) {
        while let Some(output) = self.cores[number].as_mut().and_then(Core::poll) {
            match output {
                Output::Packet { to, bytes } => self.send(number, to, bytes),
                Output::Exchange { id, to, bytes, .. } => {
                    let to = self::number(to);
                    let at = self.now + self.way();
                    let (from, to) = (number as u32, to as u32);
                    self.push(at, Happening::Request { from, to, id, bytes });
                }
                Output::Event(event) => self.heard.push(Heard { at: self.now, by: number, event }),
            }
        }
        let Some(core) = &self.cores[number] else { return };
        let wake = core.next_wake().max(self.now);
        if wake < self.wakes[number] {
            self.wakes[number] = wake;
            self.push(wake, Happening::Wake(number as u32));
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        let to = number(to);
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        let lost = self.loss_per_mille > 0 && self.rng.below(1000) < self.loss_per_mille;
        if !lost && self.reaches(from, to) {
            let at = self.now + self.way();
            self.push(at, Happening::Packet { from: from as u32, to: to as u32, bytes });
        } else if let Some(core) = &mut self.cores[from] {
            core.recycle(bytes);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until then, or until something holds. Answers whether it did.
    pub(crate) fn run_until(&mut self, end: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let mut steps = 0u64;
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            self.now = self.now.max(due.at);
            self.happen(due.what);
            steps += 1;
            if steps.is_multiple_of(256) && holds(self) {
                return true;
            }
        }
        self.now = end;
        holds(self)
    }

    fn happen(&mut self, what: Happening) {
        let to = match &what {
            Happening::Wake(to) | Happening::Packet { to, .. } | Happening::Request { to, .. } => *to,
            Happening::Reply { to, .. } => *to,
        } as usize;
        if let Some(until) = self.stalled.get(to).copied().filter(|until| *until > self.now) {
            return self.push(until, what);
        }
        let now = self.now;
        match what {
            Happening::Wake(_) => {
                if self.wakes[to] > now {
                    return;
                }
                self.wakes[to] = Duration::MAX;
                let Some(core) = &mut self.cores[to] else { return };
                core.handle_timers(now);
            }
            Happening::Packet { from, bytes, .. } => {
                let Some(core) = &mut self.cores[to] else { return };
                core.handle_packet(now, address(from as usize), &bytes);
                core.recycle(bytes);
            }
            Happening::Request { from, id, bytes, .. } => {
                let (asker, from) = (from, from as usize);
                let reached = self.reaches(from, to);
                let answer = match self.cores.get_mut(to).and_then(Option::as_mut) {
                    Some(core) if reached => core.serve_stream(now, address(from), &bytes),
                    _ => None,
                };
                let result = answer.ok_or_else(|| "nobody answers".to_owned());
                let at = now + self.way();
                self.push(at, Happening::Reply { to: asker, id, result });
                if !reached {
                    return;
                }
            }
            Happening::Reply { id, result, .. } => {
                let Some(core) = &mut self.cores[to] else { return };
                core.exchange_ended(now, id, result);
            }
        }
        self.settle(to);
    }

    /// The living.
    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.cores.len()).filter(|number| self.cores[*number].is_some()).collect()
    }

    /// Hands a packet to a member, as if somebody had sent it.
    pub(crate) fn inject(&mut self, to: usize, packet: &[u8]) {
        self.with(to, |core, now| core.handle_packet(now, address(0xff_ffff), packet));
    }
}

/// An alive message that somebody might have kept.
pub(crate) fn old_alive(record: &Record, incarnation: u32) -> Vec<u8> {
    let (node, address, meta, versions) = (record.name(), record.address(), record.meta(), record.versions());
    let mut packet = Vec::new();
    Alive { incarnation, node, address, meta, versions }.encode(&mut packet);
    packet
}
