//! Gateways and what is behind them, and the addresses that stand for services.

use std::net::Ipv4Addr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Index;

/// The kind of an instance that carries calls between datacenters.
pub const KIND_MESH_GATEWAY: &str = "mesh-gateway";
/// The kind of an instance that carries calls out of the mesh.
pub const KIND_TERMINATING_GATEWAY: &str = "terminating-gateway";
/// The kind of an instance that lets calls into the mesh.
pub const KIND_INGRESS_GATEWAY: &str = "ingress-gateway";
/// The kind of an instance that lets calls into the mesh by the rules of routes.
pub const KIND_API_GATEWAY: &str = "api-gateway";

/// The tagged address of a service's virtual address.
pub const VIRTUAL_TAG: &str = "consul-virtual";
/// The network of virtual addresses; the first one given is the one after it.
pub const VIRTUAL_NETWORK: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);
/// The place of the last virtual address in the network: that of all ones is a broadcast.
pub const VIRTUAL_LAST: u32 = (1 << 28) - 2;

/// Whether an instance of this kind is a gateway.
pub fn is_gateway(kind: &str) -> bool {
    matches!(kind, KIND_MESH_GATEWAY | KIND_TERMINATING_GATEWAY | KIND_INGRESS_GATEWAY | KIND_API_GATEWAY)
}

/// One service behind one gateway, on one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GatewayService {
    /// The gateway.
    #[n(0)]
    pub gateway: String,
    /// The service.
    #[n(1)]
    pub service: String,
    /// The kind of the gateway.
    #[n(2)]
    pub gateway_kind: String,
    /// The port it is called on; 0 where the gateway says none.
    #[n(3)]
    pub port: u16,
    /// The protocol of that port.
    #[n(4)]
    pub protocol: String,
    /// The hosts it is called by.
    #[n(5)]
    pub hosts: Vec<String>,
    /// The authority that the service's certificate is checked against.
    #[n(6)]
    pub ca_file: String,
    /// The gateway's certificate.
    #[n(7)]
    pub cert_file: String,
    /// The key of that.
    #[n(8)]
    pub key_file: String,
    /// The name to ask the service for.
    #[n(9)]
    pub sni: String,
    /// It is there because the gateway named all services.
    #[n(10)]
    pub from_wildcard: bool,
    /// When the gateway's entry was made.
    #[n(11)]
    pub create_index: Index,
    /// When the gateway's entry last changed.
    #[n(12)]
    pub modify_index: Index,
}

impl Serialize for GatewayService {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Named<'a> {
            name: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Json<'a> {
            gateway: Named<'a>,
            service: Named<'a>,
            gateway_kind: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            port: Option<u16>,
            #[serde(skip_serializing_if = "str::is_empty")]
            protocol: &'a str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            hosts: &'a [String],
            #[serde(rename = "CAFile", skip_serializing_if = "str::is_empty")]
            ca_file: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            cert_file: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            key_file: &'a str,
            #[serde(rename = "SNI", skip_serializing_if = "str::is_empty")]
            sni: &'a str,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            from_wildcard: bool,
            create_index: Index,
            modify_index: Index,
        }
        Json {
            gateway: Named { name: &self.gateway },
            service: Named { name: &self.service },
            gateway_kind: &self.gateway_kind,
            port: Some(self.port).filter(|port| *port != 0),
            protocol: &self.protocol,
            hosts: &self.hosts,
            ca_file: &self.ca_file,
            cert_file: &self.cert_file,
            key_file: &self.key_file,
            sni: &self.sni,
            from_wildcard: self.from_wildcard,
            create_index: self.create_index,
            modify_index: self.modify_index,
        }
        .serialize(serializer)
    }
}

/// The addresses that stand for a service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtualAddress {
    /// The service.
    #[n(0)]
    pub service: String,
    /// The place of its own address in [`VIRTUAL_NETWORK`].
    #[n(1)]
    pub place: u32,
    /// Addresses that people gave it.
    #[n(2)]
    pub manual: Vec<String>,
    /// When it was given.
    #[n(3)]
    pub create_index: Index,
    /// When it last changed.
    #[n(4)]
    pub modify_index: Index,
}

impl VirtualAddress {
    /// The service's own address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(VIRTUAL_NETWORK.to_bits() + self.place.min(VIRTUAL_LAST))
    }
}

/// Gives a service addresses; other services lose them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtualAddressesSet {
    /// The service.
    #[n(0)]
    pub service: String,
    /// The addresses, in place of those that it had.
    #[n(1)]
    pub addresses: Vec<String>,
}

/// Where something runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Locality {
    /// The region.
    #[n(0)]
    pub region: String,
    /// The zone within it.
    #[n(1)]
    pub zone: String,
}
