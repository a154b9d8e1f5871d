//! The Kubernetes half of Lictor: a controller that runs datacenters, and an injector that adds sidecars to pods.
//!
//! ```text
//! ConsulDatacenter ─watch─> fetch ─> validate ─> build ─> apply ─> report ─> StatefulSet, Secrets, ...
//! pod created ─webhook─> decide ─> patch                                     (every replica answers)
//! pod deleted ─watch─> its node leaves the catalog                           (the leading replica only)
//! ```
//!
//! Invariants
//! - A pass over a datacenter that is as it should be changes nothing.
//! - A key that opens data is made once, created and never overwritten; a lost one is reported, not replaced.
//! - Only the holder of the Lease writes, save for the injector's certificate, on which all replicas agree by
//!   resource version.
//! - The operator creates nothing cluster-scoped: what it fills in there belongs to the chart and goes with it.

mod access;
mod datacenter;
mod injector;
mod leadership;
mod names;
mod pods;
mod servers;
mod settings;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::runtime::controller::{self, Controller};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use lictor_crds::ConsulDatacenter;
use lictor_runtime::{SystemClock, SystemRng};
use tokio_util::sync::CancellationToken;

pub use injector::InjectorError;
pub use settings::{OperatorSettings, SettingsError};

use futures_util::StreamExt;

/// Datacenters brought up to date at the same time.
const CONCURRENT_DATACENTERS: u16 = 4;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no way to the API server.
    #[error("cannot reach the Kubernetes API: run inside a pod with a ServiceAccount, or set KUBECONFIG")]
    Client(#[source] kube::Error),
    /// The configuration of the connection to the API server could not be read.
    #[error(
        "cannot find out how to reach the Kubernetes API: run inside a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    Configuration(#[source] kube::config::InferConfigError),
    /// The Lease could not be kept; another replica leads, or will.
    #[error("lost the Lease {lease}: another replica takes over, this one starts anew")]
    LeadershipLost {
        /// Name of the Lease.
        lease: String,
    },
    /// The Lease could not be read or made.
    #[error("cannot use the Lease {lease}: the operator's Role must allow get, create and patch of leases")]
    Lease {
        /// Name of the Lease.
        lease: String,
        /// What the API said.
        #[source]
        source: kube_lease_manager::LeaseManagerError,
    },
    /// The injector could not serve.
    #[error("the injector cannot serve")]
    Injector(#[source] InjectorError),
}

/// Runs controller and injector until `shutdown`, or until something fails that only a new start mends.
pub async fn run(settings: OperatorSettings, shutdown: CancellationToken) -> Result<(), OperatorError> {
    let config = kube::Config::infer().await.map_err(OperatorError::Configuration)?;
    let client = Client::try_from(config).map_err(OperatorError::Client)?;
    let settings = Arc::new(settings);
    tracing::info!(image = %settings.image, namespace = %settings.namespace, "the operator starts");

    let (known, writer) = reflector::store::<ConsulDatacenter>();
    let watching = watcher(Api::<ConsulDatacenter>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .for_each(|event| async move {
            if let Err(error) = event {
                tracing::warn!(%error, "the watch of ConsulDatacenters broke off and starts anew");
            }
        });
    let injecting = injector::run(client.clone(), settings.clone(), known, shutdown.clone());
    let leading = leadership::while_leading(
        client.clone(),
        &settings.namespace,
        &settings.pod_name,
        shutdown.clone(),
        lead(client.clone(), settings.clone(), shutdown.clone()),
    );
    tokio::select! {
        () = watching => Ok(()), // A watch with back-off does not end.
        injected = injecting => injected.map_err(OperatorError::Injector),
        led = leading => led,
    }
}

/// What only the leading replica does.
async fn lead(client: Client, settings: Arc<OperatorSettings>, shutdown: CancellationToken) {
    let controller = Controller::new(Api::<ConsulDatacenter>::all(client.clone()), watcher::Config::default())
        .owns(Api::<StatefulSet>::all(client.clone()), watcher::Config::default().labels(names::MANAGED_SELECTOR))
        .with_config(controller::Config::default().concurrency(CONCURRENT_DATACENTERS));
    let known = controller.store();
    let servers = Arc::new(servers::HttpsServers);
    let context = Arc::new(datacenter::Context {
        client: client.clone(),
        settings: settings.clone(),
        known: known.clone(),
        servers: servers.clone(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRng),
        seen: datacenter::Seen::default(),
    });
    let reconciling = controller
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(datacenter::reconcile, datacenter::on_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a pass ended early");
            }
        });
    tokio::select! {
        () = reconciling => {}
        () = access::keep(client.clone(), settings, known.clone()) => {}
        () = pods::keep(client, known, servers) => {}
    }
}
