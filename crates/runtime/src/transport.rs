//! Connections between the parts: byte streams whose far end is known.
//!
//! In production a stream is TCP under mutual TLS; in simulation it is memory with an asserted identity. What is above
//! this trait is the shipped code in both.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// Raft's own framed stream, between servers only.
pub const ALPN_RAFT: &str = "raft/1";
/// RPC over HTTP/2.
pub const ALPN_RPC: &str = "h2";
/// The one protocol that takes no client certificate: it hands out the first one.
pub const ALPN_LOGIN: &str = "login/1";

/// Who is at the other end of a stream, as its certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A server of this datacenter: its chain ends at the server CA.
    Server,
    /// A client agent or a sidecar's agent: `node` is its node name.
    Client {
        /// The node name in its certificate.
        node: String,
    },
    /// A workload: `service` is its service name.
    Workload {
        /// The service name in its certificate.
        service: String,
    },
    /// Nobody yet: only [`ALPN_LOGIN`] is served to it.
    Anonymous,
}

/// A duplex byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An owned duplex byte stream.
pub type Stream = Box<dyn Duplex>;

/// An accepted stream.
pub struct Accepted {
    /// Who dialled.
    pub peer: PeerIdentity,
    /// The protocol that both ends chose: one of the `ALPN_` constants.
    pub protocol: String,
    /// The remote address, for messages to people.
    pub address: String,
    /// The bytes.
    pub stream: Stream,
}

/// A future owned on the heap.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dials and accepts streams of the server port.
pub trait Transport: Send + Sync + 'static {
    /// Connects to the server at `address` (`host:port`) and speaks `protocol`. The far end has proven to be a server.
    ///
    /// # Errors
    /// The address does not resolve, nobody listens, the handshake fails or takes too long.
    fn dial<'a>(&'a self, address: &'a str, protocol: &'static str) -> Boxed<'a, io::Result<Stream>>;

    /// Waits for the next incoming stream whose handshake succeeded. Failed handshakes are logged and skipped.
    ///
    /// # Errors
    /// Only when the listener itself is broken.
    fn accept(&self) -> Boxed<'_, io::Result<Accepted>>;
}

/// A transport shared by its users.
pub type SharedTransport = Arc<dyn Transport>;
