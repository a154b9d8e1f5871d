//! What is asked for, as each door spells it, and when the answer is the right one.

use anyhow::bail;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::connection::Door;
use crate::etcd;

/// Keys that are written and read.
pub(crate) const KEYS: u64 = 1000;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Services that are registered and registered again, each time with another port.
const REGISTRATIONS: u64 = 10_000;
/// Instances of one agent that are registered and registered again.
const AGENT_REGISTRATIONS: u64 = 200;
/// Checks of one agent that pass.
pub(crate) const AGENT_CHECKS: u64 = 20;
const AGENT_REGISTER: &str = "/v1/agent/service/register";
/// Nodes that carry the instances of a service.
const NODES: u64 = 250;
const VALUE: Bytes = Bytes::from_static(&[b'v'; VALUE_BYTES]);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    /// Puts a key that nobody wrote before.
    PutNew,
    Get,
    GetConsistent,
    GetStale,
    /// Registers an external service, or changes it.
    Register,
    /// Registers one of the instances of this many services, with a check.
    Instance {
        services: u64,
        prefix: &'static str,
    },
    /// Registers an instance at a client agent, or changes it.
    AgentRegister,
    /// Registers an instance with a TTL check at a client agent.
    AgentInstance,
    /// Says that such a check passes.
    AgentPass,
    /// The passing instances of a service that has so many.
    Health {
        service: &'static str,
        instances: usize,
    },
}

impl Kind {
    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::PutNew => "PUT of a new key",
            Self::Get => "GET",
            Self::GetConsistent => "GET ?consistent",
            Self::GetStale => "GET ?stale",
            Self::Register => "catalog registration",
            Self::Instance { .. } => "registration of an instance",
            Self::AgentRegister => "agent registration",
            Self::AgentInstance => "agent registration with a check",
            Self::AgentPass => "pass of a TTL check",
            Self::Health { .. } => "health read",
        }
    }

    /// The request with this running number.
    pub(crate) fn request(self, door: Door, address: &str, number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        match door {
            Door::Http => self.http(address, number),
            Door::Grpc => self.grpc(address, number),
        }
    }

    fn key(self, number: u64) -> String {
        match self {
            Self::PutNew => format!("bench/new/{number}"),
            _ => format!("bench/{}", number % KEYS),
        }
    }

    fn http(self, address: &str, number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let (method, path, body) = match self {
            Self::Put | Self::PutNew => ("PUT", format!("/v1/kv/{}", self.key(number)), VALUE),
            Self::Get => ("GET", format!("/v1/kv/{}", self.key(number)), Bytes::new()),
            Self::GetConsistent => ("GET", format!("/v1/kv/{}?consistent", self.key(number)), Bytes::new()),
            Self::GetStale => ("GET", format!("/v1/kv/{}?stale", self.key(number)), Bytes::new()),
            Self::Register => ("PUT", "/v1/catalog/register".to_owned(), registration(number)),
            Self::Instance { services, prefix } => {
                ("PUT", "/v1/catalog/register".to_owned(), instance(prefix, services, number))
            }
            Self::AgentRegister => ("PUT", AGENT_REGISTER.to_owned(), agent_registration(number)),
            Self::AgentInstance => ("PUT", AGENT_REGISTER.to_owned(), agent_instance(number)),
            Self::AgentPass => ("PUT", format!("/v1/agent/check/pass/ttl-{}", number % AGENT_CHECKS), Bytes::new()),
            Self::Health { service, .. } => ("GET", format!("/v1/health/service/{service}?passing"), Bytes::new()),
        };
        Ok(Request::builder().method(method).uri(path).header("Host", address).body(Full::new(body))?)
    }

    fn grpc(self, address: &str, number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        match self {
            Self::Put | Self::PutNew => etcd::put(address, self.key(number), VALUE),
            Self::GetConsistent => etcd::range(address, self.key(number), false),
            Self::GetStale => etcd::range(address, self.key(number), true),
            other => bail!("etcd has no {}", other.name()),
        }
    }

    /// Whether this is what was asked for.
    pub(crate) fn is_right(self, door: Door, status: StatusCode, body: &[u8]) -> bool {
        // A value of 256 bytes takes 344 in base64; an instance takes more than half a kilobyte.
        status == StatusCode::OK
            && match self {
                // etcd answers a put with a header alone; that it went well was seen before.
                Self::Put | Self::PutNew if door == Door::Grpc => true,
                Self::Put | Self::PutNew | Self::Register | Self::Instance { .. } => body.trim_ascii() == b"true",
                Self::AgentRegister | Self::AgentInstance | Self::AgentPass => body.is_empty(),
                Self::Get | Self::GetConsistent | Self::GetStale => body.len() > VALUE_BYTES,
                Self::Health { instances, .. } => body.len() > instances * 512,
            }
    }
}

/// Every one changes something: the numbers of a run never come twice.
fn registration(number: u64) -> Bytes {
    let (id, port) = (number % REGISTRATIONS, 1 + number / REGISTRATIONS % 65_000);
    let body = json!({
        "Node": format!("external-{}", id % 100),
        "Address": "10.9.9.9",
        "SkipNodeUpdate": true,
        "Service": {"ID": format!("external-{id}"), "Service": format!("external-{}", id % 100), "Port": port, "Tags": ["a"]},
    });
    body.to_string().into()
}

fn agent_registration(number: u64) -> Bytes {
    let (id, port) = (number % AGENT_REGISTRATIONS, 1 + number / AGENT_REGISTRATIONS % 65_000);
    json!({ "ID": format!("own-{id}"), "Name": format!("own-{}", id % 20), "Port": port, "Tags": ["a"] }).to_string().into()
}

fn agent_instance(number: u64) -> Bytes {
    let id = number % AGENT_CHECKS;
    let check = json!({ "CheckID": format!("ttl-{id}"), "TTL": "1h", "Status": "passing" });
    json!({ "ID": format!("beat-{id}"), "Name": "beat", "Port": 80, "Check": check }).to_string().into()
}

fn instance(prefix: &str, services: u64, number: u64) -> Bytes {
    let (node, id) = (number % NODES, format!("{prefix}-{number}"));
    let service = if services == 1 { prefix.to_owned() } else { format!("{prefix}-{}", number % services) };
    let body = json!({
        "Node": format!("{prefix}-node-{node}"),
        "Address": format!("10.1.2.{node}"),
        "Service": {
            "ID": id, "Service": service, "Port": 8080, "Tags": ["v1", "primary"],
            "Meta": {"version": "1.4.2", "zone": "a"},
        },
        "Check": {
            "CheckID": format!("service:{id}"), "Name": "HTTP of the service", "ServiceID": id, "Status": "passing",
            "Output": "HTTP GET http://10.1.2.3/health: 200 OK",
        },
    });
    body.to_string().into()
}
