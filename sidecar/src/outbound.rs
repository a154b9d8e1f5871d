//! Carries the application's calls to a service into the mesh: plain TCP inside, mutual TLS to an instance outside.
//!
//! Invariants
//! - Not a byte of the application leaves before the far end has proven to be the service that was called.
//! - A connection that could not be made is tried on other instances, a bounded number of times; one that was made is
//!   never tried again, as nobody knows what the instance has done with it.
//! - Where nobody can be reached the application is refused quickly, not kept waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{Credentials, PeerError, Tls, mesh_server_name};
use lictor_runtime::{Resolver, Rng, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::balance::{self, Endpoint, Load};
use crate::connections::Connections;
use crate::copy::{self, End};
use crate::counters::{Counters, count};
use crate::inbound::{ACCEPT_PAUSE, TLS_BUFFER};
use crate::socket;
use crate::upstream::Upstream;

/// Instances that are tried for one connection. Two bad ones in a row happen in a rollout; three are an outage.
const MAX_TRIES: usize = 3;
/// The longest an instance may take to connect and to prove who it is, before another is tried.
const TRY_LIMIT: Duration = Duration::from_secs(3);
/// Connections open at once, over all upstreams.
pub(crate) const MAX_CONNECTIONS: usize = 8192;

/// Why a call could not be carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is nothing to prove ourselves with.
    #[error("there is no certificate yet")]
    NoCertificate,
    /// The service's name cannot be asked for in a handshake.
    #[error(transparent)]
    Name(#[from] PeerError),
    /// Nobody to call.
    #[error("the catalog has no healthy instance of it")]
    NoInstance,
    /// All that were tried failed.
    #[error("{tries} instances were tried and none could be connected to; {address} was the last: {source}")]
    Unreachable {
        /// How many.
        tries: usize,
        /// The last of them.
        address: String,
        /// What was wrong with it.
        source: io::Error,
    },
}

/// The outbound side to one upstream.
#[derive(Clone)]
pub(crate) struct Outbound {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) tls: Tls,
    /// Of the service that the application is.
    pub(crate) credentials: Credentials,
    pub(crate) resolver: Resolver,
    pub(crate) rng: Arc<dyn Rng>,
    /// The limit of all upstreams together.
    pub(crate) connections: Connections,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: Tasks,
}

impl Outbound {
    /// Accepts from the application for ever.
    pub(crate) async fn serve(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, application)) => {
                    let outbound = self.clone();
                    // To its end: what is cut short must be reset, and only the task itself can do that.
                    self.tasks.spawn_to_end(async move { outbound.carry(stream, application).await });
                }
                Err(error) => {
                    tracing::warn!(service = %self.upstream.service(), %error, "cannot accept calls for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn carry(self, mut application: TcpStream, caller: SocketAddr) {
        // A call that fails must not look like an empty answer.
        socket::reset_on_drop(&application);
        let Some(_place) = self.connections.enter() else {
            count(&self.counters.full);
            tracing::warn!(service = %self.upstream.service(), "too many calls at once: turned one away");
            return;
        };
        let connected = tokio::select! {
            biased;
            () = self.tasks.stopping() => return,
            connected = Box::pin(self.connect(&application)) => connected,
        };
        let (mut instance, _load) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                count(match error {
                    CallError::NoCertificate => &self.counters.closed,
                    _ => &self.counters.unreachable,
                });
                tracing::warn!(service = %self.upstream.service(), %caller, %error, "cannot carry a call");
                return;
            }
        };
        count(&self.counters.carried);
        match copy::copy(&mut application, &mut instance, &self.counters.traffic, self.tasks.stopping()).await {
            End::Finished => socket::end_on_drop(&application),
            End::Broken(error) => {
                tracing::debug!(service = %self.upstream.service(), %error, "a call broke");
                socket::reset_on_drop(instance.get_ref().0);
            }
            End::Cancelled => socket::reset_on_drop(instance.get_ref().0),
        }
    }

    /// Connects to an instance, or to another if that fails.
    async fn connect(&self, application: &TcpStream) -> Result<(TlsStream<TcpStream>, Load), CallError> {
        // Keepalive towards the application is a courtesy; that it cannot be had is no reason to refuse.
        let _ = socket::prepare(application);
        let mut tried: Vec<Arc<Endpoint>> = Vec::with_capacity(MAX_TRIES);
        let mut last: Option<io::Error> = None;
        while tried.len() < MAX_TRIES {
            let endpoints = self.upstream.endpoints();
            let Some(endpoint) = balance::choose(&endpoints, &tried, Instant::now(), &*self.rng) else { break };
            let load = endpoint.take();
            match timeout(TRY_LIMIT, self.handshake(endpoint)).await {
                Ok(Ok(Ok(stream))) => {
                    endpoint.succeeded();
                    return Ok((stream, load));
                }
                Ok(Err(ours)) => return Err(ours),
                Ok(Ok(Err(error))) => last = Some(error),
                Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
            }
            if let Some(error) = &last {
                tracing::debug!(service = %self.upstream.service(), address = endpoint.address(), %error,
                    "an instance could not be connected to");
            }
            endpoint.failed(Instant::now());
            tried.push(Arc::clone(endpoint));
        }
        match (last, tried.last()) {
            (Some(source), Some(endpoint)) => {
                Err(CallError::Unreachable { tries: tried.len(), address: endpoint.address().into(), source })
            }
            _ => Err(CallError::NoInstance),
        }
    }

    /// One try. The outer error is ours and would be the same at every instance; the inner one is the instance's.
    async fn handshake(&self, endpoint: &Endpoint) -> Result<io::Result<TlsStream<TcpStream>>, CallError> {
        let expected = self.upstream.expected();
        let credential = self.credentials.current().ok_or(CallError::NoCertificate)?;
        let config = self.tls.mesh_client(&credential, expected).map_err(PeerError::Untrusted)?;
        let name = mesh_server_name(expected)?;
        let connect = async {
            let addresses = self.resolver.resolve(endpoint.address()).await?;
            let stream = socket::dial(addresses[0], TRY_LIMIT).await?;
            let limit_buffer = |session: &mut rustls::ClientConnection| session.set_buffer_limit(Some(TLS_BUFFER));
            TlsConnector::from(config).connect_with(name, stream, limit_buffer).await
        };
        Ok(connect.await)
    }
}
