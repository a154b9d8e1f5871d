//! A network in memory whose connections the test can hold and cut.
//!
//! Invariants
//! - A connection that is held still carries what its dialler sends; nothing that comes back reaches the dialler.
//! - A connection that was held is never let go: it can only be cut, and then both ends see it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lictor_runtime::transport::{ALPN_RPC, Accepted, Boxed, SharedTransport, Transport};
use lictor_runtime::{PeerIdentity, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// Bytes under way in one direction of a connection.
const PIPE_BYTES: usize = 256 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What comes back is swallowed.
    Held,
    Cut,
}

struct Line {
    from: String,
    to: String,
    protocol: &'static str,
    now: Mutex<LineNow>,
}

struct LineNow {
    state: State,
    /// Bytes that came back while it was held, and went nowhere.
    swallowed: usize,
    wakers: Vec<Waker>,
}

impl Line {
    fn cut(&self) {
        let wakers = {
            let mut now = self.now.lock();
            now.state = State::Cut;
            std::mem::take(&mut now.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct Wires {
    listeners: BTreeMap<String, mpsc::Sender<Accepted>>,
    gone: BTreeSet<String>,
    lines: Vec<Arc<Line>>,
}

/// The network. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Wires>>);

impl Network {
    /// What a host at `address` dials and listens with.
    pub(crate) fn host(&self, address: &str, identity: PeerIdentity) -> SharedTransport {
        let (queue, incoming) = mpsc::channel(BACKLOG);
        self.0.lock().listeners.insert(address.to_owned(), queue);
        let incoming = tokio::sync::Mutex::new(incoming);
        Arc::new(Host { network: self.clone(), address: address.to_owned(), identity, incoming })
    }

    /// Holds back, from now on, what `to` answers on the RPC connections that `from` has to it.
    pub(crate) fn hold(&self, from: &str, to: &str) -> Held {
        let open = |line: &&Arc<Line>| {
            line.from == from && line.to == to && line.protocol == ALPN_RPC && line.now.lock().state == State::Open
        };
        let lines: Vec<_> = self.0.lock().lines.iter().filter(open).cloned().collect();
        for line in &lines {
            line.now.lock().state = State::Held;
        }
        Held(lines)
    }

    /// How often `from` has dialled `to` for RPC.
    pub(crate) fn dialled(&self, from: &str, to: &str) -> usize {
        let wires = self.0.lock();
        wires.lines.iter().filter(|it| it.from == from && it.to == to && it.protocol == ALPN_RPC).count()
    }

    /// Takes the host at `address` off the network for good.
    pub(crate) fn remove(&self, address: &str) {
        let lines = {
            let mut wires = self.0.lock();
            wires.gone.insert(address.to_owned());
            wires.lines.clone()
        };
        lines.iter().filter(|it| it.from == address || it.to == address).for_each(|line| line.cut());
    }
}

/// Connections that are held.
pub(crate) struct Held(Vec<Arc<Line>>);

impl Held {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many bytes came back and were swallowed.
    pub(crate) fn swallowed(&self) -> usize {
        self.0.iter().map(|line| line.now.lock().swallowed).sum()
    }

    /// Cuts them.
    pub(crate) fn cut(self) {
        self.0.iter().for_each(|line| line.cut());
    }
}

struct Host {
    network: Network,
    address: String,
    identity: PeerIdentity,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl Transport for Host {
    fn dial<'a>(&'a self, address: &'a str, protocol: &'static str) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            let mut wires = self.network.0.lock();
            if wires.gone.contains(address) || wires.gone.contains(&self.address) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let accepted = Accepted {
                peer: self.identity.clone(),
                protocol: protocol.to_owned(),
                address: self.address.clone(),
                stream: Box::new(far),
            };
            let listener = wires.listeners.get(address).ok_or(io::ErrorKind::ConnectionRefused)?;
            listener.try_send(accepted).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            let now = Mutex::new(LineNow { state: State::Open, swallowed: 0, wakers: Vec::new() });
            let line = Arc::new(Line { from: self.address.clone(), to: address.to_owned(), protocol, now });
            wires.lines.push(Arc::clone(&line));
            Ok(Box::new(End { line, stream: Some(near) }) as Stream)
        })
    }

    fn accept(&self) -> Boxed<'_, io::Result<Accepted>> {
        Box::pin(async move {
            match self.incoming.lock().await.recv().await {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        })
    }
}

/// The dialler's end of a connection.
struct End {
    line: Arc<Line>,
    /// None once it was cut: the far end sees the end of its stream.
    stream: Option<DuplexStream>,
}

impl End {
    /// The stream and whether it is held, unless it was cut.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<(Pin<&mut DuplexStream>, State)> {
        let state = {
            let mut now = self.line.now.lock();
            if !now.wakers.iter().any(|it| it.will_wake(context.waker())) {
                now.wakers.push(context.waker().clone());
            }
            now.state
        };
        if state == State::Cut {
            self.stream = None;
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::ConnectionReset)?;
        Ok((Pin::new(stream), state))
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = Arc::clone(&self.line);
        let (mut stream, state) = self.look(context)?;
        if state == State::Open {
            return stream.poll_read(context, into);
        }
        let mut scratch = [0; 4096];
        loop {
            let mut swallowed = ReadBuf::new(&mut scratch);
            let read = stream.as_mut().poll_read(context, &mut swallowed);
            let count = swallowed.filled().len();
            if read.is_pending() || count == 0 {
                return Poll::Pending;
            }
            line.now.lock().swallowed += count;
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.look(context)?.0.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(context)?.0.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(context)?.0.poll_shutdown(context)
    }
}
