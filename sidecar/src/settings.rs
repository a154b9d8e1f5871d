//! What a sidecar is told at its start, checked as a whole before anything runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lictor_agent::session::Proof;
use lictor_identity::spiffe::Segment;
use lictor_types::name::NameError;
use lictor_types::{NodeName, ServiceName};

/// How long open inbound connections may last after the sidecar was told to leave: a little less than the 30 s that
/// Kubernetes gives a pod by default, so that we close them and not a kill.
pub const DEFAULT_DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// The inbound ports of several services are this far apart; the odd ones between are for health and whatever comes.
const INBOUND_PORT_STEP: u16 = 2;

/// Everything a sidecar is told.
#[derive(Clone, Debug)]
pub struct SidecarSettings {
    /// The catalog node; in Kubernetes `<pod>.<namespace>`.
    pub node: NodeName,
    /// Its id, a UUID, the same after every start; that of the pod when none is given and there is one.
    pub node_id: Option<String>,
    /// Meta of the catalog node; in Kubernetes `k8s-node` and `pod-uid`.
    pub node_meta: BTreeMap<String, String>,
    /// The address that others dial; in Kubernetes the pod's.
    pub address: IpAddr,
    /// The datacenter.
    pub datacenter: String,
    /// The servers, as `host:port` of their server port.
    pub server_addresses: Vec<String>,
    /// The server CA: whom to take for a server.
    pub ca_pem: String,
    /// The proof of who we are.
    pub login_token: Proof,
    /// What the application is.
    pub services: Vec<ServiceSpec>,
    /// What the application calls.
    pub upstreams: Vec<UpstreamSpec>,
    /// Where the application listens.
    pub local_address: IpAddr,
    /// Where probes and `preStop` ask; nowhere if none.
    pub health_address: Option<SocketAddr>,
    /// Where the HTTP API is served, on loopback; nowhere if none.
    pub http_address: Option<SocketAddr>,
    /// Where DNS is served; nowhere if none.
    pub dns_address: Option<SocketAddr>,
    /// How long a leave may take.
    pub drain_limit: Duration,
}

/// A service that the application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// The port that the application listens on.
    pub port: u16,
    /// Where the mesh dials it.
    pub inbound_address: SocketAddr,
    /// How to find out whether it is healthy.
    pub check: ServiceCheck,
}

/// How to find out whether the application is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceCheck {
    /// It takes connections.
    Tcp,
    /// It answers a GET of this path with success.
    Http(String),
}

/// A service that the application calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Its name.
    pub service: ServiceName,
    /// Where the application dials it.
    pub local: SocketAddr,
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no port in it.
    #[error("{0:?} is not NAME:PORT: there is no colon; write for example web:8080")]
    NoColon(String),
    /// The port is no port.
    #[error("{text:?} is not NAME:PORT: {port:?} is not a number from 1 to 65535")]
    Port {
        /// All of it.
        text: String,
        /// What stands for the port.
        port: String,
    },
    /// The name is no name.
    #[error("{text:?} is not NAME:PORT: {source}")]
    Name {
        /// All of it.
        text: String,
        /// What is wrong with the name.
        source: NameError,
    },
    /// The name cannot stand in a certificate.
    #[error("the service name {0:?} cannot stand in a certificate: letters, digits, dots, hyphens and underscores can")]
    Identity(String),
    /// There are more services than ports.
    #[error("there is no inbound port left for {0:?}: choose a lower first port, or fewer services")]
    NoInboundPort(String),
    /// The path of a check is no path.
    #[error("{0:?} is not NAME:/PATH, for example web:/healthz")]
    CheckPath(String),
    /// A check is about a service that is not there.
    #[error("a check names the service {0:?}, which is none of ours")]
    CheckOfNothing(String),
    /// Something is there twice.
    #[error("{what} {value} is given twice")]
    Twice {
        /// What.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Something is missing.
    #[error("{0}")]
    Missing(&'static str),
    /// The API without TLS would be open to others.
    #[error("the {what} address {address} is not on loopback: it is plain text and answers with the pod's own token")]
    NotLoopback {
        /// Which.
        what: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl ServiceSpec {
    /// Reads `web:8080`, the service number `position` (from 0) of this sidecar. `first_inbound` is where the mesh dials
    /// the first; the others follow two ports apart.
    ///
    /// # Errors
    /// Says what is wrong in the text and shows a right one.
    pub fn parse(text: &str, position: usize, first_inbound: SocketAddr) -> Result<Self, SettingsError> {
        let (name, port) = name_and_port(text)?;
        let inbound_port = match first_inbound.port() {
            // Any free port: for tests and trials.
            0 => Some(0),
            first => u16::try_from(position)
                .ok()
                .and_then(|position| position.checked_mul(INBOUND_PORT_STEP))
                .and_then(|offset| first.checked_add(offset)),
        };
        let inbound_port = inbound_port.ok_or_else(|| SettingsError::NoInboundPort(text.into()))?;
        let inbound_address = SocketAddr::new(first_inbound.ip(), inbound_port);
        Ok(Self { name, port, inbound_address, check: ServiceCheck::Tcp })
    }

    /// Reads `web:/healthz` and makes it the check of that service among `services`.
    ///
    /// # Errors
    /// The text is not of that form, or there is no such service.
    pub fn set_http_check(services: &mut [Self], text: &str) -> Result<(), SettingsError> {
        let (name, path) = text
            .split_once(':')
            .filter(|(_, path)| path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control()))
            .ok_or_else(|| SettingsError::CheckPath(text.into()))?;
        let service = services
            .iter_mut()
            .find(|service| service.name.as_str() == name)
            .ok_or_else(|| SettingsError::CheckOfNothing(name.into()))?;
        service.check = ServiceCheck::Http(path.into());
        Ok(())
    }
}

impl UpstreamSpec {
    /// Reads `api:9090`: the application dials the service on that port of 127.0.0.1.
    ///
    /// # Errors
    /// Says what is wrong in the text and shows a right one.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let (service, port) = name_and_port(text)?;
        Ok(Self { service, local: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }
}

impl SidecarSettings {
    /// Checks the settings as a whole and tells everything that is wrong at once.
    ///
    /// # Errors
    /// All mistakes, never an empty list.
    pub fn validate(&self) -> Result<(), Vec<SettingsError>> {
        let mut wrong = Vec::new();
        if self.services.is_empty() {
            wrong.push(SettingsError::Missing(
                "no service is given: a sidecar needs one to know who it is; write for example -service=web:8080",
            ));
        }
        if self.server_addresses.is_empty() {
            wrong.push(SettingsError::Missing(
                "no server is given; write for example -server-address=lictor-server.lictor.svc.cluster.local:8300",
            ));
        }
        if self.ca_pem.trim().is_empty() {
            wrong.push(SettingsError::Missing(
                "there is no server CA to recognise the servers by; set LICTOR_CA_PEM to its certificate",
            ));
        }
        for (what, address) in [("HTTP", self.http_address), ("DNS", self.dns_address)] {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                wrong.push(SettingsError::NotLoopback { what, address });
            }
        }
        let names = self.services.iter().map(|service| &service.name);
        for name in names.clone().chain(self.upstreams.iter().map(|upstream| &upstream.service)) {
            if name.as_str().parse::<Segment>().is_err() {
                wrong.push(SettingsError::Identity(name.to_string()));
            }
        }
        find_twice("the service", names.map(ToString::to_string), &mut wrong);
        let upstreams = self.upstreams.iter().map(|upstream| upstream.service.to_string());
        find_twice("the upstream", upstreams, &mut wrong);
        let listened = self.services.iter().map(|service| service.inbound_address);
        let listened = listened
            .chain(self.upstreams.iter().map(|upstream| upstream.local))
            .chain(self.health_address)
            .chain(self.http_address);
        let ports = listened.filter(|address| address.port() != 0).map(|address| address.port().to_string());
        find_twice("the port", ports, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn find_twice(what: &'static str, values: impl Iterator<Item = String>, wrong: &mut Vec<SettingsError>) {
    let mut seen = std::collections::BTreeSet::new();
    for value in values {
        if !seen.insert(value.clone()) {
            wrong.push(SettingsError::Twice { what, value });
        }
    }
}

fn name_and_port(text: &str) -> Result<(ServiceName, u16), SettingsError> {
    let (name, port) = text.rsplit_once(':').ok_or_else(|| SettingsError::NoColon(text.into()))?;
    let port = match port.parse() {
        Ok(port) if port > 0 => port,
        _ => return Err(SettingsError::Port { text: text.into(), port: port.into() }),
    };
    let name = name.parse().map_err(|source| SettingsError::Name { text: text.into(), source })?;
    Ok((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound() -> SocketAddr {
        "0.0.0.0:20000".parse().unwrap()
    }

    fn settings() -> SidecarSettings {
        SidecarSettings {
            node: "web-1.apps".parse().unwrap(),
            node_id: None,
            node_meta: BTreeMap::new(),
            address: "10.1.1.1".parse().unwrap(),
            datacenter: "dc1".into(),
            server_addresses: vec!["server-0:8300".into()],
            ca_pem: "-----BEGIN CERTIFICATE-----".into(),
            login_token: Proof::Secret("join me".into()),
            services: vec![ServiceSpec::parse("web:8080", 0, inbound()).unwrap()],
            upstreams: vec![UpstreamSpec::parse("api:9090").unwrap()],
            local_address: Ipv4Addr::LOCALHOST.into(),
            health_address: Some("0.0.0.0:20001".parse().unwrap()),
            http_address: Some("127.0.0.1:8500".parse().unwrap()),
            dns_address: Some("127.0.0.1:8600".parse().unwrap()),
            drain_limit: DEFAULT_DRAIN_LIMIT,
        }
    }

    #[test]
    fn services_get_inbound_ports_two_apart() {
        let third = ServiceSpec::parse("admin:9000", 2, inbound()).unwrap();
        assert_eq!((third.name.as_str(), third.port, third.inbound_address.port()), ("admin", 9000, 20004));
        assert!(matches!(ServiceSpec::parse("a:1", 60_000, inbound()), Err(SettingsError::NoInboundPort(_))));
        let free = ServiceSpec::parse("a:1", 3, "127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(free.inbound_address.port(), 0);
    }

    #[test]
    fn a_wrong_service_says_what_is_wrong_and_what_would_be_right() {
        for (text, complaint) in [
            ("web", "there is no colon"),
            ("web:http", "\"http\" is not a number"),
            ("web:0", "from 1 to 65535"),
            ("web:65536", "from 1 to 65535"),
            (":8080", "must not be empty"),
        ] {
            let error = UpstreamSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(complaint) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn an_http_check_is_for_a_service_that_is_there() {
        let mut services = settings().services;
        ServiceSpec::set_http_check(&mut services, "web:/healthz?deep=1").unwrap();
        assert_eq!(services[0].check, ServiceCheck::Http("/healthz?deep=1".into()));
        assert!(matches!(
            ServiceSpec::set_http_check(&mut services, "api:/healthz"),
            Err(SettingsError::CheckOfNothing(_))
        ));
        for text in ["web", "web:healthz", "web:/a b", "web:/a\r\nHost: x"] {
            assert!(matches!(ServiceSpec::set_http_check(&mut services, text), Err(SettingsError::CheckPath(_))));
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        assert_eq!(settings().validate(), Ok(()));
        let mut wrong = settings();
        wrong.services.push(ServiceSpec::parse("web:9000", 0, inbound()).unwrap());
        wrong.upstreams.push(UpstreamSpec::parse("a/b:8500").unwrap());
        wrong.server_addresses.clear();
        wrong.http_address = Some("0.0.0.0:8500".parse().unwrap());
        let told: Vec<String> = wrong.validate().unwrap_err().iter().map(ToString::to_string).collect();
        for complaint in [
            "no server is given",
            "HTTP address 0.0.0.0:8500 is not on loopback",
            "\"a/b\" cannot stand in a certificate",
            "the service web is given twice",
            "the port 20000 is given twice",
            "the port 8500 is given twice",
        ] {
            assert!(told.iter().any(|line| line.contains(complaint)), "{complaint}: {told:#?}");
        }
        assert_eq!(told.len(), 6, "{told:#?}");
    }

    #[test]
    fn a_secret_does_not_show() {
        assert!(!format!("{:?}", settings()).contains("join me"));
    }
}
