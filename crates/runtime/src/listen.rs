//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted. When all clients of a datacenter come back at once and the line is full, the
/// kernel drops their first packet and they try again only after whole seconds. The kernel's own limit
/// (`net.core.somaxconn`, 4096 by default) holds too.
const BACKLOG: u32 = 4_096;

/// Listens on `address`, with a line long enough for many clients at once.
///
/// # Errors
/// As the operating system says: the address is in use, not ours, or needs a privilege.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server takes its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_a_thousand_clients_can_wait_in_line() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        // Both ends are ours: two descriptors each.
        let clients = somaxconn.trim().parse::<usize>().unwrap().min(1_500);
        let mut waiting = Vec::with_capacity(clients);
        for _ in 0..clients {
            let connect = tokio::net::TcpStream::connect(address);
            let limit = std::time::Duration::from_millis(900);
            waiting.push(tokio::time::timeout(limit, connect).await.expect("the line was full").unwrap());
        }
    }
}
