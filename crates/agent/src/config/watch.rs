//! `watches`: views of the datacenter that an agent follows, and what it runs or tells at every change of one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lictor_types::duration;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How long an HTTP handler may take that does not say.
const HTTP_LIMIT: Duration = Duration::from_secs(10);
/// The longest it may say.
const HTTP_LIMIT_MAX: Duration = Duration::from_secs(300);

/// A view, and what a change of it does.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchDefinition {
    /// What is watched: `key`, `keyprefix`, `services`, `nodes`, `service`, `checks`, `event`, `connect_roots`, `connect_leaf`
    /// or `agent_service`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The datacenter; the agent's own when empty.
    pub datacenter: String,
    /// The secret of the token it is read with; the agent's default one when empty.
    pub token: String,
    /// The key, for `key`.
    pub key: String,
    /// The prefix, for `keyprefix`.
    pub prefix: String,
    /// The service, for `service`, `checks` and `connect_leaf`.
    pub service: String,
    /// Tags that instances must have, for `service`.
    #[serde(deserialize_with = "one_or_more")]
    pub tag: Vec<String>,
    /// Only instances whose checks pass, for `service`.
    #[serde(rename = "passingonly")]
    pub passing_only: bool,
    /// The state of checks, for `checks`.
    pub state: String,
    /// The name of events, for `event`.
    pub name: String,
    /// The id of the instance, for `agent_service`.
    pub service_id: String,
    /// `script` or `http`; as the rest says when empty.
    pub handler_type: String,
    /// The program with its arguments that a change runs.
    pub args: Vec<String>,
    /// The old form of `args`: a line for the shell.
    pub handler: String,
    /// Where a change is told.
    pub http_handler_config: Option<HttpHandler>,
}

/// Where a change is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpHandler {
    /// The URL.
    pub path: String,
    /// The method; POST when empty.
    pub method: String,
    /// How long an answer is waited for.
    #[serde(with = "duration::optional")]
    pub timeout: Option<Duration>,
    /// Headers.
    #[serde(deserialize_with = "headers")]
    pub header: BTreeMap<String, Vec<String>>,
    /// The certificate of the far end is not looked at.
    pub tls_skip_verify: bool,
}

impl HttpHandler {
    /// How long an answer is waited for.
    pub fn limit(&self) -> Duration {
        self.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(HTTP_LIMIT).min(HTTP_LIMIT_MAX)
    }
}

/// Where a view is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchTarget {
    /// The path up to a name.
    pub endpoint: &'static str,
    /// The name behind it, as people write it.
    pub name: String,
    /// The query.
    pub query: Vec<(&'static str, String)>,
}

impl WatchDefinition {
    /// Reads and checks the block of a file.
    ///
    /// # Errors
    /// Says what is wrong, in Consul's words where it has some.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let mut value = value.clone();
        if let Some(handler) = value.get_mut("http_handler_config") {
            unwrap_block(handler);
            if let Some(header) = handler.get_mut("header") {
                unwrap_block(header);
            }
        }
        let definition: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        definition.target()?;
        definition.check_handler()?;
        Ok(definition)
    }

    /// Where the view is read.
    ///
    /// # Errors
    /// Consul's words for what is missing or too much.
    pub fn target(&self) -> Result<WatchTarget, String> {
        let named = |text: &str, refusal: &str| {
            if text.is_empty() { Err(refusal.to_owned()) } else { Ok(text.to_owned()) }
        };
        let mut query = Vec::new();
        let (endpoint, name) = match self.kind.as_str() {
            "" => return Err("Watch type must be specified".into()),
            "key" => ("/v1/kv/", named(&self.key, "Must specify a single key to watch")?),
            "keyprefix" => {
                query.push(("recurse", String::new()));
                ("/v1/kv/", named(&self.prefix, "Must specify a single prefix to watch")?)
            }
            "services" => ("/v1/catalog/services", String::new()),
            "nodes" => ("/v1/catalog/nodes", String::new()),
            "service" => {
                let service = named(&self.service, "Must specify a single service to watch")?;
                query.extend(self.tag.iter().map(|tag| ("tag", tag.clone())));
                if self.passing_only {
                    query.push(("passing", "1".into()));
                }
                ("/v1/health/service/", service)
            }
            "checks" => match (self.service.as_str(), self.state.as_str()) {
                ("", "") => ("/v1/health/state/", "any".into()),
                ("", state) => ("/v1/health/state/", state.to_owned()),
                (service, "") => ("/v1/health/checks/", service.to_owned()),
                _ => return Err("Cannot specify service and state".into()),
            },
            "event" => {
                if !self.name.is_empty() {
                    query.push(("name", self.name.clone()));
                }
                ("/v1/event/list", String::new())
            }
            "connect_roots" => ("/v1/agent/connect/ca/roots", String::new()),
            "connect_leaf" => {
                ("/v1/agent/connect/ca/leaf/", named(&self.service, "Must specify a single service to watch")?)
            }
            "agent_service" => {
                ("/v1/agent/service/", named(&self.service_id, "Must specify a single service ID to watch")?)
            }
            other => return Err(format!("Unsupported watch type: {other}")),
        };
        Ok(WatchTarget { endpoint, name, query })
    }

    fn check_handler(&self) -> Result<(), String> {
        let has_script = !self.args.is_empty() || !self.handler.is_empty();
        match (self.handler_type.as_str(), has_script, &self.http_handler_config) {
            (_, true, Some(_)) => Err("Only one watch handler allowed: give args or http_handler_config".into()),
            ("" | "script", true, None) if self.args.is_empty() || self.handler.is_empty() => Ok(()),
            ("" | "script", true, None) => Err("Only one watch handler allowed: give args or handler".into()),
            ("" | "http", false, Some(handler)) => handler.check(),
            ("http", ..) => Err("http_handler_config is missing, which a handler of the type http needs".into()),
            ("" | "script", ..) => Err("Must define a watch handler: args, or http_handler_config".into()),
            (other, ..) => Err(format!("handler_type {other:?} must be \"script\" or \"http\"")),
        }
    }
}

impl HttpHandler {
    fn check(&self) -> Result<(), String> {
        if !["http://", "https://"].iter().any(|scheme| self.path.starts_with(scheme)) {
            return Err("Requires 'path' to be set: the URL that is told, http:// or https://".into());
        }
        if self.timeout.is_some_and(|timeout| timeout > HTTP_LIMIT_MAX) {
            return Err(format!("timeout must not be longer than {}", duration::format(HTTP_LIMIT_MAX)));
        }
        Ok(())
    }
}

impl fmt::Debug for WatchDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchDefinition").field("kind", &self.kind).field("args", &self.args).finish_non_exhaustive()
    }
}

/// HCL 1 makes a list with one object of every block.
fn unwrap_block(value: &mut Value) {
    if let Value::Array(blocks) = value {
        let mut merged = Map::new();
        for block in blocks.drain(..) {
            if let Value::Object(block) = block {
                merged.extend(block);
            }
        }
        *value = Value::Object(merged);
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(texts: OneOrMore) -> Self {
        match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        }
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    OneOrMore::deserialize(deserializer).map(Into::into)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let written = BTreeMap::<String, OneOrMore>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|(name, values)| (name, values.into())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_watch_of_each_type_is_read_where_its_view_is() {
        for (watch, endpoint, name, query) in [
            (json!({"type": "key", "key": "a/b"}), "/v1/kv/", "a/b", vec![]),
            (json!({"type": "keyprefix", "prefix": "a/"}), "/v1/kv/", "a/", vec![("recurse", "")]),
            (json!({"type": "services"}), "/v1/catalog/services", "", vec![]),
            (json!({"type": "nodes"}), "/v1/catalog/nodes", "", vec![]),
            (
                json!({"type": "service", "service": "web", "tag": ["a", "b"], "passingonly": true}),
                "/v1/health/service/",
                "web",
                vec![("tag", "a"), ("tag", "b"), ("passing", "1")],
            ),
            (
                json!({"type": "service", "service": "web", "tag": "a"}),
                "/v1/health/service/",
                "web",
                vec![("tag", "a")],
            ),
            (json!({"type": "checks"}), "/v1/health/state/", "any", vec![]),
            (json!({"type": "checks", "service": "web"}), "/v1/health/checks/", "web", vec![]),
            (json!({"type": "event", "name": "deploy"}), "/v1/event/list", "", vec![("name", "deploy")]),
            (json!({"type": "connect_roots"}), "/v1/agent/connect/ca/roots", "", vec![]),
            (json!({"type": "connect_leaf", "service": "web"}), "/v1/agent/connect/ca/leaf/", "web", vec![]),
            (json!({"type": "agent_service", "service_id": "web-1"}), "/v1/agent/service/", "web-1", vec![]),
        ] {
            let mut with_handler = watch.clone();
            with_handler["args"] = json!(["true"]);
            let target = WatchDefinition::from_json(&with_handler).unwrap().target().unwrap();
            let query = query.into_iter().map(|(name, value): (_, &str)| (name, value.to_owned())).collect();
            assert_eq!(target, WatchTarget { endpoint, name: name.into(), query }, "{watch}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_the_reason() {
        let refused = |watch: Value| WatchDefinition::from_json(&watch).unwrap_err();
        assert_eq!(refused(json!({})), "Watch type must be specified");
        assert_eq!(refused(json!({"type": "foo", "args": ["x"]})), "Unsupported watch type: foo");
        assert!(refused(json!({"type": "nodes"})).starts_with("Must define a watch handler"));
        assert!(refused(json!({"type": "nodes", "handler_type": "http"})).contains("http_handler_config is missing"));
        assert!(refused(json!({"type": "nodes", "args": ["a"], "handler": "b"})).starts_with("Only one watch handler"));
        assert!(refused(json!({"type": "nodes", "http_handler_config": {}})).contains("'path'"));
        assert!(refused(json!({"type": "nodes", "args": ["a"], "colour": 1})).contains("colour"));
    }

    #[test]
    fn an_http_handler_is_read_as_hcl_and_json_write_it() {
        let handler =
            json!({"path": "https://h/x", "method": "PUT", "timeout": "3s", "header": {"X-A": ["b"], "X-C": "d"}});
        let as_block =
            json!([{"path": "https://h/x", "method": "PUT", "timeout": "3s", "header": [{"X-A": ["b"], "X-C": "d"}]}]);
        for written in [handler, as_block] {
            let watch = json!({"type": "nodes", "http_handler_config": written});
            let handler = WatchDefinition::from_json(&watch).unwrap().http_handler_config.unwrap();
            assert_eq!((handler.limit(), handler.header.len()), (Duration::from_secs(3), 2));
            assert_eq!(handler.header["X-C"], ["d"]);
        }
    }
}
