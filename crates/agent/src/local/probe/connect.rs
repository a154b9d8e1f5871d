//! Reaching the far end of a check: name, address, connection, handshake.

use std::net::SocketAddr;

use lictor_runtime::{Resolver, Stream};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::target::forbidden;
use super::super::trust;

/// How a handshake goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local) struct Tls {
    /// The certificate of the far end is not looked at.
    pub(super) skip_verify: bool,
    /// The name it must have; the host when empty.
    pub(super) server_name: String,
}

/// The addresses of a host, none of them forbidden.
pub(super) async fn addresses(host: &str, port: u16, resolver: &Resolver) -> Result<Vec<SocketAddr>, String> {
    let found = resolver.resolve_host(host).await.map_err(|error| error.to_string())?;
    match found.iter().find_map(|address| forbidden(*address)) {
        Some(reason) => Err(reason),
        None => Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
    }
}

/// Connects to the first address that takes us.
pub(super) async fn connect(host: &str, port: u16, resolver: &Resolver) -> Result<TcpStream, String> {
    let mut problem = format!("{host} has no addresses");
    for address in addresses(host, port, resolver).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = format!("dial tcp {address}: connect: {error}"),
        }
    }
    Err(problem)
}

/// Does the handshake; `http2` offers that protocol and no other.
pub(super) async fn handshake(stream: TcpStream, tls: &Tls, host: &str, http2: bool) -> Result<Stream, String> {
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("TLS name {name:?}: {error}"))?;
    let connector = TlsConnector::from(trust::config(tls.skip_verify, http2)?);
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS handshake: {error}"))?;
    Ok(Box::new(stream))
}

/// Connects, and does the handshake if there is one.
pub(super) async fn reach(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
    http2: bool,
    resolver: &Resolver,
) -> Result<Stream, String> {
    let stream = connect(host, port, resolver).await?;
    match tls {
        Some(tls) => handshake(stream, tls, host, http2).await,
        None => Ok(Box::new(stream)),
    }
}
