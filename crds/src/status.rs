//! What the operator reports: the status of a `ConsulDatacenter`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator last saw and did.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsulDatacenterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Server pods that exist.
    #[serde(default)]
    pub replicas: i32,

    /// Server pods that are ready: they know a leader and have applied their log.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Label selector of the server pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// True from the first leader on, for ever: from then on lost keys are not made anew.
    #[serde(default)]
    pub bootstrapped: bool,

    /// Name of the pod that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,

    /// Whether enough servers live to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,

    /// The servers, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<Member>,

    /// Certificate (PEM, public) of the authority that signs the servers' certificates: what a client needs to trust them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ca: Option<String>,

    /// `Ready`, `Reconciling`, `Stalled`, `QuorumHealthy`, `LeaderElected`, `StorageReady`, `Paused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Whether enough servers live to decide.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// Servers that vote.
    pub voters: i32,
    /// Voters that answer.
    pub healthy: i32,
    /// Voters that must answer.
    pub needed: i32,
    /// The same for a table's column: `3/3`.
    pub summary: String,
}

/// One server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of its pod, which is its name in the datacenter.
    pub name: String,
    /// Whether it answered the operator.
    pub healthy: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Where other servers reach it.
    pub address: String,
}
