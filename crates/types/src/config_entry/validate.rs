//! What an entry may say by itself. The texts are Consul's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{ConfigEntry, ConfigKind, MESH_NAME, PROXY_DEFAULTS_NAME};
use crate::intention::WILDCARD;

mod chain;
mod gateways;
mod mesh;
mod tokens;

type Valid = Result<(), String>;

/// Pairs of meta that an entry may have.
const META_PAIRS_MAX: usize = 64;
/// Bytes of the longest key of meta.
const META_KEY_BYTES_MAX: usize = 128;
/// Bytes of the longest value of meta.
const META_VALUE_BYTES_MAX: usize = 512;

pub(super) fn meta(meta: &BTreeMap<String, String>) -> Valid {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!("Meta exceeds maximum element count {META_PAIRS_MAX}"));
    }
    for (key, value) in meta {
        if key.len() > META_KEY_BYTES_MAX {
            return Err(format!("Meta key {key:?} exceeds maximum length {META_KEY_BYTES_MAX}"));
        }
        if value.len() > META_VALUE_BYTES_MAX {
            return Err(format!("Meta value for key {key:?} exceeds maximum length {META_VALUE_BYTES_MAX}"));
        }
    }
    Ok(())
}

pub(super) fn entry(entry: &ConfigEntry) -> Valid {
    if entry.name.is_empty() {
        return Err("Name is required".into());
    }
    match entry.kind {
        ConfigKind::ServiceDefaults => service_defaults(entry),
        ConfigKind::ProxyDefaults => proxy_defaults(entry),
        ConfigKind::ServiceResolver => chain::resolver(entry),
        ConfigKind::ServiceSplitter => chain::splitter(entry),
        ConfigKind::ServiceRouter => chain::router(entry),
        ConfigKind::Mesh => mesh::mesh(entry),
        ConfigKind::ExportedServices => mesh::exported_services(entry),
        ConfigKind::IngressGateway => gateways::ingress(entry),
        ConfigKind::TerminatingGateway => gateways::terminating(entry),
        ConfigKind::ApiGateway => gateways::api(entry),
        ConfigKind::BoundApiGateway => Ok(()),
        ConfigKind::HttpRoute => gateways::http_route(entry),
        ConfigKind::TcpRoute => gateways::tcp_route(entry),
        ConfigKind::InlineCertificate | ConfigKind::FileSystemCertificate => certificate(entry),
        ConfigKind::JwtProvider => tokens::jwt_provider(entry),
    }
}

/// The text under `name`, empty when there is none.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// The rows of the list under `name`.
fn rows<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

fn number(object: &Value, name: &str) -> i64 {
    // What is too large for its sign is too large for any limit.
    object[name].as_i64().unwrap_or(if object[name].is_u64() { i64::MAX } else { 0 })
}

fn flag(object: &Value, name: &str) -> bool {
    object[name].as_bool().unwrap_or_default()
}

/// How many of these are said.
fn said(them: &[bool]) -> usize {
    them.iter().filter(|it| **it).count()
}

fn is_domain_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty() && name.len() <= 253 && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
}

fn proxy_mode(entry: &ConfigEntry) -> Valid {
    match entry.field("Mode").as_str().unwrap_or_default() {
        "" | "direct" | "transparent" => Ok(()),
        other => Err(format!("invalid proxy mode: {other}")),
    }
}

fn mesh_gateway_mode(object: &Value) -> Valid {
    match text(object, "Mode") {
        "" | "none" | "local" | "remote" => Ok(()),
        other => Err(format!("Invalid Mesh Gateway Mode: {other:?}")),
    }
}

fn mutual_tls_mode(entry: &ConfigEntry) -> Valid {
    match entry.field("MutualTLSMode").as_str().unwrap_or_default() {
        "" | "strict" | "permissive" => Ok(()),
        other => Err(format!("Invalid MutualTLSMode {other:?}. Must be one of \"\", \"strict\", or \"permissive\".")),
    }
}

fn expose(entry: &ConfigEntry) -> Valid {
    for path in rows(entry.field("Expose"), "Paths") {
        if text(path, "Path").is_empty() {
            return Err("expose.paths: empty path exposed".into());
        }
        let port = number(path, "ListenerPort");
        if !(1..=65535).contains(&port) {
            return Err(format!("expose.paths: invalid listener port: {port}"));
        }
    }
    Ok(())
}

fn envoy_extensions(entry: &ConfigEntry) -> Valid {
    for (at, extension) in entry.rows("EnvoyExtensions").iter().enumerate() {
        if text(extension, "Name").is_empty() {
            return Err(format!("invalid EnvoyExtensions[{at}]: Name is required"));
        }
    }
    Ok(())
}

fn balance(value: &str, name: &str) -> Valid {
    if matches!(value, "" | "exact_balance") { Ok(()) } else { Err(format!("invalid value for {name}: {value}")) }
}

fn service_defaults(entry: &ConfigEntry) -> Valid {
    if entry.name == WILDCARD {
        return Err("service-defaults name must be the name of a service, and not a wildcard".into());
    }
    proxy_mode(entry)?;
    mesh_gateway_mode(entry.field("MeshGateway"))?;
    mutual_tls_mode(entry)?;
    expose(entry)?;
    envoy_extensions(entry)?;
    balance(entry.field("BalanceInboundConnections").as_str().unwrap_or_default(), "balance_inbound_connections")?;
    let (upstreams, destination) = (entry.field("UpstreamConfig"), entry.field("Destination"));
    if upstreams.is_object() && destination.is_object() {
        return Err("UpstreamConfig and Destination are mutually exclusive for service defaults".into());
    }
    for upstream in rows(upstreams, "Overrides") {
        let name = text(upstream, "Name");
        let checked = match name {
            "" => Err("Name is required".into()),
            WILDCARD => Err("Wildcard name is not supported".into()),
            _ => upstream_config(upstream),
        };
        checked.map_err(|problem| format!("error in upstream override for {name}: {problem}"))?;
    }
    if upstreams["Defaults"].is_object() {
        let defaults = &upstreams["Defaults"];
        let named = !text(defaults, "Name").is_empty();
        let checked = if named { Err("Name must be empty".into()) } else { upstream_config(defaults) };
        checked.map_err(|problem| format!("error in upstream defaults: {problem}"))?;
    }
    if destination.is_object() {
        external(destination)?;
    }
    rate_limits(entry)
}

fn rate_limits(entry: &ConfigEntry) -> Valid {
    let level = &entry.field("RateLimits")["InstanceLevel"];
    for (at, route) in rows(level, "Routes").iter().enumerate() {
        let paths = ["PathExact", "PathPrefix", "PathRegex"].map(|name| !text(route, name).is_empty());
        if said(&paths) != 1 {
            return Err(format!(
                "Invalid RateLimits.InstanceLevel.Routes[{at}]: exactly one of PathExact, PathPrefix, or PathRegex must be set"
            ));
        }
    }
    for name in ["RequestsPerSecond", "RequestsMaxBurst"] {
        if number(level, name) < 0 {
            return Err(format!("RateLimits.InstanceLevel.{name} must not be negative"));
        }
    }
    Ok(())
}

/// A service outside of the catalog.
fn external(destination: &Value) -> Valid {
    let addresses = rows(destination, "Addresses");
    if addresses.is_empty() {
        return Err("Destination must contain at least one valid address".into());
    }
    let mut seen = BTreeSet::new();
    for address in addresses.iter().filter_map(Value::as_str) {
        if !seen.insert(address) {
            return Err(format!("Duplicate address '{address}' is not allowed"));
        }
        let is_ip = address.parse::<std::net::IpAddr>().is_ok();
        if !is_ip && (address.contains('*') || !is_domain_name(address)) {
            return Err(format!(
                "Destination address '{address}' is invalid Could not validate address {address} as an IP or Hostname"
            ));
        }
    }
    let port = number(destination, "Port");
    if (1..=65535).contains(&port) { Ok(()) } else { Err(format!("Invalid Port number {port}")) }
}

fn upstream_config(upstream: &Value) -> Valid {
    mesh_gateway_mode(&upstream["MeshGateway"])?;
    passive_health_check(&upstream["PassiveHealthCheck"])?;
    let limits = &upstream["Limits"];
    for (name, words) in [
        ("MaxConnections", "max connections"),
        ("MaxPendingRequests", "max pending requests"),
        ("MaxConcurrentRequests", "max concurrent requests"),
    ] {
        if number(limits, name) < 0 {
            return Err(format!("{words} cannot be negative"));
        }
    }
    balance(text(upstream, "BalanceOutboundConnections"), "balance_outbound_connections")
}

fn passive_health_check(check: &Value) -> Valid {
    if number(check, "Interval") < 0 {
        return Err("passive health check interval cannot be negative".into());
    }
    for (name, words) in
        [("EnforcingConsecutive5xx", "enforcing_consecutive_5xx"), ("MaxEjectionPercent", "max_ejection_percent")]
    {
        if !(0..=100).contains(&number(check, name)) {
            return Err(format!("passive health check {words} must be a percentage between 0 and 100"));
        }
    }
    if number(check, "BaseEjectionTime") < 0 {
        return Err("passive health check base_ejection_time cannot be negative".into());
    }
    Ok(())
}

fn proxy_defaults(entry: &ConfigEntry) -> Valid {
    if entry.name != PROXY_DEFAULTS_NAME {
        return Err(format!("invalid name ({:?}), only {PROXY_DEFAULTS_NAME:?} is supported", entry.name));
    }
    if !matches!(entry.field("Config"), Value::Null | Value::Object(_)) {
        return Err("Config must be an object".into());
    }
    proxy_mode(entry)?;
    mesh_gateway_mode(entry.field("MeshGateway"))?;
    mutual_tls_mode(entry)?;
    expose(entry)?;
    envoy_extensions(entry)?;
    let logs = entry.field("AccessLogs");
    let kind = text(logs, "Type");
    match kind {
        "" | "stdout" | "stderr" | "file" => {}
        other => return Err(format!("invalid access log type: {other}")),
    }
    if (kind == "file") == text(logs, "Path").is_empty() {
        return Err("path must be specified if and only if the access log type is file".into());
    }
    if !text(logs, "JSONFormat").is_empty() && !text(logs, "TextFormat").is_empty() {
        return Err("cannot specify both access log JSONFormat and TextFormat".into());
    }
    match text(entry.field("FailoverPolicy"), "Mode") {
        "" | "sequential" | "order-by-locality" => Ok(()),
        other => {
            Err(format!("Failover policy mode {other:?} is not supported: leave it empty or write \"sequential\""))
        }
    }
}

/// A certificate is PEM, or the path of a file with it.
fn certificate(entry: &ConfigEntry) -> Valid {
    for name in ["Certificate", "PrivateKey"] {
        let value = entry.field(name).as_str().unwrap_or_default();
        if value.is_empty() {
            return Err(format!("{name} must be set"));
        }
        let is_pem = value.contains("-----BEGIN ");
        match (entry.kind, is_pem) {
            (ConfigKind::InlineCertificate, false) => return Err(format!("failed to parse {name}: it is not PEM")),
            (ConfigKind::FileSystemCertificate, true) => {
                return Err(format!("{name} must be the path of a file, not what is in it"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_mesh_name(name: &str) -> bool {
    name == MESH_NAME
}
