//! The doors of an agent: HTTP, HTTPS and DNS on the addresses that its configuration names.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use lictor_runtime::Tasks;

use crate::agent::Agent;
use crate::dns::{self, DnsListener};
use crate::events;
use crate::http::{self, HttpListener, UnixHttpListener};

/// UDP sockets of the DNS door on the largest of machines; the kernel spreads questions over them.
const DNS_SOCKETS_MAX: usize = 16;

/// Where the doors are, with real ports where 0 was asked for.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// HTTPS.
    pub https: Vec<SocketAddr>,
    /// DNS.
    pub dns: Vec<SocketAddr>,
}

/// Opens every door before any is served, so that an address in use is an error at the start and nothing half open.
///
/// # Errors
/// Says which address cannot be listened on.
pub async fn open(agent: &Arc<Agent>, tls: Option<Arc<rustls::ServerConfig>>, tasks: &Tasks) -> io::Result<Doors> {
    let config = agent.config.load_full();
    let addresses = &config.addresses;
    let (mut doors, mut listeners, mut resolvers) = (Doors::default(), Vec::new(), Vec::new());
    for address in &addresses.http {
        let listener = HttpListener::bind(*address, None).await?;
        doors.http.push(listener.socket.local_addr()?);
        listeners.push(listener);
    }
    let sockets = addresses.http_sockets.iter().map(|path| UnixHttpListener::bind(path, &config.unix_sockets));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    for address in &addresses.https {
        let Some(tls) = &tls else {
            let reason = format!("HTTPS on {address} needs tls.https.cert_file and tls.https.key_file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        };
        let listener = HttpListener::bind(*address, Some(Arc::clone(tls))).await?;
        doors.https.push(listener.socket.local_addr()?);
        listeners.push(listener);
    }
    for address in &addresses.dns {
        // One for each core that we use.
        let workers = tokio::runtime::Handle::current().metrics().num_workers().min(DNS_SOCKETS_MAX);
        let listener = DnsListener::bind(*address, workers).await?;
        doors.dns.push(listener.local_address()?);
        resolvers.push(listener);
    }
    let router = http::router(Arc::clone(agent));
    let limited = Arc::clone(agent);
    let limit = Arc::new(move || limited.config.load().limits.http_max_conns_per_client);
    http::serve(listeners, &router, limit, tasks);
    http::serve_unix(sockets, &router, tasks);
    dns::serve(resolvers, agent, tasks);
    tasks.spawn(events::follow(Arc::clone(agent)));
    Ok(doors)
}
