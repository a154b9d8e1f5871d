//! Instances of services, and the rows that readers of the catalog get.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::gateway::{KIND_API_GATEWAY, KIND_INGRESS_GATEWAY, is_gateway};
use crate::intention::WILDCARD;
use crate::ports::ServicePort;
use crate::{HealthCheck, Index, Locality, Node, ServiceId, ServiceName, json};

/// The kind of an instance that is a sidecar proxy; an ordinary instance has the empty kind.
pub const KIND_CONNECT_PROXY: &str = "connect-proxy";

/// How much traffic an instance takes, by its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Weights {
    /// Weight while passing.
    #[n(0)]
    #[serde(default)]
    pub passing: u32,
    /// Weight while warning.
    #[n(1)]
    #[serde(default)]
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// An address with a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceAddress {
    /// An IP address or a name.
    #[n(0)]
    #[serde(default)]
    pub address: String,
    /// A port.
    #[n(1)]
    #[serde(default)]
    pub port: u16,
}

/// One service that a proxy dials for its application.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct Upstream {
    /// `service`; the default when left out.
    #[n(0)]
    #[serde(default = "Upstream::service_type")]
    pub destination_type: String,
    /// The service to reach.
    #[n(1)]
    pub destination_name: String,
    /// The datacenter to reach it in; empty for our own.
    #[n(2)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub datacenter: String,
    /// The address the application dials; 127.0.0.1 when empty.
    #[n(3)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    /// The port the application dials.
    #[n(4)]
    #[serde(default)]
    pub local_bind_port: u16,
    /// Settings we keep and do not read.
    #[n(5)]
    #[serde(default, skip_serializing_if = "json::Opaque::is_empty")]
    pub config: json::Opaque,
    /// Settings we keep and do not read.
    #[n(6)]
    #[serde(default)]
    pub mesh_gateway: json::Opaque,
    /// It is there because a config entry said so.
    #[n(80)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centrally_configured: Option<bool>,
    /// The Unix socket the application dials, instead of a port.
    #[n(130)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::filled_text")]
    pub local_bind_socket_path: Option<String>,
    /// The mode of that socket, in octal.
    #[n(131)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::filled_text")]
    pub local_bind_socket_mode: Option<String>,
    /// The peer whose service it is.
    #[n(132)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::filled_text")]
    pub destination_peer: Option<String>,
}

impl Upstream {
    /// One that says nothing but the service it is about.
    pub fn new(destination_name: String) -> Self {
        Self {
            destination_type: String::new(),
            destination_name,
            datacenter: String::new(),
            local_bind_address: String::new(),
            local_bind_port: 0,
            config: json::Opaque::default(),
            mesh_gateway: json::Opaque::default(),
            centrally_configured: None,
            local_bind_socket_path: None,
            local_bind_socket_mode: None,
            destination_peer: None,
        }
    }

    fn service_type() -> String {
        "service".into()
    }
}

/// What a proxy registers about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConnectProxy {
    /// The service it stands before.
    #[n(0)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_service_name: String,
    /// The instance it stands before.
    #[n(1)]
    #[serde(rename = "DestinationServiceID", skip_serializing_if = "String::is_empty")]
    pub destination_service_id: String,
    /// Where the application listens; 127.0.0.1 when empty.
    #[n(2)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_service_address: String,
    /// The port the application listens on.
    #[n(3)]
    #[serde(skip_serializing_if = "is_zero")]
    pub local_service_port: u16,
    /// `direct`, `transparent` or empty.
    #[n(4)]
    pub mode: String,
    /// Settings we keep and do not read.
    #[n(5)]
    #[serde(skip_serializing_if = "json::Opaque::is_empty")]
    pub config: json::Opaque,
    /// The services it dials.
    #[n(6)]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "json::null_is_default")]
    pub upstreams: Vec<Upstream>,
    /// Settings we keep and do not read.
    #[n(7)]
    pub mesh_gateway: json::Opaque,
    /// Settings we keep and do not read.
    #[n(8)]
    pub expose: json::Opaque,
    /// The Unix socket the application listens on.
    #[n(80)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_service_socket_path: Option<String>,
    /// Settings we keep and do not read.
    #[n(81)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparent_proxy: Option<json::Opaque>,
    /// `strict`, `permissive` or none.
    #[n(82)]
    #[serde(rename = "MutualTLSMode", skip_serializing_if = "Option::is_none")]
    pub mutual_tls_mode: Option<String>,
    /// Settings we keep and do not read.
    #[n(83)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_logs: Option<json::Opaque>,
    /// Settings we keep and do not read.
    #[n(84)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_extensions: Option<json::OpaqueList>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// Whether an instance speaks mutual TLS itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceConnect {
    /// It does, without a sidecar.
    #[n(0)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
}

/// One instance of a service on a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct NodeService {
    /// Empty, [`KIND_CONNECT_PROXY`], or that of a gateway.
    #[n(0)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Unique on its node; the service name when a registration left it out.
    #[n(1)]
    #[serde(rename = "ID", default, with = "json::optional_text")]
    pub id: Option<ServiceId>,
    /// The service it is an instance of.
    #[n(2)]
    #[serde(rename = "Service")]
    pub name: ServiceName,
    /// Words to choose instances by.
    #[n(3)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub tags: Vec<String>,
    /// Where it listens; the node's address when empty.
    #[n(4)]
    #[serde(default)]
    pub address: String,
    /// Addresses by purpose.
    #[n(5)]
    #[serde(default, deserialize_with = "json::null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Whatever its owner says of it.
    #[n(6)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub meta: BTreeMap<String, String>,
    /// The port it listens on.
    #[n(7)]
    #[serde(default)]
    pub port: u16,
    /// The Unix socket it listens on.
    #[n(8)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// How much traffic it takes.
    #[n(9)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub weights: Weights,
    /// The catalog's tags win over the agent's.
    #[n(10)]
    #[serde(default)]
    pub enable_tag_override: bool,
    /// What it says of itself as a proxy.
    #[n(11)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub proxy: ConnectProxy,
    /// Whether it speaks mutual TLS itself.
    #[n(12)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub connect: ServiceConnect,
    /// Always empty: where an imported service comes from.
    #[n(13)]
    #[serde(default)]
    pub peer_name: String,
    /// When it was first registered.
    #[n(14)]
    #[serde(default)]
    pub create_index: Index,
    /// When it last changed.
    #[n(15)]
    #[serde(default)]
    pub modify_index: Index,
    /// Where it runs.
    #[n(80)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// The ports it listens on by name, where it has several; the default one is `port` too.
    #[n(130)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::filled_list")]
    pub ports: Option<Vec<ServicePort>>,
}

impl NodeService {
    /// An instance of `name` that says nothing else of itself.
    pub fn new(name: ServiceName) -> Self {
        Self {
            kind: String::new(),
            id: None,
            name,
            tags: Vec::new(),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: 0,
            socket_path: String::new(),
            weights: Weights::default(),
            enable_tag_override: false,
            proxy: ConnectProxy::default(),
            connect: ServiceConnect::default(),
            peer_name: String::new(),
            create_index: Index(0),
            modify_index: Index(0),
            locality: None,
            ports: None,
        }
    }

    /// The service whose callers this instance serves over mutual TLS: its own if native, its destination if a proxy.
    pub fn connect_destination(&self) -> Option<&str> {
        if self.kind == KIND_CONNECT_PROXY {
            Some(&self.proxy.destination_service_name)
        } else if self.connect.native {
            Some(self.name.as_str())
        } else {
            None
        }
    }

    /// Whether what it says of itself fits its kind.
    ///
    /// # Errors
    /// What is wrong, in Consul's words.
    pub fn check_kind(&self) -> Result<(), String> {
        let proxy = &self.proxy;
        if self.kind == KIND_CONNECT_PROXY {
            let destination = proxy.destination_service_name.trim();
            if destination.is_empty() {
                return Err("Proxy.DestinationServiceName must be non-empty for Connect proxy services".into());
            }
            if destination == WILDCARD {
                return Err("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services".into());
            }
            if self.connect.native {
                return Err("A Proxy cannot also be Connect Native, only typical services".into());
            }
        }
        if !is_gateway(&self.kind) {
            return Ok(());
        }
        // The listeners of these two are in their config entries.
        let needs_port = !matches!(self.kind.as_str(), KIND_INGRESS_GATEWAY | KIND_API_GATEWAY);
        if self.port == 0 && needs_port {
            return Err(format!("Port must be non-zero for a {}", self.kind));
        }
        let said = [
            ("DestinationServiceName", !proxy.destination_service_name.is_empty()),
            ("DestinationServiceID", !proxy.destination_service_id.is_empty()),
            ("LocalServiceAddress", !proxy.local_service_address.is_empty()),
            ("LocalServicePort", proxy.local_service_port != 0),
            ("LocalServiceSocketPath", proxy.local_service_socket_path.as_ref().is_some_and(|it| !it.is_empty())),
            ("Upstreams", !proxy.upstreams.is_empty()),
        ];
        match said.into_iter().find(|(_, said)| *said) {
            Some((name, _)) => Err(format!("The Proxy.{name} configuration is invalid for a {}", self.kind)),
            None => Ok(()),
        }
    }

    /// Its id as text; the service name where none was given.
    pub fn id_text(&self) -> &str {
        self.id.as_ref().map_or(self.name.as_str(), ServiceId::as_str)
    }
}

/// A row of `catalog/service`: an instance joined with its node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServiceNode {
    /// The node it is on.
    #[n(0)]
    pub node: Node,
    /// The instance.
    #[n(1)]
    pub service: NodeService,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceNodeJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: &'a BTreeMap<String, String>,
    node_meta: &'a BTreeMap<String, String>,
    service_kind: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: &'a BTreeMap<String, ServiceAddress>,
    service_weights: Weights,
    service_meta: &'a BTreeMap<String, String>,
    service_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_ports: Option<&'a [ServicePort]>,
    service_socket_path: &'a str,
    service_enable_tag_override: bool,
    service_proxy: &'a ConnectProxy,
    service_connect: &'a ServiceConnect,
    service_locality: Option<&'a Locality>,
    create_index: Index,
    modify_index: Index,
}

impl Serialize for ServiceNode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { node, service } = self;
        ServiceNodeJson {
            id: &node.id,
            node: node.name.as_str(),
            address: &node.address,
            datacenter: &node.datacenter,
            tagged_addresses: &node.tagged_addresses,
            node_meta: &node.meta,
            service_kind: &service.kind,
            service_id: service.id_text(),
            service_name: service.name.as_str(),
            service_tags: &service.tags,
            service_address: &service.address,
            service_tagged_addresses: &service.tagged_addresses,
            service_weights: service.weights,
            service_meta: &service.meta,
            service_port: service.port,
            service_ports: service.ports.as_deref(),
            service_socket_path: &service.socket_path,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: &service.proxy,
            service_connect: &service.connect,
            service_locality: service.locality.as_ref(),
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
        .serialize(serializer)
    }
}

/// A row of `health/service`: an instance, its node, and the checks of both.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct CheckServiceNode {
    /// The node it is on.
    #[n(0)]
    pub node: Node,
    /// The instance.
    #[n(1)]
    pub service: NodeService,
    /// The checks of the node and of this instance.
    #[n(2)]
    pub checks: Vec<HealthCheck>,
}

/// What one node runs, for `catalog/node`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct NodeServices {
    /// The node.
    #[n(0)]
    pub node: Node,
    /// Its instances by id.
    #[n(1)]
    pub services: BTreeMap<String, NodeService>,
}
