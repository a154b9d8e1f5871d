//! Which port is for what, and whether all of them are free.

use std::io;
use std::net::{TcpListener, UdpSocket};

use super::loopback;
use crate::output::Failure;

/// How many servers there are.
pub(super) const SERVERS: usize = 3;
/// Added to the highest port this is still a port.
pub(super) const PORT_OFFSET_MAX: i64 = 65_535 - 21_001;

/// Every port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Raft, RPC and login of each server.
    pub(super) servers: [u16; SERVERS],
    /// HTTP of the client agent.
    pub(super) http: u16,
    /// DNS of the client agent.
    pub(super) dns: u16,
    /// The sample service `web`.
    pub(super) web: u16,
    /// The sample service `api`.
    pub(super) api: u16,
    /// Where `web` calls `api`: its sidecar listens there.
    pub(super) upstream: u16,
    /// Where the mesh dials `web`.
    pub(super) web_inbound: u16,
    /// Where the mesh dials `api`.
    pub(super) api_inbound: u16,
}

impl Plan {
    /// The usual ports, each higher by `offset`, which is at most [`PORT_OFFSET_MAX`].
    pub(super) fn new(offset: u16, http: Option<u16>, dns: Option<u16>) -> Self {
        Self {
            servers: [8300, 8310, 8320].map(|port| port + offset),
            http: http.unwrap_or(8500 + offset),
            dns: dns.unwrap_or(8600 + offset),
            web: 9090 + offset,
            api: 9091 + offset,
            upstream: 9191 + offset,
            web_inbound: 21_000 + offset,
            api_inbound: 21_001 + offset,
        }
    }

    /// Each port, what it is for, and the flag that moves it.
    fn ports(&self) -> Vec<(u16, String, &'static str)> {
        const OFFSET: &str = "-port-offset";
        let servers = self.servers.iter().zip(1..).map(|(port, number)| (*port, format!("server {number}"), OFFSET));
        let others = [
            (self.http, "the HTTP API", "-port-offset or -http-port"),
            (self.dns, "DNS", "-port-offset or -dns-port"),
            (self.web, "the service web", OFFSET),
            (self.api, "the service api", OFFSET),
            (self.upstream, "calls from web to api", OFFSET),
            (self.web_inbound, "the sidecar of web", OFFSET),
            (self.api_inbound, "the sidecar of api", OFFSET),
        ];
        servers.chain(others.map(|(port, what, flag)| (port, what.to_owned(), flag))).collect()
    }

    /// Looks whether every port is to be had, before anything is started.
    ///
    /// # Errors
    /// One is not: which, what for, and the flag that chooses another.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let ports = self.ports();
        for (at, (port, what, flag)) in ports.iter().enumerate() {
            if let Some((_, other, other_flag)) = ports[..at].iter().find(|(before, ..)| before == port) {
                let flag = if flag.len() > other_flag.len() { flag } else { other_flag };
                return Err(Failure::new(format!(
                    "port {port} would be both for {other} and for {what}: choose another with {flag}"
                )));
            }
            let free = TcpListener::bind(loopback(*port)).map(drop);
            let free =
                if *port == self.dns { free.and_then(|()| UdpSocket::bind(loopback(*port)).map(drop)) } else { free };
            free.map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Failure::new(format!(
                    "port {port}, for {what}, is in use by another process: stop that one, or choose other ports with {flag}"
                )),
                _ => Failure::new(format!("cannot listen on port {port} for {what}: {error}; choose another with {flag}")),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan whose ports the operating system has just said to be free.
    fn free_plan() -> Plan {
        let sockets: Vec<_> = (0..10).map(|_| TcpListener::bind(loopback(0)).unwrap()).collect();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        Plan {
            servers: [ports[0], ports[1], ports[2]],
            http: ports[3],
            dns: ports[4],
            web: ports[5],
            api: ports[6],
            upstream: ports[7],
            web_inbound: ports[8],
            api_inbound: ports[9],
        }
    }

    #[test]
    fn an_offset_moves_every_port_and_a_flag_its_own() {
        let (usual, moved) = (Plan::new(0, None, None), Plan::new(1000, None, Some(53)));
        assert_eq!((usual.servers, usual.http, usual.dns), ([8300, 8310, 8320], 8500, 8600));
        for ((port, what, _), (other, ..)) in usual.ports().iter().zip(moved.ports()) {
            let expected = if what == "DNS" { 53 } else { port + 1000 };
            assert_eq!(other, expected, "{what}");
        }
        let highest = Plan::new(u16::try_from(PORT_OFFSET_MAX).unwrap(), None, None);
        assert_eq!(highest.api_inbound, u16::MAX);
    }

    #[test]
    fn a_port_in_use_is_named_with_the_flag_that_moves_it() {
        let plan = free_plan();
        assert_eq!(plan.check(), Ok(()));
        let _taken = TcpListener::bind(loopback(plan.http)).unwrap();
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(&plan.http.to_string()) && error.contains("-port-offset or -http-port"), "{error}");
    }

    #[test]
    fn a_datagram_port_in_use_is_noticed_too() {
        let plan = free_plan();
        let _taken = UdpSocket::bind(loopback(plan.dns)).unwrap();
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(&plan.dns.to_string()) && error.contains("-dns-port"), "{error}");
    }

    #[test]
    fn a_port_for_two_things_is_refused() {
        let error = Plan::new(0, Some(9090), None).ports_used_twice();
        assert!(error.contains("9090") && error.contains("-http-port"), "{error}");
    }

    impl Plan {
        fn ports_used_twice(&self) -> String {
            let mut plan = free_plan();
            plan.http = self.http;
            plan.web = self.http;
            // Whether the port is free does not matter: a mistake in the plan is told first.
            plan.check().unwrap_err().to_string()
        }
    }
}
