//! A network in memory whose every delay, loss and partition comes from the seed.
//!
//! A connection is two pipes. What is written to a pipe arrives in order after a delay, as with TCP: while a direction
//! is cut nothing arrives, and when it is healed all of it does. Connections can be reset, and a host can die.
//!
//! Invariants
//! - Who dials is known from the host that dials; nobody can claim another identity.
//! - A host that died reads and writes nothing more, whatever its tasks still do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lictor_runtime::transport::{Accepted, Boxed, SharedTransport, Transport};
use lictor_runtime::{PeerIdentity, Rng, SeededRng, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep};

use crate::trace::Trace;

/// Bytes under way in one direction of a connection.
const PIPE_BYTES: usize = 256 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;

/// How long a message takes, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay {
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// One in so many messages takes ten times as long; 0 for none.
    pub(crate) spike_one_in: u64,
}

#[derive(Default)]
struct Pipe {
    /// What is under way, with when it arrives; empty bytes are the end.
    queue: VecDeque<(Instant, Vec<u8>)>,
    read: usize,
    bytes: usize,
    blocked: bool,
    reset: bool,
    /// Nobody reads any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

type SharedPipe = Arc<Mutex<Pipe>>;

fn wake(pipe: &SharedPipe) {
    let (reader, writer) = {
        let mut pipe = pipe.lock();
        (pipe.reader.take(), pipe.writer.take())
    };
    reader.into_iter().chain(writer).for_each(Waker::wake);
}

struct Known {
    from: Arc<str>,
    to: Arc<str>,
    pipe: Weak<Mutex<Pipe>>,
}

struct Listener {
    incarnation: u64,
    queue: mpsc::Sender<Accepted>,
}

struct Wires {
    listeners: BTreeMap<String, Listener>,
    /// Hosts that died without a word: nobody hears that they are gone.
    silent: BTreeSet<String>,
    blocked: BTreeSet<(String, String)>,
    pipes: Vec<Known>,
    delay: Delay,
    rng: SeededRng,
    incarnations: u64,
}

impl Wires {
    fn delay(&mut self) -> Duration {
        let Delay { least, most, spike_one_in } = self.delay;
        let mut micros = least + self.rng.below(most - least + 1);
        if spike_one_in > 0 && self.rng.below(spike_one_in) == 0 {
            micros *= 10;
        }
        Duration::from_micros(micros)
    }

    fn live_pipes(&mut self) -> Vec<(Arc<str>, Arc<str>, SharedPipe)> {
        self.pipes.retain(|known| known.pipe.strong_count() > 0);
        let live = self.pipes.iter();
        live.filter_map(|known| Some((known.from.clone(), known.to.clone(), known.pipe.upgrade()?))).collect()
    }
}

struct Shared {
    wires: Mutex<Wires>,
    healed: Notify,
    trace: Trace,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

impl Network {
    pub(crate) fn new(seed: u64, delay: Delay, trace: Trace) -> Self {
        let wires = Wires {
            listeners: BTreeMap::new(),
            silent: BTreeSet::new(),
            blocked: BTreeSet::new(),
            pipes: Vec::new(),
            delay,
            rng: SeededRng::new(seed),
            incarnations: 0,
        };
        Self(Arc::new(Shared { wires: Mutex::new(wires), healed: Notify::new(), trace }))
    }

    /// A host that begins to live at `address`, and listens there.
    pub(crate) fn host(&self, address: &str, identity: PeerIdentity) -> Host {
        let (queue, incoming) = mpsc::channel(BACKLOG);
        let incarnation = {
            let mut wires = self.0.wires.lock();
            wires.incarnations += 1;
            let incarnation = wires.incarnations;
            wires.listeners.insert(address.to_owned(), Listener { incarnation, queue });
            wires.silent.remove(address);
            incarnation
        };
        // Whoever still talks to the one that died learns of it now.
        self.reset_where(|from, to| from == address || to == address);
        let alive = Arc::new(AtomicBool::new(true));
        let wire = Wire {
            network: self.clone(),
            address: address.into(),
            identity,
            alive: Arc::clone(&alive),
            incoming: tokio::sync::Mutex::new(incoming),
        };
        Host { network: self.clone(), address: address.to_owned(), incarnation, alive, transport: Arc::new(wire) }
    }

    pub(crate) fn set_delay(&self, delay: Delay) {
        self.0.wires.lock().delay = delay;
    }

    /// Nothing goes from one to the other any more.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        let mut wires = self.0.wires.lock();
        wires.blocked.insert((from.to_owned(), to.to_owned()));
        for (a, b, pipe) in wires.live_pipes() {
            if *a == *from && *b == *to {
                pipe.lock().blocked = true;
            }
        }
    }

    /// Undoes one cut.
    pub(crate) fn mend(&self, from: &str, to: &str) {
        let pipes = {
            let mut wires = self.0.wires.lock();
            wires.blocked.remove(&(from.to_owned(), to.to_owned()));
            wires.live_pipes()
        };
        for (a, b, pipe) in pipes {
            if *a == *from && *b == *to {
                pipe.lock().blocked = false;
                wake(&pipe);
            }
        }
        self.0.healed.notify_waiters();
    }

    /// Undoes all cuts.
    pub(crate) fn heal(&self) {
        let cuts = self.0.wires.lock().blocked.clone();
        for (from, to) in cuts {
            self.mend(&from, &to);
        }
    }

    /// Breaks the connections whose ends (from, to) are of these; both sides see it at once.
    pub(crate) fn reset_where(&self, chosen: impl Fn(&str, &str) -> bool) {
        let pipes = self.0.wires.lock().live_pipes();
        for (from, to, pipe) in pipes {
            if chosen(&from, &to) {
                pipe.lock().reset = true;
                wake(&pipe);
            }
        }
    }

    fn connect(&self, from: &Wire, to: &str, protocol: &str) -> io::Result<Stream> {
        let (out, back): (SharedPipe, SharedPipe) = Default::default();
        let listener = {
            let mut wires = self.0.wires.lock();
            let listener = wires.listeners.get(to).map(|listener| listener.queue.clone());
            let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
            let there: Arc<str> = to.into();
            for (a, b, pipe) in [(&from.address, &there, &out), (&there, &from.address, &back)] {
                wires.pipes.push(Known { from: a.clone(), to: b.clone(), pipe: Arc::downgrade(pipe) });
            }
            listener
        };
        let end = |incoming: &SharedPipe, outgoing: &SharedPipe, alive, label| End {
            network: self.clone(),
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            alive,
            label,
            arrives: None,
            last: Instant::now(),
        };
        let label = format!("{}>{to} {protocol}", from.address);
        let near = end(&back, &out, Some(Arc::clone(&from.alive)), label.clone());
        let far = end(&out, &back, None, format!("{label} back"));
        let accepted = Accepted {
            peer: from.identity.clone(),
            protocol: protocol.to_owned(),
            address: from.address.to_string(),
            stream: Box::new(far),
        };
        listener.try_send(accepted).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(near))
    }
}

/// One life of a host.
pub(crate) struct Host {
    network: Network,
    address: String,
    incarnation: u64,
    alive: Arc<AtomicBool>,
    pub(crate) transport: SharedTransport,
}

impl Host {
    /// It is gone. Its peers see resets, or hear nothing until it lives again.
    pub(crate) fn kill(&self, silent: bool) {
        self.alive.store(false, Ordering::Relaxed);
        let pipes = {
            let mut wires = self.network.0.wires.lock();
            if wires.listeners.get(&self.address).is_some_and(|it| it.incarnation == self.incarnation) {
                wires.listeners.remove(&self.address);
            }
            if silent {
                wires.silent.insert(self.address.clone());
            }
            wires.live_pipes()
        };
        for (from, to, pipe) in pipes {
            if *from == *self.address || *to == *self.address {
                {
                    let mut pipe = pipe.lock();
                    if silent {
                        pipe.blocked = true;
                        pipe.deaf = true;
                    } else {
                        pipe.reset = true;
                    }
                }
                wake(&pipe);
            }
        }
    }
}

/// What one host sees of the network.
struct Wire {
    network: Network,
    address: Arc<str>,
    identity: PeerIdentity,
    alive: Arc<AtomicBool>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl Transport for Wire {
    fn dial<'a>(&'a self, address: &'a str, protocol: &'static str) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            let shared = &self.network.0;
            let delay = shared.wires.lock().delay() * 2;
            tokio::time::sleep(delay).await;
            loop {
                if !self.alive.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::NetworkDown.into());
                }
                let healed = shared.healed.notified();
                let reachable = {
                    let wires = shared.wires.lock();
                    let cut = |from: &str, to: &str| wires.blocked.contains(&(from.to_owned(), to.to_owned()));
                    !cut(&self.address, address) && !cut(address, &self.address) && !wires.silent.contains(address)
                };
                if reachable {
                    break;
                }
                healed.await;
            }
            let connected = self.network.connect(self, address, protocol);
            shared.trace.note(|| format!("{} dials {address} {protocol}: {}", self.address, connected.is_ok()));
            connected
        })
    }

    fn accept(&self) -> Boxed<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let accepted = self.incoming.lock().await.recv().await;
            match accepted {
                Some(accepted) if self.alive.load(Ordering::Relaxed) => Ok(accepted),
                _ => std::future::pending().await,
            }
        })
    }
}

/// One end of a connection.
struct End {
    network: Network,
    incoming: SharedPipe,
    outgoing: SharedPipe,
    /// Of the host that dialled; the accepting end dies with its pipes.
    alive: Option<Arc<AtomicBool>>,
    label: String,
    arrives: Option<Pin<Box<Sleep>>>,
    /// When what was written last arrives: nothing overtakes it.
    last: Instant,
}

impl End {
    fn is_dead(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| !alive.load(Ordering::Relaxed))
    }

    fn send(&mut self, bytes: Vec<u8>) {
        let delay = self.network.0.wires.lock().delay();
        self.last = self.last.max(Instant::now() + delay);
        let reader = {
            let mut pipe = self.outgoing.lock();
            pipe.bytes += bytes.len();
            pipe.queue.push_back((self.last, bytes));
            pipe.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        loop {
            let incoming = Arc::clone(&self.incoming);
            let mut pipe = incoming.lock();
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let next = pipe.queue.front().map(|(at, bytes)| (*at, bytes.is_empty()));
            let Some((at, is_end)) = next.filter(|_| !pipe.blocked) else {
                pipe.reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            if at <= Instant::now() {
                if is_end {
                    return Poll::Ready(Ok(()));
                }
                let start = pipe.read;
                let Some((_, bytes)) = pipe.queue.front() else { continue };
                let taken = into.remaining().min(bytes.len() - start);
                into.put_slice(&bytes[start..start + taken]);
                let left = bytes.len() - start - taken;
                pipe.read += taken;
                pipe.bytes -= taken;
                if left == 0 {
                    pipe.queue.pop_front();
                    pipe.read = 0;
                }
                let writer = pipe.writer.take();
                drop(pipe);
                writer.into_iter().for_each(Waker::wake);
                self.network.0.trace.note(|| format!("{}: {taken} bytes", self.label));
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            drop(pipe);
            let mut sleep = Box::pin(tokio::time::sleep_until(at));
            let arrived = sleep.as_mut().poll(context).is_ready();
            self.arrives = Some(sleep);
            if !arrived {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_dead() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        {
            let mut pipe = self.outgoing.lock();
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.deaf {
                // Nobody can say so while the way is cut.
                let told = !pipe.blocked;
                return Poll::Ready(if told { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) });
            }
            if pipe.bytes >= PIPE_BYTES {
                pipe.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        if !bytes.is_empty() {
            self.send(bytes.to_vec());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_dead() {
            self.send(Vec::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.is_dead() {
            self.send(Vec::new());
        }
        let writer = {
            let mut pipe = self.incoming.lock();
            pipe.deaf = true;
            pipe.queue.clear();
            pipe.writer.take()
        };
        writer.into_iter().for_each(Waker::wake);
    }
}
