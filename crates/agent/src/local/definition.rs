//! What people say of their services and checks: the bodies of the agent's API and the blocks of configuration files.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lictor_types::check::CheckDefinition as CatalogDefinition;
use lictor_types::duration;
use lictor_types::ports::ServicePort;
use lictor_types::service::{ConnectProxy, ServiceAddress, ServiceConnect, Weights};
use lictor_types::{
    CheckId, CheckStatus, Credential, HealthCheck, Index, Locality, NodeService, ServiceId, ServiceName,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical;

/// An instance as its owner describes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ServiceDefinition {
    /// Empty, `connect-proxy`, or that of a gateway.
    pub kind: String,
    /// Unique on this agent; the name when empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service it is an instance of.
    pub name: String,
    /// Words to choose instances by.
    pub tags: Vec<String>,
    /// Where it listens; the node's address when empty.
    pub address: String,
    /// Addresses by purpose.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Whatever its owner says of it.
    pub meta: BTreeMap<String, String>,
    /// The port it listens on.
    pub port: u16,
    /// The ports it listens on by name, where it has several.
    #[serde(deserialize_with = "lictor_types::json::filled_list")]
    pub ports: Option<Vec<ServicePort>>,
    /// The Unix socket it listens on.
    pub socket_path: String,
    /// How much traffic it takes.
    pub weights: Option<Weights>,
    /// The catalog's tags win over ours.
    pub enable_tag_override: bool,
    /// A check of it.
    pub check: Option<CheckDefinition>,
    /// More checks of it.
    pub checks: Vec<CheckDefinition>,
    /// What it says of itself as a proxy.
    pub proxy: ConnectProxy,
    /// How it takes part in the mesh.
    pub connect: ConnectDefinition,
    /// Where it runs.
    pub locality: Option<Locality>,
    /// The token it is registered with; the request's, or the agent's default one, when absent.
    #[serde(with = "token_text")]
    pub token: Credential,
    /// It came as the proxy of another instance, and goes with that. Nobody else may say so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub locally_registered_as_sidecar: bool,
}

/// How an instance takes part in the mesh.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ConnectDefinition {
    /// It speaks mutual TLS itself.
    pub native: bool,
    /// A proxy to register with it in one go.
    pub sidecar_service: Option<Box<ServiceDefinition>>,
}

/// A check as its owner describes it. Spelling and unknown fields are [`canonical`]'s business; what an earlier release wrote
/// down and nobody reads any more is passed over here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckDefinition {
    /// Unique on this agent; the name when empty.
    #[serde(rename = "CheckID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// The instance it is about; empty for the whole node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The status it starts with; critical when empty.
    pub status: String,
    /// What its owner says of it.
    pub notes: String,
    /// The URL of an HTTP check.
    #[serde(rename = "HTTP")]
    pub http: String,
    /// Headers of the request.
    pub header: BTreeMap<String, Vec<String>>,
    /// Method of the request; GET when empty.
    pub method: String,
    /// Body of the request.
    pub body: String,
    /// `true`: an answer that leads elsewhere is a failure; `false`: it is followed. Absent is `true`.
    pub disable_redirects: Option<bool>,
    /// `host:port` of a TCP check.
    #[serde(rename = "TCP")]
    pub tcp: String,
    /// The TCP check is a TLS handshake too.
    #[serde(rename = "TCPUseTLS")]
    pub tcp_use_tls: bool,
    /// The certificate of the far end is not looked at.
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    /// The name that the certificate must have; the host when empty.
    #[serde(rename = "TLSServerName")]
    pub tls_server_name: String,
    /// Between two runs.
    #[serde(with = "duration::optional")]
    pub interval: Option<Duration>,
    /// A run takes no longer.
    #[serde(with = "duration::optional")]
    pub timeout: Option<Duration>,
    /// The owner tells the status, at least this often.
    #[serde(rename = "TTL", with = "duration::optional")]
    pub ttl: Option<Duration>,
    /// Runs in a row that pass before the check does.
    pub success_before_passing: u32,
    /// Runs in a row that fail before the check warns; that of critical when absent.
    pub failures_before_warning: Option<u32>,
    /// Runs in a row that fail before the check is critical.
    pub failures_before_critical: u32,
    /// The instance is removed when it was critical for so long.
    #[serde(with = "duration::optional")]
    pub deregister_critical_service_after: Option<Duration>,
    /// Bytes of output that are kept; 0 for the default.
    pub output_max_size: i64,
    /// The token it is registered with.
    #[serde(with = "token_text")]
    pub token: Credential,
    /// `host:port` of a UDP check.
    #[serde(rename = "UDP")]
    pub udp: String,
    /// `host:port` of a gRPC health check, and `/service` if it is about one.
    #[serde(rename = "GRPC")]
    pub grpc: String,
    /// The gRPC check is over TLS.
    #[serde(rename = "GRPCUseTLS")]
    pub grpc_use_tls: bool,
    /// `host:port` of an HTTP/2 ping.
    #[serde(rename = "H2PING")]
    pub h2ping: String,
    /// The HTTP/2 ping is over TLS; it is when absent.
    #[serde(rename = "H2PingUseTLS")]
    pub h2ping_use_tls: Option<bool>,
    /// Program and arguments of a script check, or of a check within a container.
    pub script_args: Vec<String>,
    /// The container that the script is run in.
    #[serde(rename = "DockerContainerID")]
    pub docker_container_id: String,
    /// The shell that the container runs the script with.
    pub shell: String,
    /// The node whose health this check shows; this one when empty.
    pub alias_node: String,
    /// The instance whose health this check shows.
    pub alias_service: String,
    /// The unit of the machine's service manager.
    #[serde(rename = "OSService")]
    pub os_service: String,
}

impl ServiceDefinition {
    /// Reads and validates the JSON of the API or of a file. Names of fields may be in any case, with underscores or
    /// without.
    ///
    /// # Errors
    /// Says what is wrong, in Consul's words where clients match on them.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let definition = Self::parse(value)?;
        definition.validate().map_err(|refusal| refusal.text)?;
        Ok(definition)
    }

    /// Reads the JSON of the API or of a file, without validating it.
    ///
    /// # Errors
    /// A field is unknown or of the wrong kind.
    pub fn parse(value: &Value) -> Result<Self, String> {
        serde_json::from_value(canonical::service(value)?).map_err(|error| error.to_string())
    }

    /// Its id as text.
    pub fn id_text(&self) -> &str {
        if self.id.is_empty() { &self.name } else { &self.id }
    }

    /// Its checks with their ids and names given.
    pub fn all_checks(&self) -> Vec<CheckDefinition> {
        let written: Vec<&CheckDefinition> = self.check.iter().chain(&self.checks).collect();
        let many = written.len() > 1;
        let number = |(position, check): (usize, &&CheckDefinition)| {
            let mut check = (*check).clone();
            if check.id.is_empty() {
                check.id = format!("service:{}", self.id_text());
                if many {
                    check.id.push_str(&format!(":{}", position + 1));
                }
            }
            if check.name.is_empty() {
                check.name = format!("Service '{}' check", self.name);
            }
            check.service_id = self.id_text().into();
            check
        };
        written.iter().enumerate().map(number).collect()
    }

    /// The addresses by purpose; those of the address's own family are the address itself where they are not given.
    fn all_tagged_addresses(&self) -> BTreeMap<String, ServiceAddress> {
        let mut tagged = self.tagged_addresses.clone();
        if let Ok(address) = self.address.parse::<IpAddr>() {
            let tags = if address.is_ipv4() { ["lan_ipv4", "wan_ipv4"] } else { ["lan_ipv6", "wan_ipv6"] };
            for tag in tags {
                let own = || ServiceAddress { address: self.address.clone(), port: self.port };
                tagged.entry(tag.to_owned()).or_insert_with(own);
            }
        }
        tagged
    }

    /// The instance for the catalog.
    ///
    /// # Errors
    /// Its name or id is not one.
    pub(super) fn to_node_service(&self) -> Result<NodeService, lictor_types::name::NameError> {
        let service = NodeService {
            kind: self.kind.clone(),
            id: Some(ServiceId::try_from(self.id_text().to_owned())?),
            name: ServiceName::try_from(self.name.clone())?,
            tags: self.tags.clone(),
            address: self.address.clone(),
            tagged_addresses: self.all_tagged_addresses(),
            meta: self.meta.clone(),
            port: self.port,
            socket_path: self.socket_path.clone(),
            weights: self.weights.unwrap_or_default(),
            enable_tag_override: self.enable_tag_override,
            proxy: self.proxy.clone(),
            connect: ServiceConnect { native: self.connect.native },
            peer_name: String::new(),
            create_index: Index(0),
            modify_index: Index(0),
            locality: self.locality.clone(),
            ports: self.ports.clone(),
        };
        // As the servers keep it, or the two would differ for ever.
        Ok(NodeService { port: service.settled_port().unwrap_or(service.port), ..service })
    }
}

impl CheckDefinition {
    /// Reads and validates the JSON of the API or of a file, for a check that stands alone.
    ///
    /// # Errors
    /// Says what is wrong, in Consul's words where clients match on them.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let definition = Self::parse(value)?;
        definition.validate_alone().map_err(|refusal| refusal.text)?;
        Ok(definition)
    }

    /// Reads the JSON of the API or of a file, without validating it.
    ///
    /// # Errors
    /// A field is unknown or of the wrong kind.
    pub fn parse(value: &Value) -> Result<Self, String> {
        serde_json::from_value(canonical::check(value)?).map_err(|error| error.to_string())
    }

    /// Its id as text.
    pub fn id_text(&self) -> &str {
        if self.id.is_empty() { &self.name } else { &self.id }
    }

    /// Its kind in Consul's word.
    pub fn kind(&self) -> &'static str {
        self.kinds().first().copied().unwrap_or("ttl")
    }

    /// Every kind that its fields speak of: one, none for a TTL, more when it contradicts itself.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let in_container = !self.docker_container_id.is_empty();
        [
            ("grpc", !self.grpc.is_empty()),
            ("http", !self.http.is_empty()),
            ("tcp", !self.tcp.is_empty()),
            ("udp", !self.udp.is_empty()),
            ("alias", self.is_alias()),
            ("docker", in_container),
            ("script", !in_container && !self.script_args.is_empty()),
            ("h2ping", !self.h2ping.is_empty()),
            ("os_service", !self.os_service.is_empty()),
        ]
        .into_iter()
        .filter_map(|(kind, is_it)| is_it.then_some(kind))
        .collect()
    }

    /// It shows the health of others.
    pub(super) fn is_alias(&self) -> bool {
        !self.alias_node.is_empty() || !self.alias_service.is_empty()
    }

    /// It has a program run, here or in a container.
    pub(crate) fn runs_programs(&self) -> bool {
        !self.script_args.is_empty() || !self.docker_container_id.is_empty()
    }

    /// The check for the catalog, in its first status.
    pub(super) fn to_health_check(&self, id: CheckId) -> HealthCheck {
        let text = |duration: Option<Duration>| duration.map(duration::format).unwrap_or_default();
        let status = self.status.parse().unwrap_or(CheckStatus::Critical);
        HealthCheck {
            notes: self.notes.clone(),
            service_id: self.service_id.clone(),
            kind: self.kind().into(),
            interval: text(self.interval),
            timeout: text(self.timeout),
            definition: CatalogDefinition {
                http: self.http.clone(),
                tcp: self.tcp.clone(),
                interval: text(self.interval),
                timeout: text(self.timeout),
                deregister_critical_service_after: text(self.deregister_critical_service_after),
            },
            ..HealthCheck::new(id, &self.name, status, "")
        }
    }
}

/// A token's secret as text: hidden in debug output, plain in the agent's own files, which nobody else may read.
mod token_text {
    use lictor_types::Credential;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(token: &Credential, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&token.secret)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Credential, D::Error> {
        Ok(Credential::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_may_be_spelled_as_consul_takes_them() {
        let written = json!({
            "name": "web", "port": 80, "enable_tag_override": true, "tagged_addresses": {"lan": {"address": "10.0.0.1", "port": 1}},
            "META": {"Some_Key": "v"},
            "checks": [{"http": "http://127.0.0.1/", "tls_skip_verify": true, "interval": "10s", "Header": {"X_Y": ["z"]}},
                       {"TTL": 5_000_000_000_u64}],
        });
        let service = ServiceDefinition::from_json(&written).unwrap();
        assert!(service.enable_tag_override && service.checks[0].tls_skip_verify);
        assert_eq!(service.meta["Some_Key"], "v");
        assert_eq!(service.checks[0].header["X_Y"], ["z"]);
        assert_eq!(service.tagged_addresses["lan"].address, "10.0.0.1");
        let ids: Vec<String> = service.all_checks().into_iter().map(|check| check.id).collect();
        assert_eq!(ids, ["service:web:1", "service:web:2"]);
        assert_eq!(service.checks[1].ttl, Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_unknown_field_is_named_as_it_was_written() {
        let error = ServiceDefinition::parse(&json!({"Name": "web", "Prot": 1})).unwrap_err();
        assert_eq!(error, "json: unknown field \"Prot\"");
        let error = CheckDefinition::parse(&json!({"Name": "web", "htpp": ""})).unwrap_err();
        assert_eq!(error, "json: unknown field \"htpp\"");
    }

    #[test]
    fn what_a_client_of_a_late_release_read_can_be_written_back() {
        let written = json!({
            "Name": "web-proxy", "Kind": "connect-proxy", "Namespace": "", "Partition": "default",
            "Ports": [{"Name": "http", "Port": 8080, "Default": true}, {"Name": "admin", "Port": 8081}],
            "Proxy": {"DestinationServiceName": "web", "Upstreams": [{
                "DestinationName": "db", "DestinationNamespace": "default", "DestinationPartition": "",
                "DestinationPeer": "east", "LocalBindSocketPath": "/run/db", "local_bind_socket_mode": "0600",
                "CentrallyConfigured": true, "IngressHosts": ["x"],
            }]},
        });
        let service = ServiceDefinition::from_json(&written).unwrap().to_node_service().unwrap();
        assert_eq!((service.port, service.ports.as_ref().map(Vec::len)), (8080, Some(2)));
        let upstream = serde_json::to_value(&service.proxy.upstreams[0]).unwrap();
        let kept = [
            ("DestinationPeer", json!("east")),
            ("LocalBindSocketPath", json!("/run/db")),
            ("LocalBindSocketMode", json!("0600")),
            ("CentrallyConfigured", json!(true)),
        ];
        for (field, value) in kept {
            assert_eq!(upstream[field], value, "{field}");
        }
        let one = json!({"Name": "web", "Port": 80, "Ports": null});
        assert_eq!(ServiceDefinition::from_json(&one).unwrap().to_node_service().unwrap().ports, None);
    }

    #[test]
    fn what_only_consul_enterprise_has_is_refused_in_its_words() {
        let namespace = " - Namespaces are a Consul Enterprise feature";
        let partition = " - Partitions are a Consul Enterprise feature";
        for (written, text) in [
            (json!({"Name": "a", "Namespace": "x"}), format!("json: unknown field \"Namespace\"{namespace}")),
            (json!({"Name": "a", "partition": "x"}), format!("json: unknown field \"partition\"{partition}")),
            (
                json!({"Name": "a", "Proxy": {"Upstreams": [{"DestinationNamespace": "x"}]}}),
                format!("json: unknown field \"DestinationNamespace\"{namespace}"),
            ),
            (
                json!({"Name": "a", "Check": {"TTL": "1s", "Partition": "x"}}),
                format!("json: unknown field \"Partition\"{partition}"),
            ),
        ] {
            assert_eq!(ServiceDefinition::parse(&written).unwrap_err(), text);
        }
    }

    #[test]
    fn an_ip_address_is_tagged_by_its_family_where_no_tag_is_given() {
        let tagged = |written| {
            let service = ServiceDefinition::from_json(&written).unwrap().to_node_service().unwrap();
            service.tagged_addresses.into_iter().map(|(tag, it)| (tag, it.address)).collect::<Vec<_>>()
        };
        let pair = |tag: &str, address: &str| (tag.to_owned(), address.to_owned());
        let written =
            json!({"Name": "a", "Address": "10.0.0.1", "TaggedAddresses": {"wan_ipv4": {"Address": "1.2.3.4"}}});
        assert_eq!(tagged(written), [pair("lan_ipv4", "10.0.0.1"), pair("wan_ipv4", "1.2.3.4")]);
        let written = json!({"Name": "a", "Address": "::1"});
        assert_eq!(tagged(written), [pair("lan_ipv6", "::1"), pair("wan_ipv6", "::1")]);
        assert_eq!(tagged(json!({"Name": "a", "Address": "db.example"})), []);
    }

    #[test]
    fn a_definition_survives_being_written_down() {
        let service = ServiceDefinition::from_json(&json!({
            "Name": "web", "Token": "secret", "Check": {"TCP": "127.0.0.1:1", "Interval": "1m30s"},
        }))
        .unwrap();
        let text = serde_json::to_value(&service).unwrap();
        assert_eq!(ServiceDefinition::parse(&text).unwrap(), service);
        assert!(!format!("{service:?}").contains("secret"));
    }
}
