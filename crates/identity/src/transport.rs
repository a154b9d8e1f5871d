//! The production transport: TCP and TLS on the server port, both ways.
//!
//! Invariants
//! - Certificates and roots are read anew at every dial and every accept.
//! - A stream comes out of [`Transport::accept`] only after its peer was classified for the protocol it chose.
//! - Handshakes are bounded in time and in number; a slow stranger delays nobody but strangers beyond that number.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lictor_runtime::transport::{ALPN_LOGIN, Accepted, Boxed, Stream};
use lictor_runtime::{Resolver, Tasks, Transport};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::material::KeyedChain;
use crate::peers::RpcTrust;
use crate::tls::Tls;

/// The longest a TLS handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The longest a TCP connection to one address may take.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The most handshakes under way at once; further connections wait in the listener's backlog.
pub const MAX_HANDSHAKES: usize = 1024;
/// The most accepted streams that wait to be taken.
const MAX_WAITING: usize = 64;
/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The pause after the listener failed (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Idle time before the first TCP keepalive, and between two.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));

/// What the server port's handshakes are made of; shared with whoever renews it.
#[derive(Debug)]
pub struct RpcMaterial {
    tls: Tls,
    trust: Arc<RpcTrust>,
    own: ArcSwapOption<KeyedChain>,
}

impl RpcMaterial {
    /// Begins with a certificate of one's own, or with none: then only `login/1` can be dialled.
    pub fn new(tls: Tls, trust: Arc<RpcTrust>, own: Option<KeyedChain>) -> Arc<Self> {
        Arc::new(Self { tls, trust, own: ArcSwapOption::from(own.map(Arc::new)) })
    }

    /// Puts a certificate in force for every handshake from now on.
    pub fn set_own(&self, own: KeyedChain) {
        self.own.store(Some(Arc::new(own)));
    }

    /// Whether there is a certificate to show.
    pub fn has_own(&self) -> bool {
        self.own.load().is_some()
    }

    /// Whom the port trusts: its roots can be replaced.
    pub fn trust(&self) -> &Arc<RpcTrust> {
        &self.trust
    }

    /// The maker of configurations.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }
}

/// TCP and TLS.
pub struct TlsTransport {
    material: Arc<RpcMaterial>,
    resolver: Resolver,
    incoming: Option<Mutex<mpsc::Receiver<Accepted>>>,
    local_address: Option<SocketAddr>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsTransport").field("local_address", &self.local_address).finish_non_exhaustive()
    }
}

impl TlsTransport {
    /// For who only dials: a client agent or a sidecar.
    pub fn dialling(material: Arc<RpcMaterial>, resolver: Resolver) -> Self {
        Self { material, resolver, incoming: None, local_address: None }
    }

    /// For a server: listens on `address` too. Handshakes run in `tasks`, which end the listening when they stop.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn listening(
        address: SocketAddr,
        material: Arc<RpcMaterial>,
        resolver: Resolver,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let listener = lictor_runtime::listen(address)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen for RPC on {address}: {error}")))?;
        let local_address = Some(listener.local_addr()?);
        let (ready, incoming) = mpsc::channel(MAX_WAITING);
        tasks.spawn(accept_loop(listener, Arc::clone(&material), ready, tasks.clone()));
        Ok(Self { material, resolver, incoming: Some(Mutex::new(incoming)), local_address })
    }

    /// The address listened on, with the real port when 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    async fn dial(&self, address: &str, protocol: &'static str) -> io::Result<Stream> {
        let own = if protocol == ALPN_LOGIN { None } else { self.material.own.load_full() };
        if own.is_none() && protocol != ALPN_LOGIN {
            let message = format!("no certificate yet to speak {protocol} with; log in first");
            return Err(io::Error::new(io::ErrorKind::NotConnected, message));
        }
        let stream = self.connect(address).await?;
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("TLS with {address}: {error}"));
        let config = self
            .material
            .tls
            .rpc_client(own.as_deref(), &self.material.trust, protocol)
            .map_err(|error| failed(io::Error::other(error)))?;
        let name: ServerName<'static> = self.material.trust.server_name().clone();
        let stream = timeout(HANDSHAKE_LIMIT, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        if stream.get_ref().1.alpn_protocol() != Some(protocol.as_bytes()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{address} does not speak {protocol}: is it the server port?"),
            ));
        }
        Ok(Box::new(stream))
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no addresses"));
        for resolved in self.resolver.resolve(address).await?.into_iter().take(MAX_ADDRESSES) {
            match timeout(CONNECT_LIMIT, TcpStream::connect(resolved)).await {
                Ok(Ok(stream)) => {
                    prepare(&stream)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => {
                    last = io::Error::new(error.kind(), format!("cannot connect to {address} ({resolved}): {error}"));
                }
                Err(_) => {
                    let message = format!("no answer from {address} ({resolved}) within {} s", CONNECT_LIMIT.as_secs());
                    last = io::Error::new(io::ErrorKind::TimedOut, message);
                }
            }
        }
        Err(last)
    }
}

impl Transport for TlsTransport {
    fn dial<'a>(&'a self, address: &'a str, protocol: &'static str) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(self.dial(address, protocol))
    }

    fn accept(&self) -> Boxed<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let Some(incoming) = &self.incoming else {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "this agent does not listen on a server port"));
            };
            incoming
                .lock()
                .await
                .recv()
                .await
                .ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the server port was closed"))
        })
    }
}

async fn accept_loop(listener: TcpListener, material: Arc<RpcMaterial>, ready: mpsc::Sender<Accepted>, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let (material, ready) = (Arc::clone(&material), ready.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    let handshake = timeout(HANDSHAKE_LIMIT, handshake(stream, address, &material));
                    match handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                        Ok(accepted) => {
                            // Whoever took streams may be gone: then the server is stopping.
                            let _ = ready.send(accepted).await;
                        }
                        Err(error) => tracing::info!(%address, %error, "refused a connection to the server port"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the server port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, address: SocketAddr, material: &RpcMaterial) -> io::Result<Accepted> {
    prepare(&stream)?;
    let own = material
        .own
        .load_full()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "this server has no certificate yet"))?;
    let config = material.tls.rpc_server(&own, &material.trust).map_err(io::Error::other)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let session = stream.get_ref().1;
    let protocol = session.alpn_protocol();
    let peer = material
        .trust
        .classify(session.peer_certificates(), protocol, material.tls.clock().now())
        .map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
    let protocol = String::from_utf8_lossy(protocol.unwrap_or_default()).into_owned();
    Ok(Accepted { peer, protocol, address: address.to_string(), stream: Box::new(stream) })
}

/// Small messages go out at once, and a peer that vanished without a word is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, interval) = KEEPALIVE;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))
}
