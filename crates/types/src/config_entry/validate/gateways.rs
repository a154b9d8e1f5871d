//! Gateways, and the routes of API gateways.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::ConfigEntry;
use super::mesh::tls_versions;
use super::{Valid, chain, flag, is_domain_name, number, passive_health_check, rows, text};
use crate::intention::WILDCARD;

/// Whether what follows the first label of a name has a wildcard.
fn has_inner_wildcard(host: &str) -> bool {
    host.strip_prefix("*.").unwrap_or(host).contains('*')
}

fn is_http(protocol: &str) -> bool {
    matches!(protocol, "http" | "http2" | "grpc")
}

pub(super) fn ingress(entry: &ConfigEntry) -> Valid {
    gateway_tls(entry.field("TLS"))?;
    let mut ports = BTreeSet::new();
    for listener in entry.rows("Listeners") {
        let port = number(listener, "Port");
        if !ports.insert(port) {
            return Err(format!("port {port} declared on two listeners"));
        }
        let protocol = text(listener, "Protocol");
        if !matches!(protocol, "" | "tcp" | "http" | "http2" | "grpc") {
            return Err(format!(
                "protocol must be 'tcp', 'http', 'http2', or 'grpc'. '{protocol}' is an unsupported protocol"
            ));
        }
        let services = rows(listener, "Services");
        if services.is_empty() {
            return Err(format!("No service declared for listener with port {port}"));
        }
        if !is_http(protocol) && services.len() > 1 {
            return Err(format!(
                "Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2' (listener on port {port})"
            ));
        }
        gateway_tls(&listener["TLS"])?;
        ingress_services(entry, listener, port)?;
    }
    passive_health_check(&entry.field("Defaults")["PassiveHealthCheck"])
}

fn ingress_services(entry: &ConfigEntry, listener: &Value, port: i64) -> Valid {
    let protocol = text(listener, "Protocol");
    let (mut names, mut all_hosts) = (BTreeSet::new(), BTreeSet::new());
    for service in rows(listener, "Services") {
        let (name, hosts) = (text(service, "Name"), rows(service, "Hosts"));
        let refused = |words: &str| Err(format!("{words} (listener on port {port})"));
        if !is_http(protocol) {
            if name == WILDCARD {
                return refused("Wildcard service name is only valid for protocol = 'http'");
            }
            if !hosts.is_empty() {
                return refused("Associating hosts to a service is not supported for the tcp protocol");
            }
            for (field, words) in [("RequestHeaders", "request headers"), ("ResponseHeaders", "response headers")] {
                if service[field].is_object() {
                    return Err(format!(
                        "{words} only valid for http, grpc or http2 (service {name:?} on listener on port {port})"
                    ));
                }
            }
        }
        if name.is_empty() {
            return refused("Service name cannot be blank");
        }
        if name == WILDCARD && !hosts.is_empty() {
            return refused("Associating hosts to a wildcard service is not supported");
        }
        if !names.insert(name) {
            return refused(&format!("Service {name} cannot be added multiple times"));
        }
        passive_health_check(&service["PassiveHealthCheck"])?;
        for host in hosts.iter().filter_map(Value::as_str) {
            if !all_hosts.insert(host) {
                return refused("Hosts must be unique within a specific listener");
            }
            ingress_host(flag(entry.field("TLS"), "Enabled"), host)?;
        }
    }
    Ok(())
}

fn ingress_host(with_tls: bool, host: &str) -> Valid {
    if host == WILDCARD {
        if with_tls {
            return Err(
                "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a \
                        DNSSAN"
                    .into(),
            );
        }
        return Ok(());
    }
    if !is_domain_name(host) {
        return Err(format!("Host {host:?} must be a valid DNS hostname"));
    }
    if has_inner_wildcard(host) {
        return Err(format!("Host {host:?} is not valid, a wildcard specifier is only allowed as the leftmost label"));
    }
    Ok(())
}

fn gateway_tls(tls: &Value) -> Valid {
    tls_versions(text(tls, "TLSMinVersion"), text(tls, "TLSMaxVersion"), rows(tls, "CipherSuites"))?;
    if text(&tls["SDS"], "ClusterName").is_empty() && !text(&tls["SDS"], "CertResource").is_empty() {
        return Err("TLS.SDS.ClusterName is required if CertResource is set".into());
    }
    Ok(())
}

pub(super) fn terminating(entry: &ConfigEntry) -> Valid {
    let mut seen = BTreeSet::new();
    for service in entry.rows("Services") {
        let name = text(service, "Name");
        if name.is_empty() {
            return Err("Service name cannot be blank.".into());
        }
        if !seen.insert(name) {
            return Err(format!("Service {name:?} was specified more than once within a namespace"));
        }
        let [authority, certificate, key] =
            ["CAFile", "CertFile", "KeyFile"].map(|field| !text(service, field).is_empty());
        if (certificate || key) && !(authority && certificate && key) {
            return Err(format!(
                "Service {name:?} must have a CertFile, CAFile, and KeyFile specified for TLS origination"
            ));
        }
    }
    Ok(())
}

fn is_listener_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    name.split('.').all(is_label)
}

pub(super) fn api(entry: &ConfigEntry) -> Valid {
    let listeners = entry.rows("Listeners");
    if listeners.is_empty() {
        return Err("api gateway must have at least one listener".into());
    }
    let mut names = BTreeSet::new();
    let mut merged: BTreeMap<i64, &Value> = BTreeMap::new();
    for listener in listeners {
        let name = text(listener, "Name");
        if !is_listener_name(name) {
            return Err(format!(
                "listener name {name:?} is invalid, must be at least 1 character and contain only letters, numbers, or dashes"
            ));
        }
        if !names.insert(name) {
            return Err(format!("found multiple listeners with the name {name:?}"));
        }
        let port = number(listener, "Port");
        if let Some(other) = merged.insert(port, listener)
            && (other["Hostname"] != listener["Hostname"] || other["Protocol"] != listener["Protocol"])
        {
            return Err(format!("listeners {:?} and {name:?} cannot be merged", text(other, "Name")));
        }
        api_listener(listener, port)?;
    }
    Ok(())
}

fn api_listener(listener: &Value, port: i64) -> Valid {
    let (protocol, host) = (text(listener, "Protocol"), text(listener, "Hostname"));
    if !matches!(protocol, "http" | "tcp") {
        return Err(format!("unsupported listener protocol {protocol:?}, must be one of 'tcp', or 'http'"));
    }
    if protocol == "tcp" && !host.is_empty() {
        return Err("hostname specification is not supported when using TCP".into());
    }
    if !(1..=65535).contains(&port) {
        return Err(format!("listener port {port} not in the range 1-65535"));
    }
    if has_inner_wildcard(host) {
        return Err(format!("host {host:?} is not valid, a wildcard specifier is only allowed as the left-most label"));
    }
    let tls = &listener["TLS"];
    for certificate in rows(tls, "Certificates") {
        let kind = text(certificate, "Kind");
        if !matches!(kind, "" | "inline-certificate" | "file-system-certificate") {
            return Err(format!(
                "unsupported certificate kind: {kind:?}, must be 'inline-certificate' or 'file-system-certificate'"
            ));
        }
        if text(certificate, "Name").is_empty() {
            return Err("certificate reference must have a name".into());
        }
    }
    tls_versions(text(tls, "MinVersion"), text(tls, "MaxVersion"), rows(tls, "CipherSuites"))
}

fn parents(entry: &ConfigEntry) -> Valid {
    let mut seen = BTreeSet::new();
    for parent in entry.rows("Parents") {
        let kind = text(parent, "Kind");
        if !matches!(kind, "" | "api-gateway") {
            return Err(format!("unsupported parent kind: {kind:?}, must be 'api-gateway'"));
        }
        if !seen.insert((text(parent, "Name"), text(parent, "SectionName"))) {
            return Err("route parents must be unique".into());
        }
    }
    Ok(())
}

pub(super) fn http_route(entry: &ConfigEntry) -> Valid {
    for host in entry.rows("Hostnames").iter().filter_map(Value::as_str) {
        if !is_domain_name(host) {
            return Err(format!("host {host:?} must be a valid DNS hostname"));
        }
        if host.contains('*') {
            return Err(format!("host {host:?} must not be a wildcard"));
        }
    }
    parents(entry)?;
    for (at, rule) in entry.rows("Rules").iter().enumerate() {
        for (number, wanted) in rows(rule, "Matches").iter().enumerate() {
            http_match(wanted).map_err(|problem| format!("Rule[{at}], Match[{number}], {problem}"))?;
        }
        for (number, service) in rows(rule, "Services").iter().enumerate() {
            if text(service, "Name").is_empty() {
                return Err(format!("Rule[{at}], Service[{number}], missing required Name field"));
            }
        }
    }
    Ok(())
}

fn http_match(wanted: &Value) -> Valid {
    let method = text(wanted, "Method");
    if !method.is_empty() && !chain::is_method(method) {
        return Err(format!("Method contains an invalid method {method:?}"));
    }
    for (list, words, kinds) in [
        ("Query", "present, exact, or regex", &["present", "exact", "regex"][..]),
        ("Headers", "present, exact, prefix, suffix, or regex", &["present", "exact", "prefix", "suffix", "regex"][..]),
    ] {
        for (at, row) in rows(wanted, list).iter().enumerate() {
            if text(row, "Name").is_empty() {
                return Err(format!("{list}[{at}], missing required Name field"));
            }
            if !kinds.contains(&text(row, "Match")) {
                return Err(format!("{list}[{at}], match type should be one of {words}"));
            }
        }
    }
    let path = &wanted["Path"];
    let (kind, value) = (text(path, "Match"), text(path, "Value"));
    match kind {
        "" | "regex" => Ok(()),
        "exact" | "prefix" if value.starts_with('/') => Ok(()),
        "exact" | "prefix" => Err(format!("Path, {kind} type match doesn't start with '/': {value:?}")),
        _ => Err("Path, match type should be one of exact, prefix, or regex".into()),
    }
}

pub(super) fn tcp_route(entry: &ConfigEntry) -> Valid {
    if entry.rows("Services").len() > 1 {
        return Err("tcp-route currently only supports one service".into());
    }
    parents(entry)
}
