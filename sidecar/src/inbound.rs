//! Takes connections for a service from the mesh: mutual TLS outside, plain TCP to the application inside.
//!
//! Invariants
//! - Without a certificate or without intentions nothing is accepted.
//! - The application sees a connection only after the caller has proven who it is and the intentions allow it.
//! - A denial reaches open connections as soon as it is known.
//! - Handshakes and connections are limited in number, handshakes in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{Credentials, SpiffeId, Tls, peer_spiffe_id};
use lictor_runtime::Tasks;
use lictor_types::ServiceName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connections::Connections;
use crate::copy::{self, End};
use crate::counters::{Counters, count};
use crate::drain::{Drain, Phase};
use crate::intention::Intentions;
use crate::socket;

/// The longest a caller may take to prove who it is.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes under way at once, over all services: beyond it strangers are turned away, as they cost us memory and time.
pub(crate) const MAX_HANDSHAKES: usize = 512;
/// Connections open at once, over all services: two descriptors and some 60 kB each.
pub(crate) const MAX_CONNECTIONS: usize = 8192;
/// The longest the application may take to accept; it is on this machine.
const APPLICATION_LIMIT: Duration = Duration::from_secs(5);
/// What TLS may hold back per connection beyond what the socket takes: one record.
pub(crate) const TLS_BUFFER: usize = 16 * 1024;
/// The pause after `accept` failed, mostly for want of descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The inbound side of one service.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) service: ServiceName,
    /// Where the application listens.
    pub(crate) application: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) credentials: Credentials,
    pub(crate) intentions: Intentions,
    /// Limits of all services together.
    pub(crate) handshakes: Connections,
    pub(crate) connections: Connections,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: Drain,
    pub(crate) tasks: Tasks,
}

impl Inbound {
    /// Waits until there are a certificate and intentions: before that the port must not even be listened on.
    pub(crate) async fn ready(&self) {
        let (mut credentials, mut intentions) = (self.credentials.clone(), self.intentions.clone());
        if credentials.ready().await.is_none() {
            // Nobody will ever publish one: stay closed.
            std::future::pending::<()>().await;
        }
        intentions.ready().await;
    }

    /// Accepts until the leave has come to refusing; then the port is closed, and open connections go on.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let refusing = self.drain.clone();
        let refusing = refusing.reached(Phase::Refusing);
        tokio::pin!(refusing);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut refusing => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, caller)) => {
                    let inbound = self.clone();
                    // To its end: what is cut short must be reset, and only the task itself can do that.
                    self.tasks.spawn_to_end(async move { inbound.take(stream, caller).await });
                }
                Err(error) => {
                    tracing::warn!(service = %self.service, %error, "cannot accept connections for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Carries one connection from its first byte to its last.
    async fn take(mut self, stream: TcpStream, caller: SocketAddr) {
        // Whatever ends this early is a failure, and the caller must see it as one.
        socket::reset_on_drop(&stream);
        let Some((mut stream, peer, _place)) = self.admit(stream, caller).await else { return };
        if let Err(reason) = self.intentions.judge(&peer) {
            count(&self.counters.denied);
            tracing::info!(service = %self.service, %peer, %caller, reason, "denied a connection");
            return;
        }
        let mut application = match socket::dial(self.application, APPLICATION_LIMIT).await {
            Ok(application) => application,
            Err(error) => {
                count(&self.counters.unreachable);
                tracing::warn!(service = %self.service, address = %self.application, %error,
                    "the application does not take connections");
                return;
            }
        };
        count(&self.counters.carried);
        let counters = Arc::clone(&self.counters);
        let end = copy::copy(&mut stream, &mut application, &counters.traffic, self.cut(&peer, caller)).await;
        match end {
            End::Finished => socket::end_on_drop(stream.get_ref().0),
            End::Broken(error) => {
                tracing::debug!(service = %self.service, %peer, %error, "a connection broke");
                socket::reset_on_drop(&application);
            }
            End::Cancelled => socket::reset_on_drop(&application),
        }
    }

    /// The handshake: who is it, and is there room. `None` when the connection is not taken, for reasons already told.
    async fn admit(
        &self,
        stream: TcpStream,
        caller: SocketAddr,
    ) -> Option<(TlsStream<TcpStream>, SpiffeId, crate::connections::Place)> {
        let (Some(credential), true) = (self.credentials.current(), self.intentions.known()) else {
            count(&self.counters.closed);
            tracing::debug!(service = %self.service, %caller, "no certificate or no intentions yet: nothing is accepted");
            return None;
        };
        let (Some(_handshaking), Some(place)) = (self.handshakes.enter(), self.connections.enter()) else {
            count(&self.counters.full);
            tracing::debug!(service = %self.service, %caller, "too many connections at once: turned one away");
            return None;
        };
        let handshake = async {
            socket::prepare(&stream)?;
            let config = self.tls.mesh_server(&credential).map_err(std::io::Error::other)?;
            let limit_buffer = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(TLS_BUFFER));
            let stream = TlsAcceptor::from(config).accept_with(stream, limit_buffer).await?;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = peer_spiffe_id(chain).map_err(std::io::Error::other)?;
            std::io::Result::Ok((stream, peer))
        };
        // On the heap: the state of a handshake is large, and it must not weigh on the connection for its whole life.
        let handshake = Box::pin(tokio::time::timeout(HANDSHAKE_LIMIT, handshake));
        let outcome = tokio::select! {
            biased;
            () = self.tasks.stopping() => return None,
            outcome = handshake => outcome.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
        };
        match outcome {
            Ok((stream, peer)) => Some((stream, peer, place)),
            Err(error) => {
                count(&self.counters.handshake_failed);
                tracing::info!(service = %self.service, %caller, %error, "refused a connection");
                None
            }
        }
    }

    /// Becomes ready when the connection of `peer` must end.
    async fn cut(&mut self, peer: &SpiffeId, caller: SocketAddr) {
        tokio::select! {
            reason = self.intentions.until_denied(peer) => {
                count(&self.counters.denied);
                tracing::info!(service = %self.service, %peer, %caller, reason, "closed an open connection");
            }
            () = self.drain.reached(Phase::Drained) => {}
            () = self.tasks.stopping() => {}
        }
    }
}
