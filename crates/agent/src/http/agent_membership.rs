//! `/v1/agent/join`, `leave`, `force-leave` and `reload`: what people do to members and agents by hand.
//!
//! With gossip a join and a forced leave are what Serf makes of them. An agent without gossip only confirms that an address is
//! of a member: it adds nobody, and says so where it is not.

use axum::response::Response;
use lictor_gossip::{Gossip, Status};
use lictor_types::rpc::{ForceLeave, Operation, Report};
use lictor_types::{Refusal, Requirement, Resource};

use super::caller::{Caller, Tail};
use super::failure::{Answered, Failure};
use crate::pools::PoolKind;

/// `PUT /v1/agent/force-leave/NODE`: a member that has failed leaves the members and the catalog at once; with `?wan`, a
/// server of any datacenter the pool of all servers.
pub(super) async fn force_leave(caller: Caller, Tail(node): Tail) -> Answered {
    caller.require(Requirement::write(Resource::Operator, "")).await?;
    let prune = caller.params.has("prune");
    let agent = &caller.door.agent;
    let datacenter = &agent.identity.datacenter;
    if caller.params.has("wan") {
        let Some(pool) = agent.pools.wan() else {
            return Err(Refusal::failed("Must be a server to force-leave a node from the WAN cluster.").into());
        };
        // A name in the pool of all datacenters says which one it is of.
        let name = if node.contains('.') { node } else { format!("{node}.{datacenter}") };
        return if remove_failed(&pool, &name, prune).await? { Ok(Response::default()) } else { Err(no_node(&name)) };
    }
    let node = own_name(&node, datacenter).to_owned();
    match caller.operate(Operation::ForceLeave(ForceLeave { node: node.clone(), prune })).await {
        Ok(Report::Done) => Ok(Response::default()),
        Ok(_) => Err(Failure::unexpected_answer()),
        // One that this pool alone knows, or while there is no leader: then gossip is told, and a leader hears of it.
        Err(failure) => match agent.pools.lan() {
            Some(pool) if remove_failed(&pool, &node, prune).await? => Ok(Response::default()),
            _ => Err(failure),
        },
    }
}

/// `NAME.DATACENTER` of our own datacenter is `NAME`.
fn own_name<'a>(node: &'a str, datacenter: &str) -> &'a str {
    match node.rsplit_once('.') {
        Some((name, of)) if of.eq_ignore_ascii_case(datacenter) && !name.is_empty() => name,
        _ => node,
    }
}

fn no_node(name: &str) -> Failure {
    Refusal::failed(format!("agent: No node found with name '{name}'")).into()
}

/// Makes a member of `pool` that has failed, or with `prune` any that is gone, one that left. False when there is none.
async fn remove_failed(pool: &Gossip, name: &str, prune: bool) -> Result<bool, Failure> {
    let members = pool.members().await.unwrap_or_default();
    let found = members.iter().find(|member| member.record.name().eq_ignore_ascii_case(name));
    let gone = |status: Status| matches!((status, prune), (Status::Failed, _) | (Status::Left, true));
    let Some(found) = found.filter(|member| gone(member.status)) else { return Ok(false) };
    let removed = pool.remove(found.record.name(), prune).await;
    removed.map_err(|error| Refusal::failed(format!("gossip was not told that {name} is removed: {error}")))?;
    Ok(true)
}

/// `PUT /v1/agent/join/ADDRESS`: joins the pool of the member with this address; with `?wan`, that of all servers.
pub(super) async fn join(caller: Caller, Tail(address): Tail) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::write(Resource::Agent, agent.identity.node_name.as_str())).await?;
    let (kind, pool) = match caller.params.has("wan") {
        true => (PoolKind::Wan, agent.pools.wan()),
        false => (PoolKind::Lan, agent.pools.lan()),
    };
    if pool.is_some() {
        let joined = agent.pools.join(kind, std::slice::from_ref(&address)).await;
        return match joined {
            Ok(_) => Ok(Response::default()),
            Err(error) => {
                let text = format!("1 error occurred:\n\t* Failed to join {address}: {error}\n\n");
                Err(Refusal::failed(text).into())
            }
        };
    }
    if kind == PoolKind::Wan {
        return Err(
            Refusal::failed("agent: WAN gossip is off here: only servers with ports.serf_wan on join it").into()
        );
    }
    let members = agent.datacenter.operate(&agent.tokens.agent(), Operation::Members).await?;
    let Report::Members(members) = members else { return Err(Failure::unexpected_answer()) };
    let host = host(&address);
    let is_member = host == agent.identity.address
        || members.iter().any(|member| {
            member.status == lictor_types::MemberStatus::Alive
                && (member.address == host || member.name.as_str().eq_ignore_ascii_case(host))
        });
    if is_member {
        return Ok(Response::default());
    }
    Err(Refusal::failed(format!(
        "1 error occurred:\n\t* Failed to join {address}: no living member of {} has this address. An agent finds its \
         datacenter at its start: name a server of it in retry_join\n\n",
        agent.identity.datacenter
    ))
    .into())
}

/// `PUT /v1/agent/leave`: this agent leaves the cluster, then its process ends. The answer comes in between.
pub(super) async fn leave(caller: Caller) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::write(Resource::Agent, agent.identity.node_name.as_str())).await?;
    agent.orders.leave().await?;
    Ok(Response::default())
}

/// `PUT /v1/agent/reload`: this agent reads its configuration again. One that cannot be used changes nothing.
pub(super) async fn reload(caller: Caller) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::write(Resource::Agent, agent.identity.node_name.as_str())).await?;
    agent.orders.reload().await?;
    Ok(Response::default())
}

/// The host of `host`, `host:port` or `[host]:port`.
fn host(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_own_datacenter_is_one_without() {
        let own = |node| own_name(node, "dc1");
        assert_eq!(
            [own("n1.dc1"), own("n1.DC1"), own("n1"), own("n1.dc2"), own(".dc1")],
            ["n1", "n1", "n1", "n1.dc2", ".dc1"]
        );
    }

    #[test]
    fn the_host_is_found_with_and_without_a_port() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:8301", "10.0.0.1"),
            ("[::1]:8301", "::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("web-1.apps", "web-1.apps"),
        ] {
            assert_eq!(host(address), expected);
        }
    }
}
