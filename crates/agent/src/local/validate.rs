//! What a definition must be before the agent takes it. The texts are Consul's where clients match on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lictor_types::gateway::is_gateway;
use lictor_types::service::KIND_CONNECT_PROXY;
use lictor_types::{CheckId, CheckStatus, Refusal, ServiceId, ServiceName};

use super::definition::{CheckDefinition, ServiceDefinition};

/// Pairs of meta that a service may have.
const META_PAIRS_MAX: usize = 64;
/// Bytes of the longest key of meta.
const META_KEY_BYTES_MAX: usize = 128;
/// Bytes of the longest value of meta.
const META_VALUE_BYTES_MAX: usize = 512;
/// Tags that a service may have.
const TAGS_MAX: usize = 256;
/// Checks that one service may define.
const CHECKS_MAX: usize = 64;
/// Bytes of the longest text in a definition that is not a name: notes, URL, body.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Arguments that a script may have.
const ARGUMENTS_MAX: usize = 256;
/// Bytes of the longest name of a unit of systemd.
const UNIT_BYTES_MAX: usize = 256;
/// The largest weight: that of a DNS record.
const WEIGHT_MAX: u32 = 65535;

impl ServiceDefinition {
    /// Whether the agent can take it.
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.name.is_empty() {
            return Err(Refusal::bad_request("Missing service name"));
        }
        ServiceName::try_from(self.name.clone()).map_err(bad)?;
        ServiceId::try_from(self.id_text().to_owned()).map_err(bad)?;
        if self.address.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            return Err(Refusal::bad_request("Invalid service address"));
        }
        validate_pairs(&self.meta).map_err(|problem| bad(format!("Invalid Service Meta: {problem}")))?;
        self.validate_weights().map_err(|problem| bad(format!("Invalid Weights: {problem}")))?;
        self.validate_shape().map_err(|problem| bad(format!("Validation failed: {problem}")))?;
        self.validate_sidecar()?;
        let checks = self.all_checks();
        if checks.len() > CHECKS_MAX {
            return Err(bad(format!("a service may define {CHECKS_MAX} checks, not {}", checks.len())));
        }
        for check in &checks {
            check.validate_kind().map_err(|problem| bad(format!("Invalid check: {problem}")))?;
            if !check.status.is_empty() && check.status.parse::<CheckStatus>().is_err() {
                return Err(bad("Status for checks must 'passing', 'warning', 'critical'"));
            }
            CheckId::try_from(check.id_text().to_owned()).map_err(bad)?;
        }
        Ok(())
    }

    fn validate_weights(&self) -> Result<(), String> {
        let weights = self.weights.unwrap_or_default();
        if weights.passing == 0 {
            return Err("Passing must be greater than 0".into());
        }
        if weights.passing > WEIGHT_MAX || weights.warning > WEIGHT_MAX {
            return Err(format!("DNS Weight must be between 0 and {WEIGHT_MAX}"));
        }
        Ok(())
    }

    fn validate_shape(&self) -> Result<(), String> {
        if self.tags.len() > TAGS_MAX || self.tags.iter().any(|tag| tag.len() > lictor_types::name::NAME_BYTES_MAX) {
            return Err(format!("at most {TAGS_MAX} tags of {} bytes are allowed", lictor_types::name::NAME_BYTES_MAX));
        }
        if [&self.address, &self.socket_path].iter().any(|text| text.len() > lictor_types::name::NAME_BYTES_MAX) {
            return Err(format!("an address has {} bytes at most", lictor_types::name::NAME_BYTES_MAX));
        }
        self.to_node_service().map_err(|error| error.to_string())?.settled_port()?;
        match self.kind.as_str() {
            "" => Ok(()),
            KIND_CONNECT_PROXY => self.validate_proxy(),
            kind if is_gateway(kind) => self.to_node_service().map_err(|error| error.to_string())?.check_kind(),
            other => Err(format!(
                "Kind {other:?} is not served: leave it empty, or write \"connect-proxy\" or the kind of a gateway"
            )),
        }
    }

    fn validate_proxy(&self) -> Result<(), String> {
        if self.proxy.destination_service_name.trim().is_empty() {
            return Err("Proxy.DestinationServiceName must be non-empty for Connect proxy services".into());
        }
        if self.port == 0 && self.ports.is_none() && self.socket_path.is_empty() {
            return Err("Port or SocketPath must be set for a Connect proxy".into());
        }
        if self.connect.native {
            return Err("A Proxy cannot also be Connect Native, only typical services".into());
        }
        Ok(())
    }
}

/// Whether people may say this of a service or a node.
pub(crate) fn validate_pairs(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!("Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"));
    }
    for (key, value) in meta {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if key.is_empty() {
            return Err(format!("Couldn't load metadata pair ('', '{value}'): Key cannot be blank"));
        }
        if !key.chars().all(allowed) {
            return Err(format!("Couldn't load metadata pair ('{key}', '{value}'): Key contains invalid characters"));
        }
        if key.len() > META_KEY_BYTES_MAX {
            return Err(format!("Key is too long (limit: {META_KEY_BYTES_MAX} characters)"));
        }
        if key.starts_with("consul-") {
            return Err(format!(
                "Couldn't load metadata pair ('{key}', '{value}'): Key prefix 'consul-' is reserved for internal use"
            ));
        }
        if value.len() > META_VALUE_BYTES_MAX {
            return Err(format!("Value is too long (limit: {META_VALUE_BYTES_MAX} characters)"));
        }
    }
    Ok(())
}

impl CheckDefinition {
    /// Whether the agent can take it as a check that stands alone.
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn validate_alone(&self) -> Result<(), Refusal> {
        if self.name.is_empty() {
            return Err(bad("Missing check name"));
        }
        if !self.status.is_empty() && self.status.parse::<CheckStatus>().is_err() {
            return Err(bad("Bad check status"));
        }
        self.validate_kind().map_err(|problem| bad(format!("Invalid check: {problem}")))?;
        CheckId::try_from(self.id_text().to_owned()).map_err(bad)?;
        Ok(())
    }

    fn validate_kind(&self) -> Result<(), String> {
        let (interval, ttl) = (self.interval.unwrap_or_default(), self.ttl.unwrap_or_default());
        let kinds = self.kinds();
        let alias = kinds.contains(&"alias");
        let runs = kinds.iter().any(|kind| *kind != "alias");
        if !interval.is_zero() && !ttl.is_zero() {
            return Err("Interval and TTL cannot both be specified".into());
        }
        if runs && interval.is_zero() {
            return Err("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks".into());
        }
        if alias && !interval.is_zero() {
            return Err("Interval cannot be set for Alias checks".into());
        }
        if alias && !ttl.is_zero() {
            return Err("TTL must be not be set for Alias checks".into());
        }
        if !runs && !alias && ttl.is_zero() {
            return Err("TTL must be > 0 for TTL checks".into());
        }
        if self.output_max_size < 0 {
            return Err("MaxOutputMaxSize must be positive".into());
        }
        if self.failures_before_warning.is_some_and(|warning| warning > self.failures_before_critical) {
            return Err("FailuresBeforeWarning can't be higher than FailuresBeforeCritical".into());
        }
        if let [first, second, ..] = kinds[..] {
            return Err(format!("a check is of one kind, not {first} and {second}"));
        }
        if !self.http.is_empty() {
            super::target::HttpTarget::parse(&self.http)?;
            let method = if self.method.is_empty() { "GET" } else { &self.method };
            http::Method::from_bytes(method.as_bytes()).map_err(|_| format!("Method {method:?} is not one"))?;
            self.validate_headers()?;
        }
        let service_of_grpc = self.grpc.split_once('/').map_or(self.grpc.as_str(), |(address, _)| address);
        for (kind, address) in
            [("TCP", self.tcp.as_str()), ("UDP", &self.udp), ("GRPC", service_of_grpc), ("H2PING", &self.h2ping)]
        {
            if !address.is_empty() {
                super::target::split_host_port(kind, address)?;
            }
        }
        self.validate_programs()?;
        let texts = [&self.notes, &self.http, &self.body, &self.tcp, &self.udp, &self.grpc, &self.h2ping];
        if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(format!("no text of a check may have more than {TEXT_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn validate_programs(&self) -> Result<(), String> {
        if self.script_args.len() > ARGUMENTS_MAX || self.script_args.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(format!("a script has {ARGUMENTS_MAX} arguments of {TEXT_BYTES_MAX} bytes at most"));
        }
        if self.script_args.iter().any(|text| text.contains('\0')) {
            return Err("an argument of a script cannot hold a zero byte".into());
        }
        if !self.docker_container_id.is_empty() {
            if self.script_args.is_empty() {
                return Err("a check in a container needs Args: what is run there".into());
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if !self.docker_container_id.chars().all(allowed) {
                return Err(format!(
                    "DockerContainerID {:?} is no id or name of a container",
                    self.docker_container_id
                ));
            }
        }
        let unit = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
        if !self.os_service.chars().all(unit) || self.os_service.len() > UNIT_BYTES_MAX {
            return Err(format!("OSService {:?} is no name of a unit", self.os_service));
        }
        Ok(())
    }

    fn validate_headers(&self) -> Result<(), String> {
        for (name, values) in &self.header {
            http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("Header {name:?} is not one"))?;
            if values.iter().any(|value| http::HeaderValue::from_str(value).is_err()) {
                return Err(format!("Header {name:?} has a value with characters that no header may have"));
            }
        }
        Ok(())
    }
}

/// The shortest interval at which a check runs; shorter ones are this.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(1);

fn bad(problem: impl std::fmt::Display) -> Refusal {
    Refusal::bad_request(problem.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(value: &Value) -> (u16, String) {
        let refusal = ServiceDefinition::parse(value).unwrap().validate().unwrap_err();
        (refusal.status(), refusal.text)
    }

    fn check(value: &Value) -> (u16, String) {
        let refusal = CheckDefinition::parse(value).unwrap().validate_alone().unwrap_err();
        (refusal.status(), refusal.text)
    }

    #[test]
    fn a_service_is_refused_in_the_words_that_clients_match_on() {
        for (written, text) in [
            (json!({}), "Missing service name"),
            (json!({"Name": "a", "Address": "0.0.0.0"}), "Invalid service address"),
            (json!({"Name": "a", "Address": "::"}), "Invalid service address"),
            (
                json!({"Name": "a", "Check": {"Interval": "1s", "TTL": "1s"}}),
                "Invalid check: Interval and TTL cannot both be specified",
            ),
            (
                json!({"Name": "a", "Check": {"HTTP": "http://127.0.0.1/"}}),
                "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
            ),
            (
                json!({"Name": "a", "Check": {"TTL": "1s", "Status": "ok"}}),
                "Status for checks must 'passing', 'warning', 'critical'",
            ),
            (
                json!({"Name": "a", "Weights": {"Passing": 0, "Warning": 1}}),
                "Invalid Weights: Passing must be greater than 0",
            ),
            (
                json!({"Name": "a", "Meta": {"consul-x": "1"}}),
                "Invalid Service Meta: Couldn't load metadata pair ('consul-x', '1'): Key prefix 'consul-' is reserved for \
                 internal use",
            ),
        ] {
            assert_eq!(service(&written), (400, text.into()), "{written}");
        }
    }

    #[test]
    fn a_check_is_refused_in_the_words_that_clients_match_on() {
        for (written, status, text) in [
            (json!({}), 400, "Missing check name"),
            (json!({"Name": "a", "Status": "ok", "TTL": "1s"}), 400, "Bad check status"),
            (json!({"Name": "a"}), 400, "Invalid check: TTL must be > 0 for TTL checks"),
            (
                json!({"Name": "a", "TTL": "1s", "OutputMaxSize": -1}),
                400,
                "Invalid check: MaxOutputMaxSize must be positive",
            ),
            (
                json!({"Name": "a", "TTL": "1s", "FailuresBeforeWarning": 2, "FailuresBeforeCritical": 1}),
                400,
                "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
            ),
            (
                json!({"Name": "a", "AliasService": "b", "Interval": "1s"}),
                400,
                "Invalid check: Interval cannot be set for Alias checks",
            ),
            (
                json!({"Name": "a", "AliasService": "b", "TTL": "1s"}),
                400,
                "Invalid check: TTL must be not be set for Alias checks",
            ),
            (
                json!({"Name": "a", "HTTP": "http://x/", "TCP": "x:1", "Interval": "1s"}),
                400,
                "Invalid check: a check is of one kind, not http and tcp",
            ),
        ] {
            assert_eq!(check(&written), (status, text.into()), "{written}");
        }
        for (written, part) in [
            (json!({"Name": "a", "GRPC": "x/service", "Interval": "1s"}), "GRPC \"x\" must be host:port"),
            (json!({"Name": "a", "UDP": "x", "Interval": "1s"}), "UDP \"x\" must be host:port"),
            (json!({"Name": "a", "DockerContainerID": "x", "Interval": "1s"}), "needs Args"),
            (json!({"Name": "a", "DockerContainerID": "../x", "Args": ["y"], "Interval": "1s"}), "no id or name"),
            (json!({"Name": "a", "OSService": "a b", "Interval": "1s"}), "no name of a unit"),
        ] {
            let (_, text) = check(&written);
            assert!(text.contains(part), "{text}");
        }
        assert!(check(&json!({"Name": "a", "HTTP": "file:///etc/passwd", "Interval": "1s"})).1.contains("http://"));
    }
}
