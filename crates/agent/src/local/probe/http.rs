//! A check that asks for a URL.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lictor_runtime::Resolver;
use lictor_types::CheckStatus;

use super::super::definition::CheckDefinition;
use super::super::target::HttpTarget;
use super::Finding;
use super::connect::{Tls, reach};

/// Who asks.
const AGENT: &str = "Consul Health Check";
/// What we would like to get.
const ACCEPTED: &str = "text/plain, text/*, */*";
/// Redirects that are followed, where they are.
const REDIRECTS_MAX: usize = 10;

/// Asks for a URL.
#[derive(Clone)]
pub(in crate::local) struct HttpProbe {
    url: String,
    target: HttpTarget,
    method: Method,
    headers: BTreeMap<String, Vec<String>>,
    body: Bytes,
    tls: Tls,
    follows: bool,
}

/// One answer.
struct Heard {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

impl HttpProbe {
    pub(super) fn of(definition: &CheckDefinition, tls: Tls) -> Option<Self> {
        let method = if definition.method.is_empty() { "GET" } else { &definition.method };
        Some(Self {
            url: definition.http.clone(),
            target: HttpTarget::parse(&definition.http).ok()?,
            method: Method::from_bytes(method.as_bytes()).ok()?,
            headers: definition.header.clone(),
            body: Bytes::from(definition.body.clone()),
            tls,
            follows: definition.disable_redirects == Some(false),
        })
    }

    /// What it does, for messages.
    pub(super) fn name(&self) -> String {
        format!("{} {:?}", self.method, self.url)
    }

    pub(super) async fn run(&self, resolver: &Resolver, kept: usize) -> Result<Finding, String> {
        let failed = |problem: String| format!("{}: {problem}", self.name());
        let (mut target, mut method, mut redirects) = (self.target.clone(), self.method.clone(), 0);
        let heard = loop {
            let heard = self.ask(&target, &method, resolver, kept).await.map_err(failed)?;
            let Some(location) = heard.location.as_ref().filter(|_| self.follows && heard.status.is_redirection())
            else {
                break heard;
            };
            if redirects == REDIRECTS_MAX {
                return Err(failed(format!("stopped after {REDIRECTS_MAX} redirects")));
            }
            redirects += 1;
            // As browsers do: only these two keep the method, and with it the body.
            if !matches!(heard.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
                && method != Method::HEAD
            {
                method = Method::GET;
            }
            target = target.redirected(location).map_err(failed)?;
        };
        let reason = heard.status.canonical_reason().unwrap_or_default();
        let code = heard.status.as_u16();
        let output = format!("HTTP {} {}: {code} {reason} Output: {}", self.method, self.url, heard.body);
        Ok((health_of(heard.status), output))
    }

    async fn ask(
        &self,
        target: &HttpTarget,
        method: &Method,
        resolver: &Resolver,
        kept: usize,
    ) -> Result<Heard, String> {
        let tls = target.tls.then_some(&self.tls);
        let stream = reach(&target.host, target.port, tls, false, resolver).await?;
        let request = self.request(target, method)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok::<_, String>(Heard { status, location, body: read_capped(response.into_body(), kept).await })
        };
        // The connection is driven here, beside the exchange, so that no task is left behind.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            _ = &mut connection => exchange.await,
        }
    }

    fn request(&self, target: &HttpTarget, method: &Method) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(&target.path);
        if let Some(headers) = request.headers_mut() {
            let host = HeaderValue::from_str(&target.authority).map_err(|error| error.to_string())?;
            headers.insert(HOST, host);
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
            // Headers may hold credentials: they are for the host that was written, and for no other.
            let own = self.headers.iter().filter(|_| target.authority == self.target.authority);
            for (name, values) in own {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
                headers.remove(&name);
                for value in values {
                    headers.append(name.clone(), HeaderValue::from_str(value).map_err(|error| error.to_string())?);
                }
            }
        }
        let body = if *method == self.method { self.body.clone() } else { Bytes::new() };
        request.body(Full::new(body)).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::local::probe::Probe;

    const OUTPUT_BYTES_MAX: usize = 4096;

    async fn run(definition: &CheckDefinition) -> Finding {
        let probe = Probe::of(definition).unwrap();
        probe.run(&Resolver::from_system(), Duration::from_secs(20), OUTPUT_BYTES_MAX).await
    }

    /// Answers one request and returns it.
    async fn answer(listener: &TcpListener, response: &str) -> String {
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
        tokio::join!(run(&definition), answer(&listener, response))
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
    async fn a_redirect_is_followed_where_the_definition_asks_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let definition = CheckDefinition {
            http: format!("http://{address}/old"),
            method: "POST".into(),
            body: "x".into(),
            disable_redirects: Some(false),
            ..CheckDefinition::default()
        };
        let far_end = async {
            let moved = "HTTP/1.1 302 Found\r\nlocation: /new\r\ncontent-length: 0\r\n\r\n";
            answer(&listener, moved).await;
            answer(&listener, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await
        };
        let ((status, output), request) = tokio::join!(run(&definition), far_end);
        assert_eq!(status, CheckStatus::Passing);
        assert!(output.ends_with("/old: 200 OK Output: fine"), "{output}");
        assert!(request.starts_with("GET /new HTTP/1.1\r\n"), "{request}");
        let away = CheckDefinition { method: String::new(), body: String::new(), ..definition };
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        let ((status, output), _) = tokio::join!(run(&away), answer(&listener, moved));
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains("link-local"), "{output}");
    }

    #[tokio::test]
    async fn no_more_of_a_body_is_kept_than_the_limit() {
        let body = "x".repeat(100_000);
        let ((_, output), _) = probe(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(output.matches('x').count(), OUTPUT_BYTES_MAX + "x=1".matches('x').count());
    }

    #[tokio::test]
    async fn the_metadata_service_of_a_cloud_is_never_asked() {
        let definition =
            CheckDefinition { http: "http://169.254.169.254/latest/".into(), ..CheckDefinition::default() };
        let (status, output) = run(&definition).await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains("link-local"), "{output}");
    }
}
