//! Connections of the HTTP door: accepted, counted, bounded and ended in order.
//!
//! Invariants
//! - One address holds at most a configured number of connections, all together [`CONNECTIONS_MAX`]; one more is answered
//!   429 or 503, which names the limit, and closed.
//! - A connection that sends no whole header block within [`HEADER_READ_LIMIT`] is closed.
//! - When the tasks are told to stop, requests under way may end within [`DRAIN_LIMIT`]; parked reads are dropped then.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use lictor_runtime::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::choice::ClientAddress;

/// How long a client may take for the head of a request, idle time between two requests included.
const HEADER_READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that a connection buffers, so the largest head of a request too: a key of 8 KiB is 24 KiB when percent-encoded.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How long requests under way may go on after the order to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Connections of all clients together.
const CONNECTIONS_MAX: usize = 16_384;
/// How long to wait after the operating system refused a connection, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is said to one connection too many; the connection ends with it.
fn too_many(status: &str, words: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{words}\n")
}

/// How many connections one address may hold, asked anew for each: a reload changes it.
pub type ConnectionLimit = Arc<dyn Fn() -> usize + Send + Sync>;

/// A listening socket of the HTTP door.
pub struct HttpListener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, unless it is plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl HttpListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Says which address it was: it is in use, not ours, or needs a privilege.
    pub async fn bind(address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        let socket = lictor_runtime::listen(address)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen for HTTP on {address}: {error}")))?;
        Ok(Self { socket, tls })
    }
}

/// Serves `router` on every listener until `tasks` are told to stop.
pub fn serve(listeners: Vec<HttpListener>, router: &Router, connections_per_client: ConnectionLimit, tasks: &Tasks) {
    let clients = Arc::new(Clients { limit: connections_per_client, open: Mutex::default() });
    for listener in listeners {
        let (router, clients, owner) = (router.clone(), clients.clone(), tasks.clone());
        tasks.spawn(accept(listener, router, clients, owner));
    }
}

async fn accept(listener: HttpListener, router: Router, clients: Arc<Clients>, tasks: Tasks) {
    let tls = listener.tls.map(TlsAcceptor::from);
    loop {
        let (stream, peer) = match listener.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match clients.admit(peer.ip()) {
            Ok(place) => place,
            Err(refusal) => {
                tracing::debug!(%peer, "too many HTTP connections");
                refuse(&stream, &refusal);
                continue;
            }
        };
        let (router, tls, connection_tasks) = (router.clone(), tls.clone(), tasks.clone());
        tasks.spawn_to_end(async move {
            let _place = place;
            // Latency matters more than full packets; a socket that cannot be told so works all the same.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "cannot turn Nagle's algorithm off");
            }
            match tls {
                None => connection(stream, peer.ip(), router, &connection_tasks).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer.ip(), router, &connection_tasks).await,
                    Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
        });
    }
}

/// Tells a client that it has too many connections, without waiting for it.
fn refuse(stream: &TcpStream, refusal: &str) {
    // A new socket's send buffer is empty, so this fits or the client is gone; either way the connection ends.
    if let Err(error) = stream.try_write(refusal.as_bytes()) {
        tracing::debug!(%error, "cannot answer a connection too many");
    }
}

/// Serves one connection to its end.
pub(super) async fn connection<S>(stream: S, client: IpAddr, router: Router, tasks: &Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(tasks.executor_to_end());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_LIMIT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32);
    let router = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ClientAddress(client));
        request
    });
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = tasks.stopping() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_LIMIT, served).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Open connections by client address.
struct Clients {
    limit: ConnectionLimit,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The place of one connection; free again when dropped.
struct Place {
    clients: Arc<Clients>,
    address: IpAddr,
}

impl Clients {
    /// A place for one more connection of `address`, or what to answer it. A limit of 0 is none, as in Consul.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, String> {
        let limit = (self.limit)();
        let mut open = self.open.lock();
        if open.all >= CONNECTIONS_MAX {
            let words = format!("this agent serves {CONNECTIONS_MAX} HTTP connections at once; try again later");
            return Err(too_many("503 Service Unavailable", &words));
        }
        if limit > 0 && open.by_address.get(&address).copied().unwrap_or_default() >= limit {
            let words = format!(
                "Your IP is issuing too many concurrent connections, please rate limit your calls (at most {limit}, \
                 limits.http_max_conns_per_client)"
            );
            return Err(too_many("429 Too Many Requests", &words));
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Ok(Place { clients: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock();
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answered(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(read);
        (stream, String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_and_its_place_is_free_afterwards() {
        let tasks = Tasks::new();
        let listener = HttpListener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let address = listener.socket.local_addr().unwrap();
        let router = Router::new().fallback(async || "hello");
        serve(vec![listener], &router, Arc::new(|| 1), &tasks);
        let (first, words) = answered(address).await;
        assert!(words.starts_with("HTTP/1.1 200 OK") && words.ends_with("hello"), "{words}");
        let (_second, words) = answered(address).await;
        assert!(words.starts_with("HTTP/1.1 429 ") && words.contains("limits.http_max_conns_per_client"), "{words}");
        drop(first);
        while !answered(address).await.1.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
        assert!(tasks.stop(Duration::from_secs(5)).await, "a connection outlived the order to stop");
    }

    #[test]
    fn a_limit_of_nothing_is_no_limit() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let admitted = |limit| {
            let clients = Arc::new(Clients { limit: Arc::new(move || limit), open: Mutex::default() });
            let places: Vec<_> = (0..300).map(|_| clients.admit(address)).collect();
            places.iter().filter(|place| place.is_ok()).count()
        };
        assert_eq!((admitted(0), admitted(200)), (300, 200));
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let held = HttpListener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let address = held.socket.local_addr().unwrap();
        let error = HttpListener::bind(address, None).await.err().unwrap();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
