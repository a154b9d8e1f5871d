//! The RPC between agents and servers: one unary method over HTTP/2, the waist's own messages as CBOR.
//!
//! [`RpcConnection`] is the client half, [`serve_connection`] the server half. What goes over `login/1` is in [`login`].
//!
//! Invariants
//! - The server half knows who asks from the connection alone, never from the message.
//! - Every call has a deadline, every message a largest size, and both ends notice a dead peer.

pub mod login;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioIo, TokioTimer};
use lictor_runtime::transport::{ALPN_RPC, Boxed, SharedTransport};
use lictor_runtime::{PeerIdentity, Stream, Tasks};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Request, Response};
use lictor_types::{Refusal, encoding};
use minicbor::Decode;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// The one method.
pub const METHOD: &str = "/lictor.Rpc/Call";
/// Bytes of the largest request: a large value with room around it.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the largest response: a long list.
pub const RESPONSE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Calls that one connection carries at once; blocked reads are most of them.
pub const CONCURRENT_CALLS_MAX: u32 = 4096;
/// A peer that says nothing for so long is asked whether it is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Dialling and the handshake take no longer.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// How long calls that run may go on when the server stops; blocked reads are dropped then, and asked elsewhere.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There is no connection: nothing was asked.
    #[error("rpc error getting client: failed to get conn: {reason}")]
    Dial {
        /// Of what.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection broke: what was asked may or may not have been done.
    #[error("rpc error making call: {address}: {reason}")]
    Broken {
        /// To whom.
        address: String,
        /// How.
        reason: String,
    },
    /// There was no answer in time: what was asked may or may not have been done.
    #[error("rpc error making call: {address}: no answer within {} ms", limit.as_millis())]
    Deadline {
        /// From whom.
        address: String,
        /// The time there was.
        limit: Duration,
    },
    /// The server says nothing, not even that it is there: what was asked may or may not have been done.
    #[error("rpc error making call: {address}: the server does not answer")]
    Silent {
        /// From whom.
        address: String,
    },
    /// One end does not understand the other, or a message is too large.
    #[error("rpc error making call: {address}: {reason}")]
    Message {
        /// To whom.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

impl RpcError {
    /// Whether the connection must not be used again.
    pub fn breaks_connection(&self) -> bool {
        !matches!(self, Self::Message { .. })
    }

    /// The refusal that the asker gets.
    pub fn into_refusal(self) -> Refusal {
        let kind = match &self {
            Self::Dial { .. } => RefusalKind::NoLeader,
            Self::Broken { .. } | Self::Deadline { .. } | Self::Silent { .. } => RefusalKind::Uncertain,
            Self::Message { .. } => RefusalKind::Failed,
        };
        Refusal::new(kind, self.to_string())
    }
}

/// A connection to one server. Clones share it.
#[derive(Clone)]
pub struct RpcConnection {
    address: Arc<str>,
    channel: Channel,
}

impl RpcConnection {
    /// Connects to the server at `address`. What drives the connection belongs to `tasks`.
    ///
    /// # Errors
    /// The server cannot be reached, or does not prove to be one.
    pub async fn connect(transport: &SharedTransport, address: &str, tasks: &Tasks) -> Result<Self, RpcError> {
        let endpoint = Endpoint::from_static("http://server.lictor")
            .executor(tasks.executor())
            .connect_timeout(DIAL_LIMIT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .http2_adaptive_window(true);
        let shared: Arc<str> = address.into();
        let (transport, target) = (Arc::clone(transport), Arc::clone(&shared));
        let connector = tower::service_fn(move |_: http::Uri| {
            let (transport, target) = (Arc::clone(&transport), Arc::clone(&target));
            async move { transport.dial(&target, ALPN_RPC).await.map(TokioIo::new) }
        });
        let connected = tokio::time::timeout(DIAL_LIMIT, endpoint.connect_with_connector(connector)).await;
        let failed = |reason: String| RpcError::Dial { address: address.into(), reason };
        match connected {
            Ok(Ok(channel)) => Ok(Self { address: shared, channel }),
            Ok(Err(error)) => Err(failed(innermost(&error))),
            Err(_) => Err(failed(format!("dial {address}: no connection within {} ms", DIAL_LIMIT.as_millis()))),
        }
    }

    /// Asks, and waits for the answer at most `limit`.
    ///
    /// # Errors
    /// There is no answer; see [`RpcError`].
    pub async fn call(&self, request: Request, limit: Duration) -> Result<Response, RpcError> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let address = || self.address.to_string();
        let bytes = encoding::encode(&request);
        if bytes.len() > REQUEST_BYTES_MAX {
            let reason = format!("a request of {} bytes, at most {REQUEST_BYTES_MAX} are allowed", bytes.len());
            return Err(RpcError::Message { address: address(), reason });
        }
        let exchange = async {
            client.ready().await.map_err(|error| RpcError::Dial { address: address(), reason: innermost(&error) })?;
            let codec = CborCodec::<Response>::default();
            let path = PathAndQuery::from_static(METHOD);
            let answered = client.unary(tonic::Request::new(bytes), path, codec).await;
            answered.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(RpcError::Deadline { address: address(), limit }),
        }
    }

    fn failure(&self, status: &Status) -> RpcError {
        let address = self.address.to_string();
        // What HTTP/2 or the transport did has a cause; what a codec or the far end says stands alone.
        match (status.code(), status.source()) {
            (_, Some(source)) => RpcError::Broken { address, reason: innermost(source) },
            (Code::OutOfRange | Code::InvalidArgument | Code::Internal | Code::Unimplemented, None) => {
                RpcError::Message { address, reason: status.message().to_owned() }
            }
            (_, None) => RpcError::Broken { address, reason: status.message().to_owned() },
        }
    }
}

/// The innermost cause, which says what happened; what is around it says only that something did.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of `peer`. Dropped when the asker goes away.
    fn handle(&self, peer: PeerIdentity, request: Request) -> Boxed<'_, Response>;
}

/// Serves one connection to its end. When `tasks` stop, calls that run may end within a limit, if the caller is one that
/// is not dropped then (see [`Tasks::spawn_to_end`]).
pub async fn serve_connection<H: Handler>(stream: Stream, peer: PeerIdentity, handler: Arc<H>, tasks: &Tasks) {
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (handler, peer) = (Arc::clone(&handler), peer.clone());
        async move { Ok::<_, Infallible>(answer(handler, peer, request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(tasks.executor_to_end())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .adaptive_window(true)
        // Nobody reads it, and its bytes differ from run to run.
        .auto_date_header(false)
        .max_concurrent_streams(CONCURRENT_CALLS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_LIMIT, &mut connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an RPC connection ended");
    }
}

async fn answer<H: Handler>(
    handler: Arc<H>,
    peer: PeerIdentity,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<tonic::body::Body> {
    if request.uri().path() != METHOD {
        return Status::unimplemented(format!("there is one method, {METHOD}")).into_http();
    }
    let method = tower::service_fn(move |request: tonic::Request<Request>| {
        let (handler, peer) = (Arc::clone(&handler), peer.clone());
        async move {
            let bytes = encoding::encode(&handler.handle(peer, request.into_inner()).await);
            Ok::<_, Status>(tonic::Response::new(if bytes.len() > RESPONSE_BYTES_MAX {
                let text =
                    format!("an answer of {} bytes, at most {RESPONSE_BYTES_MAX} are sent; ask for less", bytes.len());
                encoding::encode(&Response::Refused(Refusal::new(RefusalKind::TooLarge, text)))
            } else {
                bytes
            }))
        }
    });
    tonic::server::Grpc::new(CborCodec::<Request>::default())
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX)
        .unary(method, request)
        .await
}

/// Messages as CBOR: sends bytes that are encoded already, so that their size is known before anything is sent, and
/// receives `R`.
struct CborCodec<R>(PhantomData<fn() -> R>);

impl<R> Default for CborCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: for<'b> Decode<'b, ()> + Send + 'static> Codec for CborCodec<R> {
    type Encode = Vec<u8>;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<R> Encoder for CborCodec<R> {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put_slice(&message);
        Ok(())
    }
}

impl<R: for<'b> Decode<'b, ()>> Decoder for CborCodec<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        encoding::decode(&bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// An `io::Error` for bytes that are not what they should be.
fn invalid(reason: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests;
