//! The fields that Consul lets one select of `config/service-defaults`: of config entries that is the one kind.

use lictor_types::ConfigEntry;
use serde_json::Value;

use crate::Fields;

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

fn number(of: &Value, name: &str) -> i64 {
    of[name].as_i64().unwrap_or_default()
}

fn truth(of: &Value, name: &str) -> bool {
    of[name].as_bool().unwrap_or_default()
}

fn rows<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

/// Of `config/service-defaults`.
pub fn service_defaults(of: &mut Fields<'_, ConfigEntry>) {
    of.text("Kind", |it| it.kind.as_str())
        .text("Name", |it| &it.name)
        .text("Protocol", |it| it.field("Protocol").as_str().unwrap_or_default())
        .text("Mode", |it| it.field("Mode").as_str().unwrap_or_default())
        .within("TransparentProxy", |it| it.field("TransparentProxy"), transparent_proxy)
        .text("MutualTLSMode", |it| it.field("MutualTLSMode").as_str().unwrap_or_default())
        .within("MeshGateway", |it| it.field("MeshGateway"), mesh_gateway)
        .within("Expose", |it| it.field("Expose"), expose)
        .text("ExternalSNI", |it| it.field("ExternalSNI").as_str().unwrap_or_default())
        .within("UpstreamConfig", |it| it.field("UpstreamConfig"), upstreams)
        .within("Destination", |it| it.field("Destination"), destination)
        .integer("MaxInboundConnections", |it| it.field("MaxInboundConnections").as_i64().unwrap_or_default())
        .integer("LocalConnectTimeoutMs", |it| it.field("LocalConnectTimeoutMs").as_i64().unwrap_or_default())
        .integer("LocalRequestTimeoutMs", |it| it.field("LocalRequestTimeoutMs").as_i64().unwrap_or_default())
        .text("BalanceInboundConnections", |it| it.field("BalanceInboundConnections").as_str().unwrap_or_default())
        .within(
            "RateLimits",
            |it| it.field("RateLimits"),
            |of| {
                of.within("InstanceLevel", |it| &it["InstanceLevel"], rate_limits);
            },
        )
        .structs("EnvoyExtensions", |it| it.rows("EnvoyExtensions"), extension)
        .texts_by_key("Meta", |it| &it.meta);
}

fn transparent_proxy(of: &mut Fields<'_, Value>) {
    of.integer("OutboundListenerPort", |it| number(it, "OutboundListenerPort"))
        .boolean("DialedDirectly", |it| truth(it, "DialedDirectly"));
}

fn mesh_gateway(of: &mut Fields<'_, Value>) {
    of.text("Mode", |it| text(it, "Mode"));
}

fn expose(of: &mut Fields<'_, Value>) {
    of.boolean("Checks", |it| truth(it, "Checks")).structs("Paths", |it| rows(it, "Paths"), exposed_path);
}

pub(crate) fn exposed_path(of: &mut Fields<'_, Value>) {
    of.text("Path", |it| text(it, "Path"))
        .text("Protocol", |it| text(it, "Protocol"))
        .integer("ListenerPort", |it| number(it, "ListenerPort"))
        .integer("LocalPathPort", |it| number(it, "LocalPathPort"))
        .boolean("ParsedFromCheck", |it| truth(it, "ParsedFromCheck"));
}

fn upstreams(of: &mut Fields<'_, Value>) {
    of.structs("Overrides", |it| rows(it, "Overrides"), upstream).within("Defaults", |it| &it["Defaults"], upstream);
}

fn upstream(of: &mut Fields<'_, Value>) {
    of.text("Name", |it| text(it, "Name"))
        .text("Peer", |it| text(it, "Peer"))
        .text("EnvoyListenerJSON", |it| text(it, "EnvoyListenerJSON"))
        .text("EnvoyClusterJSON", |it| text(it, "EnvoyClusterJSON"))
        .text("Protocol", |it| text(it, "Protocol"))
        .integer("ConnectTimeoutMs", |it| number(it, "ConnectTimeoutMs"))
        .within("MeshGateway", |it| &it["MeshGateway"], mesh_gateway)
        .text("BalanceOutboundConnections", |it| text(it, "BalanceOutboundConnections"));
}

fn destination(of: &mut Fields<'_, Value>) {
    of.values("Addresses", |it| rows(it, "Addresses")).integer("Port", |it| number(it, "Port"));
}

fn rate_limits(of: &mut Fields<'_, Value>) {
    of.integer("RequestsPerSecond", |it| number(it, "RequestsPerSecond"))
        .integer("RequestsMaxBurst", |it| number(it, "RequestsMaxBurst"))
        .structs(
            "Routes",
            |it| rows(it, "Routes"),
            |of| {
                of.text("PathExact", |it| text(it, "PathExact"))
                    .text("PathPrefix", |it| text(it, "PathPrefix"))
                    .text("PathRegex", |it| text(it, "PathRegex"))
                    .integer("RequestsPerSecond", |it| number(it, "RequestsPerSecond"))
                    .integer("RequestsMaxBurst", |it| number(it, "RequestsMaxBurst"));
            },
        );
}

fn extension(of: &mut Fields<'_, Value>) {
    of.text("Name", |it| text(it, "Name"))
        .boolean("Required", |it| truth(it, "Required"))
        .text("ConsulVersion", |it| text(it, "ConsulVersion"))
        .text("EnvoyVersion", |it| text(it, "EnvoyVersion"));
}

#[cfg(test)]
mod tests {
    use lictor_types::ConfigKind;
    use serde_json::json;

    use super::*;
    use crate::Filter;

    #[test]
    fn the_defaults_of_services_are_chosen_by_what_they_say() {
        let written = json!({
            "Name": "db", "Protocol": "tcp", "MutualTLSMode": "permissive", "MeshGateway": {"Mode": "local"},
            "Expose": {"Paths": [{"Path": "/live", "ListenerPort": 21500}]}, "Meta": {"team": "a"},
            "UpstreamConfig": {"Overrides": [{"Name": "cache", "ConnectTimeoutMs": 5}], "Defaults": {"Protocol": "http"}},
            "Destination": {"Addresses": ["db.example"], "Port": 5432},
            "RateLimits": {"InstanceLevel": {"RequestsPerSecond": 7, "RequestsMaxBurst": 8}},
        });
        let entry = ConfigEntry::parse(ConfigKind::ServiceDefaults, &written).unwrap();
        for (text, is_chosen) in [
            ("Protocol == tcp and Name == db and Kind == `service-defaults`", true),
            ("MutualTLSMode == permissive", true),
            ("MeshGateway.Mode == remote", false),
            ("Expose.Paths.Path == `/live` and Expose.Paths.ListenerPort == 21500", true),
            ("Expose.Paths is empty", false),
            ("UpstreamConfig.Overrides.Name == cache and UpstreamConfig.Defaults.Protocol == http", true),
            ("`db.example` in Destination.Addresses and Destination.Port == 5432", true),
            ("Destination.Addresses is empty", false),
            ("`x` not in Destination.Addresses", true),
            ("RateLimits.InstanceLevel.RequestsPerSecond == 7", true),
            ("EnvoyExtensions is empty and Meta.team == a", true),
            ("MaxInboundConnections == 0", true),
        ] {
            let filter = Filter::compile(text, service_defaults).unwrap();
            assert_eq!(filter.matches(&entry), is_chosen, "{text}");
        }
        for text in ["Hash == 1", "ModifyIndex == 1", "Destination.Nope == 1", "Destination.Addresses == x"] {
            assert!(Filter::compile(text, service_defaults).is_err(), "{text}");
        }
    }
}
