//! What a user asks for: the spec of a `ConsulDatacenter` and the rules the API server holds it to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::ConsulDatacenterStatus;

/// The datacenter's name where the spec names none.
pub const DEFAULT_DATACENTER: &str = "dc1";
/// The number of servers where the spec names none: survives the loss of one.
pub const DEFAULT_REPLICAS: i32 = 3;
/// The size of each server's volume where the spec names none.
pub const DEFAULT_STORAGE_SIZE: &str = "10Gi";

/// One datacenter of Lictor servers in this namespace, and who may join its mesh.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lictor.dev",
    version = "v1alpha1",
    kind = "ConsulDatacenter",
    plural = "consuldatacenters",
    shortname = "cdc",
    category = "lictor",
    namespaced,
    status = "ConsulDatacenterStatus",
    derive = "PartialEq",
    doc = "One datacenter of Lictor servers in this namespace, and who may join its mesh.",
    scale(
        spec_replicas_path = ".spec.servers.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Quorum", type_ = "string", json_path = ".status.quorum.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message(
        "metadata.name must have at most 40 characters: names of pods and DNS records are made from it"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name must be lowercase letters, digits and dashes, and begin with a letter: it becomes a DNS label"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ConsulDatacenterSpec {
    /// Name of the datacenter as clients see it (`?dc=`, `*.service.NAME.consul`). It is part of every certificate,
    /// so it can never change.
    #[serde(default = "default_datacenter")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.datacenter cannot change: every certificate and every record carries it; make a new ConsulDatacenter"
    ))]
    pub datacenter: String,

    /// Image of servers and sidecars. Without it they follow the operator's own image, so that upgrading the operator
    /// also restarts the servers, one after the other; name an image here to keep the two apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the kubelet pulls the image. Without it: the rule of Kubernetes (`Always` for the tag `latest`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// The servers of this datacenter.
    #[serde(default)]
    pub servers: Servers,

    /// Which pods may be given a sidecar, and which services their ServiceAccounts may be.
    #[serde(default)]
    pub inject: Inject,

    /// What becomes of the data when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// When true, the operator changes nothing and only reports.
    #[serde(default)]
    pub paused: bool,
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    #[allow(missing_docs, reason = "Kubernetes' own word")]
    Always,
    #[allow(missing_docs, reason = "Kubernetes' own word")]
    IfNotPresent,
    #[allow(missing_docs, reason = "Kubernetes' own word")]
    Never,
}

impl ImagePullPolicy {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// What becomes of volumes and of the keys that open them, when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes and keys stay; a new `ConsulDatacenter` of the same name finds them again.
    #[default]
    Retain,
    /// Volumes and keys go with it.
    Delete,
}

/// The servers of a datacenter.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    /// How many servers: 1 survives no loss, 3 the loss of one, 5 of two. It can grow, not shrink.
    #[serde(default = "default_replicas")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]").message(
        "spec.servers.replicas must be 1, 3 or 5: an even number of servers tolerates no more losses than one fewer"
    ))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message(
        "spec.servers.replicas cannot shrink: stopping servers that still vote would cost the quorum"
    ))]
    pub replicas: i32,

    /// The volume of each server.
    #[serde(default)]
    pub storage: Storage,

    /// Processor and memory of each server.
    #[serde(default)]
    pub resources: Resources,
}

/// The volume of each server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.storageClassName) == has(oldSelf.storageClassName) && \
     (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
).message("spec.servers.storage.storageClassName cannot change: volumes cannot move between classes"))]
pub struct Storage {
    /// Size of the volume. It can grow (where the StorageClass allows it), not shrink.
    #[serde(default = "default_storage_size")]
    #[schemars(with = "String", length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message(
        "spec.servers.storage.size must be a quantity such as 10Gi"
    ))]
    #[x_kube(validation = Rule::new(
        "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0"
    ).message("spec.servers.storage.size cannot shrink: volumes only grow"))]
    pub size: Quantity,

    /// StorageClass of the volumes; without it, the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Processor and memory, as Kubernetes' containers have them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What is never exceeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Which pods may be given a sidecar, and which services they may be.
///
/// A pod's identity is its ServiceAccount. In `namespaces`, a ServiceAccount may be the service of its own name; every
/// other pairing needs a binding. The ServiceAccount `default` never has an identity.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inject {
    /// Namespaces in which each ServiceAccount may be the service of its own name.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,

    /// Further services that a ServiceAccount may be.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "serviceAccount".into()]))]
    pub bindings: Vec<Binding>,
}

/// Lets one ServiceAccount be the named services.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Namespace of the ServiceAccount.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self != 'default'").message(
        "the ServiceAccount 'default' cannot have an identity: every pod that names none runs as it; make one per service"
    ))]
    pub service_account: String,
    /// Names of the services that it may be.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub services: Vec<String>,
}

fn default_datacenter() -> String {
    DEFAULT_DATACENTER.to_owned()
}

fn default_replicas() -> i32 {
    DEFAULT_REPLICAS
}

fn default_storage_size() -> Quantity {
    Quantity(DEFAULT_STORAGE_SIZE.to_owned())
}

impl Default for Servers {
    fn default() -> Self {
        Self { replicas: DEFAULT_REPLICAS, storage: Storage::default(), resources: Resources::default() }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_storage_size(), storage_class_name: None }
    }
}

/// Quantities by the name of the resource; without the pages of description that Kubernetes' own type brings along.
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "x-kubernetes-int-or-string": true }
    })
}
