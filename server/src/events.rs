//! User events at a server: the leader orders them, every server keeps them for the agents that ask it.

use std::sync::Arc;
use std::time::Duration;

use lictor_agent::events::{Cursor, FOLLOW_WAIT, check};
use lictor_types::event::UserEvent;
use lictor_types::rpc::{Operation, Report, RequestBody, Response};
use lictor_types::{Credential, Refusal, Requirement, Resource};
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;

/// Between a question that failed and the next.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl ServerDatacenter {
    /// Takes an event in at the leader.
    pub(crate) async fn fire_event(&self, credential: &Credential, event: UserEvent) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.require(credential, &[Requirement::write(Resource::Event, event.name.as_str())])?;
        check(&event)?;
        self.pools.tell(&event).await;
        self.events.fire(event);
        Ok(Report::Done)
    }
}

/// Keeps this server's ring equal to the leader's, until it is dropped.
pub(crate) async fn follow_leader(datacenter: Arc<ServerDatacenter>) {
    let mut leader = datacenter.consensus.leader();
    let mut cursor = Cursor::from_the_start();
    loop {
        let known = leader.borrow_and_update().is_some();
        if !known || datacenter.consensus.is_leader() {
            // Consensus has ended, and this server with it.
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        }
        let body = RequestBody::Operate(Operation::FollowEvents(cursor.question()));
        let deadline = Instant::now() + FOLLOW_WAIT + datacenter.settings.hold;
        let credential = Credential::anonymous();
        tokio::select! {
            changed = leader.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            answered = datacenter.ask_leader(&credential, body, deadline) => match answered {
                Ok(Response::Report(Report::Events(batch))) => {
                    for event in cursor.take(batch) {
                        datacenter.events.push(event);
                    }
                }
                Ok(_) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(refusal) => {
                    tracing::debug!(%refusal, "cannot follow the leader's user events");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            },
        }
    }
}
