//! What an agent makes of its pool at rest: which servers to ask, and where it lies in the network.

use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::{Core, Event, Record};
use lictor_types::rpc::Operation;
use lictor_types::{Coordinate, MemberStatus, NodeCoordinate};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Pools;
use crate::agent::Agent;
use crate::forward::{Forwarder, FoundServer};

/// Coordinates that all agents together tell in a second, as Consul has it.
const COORDINATES_PER_SECOND: usize = 64;
/// Between two tellings in a small datacenter.
const COORDINATE_INTERVAL: Duration = Duration::from_secs(15);
/// How long news of members are gathered before the servers are looked at.
const GATHER: Duration = Duration::from_millis(250);
/// The value of the tag `role` of a server.
const ROLE_SERVER: &[u8] = b"consul";
/// Between two choices of the server that is asked first, in a small datacenter.
const REBALANCE_INTERVAL: Duration = Duration::from_secs(300);
/// Agents that change their server in a second, in a large one.
const REBALANCED_PER_SECOND: usize = 16;

/// Tells the servers where this agent lies, for ever: the larger the datacenter the rarer.
pub(super) async fn tell_coordinates(pools: Arc<Pools>, agent: Arc<Agent>) {
    let pool = pools.lan_opened().await;
    let mut told: Option<lictor_gossip::Coordinate> = None;
    loop {
        let Ok((members, coordinate)) = pool.with_core(|core, _| (core.member_count(), core.coordinate())).await else {
            return;
        };
        let interval = COORDINATE_INTERVAL.max(Duration::from_secs((members / COORDINATES_PER_SECOND) as u64));
        let spread = Duration::from_millis(agent.rng.below(interval.as_millis() as u64));
        tokio::time::sleep(interval / 2 + spread).await;
        // One that has not moved is known already.
        if members < 2 || told == Some(coordinate) {
            continue;
        }
        let update = NodeCoordinate {
            node: agent.identity.node_name.clone(),
            segment: String::new(),
            coord: as_coordinate(&coordinate),
        };
        match agent.datacenter.operate(&agent.tokens.agent(), Operation::UpdateCoordinate(update)).await {
            Ok(_) => told = Some(coordinate),
            Err(refusal) => tracing::debug!(%refusal, "the coordinate was not told"),
        }
    }
}

/// A coordinate of gossip in the words of the rest.
pub(crate) fn as_coordinate(coordinate: &lictor_gossip::Coordinate) -> Coordinate {
    Coordinate {
        vec: coordinate.vector.to_vec(),
        error: coordinate.error,
        adjustment: coordinate.adjustment,
        height: coordinate.height,
    }
}

/// Keeps a client's servers those that the pool knows, for ever: those that answer first, the near before the far.
pub(super) async fn find_servers(pools: Arc<Pools>, agent: Arc<Agent>, forwarder: Arc<Forwarder>) {
    let pool = pools.lan_opened().await;
    let mut told = pool.events();
    let mut rebalance = false;
    loop {
        let datacenter = agent.identity.datacenter.clone();
        let found = pool.with_core(move |core, _| (servers(core, &datacenter), core.member_count()));
        let Ok((found, members)) = found.await else { return };
        forwarder.found(&found, rebalance);
        let interval = REBALANCE_INTERVAL.max(Duration::from_secs((members / REBALANCED_PER_SECOND) as u64));
        let spread = Duration::from_millis(agent.rng.below(interval.as_millis() as u64));
        let Ok(cause) = tokio::time::timeout(interval + spread, until_a_server_changes(&mut told)).await else {
            rebalance = true;
            continue;
        };
        if cause == Cause::Closed {
            return;
        }
        rebalance = false;
        tokio::time::sleep(GATHER).await;
        // What came meanwhile is seen in the look that follows.
        told = told.resubscribe();
    }
}

/// Why servers are looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Changed,
    Closed,
}

async fn until_a_server_changes(told: &mut broadcast::Receiver<Event>) -> Cause {
    loop {
        match told.recv().await {
            // Thousands of clients come and go; what they are is read of few.
            Ok(Event::Member { member, .. }) if may_be_server(&member.record) => return Cause::Changed,
            Err(RecvError::Lagged(_)) => return Cause::Changed,
            Ok(_) => {}
            Err(RecvError::Closed) => return Cause::Closed,
        }
    }
}

/// Whether the tags of a member could be those of a server, by a glance at their bytes.
fn may_be_server(record: &Record) -> bool {
    record.meta().windows(ROLE_SERVER.len()).any(|bytes| bytes == ROLE_SERVER)
}

/// Whether a member runs as a server.
pub(super) fn is_server(record: &Record) -> bool {
    may_be_server(record) && record.tags().get("role").is_some_and(|role| role.as_bytes() == ROLE_SERVER)
}

fn servers(core: &Core, datacenter: &String) -> Vec<FoundServer> {
    let here = core.coordinate();
    let candidates = core.members().filter(|member| may_be_server(&member.record));
    let members = candidates.filter_map(|member| super::as_member(&member));
    let servers = members.filter(|it| it.is_server() && it.tags.get("dc") == Some(datacenter));
    let found = servers.filter_map(|server| {
        let port: u16 = server.tags.get("port")?.parse().ok()?;
        let ip = server.address.parse().ok()?;
        let distance = core.coordinate_of(server.name.as_str()).map_or(0.0, |there| here.distance(&there));
        Some(FoundServer {
            address: std::net::SocketAddr::new(ip, port).to_string(),
            answers: server.status == MemberStatus::Alive,
            round_trip: Duration::try_from_secs_f64(distance).unwrap_or_default(),
        })
    });
    found.collect()
}
