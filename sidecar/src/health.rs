//! The little HTTP that Kubernetes asks: has it started, is it ready, and please leave.
//!
//! `GET /started` (startup probe), `GET /ready`, `GET` or `POST /drain` (`preStop`, by `lictor
//! sidecar drain`; answers when the leave is done), `GET /metrics` (Prometheus text). One request per connection, no bodies
//! read, no data of the mesh told.
//!
//! Invariants
//! - Nobody outside the pod can make it leave: `/drain` answers loopback only.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::Credentials;
use lictor_runtime::{Clock, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::connections::Connections;
use crate::counters::Counters;
use crate::drain::{Drain, Phase};
use crate::inbound::ACCEPT_PAUSE;

/// Requests served at once; a probe is one.
const MAX_REQUESTS: usize = 32;
/// The most bytes of a request's head that are read.
const MAX_HEAD: usize = 8 * 1024;
/// The longest a request may take to arrive, and an answer to leave.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);

/// How far the start has come, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// No server has let us in yet.
    LoggingIn,
    /// A leaf is missing.
    AwaitingCertificates,
    /// The intentions of a service are missing.
    AwaitingIntentions,
    /// The catalog does not have us yet.
    Registering,
    /// Everything is there.
    Started,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Self::LoggingIn => "logging in to the servers",
            Self::AwaitingCertificates => "waiting for the leaf certificate of each service",
            Self::AwaitingIntentions => "waiting for the intentions of each service",
            Self::Registering => "registering in the catalog",
            Self::Started => "started",
        }
    }
}

/// What the answers are made of.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) step: watch::Receiver<Step>,
    pub(crate) drain: Drain,
    /// Of each service; filled when the login has told who we are.
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) inbound: Arc<Counters>,
    pub(crate) outbound: Arc<Counters>,
    pub(crate) open_inbound: Connections,
    pub(crate) open_outbound: Connections,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
}

struct Reply {
    status: &'static str,
    text: String,
}

impl Health {
    /// Answers for ever.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let requests = Connections::limited_to(MAX_REQUESTS);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Some(place) = requests.enter() else { continue };
                    let health = self.clone();
                    self.tasks.spawn(async move {
                        let _place = place;
                        if let Err(error) = health.exchange(stream).await {
                            tracing::debug!(%error, "a health request failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept health requests for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn exchange(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = tokio::time::timeout(EXCHANGE_LIMIT, read_head(&mut stream)).await??;
        let from = stream.peer_addr()?.ip();
        let Reply { status, text } = self.answer(&head, from).await;
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        );
        tokio::time::timeout(EXCHANGE_LIMIT, async {
            stream.write_all(reply.as_bytes()).await?;
            stream.shutdown().await
        })
        .await?
    }

    async fn answer(&self, head: &str, from: IpAddr) -> Reply {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        match (method, path) {
            ("GET", "/started") => verdict(self.started()),
            ("GET", "/ready") => verdict(self.ready()),
            ("GET" | "POST", "/drain") if !from.to_canonical().is_loopback() => Reply {
                status: "403 Forbidden",
                text: "only from inside the pod: lictor sidecar drain, or curl 127.0.0.1\n".into(),
            },
            ("GET" | "POST", "/drain") => {
                self.drain.begin();
                self.drain.reached(Phase::Drained).await;
                Reply { status: "200 OK", text: "drained\n".into() }
            }
            ("GET", "/metrics") => Reply { status: "200 OK", text: self.metrics() },
            (_, "/started" | "/ready" | "/drain" | "/metrics") => {
                Reply { status: "405 Method Not Allowed", text: "GET is allowed; POST too on /drain\n".into() }
            }
            _ => Reply { status: "404 Not Found", text: "/started, /ready, /drain and /metrics are here\n".into() },
        }
    }

    fn started(&self) -> Result<(), String> {
        let step = *self.step.borrow();
        if step == Step::Started { Ok(()) } else { Err(step.text().into()) }
    }

    fn ready(&self) -> Result<(), String> {
        self.started()?;
        if self.drain.phase() != Phase::Serving {
            return Err("leaving".into());
        }
        let now = self.clock.now();
        let valid = |credentials: &Credentials| {
            credentials.current().is_some_and(|credential| credential.chain().check_validity(now).is_ok())
        };
        if self.credentials.iter().all(valid) { Ok(()) } else { Err("a leaf certificate is not valid now".into()) }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        for (direction, counters, open) in
            [("inbound", &self.inbound, &self.open_inbound), ("outbound", &self.outbound, &self.open_outbound)]
        {
            counters.render(direction, &mut text);
            text.push_str(&format!("lictor_sidecar_connections_open{{direction=\"{direction}\"}} {}\n", open.open()));
        }
        text
    }
}

fn verdict(outcome: Result<(), String>) -> Reply {
    match outcome {
        Ok(()) => Reply { status: "200 OK", text: "ok\n".into() },
        Err(reason) => Reply { status: "503 Service Unavailable", text: format!("{reason}\n") },
    }
}

/// The head of a request, up to the empty line.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request's head is too long"));
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    String::from_utf8(head).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the request's head is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{LIMIT, authority, certificate};
    use lictor_runtime::SystemClock;
    use std::net::SocketAddr;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: pod\r\n\r\n").as_bytes()).await.unwrap();
        let mut reply = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
        reply
    }

    #[tokio::test]
    async fn probes_follow_start_certificate_and_leave() {
        let (publisher, credentials) = Credentials::closed();
        let (step, steps) = watch::channel(Step::LoggingIn);
        let tasks = Tasks::new();
        let drain = Drain::new();
        let health = Health {
            step: steps,
            drain: drain.clone(),
            credentials: vec![credentials],
            inbound: Arc::default(),
            outbound: Arc::default(),
            open_inbound: Connections::limited_to(1),
            open_outbound: Connections::limited_to(1),
            clock: Arc::new(SystemClock),
            tasks: tasks.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(health.clone().serve(listener));

        let stranger = health.answer("POST /drain HTTP/1.1", "10.1.2.3".parse().unwrap()).await;
        assert_eq!((stranger.status, drain.phase()), ("403 Forbidden", Phase::Serving));
        let reply = ask(address, "GET /started").await;
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("logging in"), "{reply}");
        step.send_replace(Step::Started);
        assert!(ask(address, "GET /started").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "GET /ready").await.contains("not valid"));
        publisher.publish(certificate(&authority(), "web"));
        assert!(ask(address, "GET /ready").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "POST /ready").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "GET /secrets").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "GET /metrics").await.contains("connections_open{direction=\"inbound\"} 0"));

        tasks.spawn(drain.clone().run(std::future::ready(()), Connections::limited_to(1), LIMIT));
        assert!(ask(address, "POST /drain?x=1").await.ends_with("drained\n"));
        assert!(ask(address, "GET /ready").await.contains("leaving"));
        assert!(tasks.stop(LIMIT).await);
    }
}
