//! The mesh as a whole, and what others may call.

use serde_json::Value;

use super::super::ConfigEntry;
use super::{Valid, is_mesh_name, rows, said, text};
use crate::intention::WILDCARD;

const VERSIONS: [&str; 5] = ["TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"];

const PATH_ACTIONS: [&str; 5] = [
    "IMPLEMENTATION_SPECIFIC_DEFAULT",
    "KEEP_UNCHANGED",
    "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
];

const HEADER_ACTIONS: [&str; 3] = ["ALLOW", "REJECT_REQUEST", "DROP_HEADER"];

/// The TLS settings that several kinds have.
pub(super) fn tls_versions(least: &str, most: &str, suites: &[Value]) -> Valid {
    let place = |version: &str| VERSIONS.iter().position(|it| *it == version);
    for version in [least, most] {
        if !version.is_empty() && place(version).is_none() {
            return Err(format!(
                "no matching TLS version found for {version}, please specify one of {}",
                VERSIONS.join(", ")
            ));
        }
    }
    if let (Some(least_place), Some(most_place)) = (place(least), place(most))
        && least_place > 0
        && most_place > 0
        && most_place < least_place
    {
        return Err(format!("configuring max version {most} less than the configured min version {least} is invalid"));
    }
    if !suites.is_empty() && least == "TLSv1_3" {
        return Err("configuring CipherSuites is only applicable to connections negotiated with TLS 1.2 or earlier, \
                    TLSMinVersion is set to TLSv1_3"
            .into());
    }
    Ok(())
}

pub(super) fn mesh(entry: &ConfigEntry) -> Valid {
    if !is_mesh_name(&entry.name) {
        return Err(format!("invalid name ({:?}), only \"mesh\" is supported", entry.name));
    }
    let tls = entry.field("TLS");
    for (name, words) in [("Incoming", "incoming"), ("Outgoing", "outgoing")] {
        let side = &tls[name];
        tls_versions(text(side, "TLSMinVersion"), text(side, "TLSMaxVersion"), rows(side, "CipherSuites"))
            .map_err(|problem| format!("error in {words} TLS configuration: {problem}"))?;
    }
    let normalization = &entry.field("HTTP")["Incoming"]["RequestNormalization"];
    for (name, actions) in
        [("PathWithEscapedSlashesAction", &PATH_ACTIONS[..]), ("HeadersWithUnderscoresAction", &HEADER_ACTIONS[..])]
    {
        let action = text(normalization, name);
        if !action.is_empty() && !actions.contains(&action) {
            return Err(format!(
                "error in HTTP incoming request normalization configuration: no matching {name} value found for \
                 {action}, please specify one of [{}]",
                actions.join(", ")
            ));
        }
    }
    Ok(())
}

pub(super) fn exported_services(entry: &ConfigEntry) -> Valid {
    if entry.name != "default" {
        return Err("exported-services Name must be \"default\"".into());
    }
    for (at, service) in entry.rows("Services").iter().enumerate() {
        let name = text(service, "Name");
        if name.is_empty() {
            return Err(format!("Services[{at}]: service name cannot be empty"));
        }
        let consumers = rows(service, "Consumers");
        if consumers.is_empty() {
            return Err(format!("Services[{at}]: must have at least one consumer"));
        }
        for (number, consumer) in consumers.iter().enumerate() {
            let refused = |words: &str| Err(format!("Services[{at}].Consumers[{number}]: {words}"));
            let [peer, group] = ["Peer", "SamenessGroup"].map(|name| text(consumer, name));
            if !group.is_empty() {
                return refused("sameness groups are a Consul Enterprise feature");
            }
            if said(&[!peer.is_empty()]) == 0 {
                return refused("must define at least one of Peer, Partition, or SamenessGroup");
            }
            if peer == WILDCARD {
                return refused("exporting to all peers (wildcard) is not supported");
            }
        }
    }
    Ok(())
}
