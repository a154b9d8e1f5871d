//! Sockets of the DNS door.
//!
//! Invariants
//! - A UDP worker takes no more questions while [`QUESTIONS_MAX`] are under way; more wait in the kernel's buffer and are dropped
//!   there.
//! - One source is answered a configured number of UDP questions in a second; this machine as many as it asks.
//! - At most [`CONNECTIONS_MAX`] TCP connections, [`CONNECTIONS_PER_SOURCE`] of one source, each idle for [`IDLE_LIMIT`] at
//!   most, one question at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lictor_runtime::Tasks;
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::batch::{Answers, PACKETS_MAX, Questions, ip_of};
use super::door::Door;
use super::limit::{Connections, Sources};
use super::packet;
use super::prepared::Scratch;
use super::resolve::{Transport, reply};
use crate::agent::Agent;

/// Questions under way in one UDP worker.
const QUESTIONS_MAX: usize = 512;
/// Open TCP connections of one listener.
const CONNECTIONS_MAX: usize = 256;
/// Those of one source: a resolver asks over TCP now and then, what was cut over UDP.
const CONNECTIONS_PER_SOURCE: usize = 32;
/// How long a TCP connection may be idle, or take for one message.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait after the operating system refused to receive or accept.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How often to look for a port that is free for both UDP and TCP.
const PORT_TRIES: usize = 16;

/// The sockets of one address.
pub struct DnsListener {
    tcp: TcpListener,
    udp: Vec<UdpSocket>,
}

impl DnsListener {
    /// Listens on `address`, over UDP with as many sockets as `workers` (at least one). Port 0 lets the operating system choose.
    ///
    /// # Errors
    /// Says which address it was: it is in use, not ours, or needs a privilege.
    pub async fn bind(address: SocketAddr, workers: usize) -> io::Result<Self> {
        let mut tried = 1;
        loop {
            // TCP first: it does not share its port, so a second agent on the same port is noticed here.
            let bound = match lictor_runtime::listen(address) {
                Ok(tcp) => Self::with_udp(tcp, workers),
                Err(error) => Err(error),
            };
            match bound {
                Ok(listener) => return Ok(listener),
                Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tried < PORT_TRIES => {
                    tried += 1;
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("cannot listen for DNS on {address}: {error}")));
                }
            }
        }
    }

    fn with_udp(tcp: TcpListener, workers: usize) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let udp = (0..workers.max(1)).map(|_| udp_socket(address)).collect::<io::Result<_>>()?;
        Ok(Self { tcp, udp })
    }

    /// The address with its port.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers on every listener until `tasks` are told to stop.
pub fn serve(listeners: Vec<DnsListener>, agent: &Arc<Agent>, tasks: &Tasks) {
    // What its resolvers append to names is the machine's own; without the file they append nothing.
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let door = Door::of(agent, &resolv_conf);
    let sources = Arc::new(Sources::default());
    let connections = Arc::new(Connections::default());
    for DnsListener { tcp, udp } in listeners {
        for socket in udp {
            tasks.spawn(udp_worker(socket, Arc::clone(&door), Arc::clone(&sources)));
        }
        tasks.spawn(accept(tcp, Arc::clone(&door), Arc::clone(&connections), tasks.clone()));
    }
}

/// An answer that is made while others are given.
type UnderWay = BoxFuture<'static, (Option<Vec<u8>>, SockaddrStorage)>;

async fn udp_worker(socket: UdpSocket, door: Arc<Door>, sources: Arc<Sources>) {
    let mut questions = Questions::new();
    let mut answers = Answers::default();
    let mut scratch = Scratch::default();
    let mut under_way = FuturesUnordered::<UnderWay>::new();
    loop {
        tokio::select! {
            Some(done) = under_way.next(), if !under_way.is_empty() => add(done, &mut answers),
            received = questions.receive(&socket), if under_way.len() < QUESTIONS_MAX => match received {
                Ok(()) => turn(&door, &sources, &questions, &mut scratch, &mut answers, &under_way),
                Err(error) => {
                    tracing::debug!(%error, "cannot receive DNS packets");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            },
        }
        // What others were done with meanwhile goes out in the same call.
        while answers.len() < PACKETS_MAX
            && let Some(Some(done)) = under_way.next().now_or_never()
        {
            add(done, &mut answers);
        }
        answers.send(&socket).await;
    }
}

fn add((bytes, to): (Option<Vec<u8>>, SockaddrStorage), answers: &mut Answers) {
    if let Some(bytes) = bytes {
        answers.push(bytes, to);
    }
}

/// Answers what came at once: from what is kept, or by what is made without waiting; the rest is under way then.
fn turn(
    door: &Arc<Door>,
    sources: &Sources,
    questions: &Questions,
    scratch: &mut Scratch,
    answers: &mut Answers,
    under_way: &FuturesUnordered<UnderWay>,
) {
    let begin = Instant::now();
    let limit = door.agent.config.load().dns.max_queries_per_client;
    // Taken after the questions came, so that none gets less than it may expect.
    let terms = door.terms();
    let mut at_once = 0;
    for (packet, from) in questions.packets() {
        // Too many from one source: no answer, lest it be somebody else's flood.
        let Some(source) = ip_of(&from).filter(|source| sources.admit(*source, limit, begin)) else { continue };
        if let (Some(terms), Some(asked)) = (&terms, packet::read(packet))
            && door.at_once(&asked, terms, Transport::Udp, scratch, answers.place())
        {
            answers.add(from);
            at_once += 1;
            continue;
        }
        let (door, packet) = (Arc::clone(door), packet.to_vec());
        let mut reply: UnderWay =
            async move { (reply(&door, &packet, Transport::Udp, Some(source)).await, from) }.boxed();
        // Where the state is in this process nothing is waited for.
        match (&mut reply).now_or_never() {
            Some(done) => add(done, answers),
            None => under_way.push(reply),
        }
    }
    door.agent.figures.dns.took_each(begin.elapsed(), at_once);
}

async fn accept(listener: TcpListener, door: Arc<Door>, connections: Arc<Connections>, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                // One too many is closed at once: its questions have an answer over UDP, if a short one.
                let Some(own) = connections.admit(from.ip(), CONNECTIONS_PER_SOURCE) else { continue };
                let door = Arc::clone(&door);
                tasks.spawn(async move {
                    let _places = (place, own);
                    if let Err(error) = connection(stream, &door).await {
                        tracing::debug!(%error, "a DNS connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn connection(mut stream: TcpStream, door: &Arc<Door>) -> io::Result<()> {
    let from = stream.peer_addr()?.ip();
    loop {
        let packet = match tokio::time::timeout(IDLE_LIMIT, read_message(&mut stream)).await {
            Ok(Ok(packet)) => packet,
            // The client is done, or has been silent too long.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Some(bytes) = reply(door, &packet, Transport::Tcp, Some(from)).await else { return Ok(()) };
        let mut framed = Vec::with_capacity(bytes.len() + 2);
        // An answer over TCP is made to fit into what two bytes can tell.
        framed.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        framed.extend_from_slice(&bytes);
        tokio::time::timeout(IDLE_LIMIT, stream.write_all(&framed)).await.map_err(io::Error::from)??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}
