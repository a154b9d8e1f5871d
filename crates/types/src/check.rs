//! Health checks as the catalog keeps them.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{CheckId, Index, NodeName, json};

/// The check that says whether a member is alive.
pub const SERF_HEALTH: &str = "serfHealth";

/// What a check found, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// All is well.
    #[n(0)]
    Passing,
    /// Still serving, but look at it.
    #[n(1)]
    Warning,
    /// Not serving. A check that has not run yet is this.
    #[n(2)]
    #[default]
    Critical,
}

impl CheckStatus {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CheckStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "passing" => Ok(Self::Passing),
            "warning" => Ok(Self::Warning),
            "critical" => Ok(Self::Critical),
            _ => Err(format!("Invalid check status: '{text}'")),
        }
    }
}

/// What was asked of the agent that runs the check; kept for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckDefinition {
    /// The URL of an HTTP check.
    #[n(0)]
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    /// The `host:port` of a TCP check.
    #[n(1)]
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    /// Go duration between runs, empty for none.
    #[n(2)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interval: String,
    /// Go duration that a run may take, empty for the default.
    #[n(3)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// Go duration after which a critical service is removed, empty for never.
    #[n(4)]
    #[serde(rename = "DeregisterCriticalServiceAfter", skip_serializing_if = "String::is_empty")]
    pub deregister_critical_service_after: String,
}

/// The state of one check on one node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    /// The node it is about; in a registration it may be left out.
    #[n(0)]
    #[serde(default, with = "json::optional_text", skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Its id; in a registration it may be left out and is then the name.
    #[n(1)]
    #[serde(rename = "CheckID", default, with = "json::optional_text")]
    pub check_id: Option<CheckId>,
    /// A name for people.
    #[n(2)]
    #[serde(default)]
    pub name: String,
    /// What it found last.
    #[n(3)]
    #[serde(default, deserialize_with = "status_or_critical")]
    pub status: CheckStatus,
    /// What its owner says of it.
    #[n(4)]
    #[serde(default)]
    pub notes: String,
    /// What the last run said, cut to a limit by the agent.
    #[n(5)]
    #[serde(default)]
    pub output: String,
    /// The instance it is about; empty for a check of the whole node.
    #[n(6)]
    #[serde(rename = "ServiceID", default)]
    pub service_id: String,
    /// The service of that instance; filled in by the servers.
    #[n(7)]
    #[serde(default)]
    pub service_name: String,
    /// The tags of that instance; filled in by the servers.
    #[n(8)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub service_tags: Vec<String>,
    /// `ttl`, `http`, `tcp` or empty.
    #[n(9)]
    #[serde(rename = "Type", default)]
    pub kind: String,
    /// Go duration between runs, empty for none.
    #[n(10)]
    #[serde(default)]
    pub interval: String,
    /// Go duration that a run may take, empty for the default.
    #[n(11)]
    #[serde(default)]
    pub timeout: String,
    /// The port that a proxy opened for the check; always 0 here.
    #[n(12)]
    #[serde(default)]
    pub exposed_port: u16,
    /// What was asked for.
    #[n(13)]
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub definition: CheckDefinition,
    /// When it was first registered.
    #[n(14)]
    #[serde(default)]
    pub create_index: Index,
    /// When it last changed.
    #[n(15)]
    #[serde(default)]
    pub modify_index: Index,
}

impl HealthCheck {
    /// Gives a check that names no kind the one its definition speaks of.
    pub fn fill_kind(&mut self) {
        if self.kind.is_empty() {
            self.kind = match &self.definition {
                CheckDefinition { http, .. } if !http.is_empty() => "http".into(),
                CheckDefinition { tcp, .. } if !tcp.is_empty() => "tcp".into(),
                _ => String::new(),
            };
        }
    }

    /// A check that a server or an agent makes itself.
    pub fn new(check_id: CheckId, name: &str, status: CheckStatus, output: &str) -> Self {
        Self {
            node: None,
            check_id: Some(check_id),
            name: name.into(),
            status,
            notes: String::new(),
            output: output.into(),
            service_id: String::new(),
            service_name: String::new(),
            service_tags: Vec::new(),
            kind: String::new(),
            interval: String::new(),
            timeout: String::new(),
            exposed_port: 0,
            definition: CheckDefinition::default(),
            create_index: Index(0),
            modify_index: Index(0),
        }
    }
}

fn status_or_critical<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CheckStatus, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() { Ok(CheckStatus::Critical) } else { text.parse().map_err(serde::de::Error::custom) }
}
