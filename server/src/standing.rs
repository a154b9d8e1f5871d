//! What this server is to the cluster, asked of others while it hears no leader.
//!
//! A leader speaks no more to a server that was taken out of raft, and such a server cannot learn it from its own log. So
//! one that hears nobody asks the servers it knows. Removed for ever, it stops and says why; a stranger, which left
//! or was cleaned up while it was dead, asks to come back as a learner, with the log it has.
//!
//! Invariant: a server never asks into another cluster than the one that its log is of. It stops and says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lictor_types::autopilot::Standing;
use lictor_types::rpc::{Credential, Operation, Report, Request, RequestBody, Response, ServerAddress};
use tokio::sync::watch;

use crate::bootstrap::ask_to_join;
use crate::datacenter::{LEADER_SILENT_AFTER, ServerDatacenter};
use crate::raft::DataDirectory;
use crate::raft_operations::removed_for_ever;

/// How long one server may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Asks for as long as this server runs; `fatal` gets the reason to stop.
pub(crate) async fn watch(
    datacenter: Arc<ServerDatacenter>,
    directory: Arc<DataDirectory>,
    join: Vec<String>,
    own: ServerAddress,
    fatal: watch::Sender<Option<String>>,
) {
    let mut join_is_checked = false;
    loop {
        tokio::time::sleep(LEADER_SILENT_AFTER).await;
        if datacenter.hears_a_leader() && !join_is_checked {
            join_is_checked = true;
            let members = datacenter.servers();
            let others: Vec<String> =
                join.iter().filter(|address| members.iter().all(|it| it.address != **address)).cloned().collect();
            // It may serve its own cluster as it should, and only the configuration is wrong.
            if let Some(foreign) = another_cluster(&datacenter, &directory, &others).await {
                tracing::error!("{foreign}");
            }
        }
        // Before there is a log there is nothing to have been removed from, and the search for a cluster goes on.
        if datacenter.hears_a_leader() || !datacenter.consensus.is_initialized().await {
            continue;
        }
        let mut addresses: BTreeSet<String> = join.iter().cloned().collect();
        addresses.extend(datacenter.servers().into_iter().map(|it| it.address));
        addresses.remove(&own.address);
        let answers = join_all(addresses.iter().map(|address| ask(&datacenter, address, &own.id))).await;
        let found = |wanted: Standing| {
            addresses.iter().zip(&answers).find(|(_, it)| **it == Some(wanted)).map(|(address, _)| address)
        };
        if found(Standing::Removed).is_some() {
            let reason = removed_for_ever(&own.id, own.name.as_str());
            tracing::error!("{reason}");
            fatal.send_replace(Some(reason));
            return;
        }
        if let Some(address) = found(Standing::Stranger)
            && found(Standing::Member).is_none()
        {
            if let Some(reason) = another_cluster(&datacenter, &directory, std::slice::from_ref(address)).await {
                tracing::error!("{reason}");
                fatal.send_replace(Some(reason));
                return;
            }
            tracing::info!(%address, "this server is not in raft any more: it asks to come back");
            ask_to_join(&datacenter, address, own.clone()).await;
        }
    }
}

/// What to tell people when a server at one of these addresses belongs to another cluster than this data directory.
async fn another_cluster(
    datacenter: &ServerDatacenter,
    directory: &DataDirectory,
    addresses: &[String],
) -> Option<String> {
    let own = directory.cluster_id()?;
    for address in addresses {
        let request = Request {
            credential: Credential::anonymous(),
            body: RequestBody::Operate(Operation::Probe),
            forwarded: true,
        };
        if let Ok(Response::Report(Report::Probe(probe))) = datacenter.peers.call(address, request, ASK_LIMIT).await
            && let Some(other) = probe.cluster_id.filter(|other| *other != own)
        {
            return Some(format!(
                "this server's data directory belongs to the cluster {own}, but the server at {address} belongs to the \
                 cluster {other}: give this server the addresses of its own cluster, or an empty data directory to join \
                 the other"
            ));
        }
    }
    None
}

async fn ask(datacenter: &ServerDatacenter, address: &str, id: &str) -> Option<Standing> {
    let request = Request {
        credential: Credential::anonymous(),
        body: RequestBody::Operate(Operation::Standing(id.to_owned())),
        forwarded: true,
    };
    match datacenter.peers.call(address, request, ASK_LIMIT).await {
        Ok(Response::Report(Report::Standing(standing))) => Some(standing),
        _ => None,
    }
}
