//! The instances of a service that the application calls, kept up to date.
//!
//! Invariants
//! - Losing the servers changes nothing: the last known instances are dialled.
//! - An instance that stays keeps its load and its standing over an update.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lictor_identity::SpiffeId;
use lictor_types::query::ServiceQuery;
use lictor_types::{Answer, CheckServiceNode, Consistency, Query, Read, ServiceName};
use tokio::sync::watch;

use crate::balance::Endpoint;
use crate::follow::Asker;

/// A service that the application calls.
#[derive(Debug)]
pub(crate) struct Upstream {
    service: ServiceName,
    expected: SpiffeId,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// How many instances there are; none until the servers have told for the first time.
    known: watch::Sender<Option<usize>>,
}

impl Upstream {
    /// The service `service`, whose instances must prove to be `expected`; none is known yet.
    pub(crate) fn new(service: ServiceName, expected: SpiffeId) -> Self {
        Self { service, expected, endpoints: ArcSwap::default(), known: watch::Sender::new(None) }
    }

    /// The service.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Who its instances must prove to be.
    pub(crate) fn expected(&self) -> &SpiffeId {
        &self.expected
    }

    /// Its instances.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Waits until the servers have told the instances for the first time.
    pub(crate) async fn known(&self) {
        // The sender lives in `self`, so the wait can only end well.
        let _ = self.known.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until there is an instance to call.
    pub(crate) async fn reachable(&self) {
        // As above.
        let _ = self.known.subscribe().wait_for(|known| known.is_some_and(|count| count > 0)).await;
    }

    /// These are its instances now.
    pub(crate) fn update(&self, rows: &[CheckServiceNode]) {
        let before = self.endpoints();
        let mut after: Vec<Arc<Endpoint>> = Vec::with_capacity(rows.len());
        for address in rows.iter().filter_map(address_of) {
            if after.iter().any(|endpoint| endpoint.address() == address) {
                continue;
            }
            let stays = before.iter().find(|endpoint| endpoint.address() == address);
            after.push(stays.map_or_else(|| Arc::new(Endpoint::new(address)), Arc::clone));
        }
        match (before.is_empty(), after.is_empty()) {
            (true, false) => tracing::info!(service = %self.service, instances = after.len(), "upstream has instances"),
            (false, true) => tracing::warn!(service = %self.service, "upstream has no healthy instance any more"),
            _ => tracing::debug!(service = %self.service, instances = after.len(), "upstream is known"),
        }
        let count = after.len();
        self.endpoints.store(Arc::new(after));
        self.known.send_replace(Some(count));
    }

    /// Keeps the instances up to date, for ever.
    pub(crate) async fn keep(self: Arc<Self>, asker: Asker) {
        let query = ServiceQuery { passing: true, connect: true, ..ServiceQuery::all(self.service.clone()) };
        let what = format!("instances of {}", self.service);
        asker
            .follow(&what, Query::HealthService(query), Consistency::Default, |Read { answer, .. }| match answer {
                Answer::CheckServiceNodes(rows) => self.update(&rows),
                _ => tracing::error!(service = %self.service, "a server answered something else than instances"),
            })
            .await;
    }
}

/// Where an instance is dialled: its own address, else its node's. `None` for one that has no port.
fn address_of(row: &CheckServiceNode) -> Option<String> {
    let host = if row.service.address.is_empty() { &row.node.address } else { &row.service.address };
    if host.is_empty() || row.service.port == 0 {
        return None;
    }
    let port = row.service.port;
    Some(match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{instance, spiffe_id};

    #[test]
    fn an_instance_is_dialled_at_its_own_address_or_at_its_nodes() {
        let mut row = instance("web", "10.1.1.1:20000");
        assert_eq!(address_of(&row).as_deref(), Some("10.1.1.1:20000"));
        row.service.address = String::new();
        row.node.address = "fd00::1".into();
        assert_eq!(address_of(&row).as_deref(), Some("[fd00::1]:20000"));
        row.service.port = 0;
        assert_eq!(address_of(&row), None);
    }

    #[test]
    fn an_instance_that_stays_keeps_its_load_and_one_that_went_is_gone() {
        let upstream = Upstream::new("web".parse().unwrap(), spiffe_id("web"));
        let (first, second) = (instance("web", "10.1.1.1:20000"), instance("web", "10.1.1.2:20000"));
        upstream.update(&[first.clone(), first.clone(), second]);
        let before = upstream.endpoints();
        assert_eq!(before.len(), 2);
        upstream.update(&[first]);
        let after = upstream.endpoints();
        assert_eq!(after.len(), 1);
        assert!(Arc::ptr_eq(&before[0], &after[0]));
        upstream.update(&[]);
        assert!(upstream.endpoints().is_empty());
    }
}
