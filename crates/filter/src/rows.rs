//! The fields that Consul lets one select, by kind of row. Names are those of its JSON; indexes are none of them.

use lictor_types::member::Member;
use lictor_types::service::{ConnectProxy, ServiceAddress, ServiceConnect, Upstream, Weights};
use lictor_types::{CheckServiceNode, HealthCheck, Intention, Node, NodeName, NodeService, ServiceNode};
use lictor_types::{intention::Action, json::Opaque};

use crate::Fields;

/// Of `catalog/nodes`.
pub fn node(of: &mut Fields<'_, Node>) {
    of.text("ID", |it| &it.id)
        .text("Node", |it| it.name.as_str())
        .text("Address", |it| &it.address)
        .text("Datacenter", |it| &it.datacenter)
        .texts_by_key("TaggedAddresses", |it| &it.tagged_addresses)
        .texts_by_key("Meta", |it| &it.meta)
        .text("PeerName", |_| "");
}

/// Of `catalog/node`, `catalog/node-services` and `agent/services`.
pub fn service(of: &mut Fields<'_, NodeService>) {
    of.text("Kind", |it| &it.kind)
        .text("ID", |it| it.id_text())
        .text("Service", |it| it.name.as_str())
        .texts("Tags", |it| &it.tags)
        .text("Address", |it| &it.address)
        .structs_by_key("TaggedAddresses", |it| &it.tagged_addresses, address)
        .texts_by_key("Meta", |it| &it.meta)
        .integer("Port", |it| it.port.into())
        .text("SocketPath", |it| &it.socket_path)
        .within("Weights", |it| &it.weights, weights)
        .boolean("EnableTagOverride", |it| it.enable_tag_override)
        .within("Proxy", |it| &it.proxy, proxy)
        .within("Connect", |it| &it.connect, connect)
        .text("PeerName", |it| &it.peer_name);
}

/// Of `catalog/service` and `catalog/connect`.
pub fn service_node(of: &mut Fields<'_, ServiceNode>) {
    of.text("ID", |it| &it.node.id)
        .text("Node", |it| it.node.name.as_str())
        .text("Address", |it| &it.node.address)
        .text("Datacenter", |it| &it.node.datacenter)
        .texts_by_key("TaggedAddresses", |it| &it.node.tagged_addresses)
        .texts_by_key("NodeMeta", |it| &it.node.meta)
        .text("ServiceKind", |it| &it.service.kind)
        .text("ServiceID", |it| it.service.id_text())
        .text("ServiceName", |it| it.service.name.as_str())
        .texts("ServiceTags", |it| &it.service.tags)
        .text("ServiceAddress", |it| &it.service.address)
        .structs_by_key("ServiceTaggedAddresses", |it| &it.service.tagged_addresses, address)
        .within("ServiceWeights", |it| &it.service.weights, weights)
        .texts_by_key("ServiceMeta", |it| &it.service.meta)
        .integer("ServicePort", |it| it.service.port.into())
        .text("ServiceSocketPath", |it| &it.service.socket_path)
        .boolean("ServiceEnableTagOverride", |it| it.service.enable_tag_override)
        .within("ServiceProxy", |it| &it.service.proxy, proxy)
        .within("ServiceConnect", |it| &it.service.connect, connect)
        .text("PeerName", |it| &it.service.peer_name);
}

/// Of `health/service`, `health/connect` and `health/ingress`.
pub fn check_service_node(of: &mut Fields<'_, CheckServiceNode>) {
    of.within("Node", |it| &it.node, node).within("Service", |it| &it.service, service).structs(
        "Checks",
        |it| &it.checks,
        check,
    );
}

/// Of `health/node`, `health/checks`, `health/state` and `agent/checks`.
pub fn check(of: &mut Fields<'_, HealthCheck>) {
    of.text("Node", |it| it.node.as_ref().map_or("", NodeName::as_str))
        .text("CheckID", |it| it.check_id.as_ref().map_or("", |id| id.as_str()))
        .text("Name", |it| &it.name)
        .text("Status", |it| it.status.as_str())
        .text("Notes", |it| &it.notes)
        .text("Output", |it| &it.output)
        .text("ServiceID", |it| &it.service_id)
        .text("ServiceName", |it| &it.service_name)
        .texts("ServiceTags", |it| &it.service_tags)
        .text("Type", |it| &it.kind)
        .text("Interval", |it| &it.interval)
        .text("Timeout", |it| &it.timeout)
        .integer("ExposedPort", |it| it.exposed_port.into())
        .text("PeerName", |_| "");
}

/// Of `connect/intentions`.
pub fn intention(of: &mut Fields<'_, Intention>) {
    of.text("ID", |_| "")
        .text("Description", |it| &it.source.description)
        .text("SourceNS", |_| "default")
        .text("SourceName", |it| &it.source.name)
        .text("DestinationNS", |_| "default")
        .text("DestinationName", |it| &it.destination)
        .text("SourceType", |it| &it.source.kind)
        .text("Action", |it| match it.source.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        })
        .texts_by_key("Meta", |it| &it.meta)
        .integer("Precedence", |it| it.source.precedence.into());
}

/// Of `agent/members`.
pub fn member(of: &mut Fields<'_, Member>) {
    of.text("Name", |it| it.name.as_str())
        .text("Addr", |it| &it.address)
        .unsigned("Port", |it| it.port.into())
        .texts_by_key("Tags", |it| &it.tags)
        .integer("Status", |it| it.status.number().into());
}

fn address(of: &mut Fields<'_, ServiceAddress>) {
    of.text("Address", |it| &it.address).integer("Port", |it| it.port.into());
}

fn weights(of: &mut Fields<'_, Weights>) {
    of.integer("Passing", |it| it.passing.into()).integer("Warning", |it| it.warning.into());
}

fn connect(of: &mut Fields<'_, ServiceConnect>) {
    of.boolean("Native", |it| it.native);
}

fn proxy(of: &mut Fields<'_, ConnectProxy>) {
    of.text("DestinationServiceName", |it| &it.destination_service_name)
        .text("DestinationServiceID", |it| &it.destination_service_id)
        .text("LocalServiceAddress", |it| &it.local_service_address)
        .integer("LocalServicePort", |it| it.local_service_port.into())
        .text("Mode", |it| &it.mode)
        .structs("Upstreams", |it| &it.upstreams, upstream)
        .within("MeshGateway", |it| &it.mesh_gateway, mesh_gateway)
        .within("Expose", |it| &it.expose, expose);
}

fn upstream(of: &mut Fields<'_, Upstream>) {
    of.text("DestinationType", |it| &it.destination_type)
        .text("DestinationName", |it| &it.destination_name)
        .text("Datacenter", |it| &it.datacenter)
        .text("LocalBindAddress", |it| &it.local_bind_address)
        .integer("LocalBindPort", |it| it.local_bind_port.into())
        .text("LocalBindSocketPath", |it| it.local_bind_socket_path.as_deref().unwrap_or_default())
        .text("LocalBindSocketMode", |it| it.local_bind_socket_mode.as_deref().unwrap_or_default())
        .text("DestinationPeer", |it| it.destination_peer.as_deref().unwrap_or_default())
        .within("MeshGateway", |it| &it.mesh_gateway, mesh_gateway);
}

fn mesh_gateway(of: &mut Fields<'_, Opaque>) {
    of.text("Mode", |it| it.text("Mode"));
}

fn expose(of: &mut Fields<'_, Opaque>) {
    of.boolean("Checks", |it| it.get("Checks").and_then(serde_json::Value::as_bool).unwrap_or_default()).structs(
        "Paths",
        |it| it.get("Paths").and_then(serde_json::Value::as_array).map_or(&[], Vec::as_slice),
        crate::config_rows::exposed_path,
    );
}
