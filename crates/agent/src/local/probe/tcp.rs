//! A check that connects.

use lictor_runtime::Resolver;
use lictor_types::CheckStatus;

use super::super::target::split_host_port;
use super::Finding;
use super::connect::{Tls, reach};

pub(super) async fn run(address: &str, tls: Option<&Tls>, resolver: &Resolver) -> Result<Finding, String> {
    let (host, port) = split_host_port("TCP", address)?;
    reach(&host, port, tls, false, resolver).await?;
    Ok((CheckStatus::Passing, format!("TCP connect {address}: Success")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::local::definition::CheckDefinition;
    use crate::local::probe::Probe;

    #[tokio::test]
    async fn a_tcp_check_says_who_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let definition = CheckDefinition { tcp: address.clone(), ..CheckDefinition::default() };
        let (probe, resolver) = (Probe::of(&definition).unwrap(), Resolver::from_system());
        let run = || probe.run(&resolver, Duration::from_secs(10), 4096);
        assert_eq!(run().await, (CheckStatus::Passing, format!("TCP connect {address}: Success")));
        drop(listener);
        let (status, output) = run().await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains(&address) && output.contains("refused"), "{output}");
    }
}
