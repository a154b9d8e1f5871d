//! A cluster in one process, on one thread.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lictor_runtime::fs::{Crash, MemoryFs};
use lictor_runtime::transport::{Accepted, Boxed, SharedTransport};
use lictor_runtime::{PeerIdentity, SeededRng, Stream, Tasks, Transport};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use crate::raft::{
    Consensus, DataDirectory, Dependencies, Drive, Leader, LogOptions, RoleCounters, Server, ServerId, Settings,
    SnapshotView, StateMachine,
};

/// A state machine that remembers every envelope.
#[derive(Default)]
pub(super) struct Machine(pub Mutex<Vec<Vec<u8>>>);

impl StateMachine for Machine {
    fn apply(&self, envelopes: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut held = self.0.lock();
        envelopes
            .iter()
            .map(|envelope| {
                held.push(envelope.to_vec());
                held.len().to_string().into_bytes()
            })
            .collect()
    }

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.0.lock().clone()))
    }

    fn restore(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut joined = Vec::new();
        from.read_to_end(&mut joined)?;
        let envelopes = crate::raft::batch::split(&joined).ok_or_else(|| io::Error::other("not a state"))?;
        *self.0.lock() = envelopes.into_iter().map(<[u8]>::to_vec).collect();
        Ok(())
    }
}

struct View(Vec<Vec<u8>>);

impl SnapshotView for View {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&crate::raft::batch::join(self.0.iter().map(|envelope| &envelope[..])))
    }
}

/// Both ends of a stream that can be cut.
struct Link {
    inner: DuplexStream,
    cut: Arc<AtomicBool>,
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[derive(Default)]
struct Wires {
    listeners: BTreeMap<String, mpsc::Sender<Stream>>,
    isolated: Vec<String>,
    links: Vec<(String, String, Arc<AtomicBool>)>,
}

#[derive(Clone, Default)]
pub(super) struct Network(Arc<Mutex<Wires>>);

impl Network {
    pub(super) fn isolate(&self, address: &str) {
        let mut wires = self.0.lock();
        wires.isolated.push(address.to_owned());
        for (from, to, cut) in &wires.links {
            if from == address || to == address {
                cut.store(true, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn transport(&self, own: &str) -> SharedTransport {
        Arc::new(Wire { network: self.clone(), own: own.to_owned() })
    }

    pub(super) fn heal(&self) {
        self.0.lock().isolated.clear();
    }

    fn dial(&self, from: &str, to: &str) -> io::Result<(mpsc::Sender<Stream>, Stream, Stream)> {
        let mut wires = self.0.lock();
        if wires.isolated.iter().any(|isolated| isolated == from || isolated == to) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let Some(listener) = wires.listeners.get(to).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let cut = Arc::new(AtomicBool::new(false));
        let (near, far) = tokio::io::duplex(256 << 10);
        wires.links.push((from.to_owned(), to.to_owned(), cut.clone()));
        let far: Stream = Box::new(Link { inner: far, cut: cut.clone() });
        Ok((listener, Box::new(Link { inner: near, cut }), far))
    }
}

struct Wire {
    network: Network,
    own: String,
}

impl Transport for Wire {
    fn dial<'a>(&'a self, address: &'a str, _protocol: &'static str) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            let (listener, near, far) = self.network.dial(&self.own, address)?;
            listener.send(far).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok(near)
        })
    }

    fn accept(&self) -> Boxed<'_, io::Result<Accepted>> {
        Box::pin(std::future::pending())
    }
}

/// A server.
pub(super) struct Node {
    pub fs: MemoryFs,
    pub consensus: Consensus,
    pub directory: Arc<DataDirectory>,
    pub machine: Arc<Machine>,
    pub server: Server,
    pub id: ServerId,
    network: Network,
    settings: Settings,
    tasks: Tasks,
    seed: u64,
}

pub(super) fn settings() -> Settings {
    let log = LogOptions { segment_bytes: 256 << 10, cache_bytes: 16 << 10, ..LogOptions::default() };
    Settings { log, drive: Drive::Tasks, ..Settings::default() }
}

impl Node {
    pub(super) async fn start(network: &Network, seed: u64, fs: MemoryFs, settings: Settings) -> Self {
        let name = format!("server-{seed}");
        let server = Server { address: format!("{name}:8300"), name };
        let directory = DataDirectory::open(Arc::new(fs.clone()), Path::new("/data"), &SeededRng::new(seed)).unwrap();
        let directory = Arc::new(directory);
        let id = directory.server_id();
        let tasks = Tasks::new();
        let machine = Arc::new(Machine::default());
        let dependencies = Dependencies {
            directory: directory.clone(),
            transport: network.transport(&server.address),
            machine: machine.clone(),
            tasks: tasks.clone(),
            roles: RoleCounters::default(),
        };
        let consensus = Consensus::start(settings.clone(), dependencies).await.unwrap();
        let (listener, mut accepted) = mpsc::channel::<Stream>(16);
        network.0.lock().listeners.insert(server.address.clone(), listener);
        let (serving, streams) = (consensus.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Some(stream) = accepted.recv().await {
                let serving = serving.clone();
                streams.spawn(async move {
                    // Streams end in many ways here: that is what is tested.
                    let _ = serving.serve(&PeerIdentity::Server, stream).await;
                });
            }
        });
        Self { fs, consensus, directory, machine, server, id, network: network.clone(), settings, tasks, seed }
    }

    /// The machine stops: nothing is written any more, and what was not synced is lost.
    pub(super) async fn kill(&self) {
        self.network.0.lock().listeners.remove(&self.server.address);
        self.fs.crash(Crash::DropUnsynced);
        self.tasks.cancel();
        self.consensus.shutdown().await;
    }

    pub(super) async fn restart(&self) -> Self {
        Self::start(&self.network, self.seed, self.fs.clone(), self.settings.clone()).await
    }

    pub(super) fn held(&self) -> Vec<Vec<u8>> {
        self.machine.0.lock().clone()
    }

    pub(super) async fn propose(&self, text: &str) -> Result<Vec<u8>, crate::raft::ProposeError> {
        self.consensus.propose(text.as_bytes().to_vec()).await
    }

    /// Waits until this server knows a leader other than `not`.
    pub(super) async fn leader_not(&self, not: Option<ServerId>) -> Leader {
        let mut leader = self.consensus.leader();
        let found = leader.wait_for(|leader| leader.as_ref().is_some_and(|leader| Some(leader.id) != not));
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("a leader").unwrap().clone().unwrap()
    }

    /// Waits until this server has applied as much as `other`.
    pub(super) async fn catch_up(&self, other: &Self) {
        let goal = other.consensus.applied();
        until("a server to catch up", || self.consensus.applied() >= goal).await;
    }
}

pub(super) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

pub(super) fn members<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> BTreeMap<ServerId, Server> {
    nodes.into_iter().map(|node| (node.id, node.server.clone())).collect()
}

/// Three servers, the first the leader of the moment.
pub(super) async fn three(settings: Settings) -> (Network, Vec<Node>) {
    crate::raft::seed_randomness(7);
    let network = Network::default();
    let mut nodes = Vec::new();
    for seed in 1..=3 {
        nodes.push(Node::start(&network, seed, MemoryFs::new(), settings.clone()).await);
    }
    nodes[0].consensus.initialize(members(&nodes)).await.unwrap();
    let leader = leader_of(&nodes).await;
    nodes.swap(0, leader);
    (network, nodes)
}

/// The place of the server that leads, once all of `nodes` agree on it.
pub(super) async fn leader_of(nodes: &[Node]) -> usize {
    let mut found = None;
    until("all to agree on a leader", || {
        let known: Vec<_> = nodes.iter().map(|node| node.consensus.leader().borrow().clone()).collect();
        let first = known[0].clone();
        found = nodes.iter().position(|node| first.as_ref().is_some_and(|leader| leader.id == node.id));
        found.is_some() && known.iter().all(|other| *other == first)
    })
    .await;
    found.expect("just found")
}
