//! Bodies that are too large for memory, or that never end: read and sent as they come.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;

use crate::connect::Connector;
use crate::{Client, ClientError, REQUEST_LIMIT, ResponseMeta, chain};

/// The longest wait for a status, when the work is long.
const LONG_REQUEST_LIMIT: Duration = Duration::from_secs(40 * 60);
/// The largest text of an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// A body that is made as it is sent.
pub type SentBody = UnsyncBoxBody<Bytes, io::Error>;

/// The connections of such requests.
#[derive(Clone)]
pub(crate) struct Streams(Pool<Connector, SentBody>);

impl Streams {
    pub(crate) fn new(connector: Connector) -> Self {
        // Each of these requests is long: a connection of its own costs it nothing.
        Self(Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }
}

/// A body of pieces; an error breaks the request off.
pub fn body<S>(pieces: S) -> SentBody
where
    S: futures_core::Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    use futures_util::TryStreamExt;
    let pieces: Pin<Box<dyn futures_core::Stream<Item = io::Result<Frame<Bytes>>> + Send>> =
        Box::pin(pieces.map_ok(Frame::data));
    BodyExt::boxed_unsync(StreamBody::new(pieces))
}

/// A reply that is read as it comes.
pub struct Reply {
    /// What it says besides its body.
    pub meta: ResponseMeta,
    body: Incoming,
    address: String,
}

impl Reply {
    /// The next piece; none at the end. It waits for it without a limit: the caller knows how long.
    ///
    /// # Errors
    /// The reply broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_) => {}
                },
                Some(Err(error)) => {
                    return Err(ClientError::Unreachable { address: self.address.clone(), reason: chain(&error) });
                }
            }
        }
    }
}

impl Client {
    /// GET, with the body as it comes.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn get_stream(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, ClientError> {
        let empty = BodyExt::boxed_unsync(Empty::new().map_err(|never| match never {}));
        self.stream(Method::GET, path, query, empty, REQUEST_LIMIT).await
    }

    /// PUT of a body that is made as it is sent. The reply may take long.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn put_stream(&self, path: &str, query: &[(&str, &str)], body: SentBody) -> Result<Reply, ClientError> {
        self.stream(Method::PUT, path, query, body, LONG_REQUEST_LIMIT).await
    }

    async fn stream(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: SentBody,
        limit: Duration,
    ) -> Result<Reply, ClientError> {
        let request = self.request(method, &self.url(path, query));
        let request =
            request.body(body).map_err(|error| ClientError::Settings(format!("cannot ask {path:?}: {error}")))?;
        let unreachable = |reason: String| ClientError::Unreachable { address: self.address.clone(), reason };
        let answered = tokio::time::timeout(limit, self.streams.0.request(request)).await;
        let response = answered
            .map_err(|_| ClientError::TooLate(self.address.clone()))?
            .map_err(|error| unreachable(chain(&error)))?;
        let (head, body) = response.into_parts();
        let index = head.headers.get("x-consul-index").and_then(|it| it.to_str().ok()?.parse().ok());
        if head.status == StatusCode::OK {
            let meta = ResponseMeta { index: index.unwrap_or_default() };
            return Ok(Reply { meta, body, address: self.address.clone() });
        }
        let text =
            Limited::new(body, ERROR_BYTES_MAX).collect().await.map_err(|error| unreachable(error.to_string()))?;
        let text = String::from_utf8_lossy(&text.to_bytes()).trim().to_owned();
        Err(ClientError::Status { status: head.status.as_u16(), body: text })
    }
}
