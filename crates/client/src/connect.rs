//! Dialling: names through our resolver, TLS where the URL says so.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use lictor_runtime::{Resolver, Stream};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{ClientSettings, tls};

/// TCP and TLS together.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Dials one address.
#[derive(Clone)]
pub(crate) struct Connector {
    /// A Unix socket that is dialled instead, whatever a URL says.
    socket: Option<Arc<Path>>,
    resolver: Resolver,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    pub(crate) fn new(base: &str, settings: &ClientSettings) -> Result<Self, String> {
        let uri: Uri = base.parse().map_err(|error| format!("{base:?} is not a URL: {error}"))?;
        let host = uri.host().ok_or_else(|| format!("{base:?} has no host"))?.trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let ca = settings.ca_pem.as_deref();
                if ca.is_none() && !settings.is_unverified {
                    return Err(format!("{base} is https: name the file of its CA with -ca-file"));
                }
                let name = settings.server_name.clone().unwrap_or(host);
                let name = ServerName::try_from(name.clone()).map_err(|error| format!("{name:?}: {error}"))?;
                let config = tls::config(ca, settings.is_unverified, settings.certificate.as_ref())?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            _ => return Err(format!("{base:?} must begin with http:// or https://")),
        };
        let resolver = Resolver::from_system();
        Ok(Self { socket: None, resolver, tls })
    }

    /// One that dials the Unix socket at `path`.
    pub(crate) fn unix(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err(format!("\"unix://{path}\" must name a socket by its whole path: unix:///path/to/socket"));
        }
        Ok(Self { socket: Some(Path::new(path).into()), resolver: Resolver::from_system(), tls: None })
    }

    async fn dial(self, uri: Uri) -> io::Result<Dialled> {
        if let Some(path) = &self.socket {
            return Ok(Dialled(Box::new(UnixStream::connect(path).await?)));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in self.resolver.resolve(&format!("{host}:{port}")).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream: Stream = match &self.tls {
                        None => Box::new(stream),
                        Some((tls, name)) => Box::new(tls.connect(name.clone(), stream).await?),
                    };
                    return Ok(Dialled(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Dialled>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            tokio::time::timeout(DIAL_LIMIT, connector.dial(uri))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {DIAL_LIMIT:?}")))?
                .map(TokioIo::new)
        })
    }
}

/// A dialled stream, as hyper's pool wants it.
pub(crate) struct Dialled(Stream);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
