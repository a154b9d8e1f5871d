//! The servers' two Services: names for each pod, and one address for clients.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lictor_crds::ConsulDatacenter;

use crate::names::{HTTPS_PORT, Names, RPC_PORT, owned_metadata};

/// Gives every server pod a name. Pods that are not ready have one too: servers must find each other to become ready.
pub(super) fn headless(datacenter: &ConsulDatacenter) -> Service {
    let names = Names::of(datacenter);
    Service {
        metadata: owned_metadata(datacenter, names.server()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names.selector()),
            ports: Some(vec![port("server", RPC_PORT), port("https", HTTPS_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One address for clients of the HTTP API; only ready servers stand behind it.
pub(super) fn client(datacenter: &ConsulDatacenter) -> Service {
    let names = Names::of(datacenter);
    Service {
        metadata: owned_metadata(datacenter, names.client()),
        spec: Some(ServiceSpec {
            selector: Some(names.selector()),
            ports: Some(vec![port("https", HTTPS_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
