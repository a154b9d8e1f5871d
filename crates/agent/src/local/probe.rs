//! One run of a check that connects somewhere: HTTP or TCP.
//!
//! Invariants
//! - Redirects are never followed, and link-local addresses are never dialled.
//! - At most [`BODY_BYTES_MAX`] bytes of an answer are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lictor_runtime::{Resolver, Stream};
use lictor_types::CheckStatus;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::definition::CheckDefinition;
use super::target::{HttpTarget, forbidden, split_host_port};
use super::trust;

/// Bytes of an HTTP answer that are read and kept.
pub(super) const BODY_BYTES_MAX: usize = 4096;
/// Who asks.
const AGENT: &str = "Consul Health Check";
/// What we would like to get.
const ACCEPTED: &str = "text/plain, text/*, */*";

/// What a run found.
pub(super) type Finding = (CheckStatus, String);

/// A check that connects somewhere.
#[derive(Clone)]
pub(super) enum Probe {
    /// Asks for a URL.
    Http(Box<HttpProbe>),
    /// Connects.
    Tcp {
        /// As it was written.
        address: String,
        /// A handshake too.
        tls: Option<Tls>,
    },
}

/// Asks for a URL.
#[derive(Clone)]
pub(super) struct HttpProbe {
    url: String,
    target: HttpTarget,
    method: Method,
    headers: BTreeMap<String, Vec<String>>,
    body: Bytes,
    tls: Tls,
    kept: usize,
}

/// How a handshake goes.
#[derive(Clone)]
pub(super) struct Tls {
    skip_verify: bool,
    server_name: String,
}

impl Probe {
    /// The probe of a definition; none for a check that its owner tells.
    pub(super) fn of(definition: &CheckDefinition) -> Option<Self> {
        let tls = Tls { skip_verify: definition.tls_skip_verify, server_name: definition.tls_server_name.clone() };
        if !definition.http.is_empty() {
            let method = if definition.method.is_empty() { "GET" } else { &definition.method };
            return Some(Self::Http(Box::new(HttpProbe {
                url: definition.http.clone(),
                target: HttpTarget::parse(&definition.http).ok()?,
                method: Method::from_bytes(method.as_bytes()).ok()?,
                headers: definition.header.clone(),
                body: Bytes::from(definition.body.clone()),
                tls,
                kept: output_limit(definition),
            })));
        }
        let use_tls = definition.tcp_use_tls;
        (!definition.tcp.is_empty()).then(|| Self::Tcp { address: definition.tcp.clone(), tls: use_tls.then_some(tls) })
    }

    /// Runs it once.
    pub(super) async fn run(&self, resolver: &Resolver) -> Finding {
        let found = match self {
            Self::Http(probe) => probe.run(resolver).await,
            Self::Tcp { address, tls } => tcp(address, tls.as_ref(), resolver).await,
        };
        found.unwrap_or_else(|problem| (CheckStatus::Critical, problem))
    }

    /// What a run that took too long found.
    pub(super) fn too_slow(&self, limit: std::time::Duration) -> Finding {
        let limit = lictor_types::duration::format(limit);
        let output = match self {
            Self::Http(probe) => format!("{} {:?}: context deadline exceeded after {limit}", probe.method, probe.url),
            Self::Tcp { address, .. } => format!("dial tcp {address}: i/o timeout after {limit}"),
        };
        (CheckStatus::Critical, output)
    }
}

/// Bytes of output that a check keeps.
pub(super) fn output_limit(definition: &CheckDefinition) -> usize {
    match usize::try_from(definition.output_max_size) {
        Ok(size) if size > 0 => size.min(BODY_BYTES_MAX),
        _ => BODY_BYTES_MAX,
    }
}

impl HttpProbe {
    async fn run(&self, resolver: &Resolver) -> Result<Finding, String> {
        let failed = |problem: String| format!("{} {:?}: {problem}", self.method, self.url);
        let stream = connect(&self.target.host, self.target.port, resolver).await.map_err(failed)?;
        let stream: Stream = if self.target.tls {
            handshake(stream, &self.tls, &self.target.host).await.map_err(failed)?
        } else {
            Box::new(stream)
        };
        let request = self.request().map_err(failed)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
            let status = response.status();
            let body = read_capped(response.into_body(), self.kept).await;
            Ok::<_, String>((status, body))
        };
        // The connection is driven here, beside the exchange, so that no task is left behind.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        let (status, body) = tokio::select! {
            done = &mut exchange => done?,
            _ = &mut connection => exchange.await?,
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let output = format!("HTTP {} {}: {} {reason} Output: {body}", self.method, self.url, status.as_u16());
        Ok((health_of(status), output))
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(&self.method).uri(&self.target.path);
        if let Some(headers) = request.headers_mut() {
            let host = HeaderValue::from_str(&self.target.authority).map_err(|error| error.to_string())?;
            headers.insert(HOST, host);
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
            for (name, values) in &self.headers {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
                headers.remove(&name);
                for value in values {
                    headers.append(name.clone(), HeaderValue::from_str(value).map_err(|error| error.to_string())?);
                }
            }
        }
        request.body(Full::new(self.body.clone())).map_err(|error| error.to_string())
    }
}

fn health_of(status: StatusCode) -> CheckStatus {
    if status.is_success() {
        CheckStatus::Passing
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        CheckStatus::Warning
    } else {
        CheckStatus::Critical
    }
}

async fn read_capped(mut body: Incoming, limit: usize) -> String {
    let mut kept = Vec::new();
    while kept.len() < limit {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    kept.extend_from_slice(&data[..data.len().min(limit - kept.len())]);
                }
            }
            // The status was told; a body that breaks off changes nothing.
            Some(Err(_)) | None => break,
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

async fn tcp(address: &str, tls: Option<&Tls>, resolver: &Resolver) -> Result<Finding, String> {
    let (host, port) = split_host_port(address)?;
    let stream = connect(&host, port, resolver).await?;
    if let Some(tls) = tls {
        handshake(stream, tls, &host).await?;
    }
    Ok((CheckStatus::Passing, format!("TCP connect {address}: Success")))
}

/// Connects to the first address that takes us.
async fn connect(host: &str, port: u16, resolver: &Resolver) -> Result<TcpStream, String> {
    let addresses = resolver.resolve_host(host).await.map_err(|error| error.to_string())?;
    let mut problem = format!("{host} has no addresses");
    for address in addresses {
        if let Some(reason) = forbidden(address) {
            return Err(reason);
        }
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = format!("dial tcp {}: connect: {error}", SocketAddr::new(address, port)),
        }
    }
    Err(problem)
}

async fn handshake(stream: TcpStream, tls: &Tls, host: &str) -> Result<Stream, String> {
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("TLS name {name:?}: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(trust::config(tls.skip_verify)?));
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS handshake: {error}"))?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request and returns it.
    async fn answer(listener: TcpListener, response: String) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            request.push(byte[0]);
        }
        // The far end may close as soon as it has read enough.
        let _ = stream.write_all(response.as_bytes()).await;
        String::from_utf8(request).unwrap()
    }

    async fn probe(response: &str) -> (Finding, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let definition = CheckDefinition {
            http: format!("http://{}/health?x=1", listener.local_addr().unwrap()),
            header: BTreeMap::from([("X-One".into(), vec!["a".into(), "b".into()])]),
            ..CheckDefinition::default()
        };
        let probe = Probe::of(&definition).unwrap();
        let resolver = Resolver::from_system();
        tokio::join!(probe.run(&resolver), answer(listener, response.into()))
    }

    #[tokio::test]
    async fn an_http_check_asks_as_consul_does_and_keeps_what_it_hears() {
        let ((status, output), request) = probe("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await;
        assert_eq!(status, CheckStatus::Passing);
        assert!(output.ends_with("/health?x=1: 200 OK Output: fine"), "{output}");
        assert!(request.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{request}");
        let request = request.to_ascii_lowercase();
        for header in ["user-agent: consul health check", "accept: text/plain, text/*, */*", "x-one: a", "x-one: b"] {
            assert!(request.contains(header), "{request}");
        }
    }

    #[tokio::test]
    async fn too_many_requests_warn_and_a_redirect_is_a_failure() {
        let ((status, _), _) = probe("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(status, CheckStatus::Warning);
        let ((status, output), _) =
            probe("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains("302 Found"), "{output}");
    }

    #[tokio::test]
    async fn no_more_of_a_body_is_kept_than_the_limit() {
        let body = "x".repeat(100_000);
        let ((_, output), _) = probe(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(output.matches('x').count(), BODY_BYTES_MAX + "x=1".matches('x').count());
    }

    #[tokio::test]
    async fn a_tcp_check_says_who_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let definition = CheckDefinition { tcp: address.clone(), ..CheckDefinition::default() };
        let (probe, resolver) = (Probe::of(&definition).unwrap(), Resolver::from_system());
        assert_eq!(probe.run(&resolver).await, (CheckStatus::Passing, format!("TCP connect {address}: Success")));
        drop(listener);
        let (status, output) = probe.run(&resolver).await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains(&address) && output.contains("refused"), "{output}");
    }

    #[tokio::test]
    async fn the_metadata_service_of_a_cloud_is_never_asked() {
        let definition =
            CheckDefinition { http: "http://169.254.169.254/latest/".into(), ..CheckDefinition::default() };
        let (status, output) = Probe::of(&definition).unwrap().run(&Resolver::from_system()).await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains("link-local"), "{output}");
    }
}
