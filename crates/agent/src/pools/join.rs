//! Finding the pools, and finding them again.
//!
//! An agent that is alone in its pool looks for others: at the entries of `retry_join`, and at the addresses of members that
//! the servers know of. It never stops looking while it is alone, so a pool that was torn heals.

use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::{Change, Event, Gossip, GossipError, Status};
use lictor_runtime::RetryPause;
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Member, MemberStatus};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{PoolKind, Pools, node_of_wan};
use crate::agent::Agent;
use crate::config::Join;

/// The first pause after an attempt that reached nobody.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Between two looks whether this member is alone.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Members told of by servers that are tried at a time: any of them has the whole pool.
const TOLD_AT_ONCE: u64 = 2;
/// Between two looks for servers of this datacenter that the WAN pool lacks.
const WAN_LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the agent in the pool of its datacenter, for ever.
pub(super) async fn keep_joined(pools: Arc<Pools>, agent: Arc<Agent>, fatal: watch::Sender<Option<String>>) {
    let pool = pools.lan_opened().await;
    let join = agent.config.load().join.clone();
    let pause = RetryPause { shortest: FIRST_PAUSE, longest: join.retry_interval };
    let (mut failures, mut joined) = (0, false);
    loop {
        // A client among clients alone is as good as alone.
        let is_found = !is_alone(&pool).await && (agent.identity.server || pools.hears_a_server().await);
        if is_found {
            if failures > 0 || !joined {
                tracing::info!("this agent is in the gossip pool");
            }
            (failures, joined) = (0, true);
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        }
        match look_for_others(&pools, &agent, &join).await {
            // It may have been this agent itself that answered.
            Ok(reached) => tracing::debug!(reached, "joined members of the gossip pool"),
            Err(error) => {
                // Who names nobody and is told of nobody is the first.
                if !join.retry_join.is_empty() {
                    tracing::warn!(%error, attempt = failures + 1, "nobody of the gossip pool was reached; trying again");
                }
                if !joined && join.retry_max > 0 && failures + 1 >= join.retry_max && !join.retry_join.is_empty() {
                    fatal.send_replace(Some(format!(
                        "agent: max join retry exhausted, exiting: none of {} was reached in {} attempts",
                        join.retry_join.join(", "),
                        join.retry_max
                    )));
                    return;
                }
            }
        }
        tokio::time::sleep(pause.after(failures, &*agent.rng)).await;
        failures = failures.saturating_add(1);
    }
}

/// First those whom the configuration names; then the servers, where they would gossip if their port is ours; then whom the
/// servers know. All servers at once: who comes later joins all that were there before, so no two pools form side by side.
async fn look_for_others(pools: &Pools, agent: &Agent, join: &Join) -> Result<usize, GossipError> {
    let attempted = attempt(pools, &join.retry_join).await;
    if attempted.is_ok() {
        return attempted;
    }
    let hosts = join.servers.iter().filter_map(|address| address.rsplit_once(':')).map(|(host, _)| host.to_owned());
    let joined = attempt(pools, &hosts.collect::<Vec<_>>()).await;
    if joined.is_ok() {
        return joined;
    }
    let told = told_addresses(agent).await;
    if told.is_empty() { attempted } else { attempt(pools, &told).await }
}

async fn attempt(pools: &Pools, addresses: &[String]) -> Result<usize, GossipError> {
    if addresses.is_empty() {
        return Err(GossipError::Join(vec!["no address is known".into()]));
    }
    pools.join(PoolKind::Lan, addresses).await
}

pub(super) async fn is_alone(pool: &Gossip) -> bool {
    // A pool that has stopped has nobody to look for.
    pool.with_core(|core, _| core.living_count() < 2).await.unwrap_or_default()
}

/// Where a few members gossip, by what the servers tell.
async fn told_addresses(agent: &Agent) -> Vec<String> {
    let Ok(Report::Members(mut members)) = agent.datacenter.operate(&agent.tokens.agent(), Operation::Members).await
    else {
        return Vec::new();
    };
    members.retain(|it| it.status == MemberStatus::Alive && it.port != 0 && it.name != agent.identity.node_name);
    // Whoever: many agents that start at once would all ask the servers for the whole pool.
    let count = members.len() as u64;
    let chosen = (0..count.min(TOLD_AT_ONCE)).map(|_| agent.rng.below(count) as usize);
    chosen.filter_map(|place| members.get(place)).map(address_of).collect()
}

fn address_of(member: &Member) -> String {
    let host = if member.address.contains(':') { format!("[{}]", member.address) } else { member.address.clone() };
    format!("{host}:{}", member.port)
}

/// Keeps a server in the pool of all servers: it joins those that `retry_join_wan` names until one is reached, and always
/// those of its own datacenter, as soon as they are in its pool.
pub(super) async fn keep_wan_joined(pools: Arc<Pools>, agent: Arc<Agent>) {
    let wan = pools.wan_opened().await;
    let lan = pools.lan_opened().await;
    let mut told = lan.events();
    let config = agent.config.load().gossip.clone();
    let mut joined = config.retry_join_wan.is_empty();
    let (mut rounds, mut next_round) = (0, Instant::now());
    loop {
        if !joined && Instant::now() >= next_round && (config.retry_max_wan == 0 || rounds < config.retry_max_wan) {
            match pools.join(PoolKind::Wan, &config.retry_join_wan).await {
                Ok(reached) => {
                    joined = true;
                    tracing::info!(reached, "joined the WAN gossip pool");
                }
                Err(error) => tracing::warn!(%error, "nobody of retry_join_wan was reached; trying again"),
            }
            (rounds, next_round) = (rounds + 1, Instant::now() + config.retry_interval_wan);
        }
        let missing = missing_in_wan(&lan, &wan, &agent).await;
        if !missing.is_empty()
            && let Err(error) = wan.join(&missing, true).await
        {
            tracing::debug!(%error, "servers of this datacenter were not joined in the WAN pool");
        }
        // Whether it is time or somebody came: now is when to look.
        let _ = tokio::time::timeout(WAN_LOOK_INTERVAL, until_somebody_came(&mut told)).await;
    }
}

async fn until_somebody_came(told: &mut broadcast::Receiver<Event>) {
    loop {
        match told.recv().await {
            Ok(Event::Member { change: Change::Joined, .. }) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The living servers of this datacenter's pool that the WAN pool does not know as alive, where they gossip over WAN.
async fn missing_in_wan(lan: &Gossip, wan: &Gossip, agent: &Agent) -> Vec<String> {
    let known = wan.with_core(|core, _| {
        let living = core.members().filter(|it| it.status == Status::Alive);
        living.map(|it| it.record.name().to_owned()).collect::<Vec<_>>()
    });
    let known = known.await.unwrap_or_default();
    let here = |name: &str| {
        known.iter().filter_map(|it| node_of_wan(it)).any(|(node, dc)| node == name && dc == agent.identity.datacenter)
    };
    let members = super::members::of(Some(lan.clone())).await;
    let servers = members.iter().filter(|it| it.is_server() && it.status == MemberStatus::Alive);
    servers
        .filter(|it| !here(it.name.as_str()))
        .filter_map(|it| {
            let port = it.tags.get("wan_join_port")?.parse().ok()?;
            Some(address_of(&Member { port, ..it.clone() }))
        })
        .collect()
}
