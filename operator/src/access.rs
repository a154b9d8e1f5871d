//! Who may review tokens: the servers' ServiceAccounts, as subjects of one ClusterRoleBinding that the chart owns.
//!
//! The operator fills in the list and nothing else. So it needs no right to make cluster-scoped objects, a datacenter
//! needs no finalizer, and `helm uninstall` takes the binding away whatever happened to the datacenters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use lictor_crds::ConsulDatacenter;
use serde_json::json;

use crate::names::{FIELD_MANAGER, Names};
use crate::settings::OperatorSettings;

/// How often the list is looked over when no datacenter changes: this is how a deleted one leaves it.
const REVIEW_INTERVAL: Duration = Duration::from_secs(60);

/// Looks the list over for as long as this replica leads.
pub(crate) async fn keep(client: Client, settings: Arc<OperatorSettings>, known: Store<ConsulDatacenter>) {
    if known.wait_until_ready().await.is_err() {
        return;
    }
    loop {
        if let Err(error) = bind_servers(&client, &settings, &known).await {
            tracing::warn!(%error, binding = %settings.token_review_binding, "cannot fill in who may review tokens");
        }
        tokio::time::sleep(REVIEW_INTERVAL).await;
    }
}

/// Makes the servers of every known datacenter, and nobody else, subjects of the binding.
pub(crate) async fn bind_servers(
    client: &Client,
    settings: &OperatorSettings,
    known: &Store<ConsulDatacenter>,
) -> Result<(), kube::Error> {
    let accounts: BTreeSet<(String, String)> = known
        .state()
        .iter()
        .map(|datacenter| Names::of(datacenter))
        .map(|names| (names.namespace.clone(), names.server()))
        .collect();
    let subjects: Vec<_> = accounts
        .into_iter()
        .map(|(namespace, name)| json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name }))
        .collect();
    // No roleRef: that is the chart's, and without it an apply cannot make a binding that the chart did not.
    let patch = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": settings.token_review_binding },
        "subjects": subjects,
    });
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bindings.patch(&settings.token_review_binding, &params, &Patch::Apply(&patch)).await.map(drop)
}
