//! Sockets of the DNS door.
//!
//! Invariants
//! - A UDP worker has at most [`QUESTIONS_MAX`] questions under way; more wait in the kernel's buffer and are dropped there.
//! - One source is answered a configured number of UDP questions in a second; this machine as many as it asks.
//! - At most [`CONNECTIONS_MAX`] TCP connections, each idle for [`IDLE_LIMIT`] at most, one question at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lictor_runtime::Tasks;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::limit::Sources;
use super::resolve::{Transport, Zones, reply};
use crate::agent::Agent;

/// Questions under way in one UDP worker.
const QUESTIONS_MAX: usize = 512;
/// Bytes of the largest question over UDP.
const QUESTION_BYTES_MAX: usize = 4096;
/// Open TCP connections of one listener.
const CONNECTIONS_MAX: usize = 256;
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
    let zones = Arc::new(Zones::of(agent, &resolv_conf));
    let sources = Arc::new(Sources::default());
    for DnsListener { tcp, udp } in listeners {
        for socket in udp {
            tasks.spawn(udp_worker(socket, agent.clone(), zones.clone(), Arc::clone(&sources)));
        }
        tasks.spawn(accept(tcp, agent.clone(), zones.clone(), tasks.clone()));
    }
}

async fn udp_worker(socket: UdpSocket, agent: Arc<Agent>, zones: Arc<Zones>, sources: Arc<Sources>) {
    let mut buffer = [0; QUESTION_BYTES_MAX];
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            received = socket.recv_from(&mut buffer), if under_way.len() < QUESTIONS_MAX => match received {
                Ok((length, from)) => {
                    let limit = agent.config.load().dns.max_queries_per_client;
                    // Too many from one source: no answer, lest it be somebody else's flood.
                    if !sources.admit(from.ip(), limit, Instant::now()) {
                        continue;
                    }
                    under_way.push(answer_packet(&socket, &agent, &zones, buffer[..length].to_vec(), from));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot receive a DNS packet");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            },
        }
    }
}

async fn answer_packet(socket: &UdpSocket, agent: &Agent, zones: &Zones, packet: Vec<u8>, from: SocketAddr) {
    let begin = Instant::now();
    let Some(bytes) = reply(agent, zones, &packet, Transport::Udp).await else { return };
    agent.figures.dns.took(begin.elapsed());
    if let Err(error) = socket.send_to(&bytes, from).await {
        tracing::debug!(%error, %from, "cannot send a DNS answer");
    }
}

async fn accept(listener: TcpListener, agent: Arc<Agent>, zones: Arc<Zones>, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (agent, zones) = (agent.clone(), zones.clone());
                tasks.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection(stream, &agent, &zones).await {
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

async fn connection(mut stream: TcpStream, agent: &Agent, zones: &Zones) -> io::Result<()> {
    loop {
        let packet = match tokio::time::timeout(IDLE_LIMIT, read_message(&mut stream)).await {
            Ok(Ok(packet)) => packet,
            // The client is done, or has been silent too long.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let begin = Instant::now();
        let Some(bytes) = reply(agent, zones, &packet, Transport::Tcp).await else { return Ok(()) };
        agent.figures.dns.took(begin.elapsed());
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
