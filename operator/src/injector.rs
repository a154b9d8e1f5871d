//! Adds the sidecar to pods that ask for it: a mutating webhook, answered by every replica.
//!
//! Invariants
//! - Who a pod is follows from its ServiceAccount; annotations choose among what that may be.
//! - A pod that cannot be given what it asks for is refused with what to change: it never starts without its sidecar.
//! - Deciding and patching are pure; a pod that has its sidecar is left as it is.

mod annotations;
mod certificate;
mod decide;
mod patch;
mod serve;

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::Store;
use lictor_crds::ConsulDatacenter;
use lictor_runtime::{SystemClock, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::settings::OperatorSettings;

pub use serve::InjectorError;

/// Serves the webhook, and keeps its certificate, until `shutdown`.
pub(crate) async fn run(
    client: Client,
    settings: Arc<OperatorSettings>,
    known: Store<ConsulDatacenter>,
    shutdown: CancellationToken,
) -> Result<(), InjectorError> {
    let (published, credential) = watch::channel(None);
    let tasks = Tasks::new();
    let keeping = certificate::keep(client, settings.clone(), Arc::new(SystemClock), published);
    let serving = serve::serve(settings, known, credential, tasks.clone(), shutdown);
    let ended = tokio::select! {
        () = keeping => Ok(()), // Ends only when nobody serves any more.
        served = serving => served,
    };
    if !tasks.stop(serve::DRAIN_LIMIT).await {
        tracing::warn!("some connections of the injector were cut off");
    }
    ended
}
