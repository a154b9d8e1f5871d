//! What the pools tell: user events for this agent, and what people want to read in the log.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use lictor_gossip::wire::consul::ConsulEvent;
use lictor_gossip::{Change, Event, Status};
use lictor_types::event::{EVENT_VERSION, UserEvent};
use tokio::sync::{broadcast, watch};

use super::Pools;
use super::upkeep::is_server;
use crate::agent::Agent;
use crate::events;

/// Passes user events on to the agent and says in the log what becomes of members, for ever.
pub(super) async fn follow(pools: Arc<Pools>, agent: Arc<Agent>) {
    let pool = pools.lan_opened().await;
    let mut told = pool.events();
    loop {
        match told.recv().await {
            // A server's agent has its events from the server, which hears gossip too.
            Ok(Event::User { time, name, payload, .. }) if !agent.identity.server => {
                if let Some(event) = as_user_event(time, &name, &payload) {
                    events::take(&agent, event);
                }
            }
            Ok(Event::Member { change, member }) => {
                let (node, address) = (member.record.name(), member.record.address());
                match change {
                    Change::Joined => tracing::info!(node, %address, "member joined"),
                    Change::Left => tracing::info!(node, %address, "member left"),
                    Change::Failed => tracing::warn!(node, %address, "member failed, by gossip"),
                    Change::Updated => tracing::debug!(node, %address, "member has new tags"),
                    Change::Reaped => tracing::info!(node, %address, "member forgotten"),
                }
            }
            Ok(Event::Conflict { name, other, own: false }) => {
                tracing::warn!(node = name, %other, "two members claim one node name; the one known longer keeps it");
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "gossip told more than could be followed");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Ends the agent when the pool gave its name to another.
pub(super) async fn watch_name(pools: Arc<Pools>, fatal: watch::Sender<Option<String>>) {
    let pool = pools.lan_opened().await;
    let mut told = pool.events();
    loop {
        match told.recv().await {
            Ok(Event::Conflict { name, other, own: true }) => {
                tracing::error!(node = name, %other, "another member has our node name; the pool decides who keeps it");
            }
            Ok(Event::NameLost) => {
                fatal.send_replace(Some(
                    "most members of the gossip pool know another agent by our node name: give this one another name with \
                     -node, or stop the other"
                        .into(),
                ));
                return;
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

impl Pools {
    /// Tells everybody in the datacenter of an event; false where gossip is off or the event does not fit.
    pub async fn tell(&self, event: &UserEvent) -> bool {
        let Some(pool) = self.lan() else { return false };
        let carried = ConsulEvent {
            id: event.id.clone(),
            name: event.name.clone(),
            payload: event.payload.clone(),
            node_filter: event.node_filter.clone(),
            service_filter: event.service_filter.clone(),
            tag_filter: event.tag_filter.clone(),
            version: event.version,
        };
        let told = pool.user_event(&carried.serf_name(), &carried.encode(), false).await;
        if let Err(error) = &told {
            tracing::warn!(name = event.name, %error, "gossip does not carry the event");
        }
        told.is_ok()
    }

    /// Whether gossip brings events here: a server is in the pool.
    pub async fn hears_a_server(&self) -> bool {
        let Some(pool) = self.lan() else { return false };
        let hears =
            pool.with_core(|core, _| core.members().any(|it| it.status == Status::Alive && is_server(&it.record)));
        hears.await.unwrap_or_default()
    }
}

/// A user event as gossip brought it: one of Consul's, or one that somebody told with Serf's own means, whose id is made of
/// what it is. None when it cannot be read.
pub fn as_user_event(time: u64, name: &str, payload: &[u8]) -> Option<UserEvent> {
    let carried = match ConsulEvent::name_in(name) {
        Some(_) => match ConsulEvent::decode(payload) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(name, %error, "an event that gossip brought cannot be read");
                return None;
            }
        },
        None => ConsulEvent {
            id: made_id(time, name, payload),
            name: name.to_owned(),
            payload: payload.to_vec(),
            version: EVENT_VERSION,
            ..ConsulEvent::default()
        },
    };
    Some(UserEvent {
        id: carried.id,
        name: carried.name,
        payload: carried.payload,
        node_filter: carried.node_filter,
        service_filter: carried.service_filter,
        tag_filter: carried.tag_filter,
        version: carried.version,
        lamport_time: time,
    })
}

fn made_id(time: u64, name: &str, payload: &[u8]) -> String {
    let bytes = [&time.to_be_bytes()[..], &(name.len() as u64).to_be_bytes(), name.as_bytes(), payload].concat();
    crate::agent::uuid_of(digest(&SHA256, &bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_serfs_own_has_an_id_made_of_what_it_is() {
        let event = as_user_event(7, "deploy", b"v1").unwrap();
        assert_eq!((event.name.as_str(), event.payload.as_slice(), event.lamport_time), ("deploy", &b"v1"[..], 7));
        assert_eq!(event.id.len(), 36);
        assert_eq!(as_user_event(7, "deploy", b"v1"), Some(event.clone()));
        assert_ne!(as_user_event(8, "deploy", b"v1").map(|it| it.id), Some(event.id));
        assert!(as_user_event(1, "consul:event:deploy", b"\xc1").is_none());
    }
}
