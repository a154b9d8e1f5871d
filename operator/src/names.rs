//! The names of everything that belongs to a datacenter: the one place where they are put together.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use lictor_crds::ConsulDatacenter;

/// The field manager of everything the operator applies.
pub(crate) const FIELD_MANAGER: &str = "lictor-operator";
/// Port of server RPC.
pub(crate) const RPC_PORT: i32 = 8300;
/// Port of HTTPS.
pub(crate) const HTTPS_PORT: i32 = 8501;
/// User and group of every container of ours.
pub(crate) const USER_ID: i64 = 65532;
/// The binary inside the image.
pub(crate) const BINARY: &str = "/lictor";
/// The DNS domain under which names of services end.
pub(crate) const DNS_DOMAIN: &str = "consul";
/// Selects what the operator made.
pub(crate) const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=lictor-operator";
/// Label of pods that have a sidecar.
pub(crate) const INJECTED_LABEL: &str = "lictor.dev/injected";

/// The domain of names inside the cluster.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// The names of everything that belongs to one `ConsulDatacenter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Namespace of the resource and all its objects.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
}

impl Names {
    /// The names that belong to `datacenter`.
    pub(crate) fn of(datacenter: &ConsulDatacenter) -> Self {
        Self { namespace: datacenter.namespace().unwrap_or_default(), name: datacenter.name_any() }
    }

    /// StatefulSet, headless Service and ServiceAccount of the servers.
    pub(crate) fn server(&self) -> String {
        format!("{}-server", self.name)
    }

    /// Service for clients of the HTTP API; only ready servers stand behind it.
    pub(crate) fn client(&self) -> String {
        format!("{}-client", self.name)
    }

    /// ConfigMap with the servers' configuration.
    pub(crate) fn server_config(&self) -> String {
        format!("{}-server-config", self.name)
    }

    /// ConfigMap that says which ServiceAccount may be which service.
    pub(crate) fn login(&self) -> String {
        format!("{}-login", self.name)
    }

    /// Secret with certificate and key of the server CA.
    pub(crate) fn server_ca(&self) -> String {
        format!("{}-server-ca", self.name)
    }

    /// Secret with the servers' certificate.
    pub(crate) fn server_tls(&self) -> String {
        format!("{}-server-tls", self.name)
    }

    /// Secret with the key that opens sealed state.
    pub(crate) fn seal_key(&self) -> String {
        format!("{}-seal-key", self.name)
    }

    /// Secret with the gossip key.
    pub(crate) fn gossip_key(&self) -> String {
        format!("{}-gossip-key", self.name)
    }

    /// Secret with the first management token.
    pub(crate) fn bootstrap_token(&self) -> String {
        format!("{}-bootstrap-token", self.name)
    }

    /// The server pod of this ordinal.
    pub(crate) fn pod(&self, ordinal: i32) -> String {
        format!("{}-server-{ordinal}", self.name)
    }

    /// DNS name of the servers together, ready or not.
    pub(crate) fn server_host(&self) -> String {
        format!("{}.{}.svc.{CLUSTER_DOMAIN}", self.server(), self.namespace)
    }

    /// DNS name of one server pod.
    pub(crate) fn pod_host(&self, ordinal: i32) -> String {
        format!("{}.{}", self.pod(ordinal), self.server_host())
    }

    /// DNS names in the servers' certificate.
    pub(crate) fn certificate_names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned()];
        for service in [self.server(), self.client()] {
            let in_namespace = format!("{service}.{}", self.namespace);
            let host = format!("{in_namespace}.svc.{CLUSTER_DOMAIN}");
            names.extend([service, in_namespace.clone(), format!("{in_namespace}.svc"), host]);
        }
        names.push(format!("*.{}", self.server_host()));
        names
    }

    /// The audience of tokens that log in to this datacenter and to no other.
    pub(crate) fn audience(&self) -> String {
        format!("lictor://{}/{}", self.namespace, self.name)
    }

    /// Labels that select the server pods.
    pub(crate) fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app.kubernetes.io/name".to_owned(), "lictor".to_owned()),
            ("app.kubernetes.io/instance".to_owned(), self.name.clone()),
            ("app.kubernetes.io/component".to_owned(), "server".to_owned()),
        ])
    }

    /// Labels of every object.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned());
        labels
    }
}

/// Metadata of an object that goes when its datacenter goes.
pub(crate) fn owned_metadata(datacenter: &ConsulDatacenter, name: String) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![owner(datacenter)]), ..kept_metadata(datacenter, name) }
}

/// Metadata of an object that stays when its datacenter goes.
pub(crate) fn kept_metadata(datacenter: &ConsulDatacenter, name: String) -> ObjectMeta {
    let names = Names::of(datacenter);
    ObjectMeta {
        name: Some(name),
        labels: Some(names.labels()),
        namespace: Some(names.namespace),
        ..ObjectMeta::default()
    }
}

fn owner(datacenter: &ConsulDatacenter) -> OwnerReference {
    OwnerReference {
        api_version: ConsulDatacenter::api_version(&()).into_owned(),
        kind: ConsulDatacenter::kind(&()).into_owned(),
        name: datacenter.name_any(),
        uid: datacenter.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}
