//! Servers as raft knows them and as everybody else does.

use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::ServerAddress;

use crate::raft::{Member, MembershipError, Server, ServerId};

/// A raft member as clients dial it; none when its name is not legal, which no server of ours has.
pub(crate) fn address(member: &Member) -> Option<ServerAddress> {
    let name = member.server.name.parse().ok()?;
    Some(ServerAddress { id: member.id.to_string(), name, address: member.server.address.clone() })
}

/// A server's id from its text.
pub(crate) fn id(text: &str) -> Result<ServerId, Refusal> {
    text.parse().map_err(|error: crate::raft::ServerIdError| Refusal::bad_request(error.to_string()))
}

/// A server as raft wants it.
pub(crate) fn raft_server(server: &ServerAddress) -> Result<(ServerId, Server), Refusal> {
    Ok((id(&server.id)?, Server { name: server.name.to_string(), address: server.address.clone() }))
}

/// The refusal for a change of the members that was not made.
pub(crate) fn refuse(error: MembershipError) -> Refusal {
    let kind = match &error {
        MembershipError::NotLeader(_) => return Refusal::no_leader(),
        MembershipError::InProgress => RefusalKind::Unavailable,
        MembershipError::Unavailable(_) => RefusalKind::Uncertain,
        MembershipError::Refused(_) | MembershipError::Fatal(_) => RefusalKind::Failed,
    };
    Refusal::new(kind, error.to_string())
}
