//! One keep-alive connection to a server: HTTP/1.1, or gRPC on HTTP/2 without a framework's share of the processor.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lictor_runtime::Tasks;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// One request may take so long; then its connection is given up.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A body of one piece, or one that stays open.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Consul's HTTP API.
    Http,
    /// etcd's gRPC.
    Grpc,
}

/// An open connection.
pub(crate) enum Connection {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Body>),
}

impl Connection {
    /// Dials `address`, which is `host:port`.
    pub(crate) async fn open(door: Door, address: &str, tasks: &Tasks) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address.parse::<SocketAddr>()?).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        // A connection's end is seen by who asks on it.
        Ok(match door {
            Door::Http => {
                let (sender, connection) = http1::handshake(stream).await?;
                tasks.spawn(async move { drop(connection.await) });
                Self::Http(sender)
            }
            Door::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tasks.spawn(async move { drop(connection.await) });
                Self::Grpc(sender)
            }
        })
    }

    /// Asks and takes the whole answer. For gRPC the body is the message, and a status other than 0 is an error.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        match self {
            Self::Http(sender) => {
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                Ok((status, response.into_body().collect().await?.to_bytes()))
            }
            Self::Grpc(sender) => {
                sender.ready().await?;
                let response = sender.send_request(request.map(BodyExt::boxed_unsync)).await?;
                let (head, body) = response.into_parts();
                let body = body.collect().await?;
                grpc_status(body.trailers().unwrap_or(&head.headers))?;
                let framed = body.to_bytes();
                // One byte says whether it is compressed, four how long it is.
                Ok((head.status, framed.slice(framed.len().min(GRPC_PREFIX)..)))
            }
        }
    }
}

/// What precedes every message of gRPC.
pub(crate) const GRPC_PREFIX: usize = 5;

/// Fails unless the call went well.
pub(crate) fn grpc_status(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let status = text("grpc-status");
    if status != "0" {
        bail!("grpc-status {status:?}: {}", text("grpc-message"));
    }
    Ok(())
}

/// A message as gRPC frames it.
pub(crate) fn grpc_frame(message: &impl prost::Message) -> Bytes {
    let mut framed = BytesMut::with_capacity(GRPC_PREFIX + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// A call of gRPC.
pub(crate) fn grpc_request<B>(address: &str, method: &str, body: B) -> anyhow::Result<Request<B>> {
    let request = Request::builder().method("POST").uri(format!("http://{address}/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).context("a request of our own")
}

/// What drives connections: one thread.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// One request on a connection of its own; the body of a successful answer.
pub(crate) fn once(address: &str, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let request = Request::builder().method(method).uri(path).header("Host", address);
    let (status, body) = alone(Door::Http, address, request.body(Full::new(Bytes::from(body)))?)?;
    if !status.is_success() {
        bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body.to_vec())
}

/// One request on a connection of its own.
pub(crate) fn alone(door: Door, address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        let asked = async { Connection::open(door, address, &tasks).await?.ask(request).await };
        let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await.context("no answer in time");
        tasks.cancel();
        answer?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_did_not_say_how_it_ended_did_not_end_well() {
        let mut headers = HeaderMap::new();
        assert!(grpc_status(&headers).is_err());
        headers.insert("grpc-status", "14".parse().expect("a value"));
        assert!(grpc_status(&headers).is_err());
        headers.insert("grpc-status", "0".parse().expect("a value"));
        assert!(grpc_status(&headers).is_ok());
    }
}
