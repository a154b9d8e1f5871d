//! Checks over HTTP/2: gRPC's health service (`grpc.health.v1.Health/Check`), and a bare ping.
//!
//! The one message of each direction is two fields long and its form is fixed for ever, so it is written out here.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, RecvStream};
use http::{HeaderMap, Request};
use lictor_runtime::{Resolver, Stream};
use lictor_types::CheckStatus;

use super::super::target::split_host_port;
use super::Finding;
use super::connect::{Tls, reach};

/// Bytes of the largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4096;
/// What precedes a gRPC message: whether it is compressed, and its length.
const FRAME_HEAD_BYTES: usize = 5;
/// The tag of the request's one field: the service, as a text.
const SERVICE_TAG: u8 = 0x0a;
/// The tag of the answer's one field: the status, as a number.
const STATUS_TAG: u8 = 0x08;
/// The number that says that all is well.
const SERVING: u64 = 1;

/// Asks gRPC's health service.
#[derive(Clone, Debug)]
pub(in crate::local) struct GrpcProbe {
    /// As it was written.
    pub(super) written: String,
    address: String,
    service: String,
    tls: Option<Tls>,
}

/// Pings over HTTP/2.
#[derive(Clone, Debug)]
pub(in crate::local) struct PingProbe {
    /// `host:port`.
    pub(super) address: String,
    pub(super) tls: Option<Tls>,
}

impl GrpcProbe {
    pub(super) fn of(written: &str, tls: Option<Tls>) -> Self {
        let (address, service) = written.split_once('/').unwrap_or((written, ""));
        Self { written: written.into(), address: address.into(), service: service.into(), tls }
    }

    pub(super) async fn run(&self, resolver: &Resolver) -> Result<Finding, String> {
        let failed = |problem: String| format!("gRPC check {}: {problem}", self.written);
        let (host, port) = split_host_port("GRPC", &self.address)?;
        let stream = reach(&host, port, self.tls.as_ref(), true, resolver).await.map_err(failed)?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let status = over(stream, async |sender| self.ask(sender, scheme).await).await.map_err(failed)?;
        match status {
            SERVING => Ok((CheckStatus::Passing, format!("gRPC check {}: success", self.written))),
            0 => Err(failed("serving status: UNKNOWN".into())),
            2 => Err(failed("serving status: NOT_SERVING".into())),
            3 => Err(failed("serving status: SERVICE_UNKNOWN".into())),
            other => Err(failed(format!("serving status: {other}"))),
        }
    }

    async fn ask(&self, mut sender: SendRequest<Bytes>, scheme: &str) -> Result<u64, String> {
        let request = Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "Consul Health Check")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut body) = sender.send_request(request, false).map_err(|error| error.to_string())?;
        body.send_data(framed(&self.service), true).map_err(|error| error.to_string())?;
        let response = response.await.map_err(|error| error.to_string())?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the far end answers HTTP {}: it is no gRPC server", response.status()));
        }
        refused(response.headers())?;
        let mut body = response.into_body();
        let message = collect(&mut body).await?;
        if let Some(trailers) = body.trailers().await.map_err(|error| error.to_string())? {
            refused(&trailers)?;
        }
        status_of(&message).ok_or_else(|| "the answer is no health status".into())
    }
}

impl PingProbe {
    pub(super) async fn run(&self, resolver: &Resolver) -> Result<Finding, String> {
        let failed = |problem: String| format!("Failed to send ping to {}: {problem}", self.address);
        let (host, port) = split_host_port("H2PING", &self.address)?;
        let stream = reach(&host, port, self.tls.as_ref(), true, resolver).await.map_err(failed)?;
        let (_sender, mut connection) =
            h2::client::handshake(stream).await.map_err(|error| failed(error.to_string()))?;
        let mut pings = connection.ping_pong().ok_or_else(|| failed("the connection takes no pings".into()))?;
        tokio::select! {
            pong = pings.ping(Ping::opaque()) => pong.map_err(|error| failed(error.to_string()))?,
            ended = connection => return Err(failed(match ended {
                Ok(()) => "the far end closed the connection".into(),
                Err(error) => error.to_string(),
            })),
        };
        Ok((CheckStatus::Passing, "HTTP2 ping was successful".into()))
    }
}

/// Has `exchange` over a connection that is driven beside it, so that no task is left behind.
async fn over<T>(
    stream: Stream,
    exchange: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<T, String>,
) -> Result<T, String> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    let mut exchange = std::pin::pin!(exchange(sender));
    tokio::select! {
        done = &mut exchange => done,
        ended = connection => match ended {
            Err(error) => Err(error.to_string()),
            Ok(()) => exchange.await,
        },
    }
}

/// A request for the health of `service`; of the whole server when it is empty.
fn framed(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE_TAG);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    frame.into()
}

async fn collect(body: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| error.to_string())?;
        if message.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        message.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(|error| error.to_string())?;
    }
    Ok(message)
}

/// What gRPC says when it has no answer.
fn refused(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        code => Err(format!("code {code}: {}", text("grpc-message"))),
    }
}

/// The status in a framed answer. The field is absent when it is 0.
fn status_of(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(FRAME_HEAD_BYTES)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    if head[0] != 0 || message.len() != length {
        return None;
    }
    match message {
        [] => Some(0),
        [STATUS_TAG, number] if *number < 0x80 => Some(u64::from(*number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::Tasks;
    use tokio::net::TcpListener;

    use super::*;

    /// A health service that answers like this: a message, or a code of gRPC.
    async fn server(tasks: &Tasks, answer: Result<&'static [u8], &'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut body = respond.send_response(response, false).unwrap();
                let mut trailers = HeaderMap::new();
                let code = match answer {
                    Ok(message) => {
                        body.send_data(Bytes::from_static(message), false).unwrap();
                        "0"
                    }
                    Err(code) => code,
                };
                trailers.insert("grpc-status", code.parse().unwrap());
                trailers.insert("grpc-message", "unknown service".parse().unwrap());
                body.send_trailers(trailers).unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn the_health_service_is_asked_and_believed() {
        let (tasks, resolver) = (Tasks::new(), Resolver::from_system());
        for (answer, expected) in [
            (Ok(&[0, 0, 0, 0, 2, 8, 1][..]), Ok("success")),
            (Ok(&[0, 0, 0, 0, 2, 8, 2]), Err("NOT_SERVING")),
            (Ok(&[0, 0, 0, 0, 0]), Err("UNKNOWN")),
            (Ok(&[0, 0, 0, 0, 9, 8, 1]), Err("no health status")),
            (Err("5"), Err("code 5: unknown service")),
        ] {
            let probe = GrpcProbe::of(&format!("{}/web", server(&tasks, answer).await), None);
            match (probe.run(&resolver).await, expected) {
                (Ok((CheckStatus::Passing, output)), Ok(part)) | (Err(output), Err(part)) => {
                    assert!(output.contains(part), "{output}");
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
        tasks.cancel();
    }

    #[tokio::test]
    async fn a_ping_is_answered_by_whoever_speaks_http2() {
        let (tasks, resolver) = (Tasks::new(), Resolver::from_system());
        let probe = PingProbe { address: server(&tasks, Err("5")).await, tls: None };
        assert_eq!(probe.run(&resolver).await, Ok((CheckStatus::Passing, "HTTP2 ping was successful".into())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = PingProbe { address: listener.local_addr().unwrap().to_string(), tls: None };
        let (found, ()) = tokio::join!(probe.run(&resolver), async {
            drop(listener.accept().await.unwrap());
        });
        assert!(found.unwrap_err().contains("Failed to send ping"));
        tasks.cancel();
    }

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("ab")[..], [0, 0, 0, 0, 4, SERVICE_TAG, 2, b'a', b'b']);
        assert_eq!(&framed(&"x".repeat(200))[5..8], [SERVICE_TAG, 0xc8, 1]);
    }
}
