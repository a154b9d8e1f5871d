//! Spelling: Consul takes the fields of definitions in any case, with underscores or without; here they get one spelling.

use serde_json::{Map, Value};

/// What is below a field.
enum Shape {
    /// A value that is taken as it is.
    Leaf,
    /// Taken and not looked at: it changes nothing here.
    Dropped,
    /// Another name of a field.
    As(&'static str),
    /// Of Consul Enterprise, whose feature this is: only what means nothing there means nothing here.
    Enterprise(&'static str),
    /// An object by free names.
    Map(&'static [(&'static str, Shape)]),
    /// Several objects.
    List(&'static [(&'static str, Shape)]),
    /// A definition of a service.
    Service,
    /// One object.
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{As, Dropped, Enterprise, Leaf, List, Object};

type Fields = &'static [(&'static str, Shape)];

const NAMESPACE: Shape = Enterprise("Namespaces are a Consul Enterprise feature");

const PARTITION: Shape = Enterprise("Partitions are a Consul Enterprise feature");

const ADDRESS: Fields = &[("Address", Leaf), ("Port", Leaf)];

const CHECK: Fields = &[
    ("CheckID", Leaf),
    ("ID", As("CheckID")),
    ("Name", Leaf),
    ("ServiceID", Leaf),
    ("Status", Leaf),
    ("Notes", Leaf),
    ("HTTP", Leaf),
    ("Header", Leaf),
    ("Method", Leaf),
    ("Body", Leaf),
    ("TCP", Leaf),
    ("TCPUseTLS", Leaf),
    ("TLSSkipVerify", Leaf),
    ("TLSServerName", Leaf),
    ("Interval", Leaf),
    ("Timeout", Leaf),
    ("TTL", Leaf),
    ("SuccessBeforePassing", Leaf),
    ("FailuresBeforeWarning", Leaf),
    ("FailuresBeforeCritical", Leaf),
    ("DeregisterCriticalServiceAfter", Leaf),
    ("OutputMaxSize", Leaf),
    ("Token", Leaf),
    ("ScriptArgs", Leaf),
    ("Args", As("ScriptArgs")),
    ("DisableRedirects", Leaf),
    ("Shell", Leaf),
    ("UDP", Leaf),
    ("GRPC", Leaf),
    ("GRPCUseTLS", Leaf),
    ("H2PING", Leaf),
    ("H2PingUseTLS", Leaf),
    ("DockerContainerID", Leaf),
    ("AliasNode", Leaf),
    ("AliasService", Leaf),
    ("OSService", Leaf),
    // Where a proxy opened a port for the check: the proxy's own business.
    ("ProxyHTTP", Dropped),
    ("ProxyGRPC", Dropped),
    ("Namespace", NAMESPACE),
    ("Partition", PARTITION),
];

const UPSTREAM: Fields = &[
    ("DestinationType", Leaf),
    ("DestinationName", Leaf),
    ("Datacenter", Leaf),
    ("LocalBindAddress", Leaf),
    ("LocalBindPort", Leaf),
    ("LocalBindSocketPath", Leaf),
    ("LocalBindSocketMode", Leaf),
    ("DestinationPeer", Leaf),
    ("DestinationNamespace", NAMESPACE),
    ("DestinationPartition", PARTITION),
    ("Config", Leaf),
    ("MeshGateway", Leaf),
    // Those two are what config entries say of an upstream, which readers get and may write back.
    ("CentrallyConfigured", Leaf),
    ("IngressHosts", Dropped),
];

const PROXY: Fields = &[
    ("DestinationServiceName", Leaf),
    ("DestinationServiceID", Leaf),
    ("LocalServiceAddress", Leaf),
    ("LocalServicePort", Leaf),
    ("Mode", Leaf),
    ("Config", Leaf),
    ("Upstreams", List(UPSTREAM)),
    ("MeshGateway", Leaf),
    ("Expose", Leaf),
    ("LocalServiceSocketPath", Leaf),
    ("TransparentProxy", Leaf),
    ("MutualTLSMode", Leaf),
    ("AccessLogs", Leaf),
    ("EnvoyExtensions", Leaf),
];

const SERVICE: Fields = &[
    ("Kind", Leaf),
    ("ID", Leaf),
    ("Name", Leaf),
    ("Tags", Leaf),
    ("Address", Leaf),
    ("TaggedAddresses", Shape::Map(ADDRESS)),
    ("Meta", Leaf),
    ("Port", Leaf),
    ("Ports", List(&[("Name", Leaf), ("Port", Leaf), ("Default", Leaf)])),
    ("SocketPath", Leaf),
    ("Weights", Object(&[("Passing", Leaf), ("Warning", Leaf)])),
    ("EnableTagOverride", Leaf),
    ("Check", Object(CHECK)),
    ("Checks", List(CHECK)),
    ("Proxy", Object(PROXY)),
    ("Connect", Object(&[("Native", Leaf), ("SidecarService", Shape::Service)])),
    ("Locality", Object(&[("Region", Leaf), ("Zone", Leaf)])),
    ("Token", Leaf),
    ("Namespace", NAMESPACE),
    ("Partition", PARTITION),
];

/// A service definition with its fields in their one spelling.
pub(super) fn service(value: &Value) -> Result<Value, String> {
    object(value, SERVICE)
}

/// A check definition with its fields in their one spelling.
pub(super) fn check(value: &Value) -> Result<Value, String> {
    object(value, CHECK)
}

fn fold(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

fn object(value: &Value, fields: Fields) -> Result<Value, String> {
    let written = match value {
        Value::Object(written) => written,
        // HCL 1, and files made from it, put a lone block in a list.
        Value::Array(blocks) if blocks.len() == 1 => return object(&blocks[0], fields),
        other => return Err(format!("an object is expected, not {}", kind_of(other))),
    };
    let mut result = Map::new();
    for (name, value) in written {
        let folded = fold(name);
        let Some((canonical, shape)) = fields.iter().find(|(field, _)| fold(field) == folded) else {
            return Err(format!("json: unknown field {name:?}"));
        };
        if value.is_null() {
            continue;
        }
        let (name, value) = match shape {
            Leaf => (*canonical, value.clone()),
            As(name) => (*name, value.clone()),
            Dropped => continue,
            Enterprise(_) if matches!(value.as_str(), Some("" | "default")) => continue,
            Enterprise(feature) => return Err(format!("json: unknown field {name:?} - {feature}")),
            Object(fields) => (*canonical, object(value, fields)?),
            Shape::Service => (*canonical, object(value, SERVICE)?),
            // A block that is there once.
            List(fields) if value.is_object() => (*canonical, Value::Array(vec![object(value, fields)?])),
            List(fields) => {
                let items = value.as_array().ok_or_else(|| format!("{name} must be a list, not {}", kind_of(value)))?;
                (*canonical, items.iter().map(|item| object(item, fields)).collect::<Result<_, _>>()?)
            }
            Shape::Map(fields) => {
                let entries =
                    value.as_object().ok_or_else(|| format!("{name} must be an object, not {}", kind_of(value)))?;
                let entries = entries.iter().map(|(key, entry)| Ok((key.clone(), object(entry, fields)?)));
                (*canonical, Value::Object(entries.collect::<Result<_, String>>()?))
            }
        };
        // `ID` and `CheckID` may both be there: an empty one does not hide the other.
        if result.get(name).is_none_or(|there: &Value| there.as_str() == Some("")) {
            result.insert(name.into(), value);
        }
    }
    Ok(Value::Object(result))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
