//! `/v1/status`: who leads and who votes. No token is needed.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use lictor_types::rpc::{Operation, Report, Status};
use lictor_types::{Credential, Refusal};

use super::Door;
use super::caller::Caller;
use super::failure::{Answered, Failure, text};

async fn status(door: &Door) -> Result<Status, Refusal> {
    match door.agent.datacenter.operate(&Credential::anonymous(), Operation::Status).await? {
        Report::Status(status) => Ok(status),
        _ => Err(Failure::unexpected_answer().0),
    }
}

/// `GET /v1/status/leader`: `"host:port"`, `""` when there is none.
pub(super) async fn leader(caller: Caller) -> Answered {
    caller.check_datacenter()?;
    let status = status(&caller.door).await?;
    caller.json(&status.leader.unwrap_or_default())
}

/// `GET /v1/status/peers`.
pub(super) async fn peers(caller: Caller) -> Answered {
    caller.check_datacenter()?;
    let status = status(&caller.door).await?;
    caller.json(&status.peers)
}

/// `GET /v1/agent/ready`, our own, for probes: 200 when a leader is known and this agent can ask it, else 503 and why.
pub(super) async fn ready(State(door): State<Arc<Door>>) -> Answered {
    let status_code = StatusCode::SERVICE_UNAVAILABLE;
    match status(&door).await {
        Ok(Status { leader: Some(leader), .. }) => Ok(text(StatusCode::OK, format!("ready: the leader is {leader}\n"))),
        Ok(_) => Ok(text(status_code, "not ready: no leader is known yet\n")),
        Err(refusal) => Ok(text(status_code, format!("not ready: {refusal}\n"))),
    }
}
