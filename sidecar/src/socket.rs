//! Plain TCP as the proxy uses it: how sockets are set up, dialled, bound and broken off.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long a connection is silent before its peer is asked whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How long between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many of them may go unanswered: a dead peer is noticed within two minutes.
const KEEPALIVE_TRIES: u32 = 4;
/// Connections that the kernel keeps while they wait to be accepted.
const BACKLOG: u32 = 1024;

/// Sets a connected socket up: no delay for small writes, and keepalive instead of an idle limit.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Makes the drop of this stream a reset: its peer sees an error, not an end in order.
pub(crate) fn reset_on_drop(stream: &TcpStream) {
    // The only failure is a socket that is gone already, which its peer has seen.
    let _ = stream.set_zero_linger();
}

/// Takes [`reset_on_drop`] back: what was sent is delivered, then the stream ends in order.
pub(crate) fn end_on_drop(stream: &TcpStream) {
    // As above.
    let _ = SockRef::from(stream).set_linger(None);
}

/// Connects within `limit`.
pub(crate) async fn dial(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within {} ms", limit.as_millis()))
    })??;
    prepare(&stream)?;
    Ok(stream)
}

/// A port that is ours but does not accept yet: who dials it is refused at once.
#[derive(Debug)]
pub(crate) struct BoundPort {
    socket: TcpSocket,
    address: SocketAddr,
}

impl BoundPort {
    /// Takes the port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Without it a restarted sidecar could not listen while old connections are in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to accept.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(BACKLOG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_bound_port_refuses_until_it_listens() {
        let port = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.address();
        let refused = dial(address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let listener = port.listen().unwrap();
        let (dialled, accepted) = tokio::join!(dial(address, Duration::from_secs(5)), listener.accept());
        assert_eq!(dialled.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn a_port_that_somebody_listens_on_cannot_be_bound() {
        let taken = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let error = BoundPort::bind(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_reset_is_an_error_at_the_other_end() {
        let listener = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(dial(address, Duration::from_secs(5)), listener.accept());
        reset_on_drop(&accepted.as_ref().unwrap().0);
        drop(accepted);
        let error = dialled.unwrap().read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
