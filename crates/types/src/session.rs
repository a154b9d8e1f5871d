//! Sessions: what locks are held by, and what ends them.

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Index, NodeName};

/// The shortest TTL of a session (Consul's `session_ttl_min`).
pub const TTL_MIN: Duration = Duration::from_secs(10);
/// The longest TTL of a session.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The lock-delay of a session that names none.
pub const LOCK_DELAY_DEFAULT: Duration = Duration::from_secs(15);
/// A longer lock-delay is kept and shown, but its locks are free again after this, as in Consul.
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// Checks that one session may hang on.
pub const CHECKS_MAX: usize = 64;

/// What happens to the keys that a session holds when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionBehavior {
    /// They stay, without their lock.
    #[n(0)]
    #[default]
    Release,
    /// They are deleted.
    #[n(1)]
    Delete,
}

/// A check of an instance that a session hangs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCheck {
    /// The check's id.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// Always empty here; Consul's JSON has the field.
    #[n(1)]
    #[serde(default)]
    pub namespace: String,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// A UUID, made before the log by the agent that took the request.
    #[n(0)]
    #[serde(rename = "ID")]
    pub id: String,
    /// A name for people.
    #[n(1)]
    #[serde(default)]
    pub name: String,
    /// The node it lives on; it ends with it.
    #[n(2)]
    pub node: NodeName,
    /// How long its locks stay shut after it ended otherwise than by releasing them, in nanoseconds.
    #[n(3)]
    pub lock_delay: u64,
    /// What happens to the keys that it holds.
    #[n(4)]
    pub behavior: SessionBehavior,
    /// A Go duration; empty for a session that only its checks, its node or a request end.
    #[n(5)]
    #[serde(rename = "TTL", default)]
    pub ttl: String,
    /// Checks of its node; it ends with the first that is critical or gone.
    #[n(6)]
    #[serde(default, deserialize_with = "crate::json::null_is_default")]
    pub node_checks: Vec<String>,
    /// Checks of instances on its node, likewise.
    #[n(7)]
    #[serde(default, serialize_with = "null_for_none", deserialize_with = "crate::json::null_is_default")]
    pub service_checks: Vec<ServiceCheck>,
    /// When it was made.
    #[n(8)]
    #[serde(default)]
    pub create_index: Index,
    /// When it last changed.
    #[n(9)]
    #[serde(default)]
    pub modify_index: Index,
}

impl Session {
    /// Every check that it hangs on.
    pub fn checks(&self) -> impl Iterator<Item = &str> {
        self.node_checks.iter().map(String::as_str).chain(self.service_checks.iter().map(|check| check.id.as_str()))
    }

    /// Its TTL; none when it has none. A stored session's is always legal.
    pub fn time_to_live(&self) -> Option<Duration> {
        crate::duration::parse(&self.ttl).ok().filter(|ttl| !ttl.is_zero())
    }

    /// How long its locks stay shut after it ended.
    pub fn effective_lock_delay(&self) -> Duration {
        Duration::from_nanos(self.lock_delay).min(LOCK_DELAY_MAX)
    }
}

/// Go writes a slice that nobody made as `null`.
fn null_for_none<S: serde::Serializer>(checks: &[ServiceCheck], serializer: S) -> Result<S::Ok, S::Error> {
    if checks.is_empty() { serializer.serialize_none() } else { checks.serialize(serializer) }
}

/// Ends a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionDestroy {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// The node that the authoriser saw behind the id, empty for no such session; if it is another by now, nothing is
    /// done and the request is refused.
    #[n(1)]
    pub authorized_node: Option<String>,
}
