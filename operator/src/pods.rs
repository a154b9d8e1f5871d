//! Takes nodes out of the catalog whose pod is gone: the second line, behind the sidecar's own farewell.
//!
//! Level-triggered: a deleted pod is only a hint to look now. A node is deregistered when its pod's uid is neither
//! among the watched pods nor with the API server itself, so that a watch that lags deregisters nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use lictor_crds::ConsulDatacenter;
use tokio::sync::Notify;

use crate::names::{INJECTED_LABEL, Names};
use crate::servers::{Access, HttpsServers, PodNode};

/// How often the whole catalog is compared.
const FULL_PASS_INTERVAL: Duration = Duration::from_secs(60);
/// Pods deleted within this time share one comparison.
const GATHER: Duration = Duration::from_millis(300);
/// Nodes examined with the API server in one comparison; the rest waits for the next.
const EXAMINED_MAX: usize = 200;

type PodMeta = PartialObjectMeta<Pod>;

/// Compares catalog and pods for as long as this replica leads.
pub(crate) async fn keep(client: Client, known: Store<ConsulDatacenter>, servers: Arc<HttpsServers>) {
    let deleted = Arc::new(Notify::new());
    let hint = deleted.clone();
    let (pods, writer) = reflector::store::<PodMeta>();
    let labelled = watcher::Config::default().labels(&format!("{INJECTED_LABEL}=true"));
    let watching =
        watcher(Api::<PodMeta>::all(client.clone()), labelled).default_backoff().reflect(writer).for_each(|event| {
            match event {
                // After a new list, pods may have gone unseen.
                Ok(Event::Delete(_) | Event::InitDone) => hint.notify_one(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the watch of pods broke off and starts anew"),
            }
            std::future::ready(())
        });
    let comparing = async {
        if pods.wait_until_ready().await.is_err() || known.wait_until_ready().await.is_err() {
            return;
        }
        loop {
            for datacenter in known.state() {
                if let Err(error) = compare(&client, &servers, &pods, &datacenter).await {
                    let datacenter = datacenter.name_any();
                    tracing::debug!(%error, datacenter, "catalog and pods could not be compared");
                }
            }
            tokio::select! {
                () = deleted.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(FULL_PASS_INTERVAL) => {}
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = comparing => {}
    }
}

#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error("cannot read from Kubernetes")]
    Kubernetes(#[from] kube::Error),
    #[error("cannot ask the servers")]
    Servers(#[from] crate::servers::CallError),
}

async fn compare(
    client: &Client,
    servers: &HttpsServers,
    pods: &Store<PodMeta>,
    datacenter: &ConsulDatacenter,
) -> Result<(), CompareError> {
    let Some(status) = datacenter.status.as_ref().filter(|status| status.bootstrapped && status.leader.is_some())
    else {
        return Ok(());
    };
    if datacenter.spec.paused || datacenter.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let Some(ca_pem) = status.server_ca.clone() else { return Ok(()) };
    let names = Names::of(datacenter);
    let secret = Api::<Secret>::namespaced(client.clone(), &names.namespace).get_opt(&names.bootstrap_token()).await?;
    let token = secret.and_then(|secret| secret.data).and_then(|data| data.get("token").cloned());
    let Some(token) = token.and_then(|token| String::from_utf8(token.0).ok()) else { return Ok(()) };
    let access = Access { ca_pem, token: token.trim().to_owned() };
    let replicas = datacenter.spec.servers.replicas;

    let nodes = servers.pod_nodes(&names, replicas, &access).await?;
    for node in unseen(&nodes, &pods.state()).into_iter().take(EXAMINED_MAX) {
        let Some((pod, namespace)) = node.node.rsplit_once('.') else {
            tracing::warn!(node = node.node, "a node says it is a pod, but is not named <pod>.<namespace>: left alone");
            continue;
        };
        let present = Api::<Pod>::namespaced(client.clone(), namespace).get_metadata_opt(pod).await?;
        if is_gone(node, present.as_ref()) {
            servers.deregister(&names, replicas, &access, &node.node).await?;
            tracing::info!(node = node.node, pod_uid = node.pod_uid, "the pod is gone, its node left the catalog");
        }
    }
    Ok(())
}

/// Nodes whose pod is not among the watched ones.
fn unseen<'a>(nodes: &'a [PodNode], pods: &[Arc<PodMeta>]) -> Vec<&'a PodNode> {
    let alive: std::collections::BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
    nodes.iter().filter(|node| !alive.contains(node.pod_uid.as_str())).collect()
}

/// Whether the node's pod is gone, given the pod that has its name now.
///
/// A successor with a sidecar registers under the same name by itself: taking the node away could take the successor's.
fn is_gone(node: &PodNode, present: Option<&PodMeta>) -> bool {
    let Some(present) = present else { return true };
    let same = present.metadata.uid.as_deref() == Some(node.pod_uid.as_str());
    let successor = present.labels().contains_key(INJECTED_LABEL);
    !same && !successor
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use std::collections::BTreeMap;

    use super::*;

    fn pod(uid: &str, injected: bool) -> PodMeta {
        let labels = injected.then(|| BTreeMap::from([(INJECTED_LABEL.to_owned(), "true".to_owned())]));
        PodMeta {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), labels, ..ObjectMeta::default() },
            ..PodMeta::default()
        }
    }

    fn node(uid: &str) -> PodNode {
        PodNode { node: "web-0.apps".to_owned(), pod_uid: uid.to_owned() }
    }

    #[test]
    fn only_nodes_without_a_watched_pod_are_examined() {
        let nodes = [node("alive"), node("gone")];
        assert_eq!(unseen(&nodes, &[Arc::new(pod("alive", true))]), [&nodes[1]]);
    }

    #[test]
    fn a_node_is_gone_when_nothing_that_registers_by_itself_has_its_name() {
        assert!(is_gone(&node("a"), None));
        assert!(!is_gone(&node("a"), Some(&pod("a", true))), "alive, though the watch has not seen it");
        assert!(!is_gone(&node("a"), Some(&pod("b", true))), "a successor registers by itself");
        assert!(is_gone(&node("a"), Some(&pod("b", false))), "a pod without a sidecar never will");
    }
}
