//! The HTTP door on Unix sockets: for programs of this machine, let in by the rights of a file.
//!
//! Invariants
//! - The socket takes its place only once its owner and mode are set: nobody slips in before.
//! - A socket that somebody still answers on is not taken away; one that a dead process left behind is.
//! - At most [`CONNECTIONS_MAX`] connections per socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lictor_runtime::Tasks;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::serve::connection;
use crate::config::UnixSockets;

/// Open connections of one socket.
const CONNECTIONS_MAX: usize = 1024;
/// How long to wait after the operating system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening Unix socket of the HTTP door.
pub struct UnixHttpListener {
    socket: UnixListener,
    path: PathBuf,
}

impl UnixHttpListener {
    /// Listens at `path`, with the owner and mode that the configuration gives.
    ///
    /// # Errors
    /// Says which path it was: somebody listens there, or it cannot be made.
    pub fn bind(path: &Path, settings: &UnixSockets) -> io::Result<Self> {
        Self::bound(path, settings).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen for HTTP on unix://{}: {error}", path.display()))
        })
    }

    fn bound(path: &Path, settings: &UnixSockets) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"));
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&fresh)?;
        if settings.user.is_some() || settings.group.is_some() {
            std::os::unix::fs::chown(&fresh, settings.user, settings.group)?;
        }
        if let Some(mode) = settings.mode {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))?;
        }
        std::fs::rename(&fresh, path)?;
        Ok(Self { socket, path: path.to_owned() })
    }
}

impl Drop for UnixHttpListener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket is left behind");
        }
    }
}

/// Serves `router` on every socket until `tasks` are told to stop.
pub fn serve_unix(listeners: Vec<UnixHttpListener>, router: &Router, tasks: &Tasks) {
    for listener in listeners {
        tasks.spawn(accept(listener, router.clone(), tasks.clone()));
    }
}

async fn accept(listener: UnixHttpListener, router: Router, tasks: Tasks) {
    // Who comes by a socket of this machine is of this machine.
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.socket.accept().await {
            Ok((stream, _)) => {
                let (router, connection_tasks) = (router.clone(), tasks.clone());
                tasks.spawn_to_end(async move {
                    let _place = place;
                    connection(stream, CLIENT, router, &connection_tasks).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection on a Unix socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_has_its_mode_and_a_dead_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        let settings = UnixSockets { mode: Some(0o640), ..UnixSockets::default() };
        // What a killed process leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = UnixHttpListener::bind(&path, &settings).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = UnixHttpListener::bind(&path, &settings).err().unwrap();
        assert!(error.to_string().contains("somebody listens there already"), "{error}");
        let tasks = Tasks::new();
        serve_unix(vec![listener], &Router::new().fallback(async || "hello"), &tasks);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(!path.exists(), "the socket was left behind");
    }
}
