//! `/v1/event`: user events.

use std::time::Duration;

use lictor_types::event::{EVENT_VERSION, UserEvent};
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Index, Requirement, Resource};
use tokio::time::Instant;

use super::body::JsonBody;
use super::caller::{Caller, Order, Tail, mark_filtered, mark_index};
use super::failure::{Answered, Failure};
use crate::events;

/// `PUT /v1/event/fire/NAME`: sends the body to the agents that the filters find.
pub(super) async fn fire(order: Order, Tail(name): Tail, body: JsonBody) -> Answered {
    if name.is_empty() {
        return Err(Failure::bad_request("Missing name"));
    }
    let filter = |name: &str| order.params.text(name).unwrap_or_default().to_owned();
    let event = UserEvent {
        id: order.door.agent.rng.uuid(),
        name,
        payload: body.0.into(),
        node_filter: filter("node"),
        service_filter: filter("service"),
        tag_filter: filter("tag"),
        version: EVENT_VERSION,
        lamport_time: 0,
    };
    events::check(&event)?;
    let Report::Done = order.operate(Operation::FireEvent(event.clone())).await? else {
        return Err(Failure::unexpected_answer());
    };
    order.json(&event)
}

/// `GET /v1/event/list`: the last events that were meant for this agent. The index of a blocking query is made of the last
/// event's id, so it is no order, and a reader waits while it is the same.
pub(super) async fn list(caller: Caller) -> Answered {
    let limits = caller.door.limits();
    let block = caller.params.freshness(&limits, &*caller.door.agent.rng)?.block;
    // Here who does not say how long waits as long as may be.
    let wait = block.map_or(Duration::ZERO, |block| {
        if caller.params.text("wait").is_some() { block.wait() } else { limits.max_query_time }
    });
    let deadline = Instant::now() + wait;
    let ring = &caller.door.agent.events;
    let mut changes = ring.changes();
    loop {
        changes.borrow_and_update();
        let (events, filtered) = readable(&caller, ring.events()).await?;
        let index = events.last().map_or(1, UserEvent::index);
        let is_new = block.is_none_or(|block| block.after != Index(index));
        if is_new || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let mut response = caller.json(&events)?;
            mark_index(&mut response, Index(index));
            mark_filtered(&mut response, filtered);
            return Ok(response);
        }
    }
}

/// Those that are asked for by name, or by an expression that finds something in a filter that they were sent with, and
/// whose names the caller may read; and whether any was left out.
async fn readable(caller: &Caller, mut events: Vec<UserEvent>) -> Result<(Vec<UserEvent>, bool), Failure> {
    if let Some(name) = caller.params.text("name") {
        events.retain(|event| event.name == name);
    }
    for what in ["node", "service", "tag"] {
        let Some(text) = caller.params.text(what) else { continue };
        let wanted = events::filter(what, text)?;
        events.retain(|event| {
            wanted.is_match(match what {
                "node" => &event.node_filter,
                "service" => &event.service_filter,
                _ => &event.tag_filter,
            })
        });
    }
    let needs = events.iter().map(|event| Requirement::read(Resource::Event, event.name.as_str())).collect();
    let denials = caller.denials(needs).await?;
    let all = events.len();
    let shown: Vec<UserEvent> =
        events.into_iter().zip(denials).filter(|(_, denial)| denial.is_none()).map(|(event, _)| event).collect();
    let filtered = shown.len() < all && !caller.credential.is_anonymous();
    Ok((shown, filtered))
}
