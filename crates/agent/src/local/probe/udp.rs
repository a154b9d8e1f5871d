//! A check that sends an empty packet. UDP tells of nothing but a closed port, so silence is a good sign.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lictor_runtime::Resolver;
use lictor_types::CheckStatus;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::super::target::split_host_port;
use super::Finding;
use super::connect::addresses;

/// How much before the end of the run the wait for an answer ends, so that silence is told as what it is.
const MARGIN: Duration = Duration::from_millis(50);

pub(super) async fn run(address: &str, limit: Duration, resolver: &Resolver) -> Result<Finding, String> {
    let until = Instant::now() + limit.saturating_sub(MARGIN.min(limit / 2));
    let (host, port) = split_host_port("UDP", address)?;
    let found = addresses(&host, port, resolver).await?;
    let target = found.first().ok_or_else(|| format!("{host} has no addresses"))?;
    let any = if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let failed = |error: std::io::Error| format!("dial udp {target}: {error}");
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    socket.send(&[]).await.map_err(failed)?;
    let mut answer = [0; 1];
    match tokio::time::timeout_at(until, socket.recv(&mut answer)).await {
        Ok(Ok(_)) | Err(_) => Ok((CheckStatus::Passing, format!("UDP connect {address}: Success"))),
        Ok(Err(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_passes_and_a_closed_port_fails() {
        let open = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = open.local_addr().unwrap().to_string();
        let resolver = Resolver::from_system();
        let run = || run(&address, Duration::from_millis(200), &resolver);
        assert_eq!(run().await, Ok((CheckStatus::Passing, format!("UDP connect {address}: Success"))));
        drop(open);
        let problem = run().await.unwrap_err();
        assert!(problem.contains("refused"), "{problem}");
    }
}
