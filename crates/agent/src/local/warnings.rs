//! What is taken and yet is not what its owner may think, for the log.

use std::time::Duration;

use lictor_types::duration;

use super::definition::{CheckDefinition, ServiceDefinition};
use super::rows::REAP_AFTER_MIN;
use super::validate::INTERVAL_MIN;

/// The longest label of a name in DNS.
const LABEL_BYTES_MAX: usize = 63;

/// Why DNS cannot answer for this label; none when it can.
pub(crate) fn not_in_dns(label: &str) -> Option<&'static str> {
    if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || label.is_empty() {
        return Some("invalid characters. Valid characters include all alpha-numerics and dashes.");
    }
    (label.len() > LABEL_BYTES_MAX).then_some("it being too long. Valid lengths are between 1 and 63 bytes.")
}

/// What DNS will not find of an instance: its name or tags, with the reason.
fn undiscoverable(definition: &ServiceDefinition) -> Vec<(&'static str, &str, &'static str)> {
    let tags = definition.tags.iter().map(|tag| ("tag", tag.as_str()));
    let labels = std::iter::once(("name", definition.name.as_str())).chain(tags);
    labels.filter_map(|(what, label)| Some((what, label, not_in_dns(label)?))).collect()
}

/// The times of a check that are taken longer than they were written, with what they are taken as.
fn raised(definition: &CheckDefinition) -> Vec<(&'static str, Duration)> {
    let least = [
        ("interval", definition.interval, INTERVAL_MIN),
        ("deregister interval", definition.deregister_critical_service_after, REAP_AFTER_MIN),
    ];
    let below =
        |(_, given, least): &(_, Option<Duration>, Duration)| given.is_some_and(|it| !it.is_zero() && it < *least);
    least.into_iter().filter(below).map(|(what, _, least)| (what, least)).collect()
}

/// Says what DNS will not find of an instance.
pub(super) fn of_service(definition: &ServiceDefinition) {
    for (what, label, reason) in undiscoverable(definition) {
        let service = definition.name.as_str();
        if what == "name" {
            tracing::warn!(service, "Service name will not be discoverable via DNS due to {reason}");
        } else {
            tracing::debug!(service, tag = label, "Service tag will not be discoverable via DNS due to {reason}");
        }
    }
}

/// Says which times of a check are longer than they were written.
pub(super) fn of_check(definition: &CheckDefinition) {
    for (what, least) in raised(definition) {
        let (check, minimum_interval) = (definition.id_text(), duration::format(least));
        tracing::warn!(check, minimum_interval, "check has {what} below minimum");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_dns_cannot_carry_and_what_is_raised_is_found() {
        let service = ServiceDefinition::from_json(&json!({"Name": "a_b", "Tags": ["v1", "v1.2"], "Check": {
            "HTTP": "http://127.0.0.1/", "Interval": "10ms", "DeregisterCriticalServiceAfter": "5s"
        }}));
        let service = service.unwrap();
        let found: Vec<(&str, &str)> = undiscoverable(&service).into_iter().map(|(what, it, _)| (what, it)).collect();
        assert_eq!(found, [("name", "a_b"), ("tag", "v1.2")]);
        let check = service.all_checks().remove(0);
        assert_eq!(raised(&check), [("interval", INTERVAL_MIN), ("deregister interval", REAP_AFTER_MIN)]);
        let fine = ServiceDefinition::from_json(&json!({"Name": "a-b", "Check": {"TTL": "1s"}})).unwrap();
        assert!(undiscoverable(&fine).is_empty() && raised(&fine.all_checks()[0]).is_empty());
        assert!(not_in_dns(&"x".repeat(64)).is_some_and(|reason| reason.contains("too long")));
    }
}
