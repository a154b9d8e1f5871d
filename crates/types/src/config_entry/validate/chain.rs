//! Resolvers, splitters and routers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::ConfigEntry;
use super::{Valid, flag, number, rows, said, text};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

const RETRY_CONDITIONS: [&str; 12] = [
    "5xx",
    "gateway-error",
    "reset",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn is_method(method: &str) -> bool {
    METHODS.contains(&method)
}

pub(super) fn router(entry: &ConfigEntry) -> Valid {
    for (at, route) in entry.rows("Routes").iter().enumerate() {
        let http = &route["Match"]["HTTP"];
        let paths = ["PathExact", "PathPrefix", "PathRegex"].map(|name| text(http, name));
        for (name, path) in [("PathExact", paths[0]), ("PathPrefix", paths[1])] {
            if !path.is_empty() && !path.starts_with('/') {
                return Err(format!("Route[{at}] {name} doesn't start with '/': {path:?}"));
            }
        }
        if said(&paths.map(|path| !path.is_empty())) > 1 {
            return Err(format!("Route[{at}] should only contain at most one of PathExact, PathPrefix, or PathRegex"));
        }
        route_match(at, http)?;
        let destination = &route["Destination"];
        if !text(destination, "PrefixRewrite").is_empty() && paths[0].is_empty() && paths[1].is_empty() {
            return Err(format!(
                "Route[{at}] cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix"
            ));
        }
        for condition in rows(destination, "RetryOn").iter().filter_map(Value::as_str) {
            if !RETRY_CONDITIONS.contains(&condition) {
                return Err(format!("Route[{at}] contains an invalid retry condition: {condition:?}"));
            }
        }
    }
    Ok(())
}

fn route_match(at: usize, http: &Value) -> Valid {
    for (number, header) in rows(http, "Header").iter().enumerate() {
        if text(header, "Name").is_empty() {
            return Err(format!("Route[{at}] Header[{number}] missing required Name field"));
        }
        let texts = ["Exact", "Regex", "Prefix", "Suffix"].map(|name| !text(header, name).is_empty());
        if said(&texts) + usize::from(flag(header, "Present")) != 1 {
            return Err(format!(
                "Route[{at}] Header[{number}] should only contain one of Present, Exact, Prefix, Suffix, or Regex"
            ));
        }
    }
    for (number, parameter) in rows(http, "QueryParam").iter().enumerate() {
        if text(parameter, "Name").is_empty() {
            return Err(format!("Route[{at}] QueryParam[{number}] missing required Name field"));
        }
        let texts = ["Exact", "Regex"].map(|name| !text(parameter, name).is_empty());
        if said(&texts) + usize::from(flag(parameter, "Present")) != 1 {
            return Err(format!(
                "Route[{at}] QueryParam[{number}] should only contain one of Present, Exact, or Regex"
            ));
        }
    }
    let mut found = BTreeSet::new();
    for method in rows(http, "Methods").iter().filter_map(Value::as_str) {
        if !is_method(method) {
            return Err(format!("Route[{at}] Methods contains an invalid method {method:?}"));
        }
        if !found.insert(method) {
            return Err(format!("Route[{at}] Methods contains {method:?} more than once"));
        }
    }
    Ok(())
}

/// Hundredths of a share.
fn hundredths(split: &Value) -> i64 {
    (split["Weight"].as_f64().unwrap_or_default() * 100.0).round() as i64
}

pub(super) fn splitter(entry: &ConfigEntry) -> Valid {
    let splits = entry.rows("Splits");
    if splits.is_empty() {
        return Err("no splits configured".into());
    }
    let mut found = BTreeSet::new();
    let mut sum = 0;
    for split in splits {
        let service = Some(text(split, "Service")).filter(|name| !name.is_empty()).unwrap_or(&entry.name);
        let subset = text(split, "ServiceSubset");
        if !found.insert((service, subset)) {
            return Err(format!("split destination occurs more than once: service={service:?}, subset={subset:?}"));
        }
        if hundredths(split) < 0 {
            return Err(format!("the weight of a split must be between 0 and 100, not {}", split["Weight"]));
        }
        sum += hundredths(split);
    }
    if sum == 10_000 {
        return Ok(());
    }
    Err(format!("the sum of all split weights must be 100, not {:.6}", sum as f64 / 100.0))
}

pub(super) fn resolver(entry: &ConfigEntry) -> Valid {
    let subsets = entry.field("Subsets");
    let is_subset = |name: &str| subsets.get(name).is_some();
    for name in subsets.as_object().into_iter().flat_map(|subsets| subsets.keys()) {
        if name.is_empty() {
            return Err("Subset defined with empty name".into());
        }
        let is_label = name.len() <= 63
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !is_label {
            return Err(format!(
                "Subset {name:?} is invalid: must be 1 to 63 lower-case letters, digits or dashes, no dash first or last"
            ));
        }
    }
    let default = entry.field("DefaultSubset").as_str().unwrap_or_default();
    if !default.is_empty() && !is_subset(default) {
        return Err(format!("DefaultSubset {default:?} is not a valid subset"));
    }
    let failover = entry.field("Failover").as_object();
    if entry.field("Redirect").is_object() {
        redirect(entry, failover.is_some_and(|failover| !failover.is_empty()))?;
    }
    for (subset, failover) in failover.into_iter().flatten() {
        failover_of(entry, subset, failover)?;
    }
    for name in ["ConnectTimeout", "RequestTimeout"] {
        let timeout = entry.field(name).as_str().unwrap_or_default();
        if timeout.starts_with('-') {
            return Err(format!("Bad {name} '{timeout}', must be >= 0"));
        }
    }
    load_balancer(entry.field("LoadBalancer"))
}

fn redirect(entry: &ConfigEntry, has_failover: bool) -> Valid {
    let target = entry.field("Redirect");
    let [service, subset, datacenter, peer] =
        ["Service", "ServiceSubset", "Datacenter", "Peer"].map(|name| text(target, name));
    let refused = |words: &str| Err(words.to_owned());
    if has_failover {
        return refused("Redirect and Failover cannot both be set");
    }
    if [service, subset, datacenter, peer].iter().all(|it| it.is_empty()) {
        return refused("Redirect is empty");
    }
    if !peer.is_empty() && !subset.is_empty() {
        return refused("Redirect.Peer cannot be set with Redirect.ServiceSubset");
    }
    if !peer.is_empty() && !datacenter.is_empty() {
        return refused("Redirect.Peer cannot be set with Redirect.Datacenter");
    }
    if service.is_empty() {
        if !subset.is_empty() {
            return refused("Redirect.ServiceSubset defined without Redirect.Service");
        }
        if !peer.is_empty() {
            return refused("Redirect.Peer defined without Redirect.Service");
        }
    } else if service == entry.name && !subset.is_empty() && entry.field("Subsets").get(subset).is_none() {
        return Err(format!("Redirect.ServiceSubset {subset:?} is not a valid subset of {:?}", entry.name));
    }
    Ok(())
}

fn failover_of(entry: &ConfigEntry, subset: &str, failover: &Value) -> Valid {
    let refused = |words: &str| Err(format!("Bad Failover[{subset:?}]: {words}"));
    let is_subset = |name: &str| entry.field("Subsets").get(name).is_some();
    if subset != "*" && !is_subset(subset) {
        return refused("not a valid subset subset");
    }
    let (service, target_subset) = (text(failover, "Service"), text(failover, "ServiceSubset"));
    let (datacenters, targets) = (rows(failover, "Datacenters"), rows(failover, "Targets"));
    if service.is_empty() && target_subset.is_empty() && datacenters.is_empty() && targets.is_empty() {
        return refused("one of Service, ServiceSubset, Namespace, Targets, or Datacenters is required");
    }
    if !matches!(text(&failover["Policy"], "Mode"), "" | "default" | "sequential" | "order-by-locality") {
        return refused("Policy must be one of '', 'default', or 'order-by-locality'");
    }
    if !target_subset.is_empty() && (service.is_empty() || service == entry.name) && !is_subset(target_subset) {
        return refused(&format!("ServiceSubset {target_subset:?} is not a valid subset of {service:?}"));
    }
    for (name, is_said) in [
        ("Datacenters", !datacenters.is_empty()),
        ("ServiceSubset", !target_subset.is_empty()),
        ("Service", !service.is_empty()),
    ] {
        if is_said && !targets.is_empty() {
            return refused(&format!("Targets cannot be set with {name}"));
        }
    }
    for (at, target) in targets.iter().enumerate() {
        let refused = |words: &str| Err(format!("Bad Failover[{subset:?}].Targets[{at}]: {words}"));
        let [service, subset, datacenter, peer] =
            ["Service", "ServiceSubset", "Datacenter", "Peer"].map(|name| text(target, name));
        if !peer.is_empty() && !subset.is_empty() {
            return refused("Peer cannot be set with ServiceSubset");
        }
        if !peer.is_empty() && !datacenter.is_empty() {
            return refused("Peer cannot be set with Datacenter");
        }
        if !subset.is_empty() && (service.is_empty() || service == entry.name) && !is_subset(subset) {
            return refused(&format!("ServiceSubset {subset:?} is not a valid subset of {:?}", entry.name));
        }
    }
    if datacenters.iter().any(|datacenter| datacenter.as_str() == Some("")) {
        return Err(format!("Bad Failover[{subset:?}].Datacenters: found empty datacenter"));
    }
    Ok(())
}

fn load_balancer(balancer: &Value) -> Valid {
    let policy = text(balancer, "Policy");
    if !matches!(policy, "" | "random" | "round_robin" | "least_request" | "ring_hash" | "maglev") {
        return Err(format!("Bad LoadBalancer policy: {policy:?} is not supported"));
    }
    for (name, of) in [("RingHashConfig", "ring_hash"), ("LeastRequestConfig", "least_request")] {
        if balancer[name].is_object() && policy != of {
            return Err(format!(
                "Bad LoadBalancer configuration. {name} specified for incompatible load balancing policy {policy:?}"
            ));
        }
    }
    let policies = rows(balancer, "HashPolicies");
    if !policies.is_empty() && !matches!(policy, "ring_hash" | "maglev") {
        return Err(format!(
            "Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: {policy:?}"
        ));
    }
    for (at, hash) in policies.iter().enumerate() {
        hash_policy(hash).map_err(|problem| format!("Bad LoadBalancer HashPolicy[{at}]: {problem}"))?;
    }
    Ok(())
}

fn hash_policy(hash: &Value) -> Valid {
    let (field, value) = (text(hash, "Field"), text(hash, "FieldValue"));
    if !matches!(field, "" | "header" | "cookie" | "query_parameter") {
        return Err(format!("{field:?} is not a supported field"));
    }
    if flag(hash, "SourceIP") && !field.is_empty() {
        return Err(format!("A single hash policy cannot hash both a source address and a {field:?}"));
    }
    if flag(hash, "SourceIP") && !value.is_empty() {
        return Err("A FieldValue cannot be specified when hashing SourceIP".into());
    }
    if !field.is_empty() && value.is_empty() {
        return Err(format!("Field {field:?} was specified without a FieldValue"));
    }
    if field.is_empty() && !value.is_empty() {
        return Err("FieldValue requires a Field to apply to".into());
    }
    let cookie = &hash["CookieConfig"];
    if cookie.is_object() && field != "cookie" {
        return Err(format!("cookie_config provided for {field:?}"));
    }
    if flag(cookie, "Session") && number(cookie, "TTL") != 0 {
        return Err("a session cookie cannot have an associated TTL".into());
    }
    Ok(())
}
