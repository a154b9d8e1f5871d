//! Typed client of the public HTTP API, for the command line and the operator.
//!
//! Invariants
//! - Every request has a deadline, and every reply a size limit.
//! - A token goes into a header, never into a URL, a log or an error.

mod connect;
pub mod stream;
mod tls;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use connect::Connector;
pub use tls::ClientCertificate;

/// A request that does not wait for a change must be answered within this.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// The largest reply that is read.
const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What stands before paths where a Unix socket is dialled.
const BASE_OF_SOCKET: &str = "http://localhost";
/// How long an unused connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Where the API is and who asks.
#[derive(Clone, Default)]
pub struct ClientSettings {
    /// `http://host:port` or `https://host:port`; without a scheme it is `http`.
    pub address: String,
    /// The CA that signed the server's certificate, PEM; needed for https, unless nobody is verified.
    pub ca_pem: Option<String>,
    /// The server's certificate is not looked at: whoever is on the way can read and change everything.
    pub is_unverified: bool,
    /// What the server is shown, where it asks.
    pub certificate: Option<ClientCertificate>,
    /// `user:password` for whatever stands before the API.
    pub basic_auth: Option<String>,
    /// The name in the server's certificate, if it is not the host of the address.
    pub server_name: Option<String>,
    /// The secret of an ACL token.
    pub token: Option<String>,
    /// The datacenter to ask, if it is not the agent's own.
    pub datacenter: Option<String>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// Nobody answered.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The address that was tried.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer came in time.
    #[error("{0} did not answer within {REQUEST_LIMIT:?}")]
    TooLate(String),
    /// The answer is an error; Consul's clients word it so.
    #[error("Unexpected response code: {status} ({body})")]
    Status {
        /// HTTP status.
        status: u16,
        /// The text of the answer.
        body: String,
    },
    /// The answer is not what was expected.
    #[error("the answer of {path} cannot be read: {reason}")]
    Reply {
        /// The path asked.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// Whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }
}

/// What a reply says besides its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseMeta {
    /// `X-Consul-Index`; 0 when the endpoint has none.
    pub index: u64,
}

/// A client of one address. Cloning shares its connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    streams: stream::Streams,
    base: String,
    /// As it was given, for people.
    address: String,
    token: Option<String>,
    /// The whole header.
    basic_auth: Option<String>,
    datacenter: Option<String>,
}

impl Client {
    /// A client for these settings. Nothing is dialled yet.
    ///
    /// # Errors
    /// The address is not a URL, or https has no readable CA.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let address = settings.address.clone();
        let address = if address.contains("://") { address } else { format!("http://{address}") };
        let (base, connector) = match address.strip_prefix("unix://") {
            Some(path) => (BASE_OF_SOCKET.to_owned(), Connector::unix(path)),
            None => {
                let base = address.trim_end_matches('/').to_owned();
                let connector = Connector::new(&base, &settings);
                (base, connector)
            }
        };
        let connector = connector.map_err(ClientError::Settings)?;
        let streams = stream::Streams::new(connector.clone());
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let ClientSettings { token, datacenter, basic_auth, .. } = settings;
        let basic_auth = basic_auth.map(|text| format!("Basic {}", STANDARD.encode(text)));
        Ok(Self { pool, streams, base, address, token, basic_auth, datacenter })
    }

    /// GET, with the body as JSON.
    ///
    /// # Errors
    /// No answer, an error status, or another body than expected.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(T, ResponseMeta), ClientError> {
        let (bytes, meta) = self.get_bytes(path, query).await?;
        Ok((read(path, &bytes)?, meta))
    }

    /// GET, with the body as JSON; none when there is no such thing.
    ///
    /// # Errors
    /// No answer, another error status, or another body than expected.
    pub async fn find_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(Option<T>, ResponseMeta), ClientError> {
        match self.exchange(Method::GET, path, query, Bytes::new()).await? {
            (StatusCode::OK, bytes, meta) => Ok((Some(read(path, &bytes)?), meta)),
            (StatusCode::NOT_FOUND, _, meta) => Ok((None, meta)),
            (status, bytes, _) => Err(refused(status, &bytes)),
        }
    }

    /// GET, with the body as it is.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn get_bytes(&self, path: &str, query: &[(&str, &str)]) -> Result<(Bytes, ResponseMeta), ClientError> {
        self.send(Method::GET, path, query, Bytes::new()).await
    }

    /// PUT of a JSON body, with the reply as JSON. An empty reply is read as `null`.
    ///
    /// # Errors
    /// No answer, an error status, or another body than expected.
    pub async fn put_json<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &B,
    ) -> Result<T, ClientError> {
        let (bytes, _) = self.send(Method::PUT, path, query, json(body)?).await?;
        read(path, &bytes)
    }

    /// PUT of bytes, with the reply as it is.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn put_bytes(&self, path: &str, query: &[(&str, &str)], body: Bytes) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::PUT, path, query, body).await?.0)
    }

    /// POST of a JSON body, with the reply as it is.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn post_json<B: Serialize + ?Sized>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &B,
    ) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::POST, path, query, json(body)?).await?.0)
    }

    /// DELETE with a JSON body, with the reply as it is.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn delete_json<B: Serialize + ?Sized>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &B,
    ) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::DELETE, path, query, json(body)?).await?.0)
    }

    /// DELETE.
    ///
    /// # Errors
    /// No answer, or an error status.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::DELETE, path, query, Bytes::new()).await?.0)
    }

    /// A request with what says who asks.
    fn request(&self, method: Method, url: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        if let Some(basic_auth) = &self.basic_auth {
            request = request.header(http::header::AUTHORIZATION, basic_auth);
        }
        request
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut url = format!("{}{path}", self.base);
        let datacenter = self.datacenter.as_deref().map(|name| ("dc", name));
        for (at, (key, value)) in query.iter().copied().chain(datacenter).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(key);
            if !value.is_empty() {
                url.push('=');
                url.push_str(&encode_query(value));
            }
        }
        url
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(Bytes, ResponseMeta), ClientError> {
        match self.exchange(method, path, query, body).await? {
            (StatusCode::OK, bytes, meta) => Ok((bytes, meta)),
            (status, bytes, _) => Err(refused(status, &bytes)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Bytes, ResponseMeta), ClientError> {
        let url = self.url(path, query);
        let request = self
            .request(method, &url)
            .body(Full::new(body))
            .map_err(|error| ClientError::Settings(format!("cannot ask {path:?}: {error}")))?;
        let unreachable = |reason: String| ClientError::Unreachable { address: self.address.clone(), reason };
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|error| unreachable(chain(&error)))?;
            let (head, body) = response.into_parts();
            let index = head.headers.get("x-consul-index").and_then(|it| it.to_str().ok()?.parse().ok());
            let bytes = Limited::new(body, REPLY_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| unreachable(error.to_string()))?
                .to_bytes();
            Ok((head.status, bytes, ResponseMeta { index: index.unwrap_or_default() }))
        };
        tokio::time::timeout(REQUEST_LIMIT, exchange).await.map_err(|_| ClientError::TooLate(self.address.clone()))?
    }
}

fn json<B: Serialize + ?Sized>(body: &B) -> Result<Bytes, ClientError> {
    let written = serde_json::to_vec(body);
    written.map(Bytes::from).map_err(|error| ClientError::Settings(format!("a body that is not JSON: {error}")))
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    ClientError::Status { status: status.as_u16(), body: String::from_utf8_lossy(body).trim().into() }
}

/// Encodes one segment of a path, so that a name may hold any character; `/` stays as it is.
pub fn encode_path(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, &PATH).to_string()
}

fn encode_query(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

const PATH: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn read<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, ClientError> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|error| ClientError::Reply { path: path.to_owned(), reason: error.to_string() })
}

/// An error with its causes: hyper's own words stop at "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
