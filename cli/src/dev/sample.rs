//! The sample services: two tiny web servers that know nothing of Lictor. `web` calls `api` at a port on loopback, in
//! plain HTTP; who listens there and what becomes of the call is not its business.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lictor_runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections served at once; further ones are closed.
const MAX_CONNECTIONS: usize = 256;
/// How long a caller may take for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The longest that `web` waits for `api`.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The largest answer of `api` that `web` passes on.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The pause after `accept` failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sample {
    /// Says hello.
    Api,
    /// Calls `api` there.
    Web(SocketAddr),
}

impl Sample {
    /// Answers on `listener` until `tasks` are stopped.
    pub(super) fn serve(self, listener: TcpListener, tasks: &Tasks) {
        tasks.spawn(self.accept(listener, tasks.clone()));
    }

    async fn accept(self, listener: TcpListener, tasks: Tasks) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            tasks.spawn(async move {
                let _place = place;
                let answer = service_fn(move |request| async move { Ok::<_, Infallible>(self.answer(request).await) });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
                // An error is a caller that went away, or a check that only looked whether the port is open.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (self, request.uri().path()) {
            (Self::Api, "/") => text(StatusCode::OK, "hello from api\n"),
            (Self::Web(_), "/") => text(StatusCode::OK, "hello from web; GET /api makes me call api\n"),
            (Self::Web(upstream), "/api") => match tokio::time::timeout(CALL_LIMIT, call(upstream)).await {
                Ok(Ok(said)) => text(StatusCode::OK, format!("web called api, which said: {said}")),
                Ok(Err(reason)) => text(StatusCode::BAD_GATEWAY, format!("web could not call api: {reason}\n")),
                Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "web could not call api: no answer in time\n"),
            },
            (_, path) => text(StatusCode::NOT_FOUND, format!("there is no {path} here\n")),
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// Calls `api`, each time on a connection of its own, so that the answer is what the mesh allows at that moment.
async fn call(upstream: SocketAddr) -> Result<String, String> {
    let stream = TcpStream::connect(upstream).await.map_err(|error| format!("{upstream}: {error}"))?;
    let lost = |error: hyper::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("the connection to {upstream} was closed ({cause})")
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = Request::get("/").header("host", "api").body(Full::<Bytes>::default());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
        if status == StatusCode::OK {
            Ok(String::from_utf8_lossy(&body).into_owned())
        } else {
            Err(format!("it answered {status}"))
        }
    };
    // The connection ends when the exchange has dropped its sender; why it ended the exchange knows best.
    let (answered, _) = tokio::join!(exchange, connection);
    answered
}

#[cfg(test)]
mod tests {
    use lictor_client::{Client, ClientError, ClientSettings};

    use super::super::loopback;
    use super::*;

    async fn start(sample: Sample, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        sample.serve(listener, tasks);
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> Result<String, ClientError> {
        let client = Client::new(ClientSettings { address: address.to_string(), ..ClientSettings::default() }).unwrap();
        client.get_bytes(path, &[]).await.map(|(body, _)| String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn web_passes_on_what_api_says() {
        let tasks = Tasks::new();
        let api = start(Sample::Api, &tasks).await;
        let web = start(Sample::Web(api), &tasks).await;
        assert_eq!(ask(web, "/api").await.unwrap(), "web called api, which said: hello from api\n");
        assert!(ask(web, "/").await.unwrap().contains("hello from web"));
        assert!(ask(api, "/nothing").await.unwrap_err().is_not_found());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_call_that_is_closed_on_is_a_bad_gateway_that_says_so() {
        let tasks = Tasks::new();
        let shut = TcpListener::bind(loopback(0)).await.unwrap();
        let web = start(Sample::Web(shut.local_addr().unwrap()), &tasks).await;
        tasks.spawn(async move { while shut.accept().await.is_ok() {} });
        let error = ask(web, "/api").await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { status: 502, body } if body.contains("was closed")), "{error}");
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
