//! What a pod asks for, read from its annotations: ours, and those of consul-k8s that mean the same.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::ResourceExt;

/// Asks for a sidecar.
pub(crate) const INJECT: &str = "lictor.dev/inject";
/// `web:8080,admin:9090`: the pod's services and their ports.
pub(crate) const SERVICES: &str = "lictor.dev/services";
/// `api:9090`: other services, each with the port on 127.0.0.1 where the pod finds it.
pub(crate) const UPSTREAMS: &str = "lictor.dev/upstreams";
/// `name` or `namespace/name` of the ConsulDatacenter.
pub(crate) const DATACENTER: &str = "lictor.dev/datacenter";

const CONSUL_INJECT: &str = "consul.hashicorp.com/connect-inject";
const CONSUL_SERVICE: &str = "consul.hashicorp.com/connect-service";
const CONSUL_PORT: &str = "consul.hashicorp.com/connect-service-port";
const CONSUL_UPSTREAMS: &str = "consul.hashicorp.com/connect-service-upstreams";

/// The first port that sidecars use, and how many they may use: mesh traffic, two for each service, and health between.
const SIDECAR_PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_127;
/// Ports of the sidecar's HTTP and DNS.
const AGENT_PORTS: [u16; 2] = [8500, 8600];
/// Services of one pod.
const SERVICES_MAX: usize = 16;
/// Upstreams of one pod.
const UPSTREAMS_MAX: usize = 64;

/// A service, or an upstream, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    /// Name of the service.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// What a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Its services.
    pub services: Vec<NamedPort>,
    /// What it wants to reach.
    pub upstreams: Vec<NamedPort>,
    /// Which ConsulDatacenter it means, if it says so.
    pub datacenter: Option<String>,
}

/// What is wrong with the annotations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnotationError {
    #[error(
        "pod has no container port to serve {service:?} on: add the annotation {SERVICES}: \"{service}:PORT\", or a containerPort"
    )]
    NoPort { service: String },
    #[error("annotation {annotation}: {entry:?} is no NAME:PORT, write it as \"web:8080\"")]
    Entry { annotation: &'static str, entry: String },
    #[error(
        "annotation {annotation}: {name:?} is no name of a service: use up to 63 lowercase letters, digits and dashes"
    )]
    Name { annotation: &'static str, name: String },
    #[error(
        "annotation {annotation}: {port:?} is neither a port from 1 to 65535 nor the name of one of the pod's ports"
    )]
    Port { annotation: &'static str, port: String },
    #[error("annotation {annotation}: port {port} belongs to the sidecar (8500, 8600, 20000 to 20127): choose another")]
    Taken { annotation: &'static str, port: u16 },
    #[error("annotation {annotation}: {what} is there twice: each name and each port may be used once")]
    Twice { annotation: &'static str, what: String },
    #[error("annotation {annotation} has more than {limit} entries")]
    TooMany { annotation: &'static str, limit: usize },
    #[error(
        "annotations {CONSUL_SERVICE} and {CONSUL_PORT} have {services} and {ports} entries: give one port for each service"
    )]
    Uneven { services: usize, ports: usize },
    #[error(
        "annotation {CONSUL_UPSTREAMS}: {entry:?} asks for another datacenter, which this release cannot reach: leave the third part away"
    )]
    OtherDatacenter { entry: String },
}

/// Whether the pod asks for a sidecar.
pub(crate) fn asks(annotations: &BTreeMap<String, String>) -> bool {
    [INJECT, CONSUL_INJECT].iter().any(|name| annotations.get(*name).is_some_and(|value| value == "true"))
}

/// Reads what the pod asks for; a service that it does not name is named `default_service`.
pub(crate) fn read(pod: &Pod, default_service: &str) -> Result<Wish, AnnotationError> {
    let annotations = pod.annotations();
    let services = services(pod, annotations, default_service)?;
    let upstreams = upstreams(annotations)?;
    let served: BTreeSet<u16> = services.iter().map(|service| service.port).collect();
    if let Some(clash) = upstreams.iter().find(|upstream| served.contains(&upstream.port)) {
        let what = format!("port {}, on which the pod itself serves,", clash.port);
        return Err(AnnotationError::Twice { annotation: UPSTREAMS, what });
    }
    Ok(Wish { services, upstreams, datacenter: annotations.get(DATACENTER).map(|name| name.trim().to_owned()) })
}

fn services(
    pod: &Pod,
    annotations: &BTreeMap<String, String>,
    default_service: &str,
) -> Result<Vec<NamedPort>, AnnotationError> {
    let found = if let Some(text) = annotations.get(SERVICES) {
        entries(text).map(|entry| service(pod, SERVICES, entry)).collect::<Result<Vec<_>, _>>()?
    } else {
        let names: Vec<&str> = annotations.get(CONSUL_SERVICE).map(|text| entries(text).collect()).unwrap_or_default();
        let names = if names.is_empty() { vec![default_service] } else { names };
        let ports: Vec<&str> = annotations.get(CONSUL_PORT).map(|text| entries(text).collect()).unwrap_or_default();
        if ports.is_empty() && names.len() == 1 {
            vec![service(pod, CONSUL_SERVICE, names[0])?]
        } else if ports.len() == names.len() {
            let pair = |(name, port): (&&str, &&str)| {
                Ok(NamedPort { name: checked(CONSUL_SERVICE, name)?, port: port_of(pod, CONSUL_PORT, port)? })
            };
            names.iter().zip(&ports).map(pair).collect::<Result<Vec<_>, _>>()?
        } else {
            return Err(AnnotationError::Uneven { services: names.len(), ports: ports.len() });
        }
    };
    unique(SERVICES, &found, SERVICES_MAX)?;
    Ok(found)
}

/// `web:8080`, `web:http` with a named port, or `web` for the first container port.
fn service(pod: &Pod, annotation: &'static str, entry: &str) -> Result<NamedPort, AnnotationError> {
    let (name, port) = match entry.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (entry, None),
    };
    let name = checked(annotation, name)?;
    let port = match port {
        Some(port) => port_of(pod, annotation, port)?,
        None => {
            let first = container_ports(pod).next().and_then(|port| u16::try_from(port.container_port).ok());
            first.ok_or_else(|| AnnotationError::NoPort { service: name.clone() })?
        }
    };
    Ok(NamedPort { name, port })
}

/// `api:9090`; consul-k8s also writes `api.svc:9090` and a third part for the datacenter.
fn upstreams(annotations: &BTreeMap<String, String>) -> Result<Vec<NamedPort>, AnnotationError> {
    let (annotation, text) = match (annotations.get(UPSTREAMS), annotations.get(CONSUL_UPSTREAMS)) {
        (Some(text), _) => (UPSTREAMS, text.as_str()),
        (None, Some(text)) => (CONSUL_UPSTREAMS, text.as_str()),
        (None, None) => return Ok(Vec::new()),
    };
    let read = |entry: &str| {
        let wrong = || AnnotationError::Entry { annotation, entry: entry.to_owned() };
        let (name, port) = entry.split_once(':').ok_or_else(wrong)?;
        if port.contains(':') {
            return Err(AnnotationError::OtherDatacenter { entry: entry.to_owned() });
        }
        let name = if annotation == CONSUL_UPSTREAMS { name.strip_suffix(".svc").unwrap_or(name) } else { name };
        let port = port.parse().ok().filter(|port| *port > 0);
        Ok(NamedPort { name: checked(annotation, name)?, port: port.ok_or_else(wrong)? })
    };
    let found = entries(text).map(read).collect::<Result<Vec<_>, _>>()?;
    unique(annotation, &found, UPSTREAMS_MAX)?;
    Ok(found)
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn unique(annotation: &'static str, found: &[NamedPort], limit: usize) -> Result<(), AnnotationError> {
    if found.len() > limit {
        return Err(AnnotationError::TooMany { annotation, limit });
    }
    let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for entry in found {
        if AGENT_PORTS.contains(&entry.port) || SIDECAR_PORTS.contains(&entry.port) {
            return Err(AnnotationError::Taken { annotation, port: entry.port });
        }
        if !names.insert(&entry.name) {
            return Err(AnnotationError::Twice { annotation, what: format!("service {:?}", entry.name) });
        }
        if !ports.insert(entry.port) {
            return Err(AnnotationError::Twice { annotation, what: format!("port {}", entry.port) });
        }
    }
    Ok(())
}

fn checked(annotation: &'static str, name: &str) -> Result<String, AnnotationError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let whole = (1..=63).contains(&name.len()) && name.bytes().all(legal);
    if !whole || name.starts_with('-') || name.ends_with('-') {
        return Err(AnnotationError::Name { annotation, name: name.to_owned() });
    }
    Ok(name.to_owned())
}

fn port_of(pod: &Pod, annotation: &'static str, port: &str) -> Result<u16, AnnotationError> {
    if let Some(number) = port.parse().ok().filter(|number| *number > 0) {
        return Ok(number);
    }
    container_ports(pod)
        .find(|candidate| candidate.name.as_deref() == Some(port))
        .and_then(|found| u16::try_from(found.container_port).ok())
        .ok_or_else(|| AnnotationError::Port { annotation, port: port.to_owned() })
}

/// TCP ports of the containers, first to last.
fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}
