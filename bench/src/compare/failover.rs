//! kill -9 of the leader, and the time until a write that was asked for afterwards is acknowledged by a survivor.
//!
//! A write is begun every few milliseconds at each survivor in turn, whatever became of those before: one that a server holds
//! on to hides nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use lictor_runtime::Tasks;
use tokio::sync::mpsc::{Sender, channel};

use crate::agents::eventually;
use crate::compare::results::{Results, Sample};
use crate::compare::rows::Setting;
use crate::compare::systems::{Group, Programs, SERVERS, System};
use crate::compare::{Plan, Progress};
use crate::connection::{Connection, Door, runtime};
use crate::etcd;

/// Between two writes.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// A cluster that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(40);
/// What a restarted server gets to settle before the next kill.
const SETTLE: Duration = Duration::from_millis(1500);

/// Measures the row of this setting, if it was asked for.
pub(crate) fn run(
    plan: &Plan,
    programs: &Programs,
    base: &Path,
    results: &mut Results,
    progress: &Progress,
) -> anyhow::Result<()> {
    if plan.rows(Setting::Failover).is_empty() {
        return Ok(());
    }
    for (number, system) in System::ALL.into_iter().enumerate() {
        progress.say(&format!("starting three servers of {}", system.name()));
        // Alone: the others' elections must not take from this one's time.
        let mut group = Group::start(programs, system, base, 10 + number as u32, SERVERS)?;
        for kill in 1..=plan.kills {
            std::thread::sleep(SETTLE);
            let taken = kill_the_leader(&mut group, kill)?;
            progress.say(&format!("kill {kill} of {}: {}: {:.2} s", plan.kills, system.name(), taken.as_secs_f64()));
            let millis = Some(taken.as_secs_f64() * 1e3);
            results.add("failover", system, Sample { p50_millis: millis, ..Sample::of(taken.as_secs_f64()) });
        }
    }
    Ok(())
}

fn kill_the_leader(group: &mut Group, kill: u32) -> anyhow::Result<Duration> {
    let leader = group.leader()?;
    let survivors: Vec<String> =
        (0..group.servers.len()).filter(|place| *place != leader).map(|place| group.address(place)).collect();
    let begun = Instant::now();
    group.servers[leader].kill()?;
    let taken = first_acknowledged(group.system.door(), survivors, begun)?;
    let key = format!("after-kill-{kill}");
    group.restart(leader)?;
    let other = (leader + 1) % group.servers.len();
    eventually("the survivors take writes", || group.write(other, &key))?;
    eventually("the killed server has caught up", || group.knows(leader, &key))?;
    Ok(taken)
}

fn first_acknowledged(door: Door, survivors: Vec<String>, begun: Instant) -> anyhow::Result<Duration> {
    runtime()?.block_on(async {
        let (tasks, survivors) = (Tasks::new(), Arc::new(survivors));
        let (told, mut acknowledged) = channel(1);
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        let mut number = 0;
        let first = async {
            loop {
                tokio::select! {
                    at = acknowledged.recv() => return at.context("all writers ended"),
                    _ = ticks.tick() => {}
                }
                tasks.spawn(probe(door, Arc::clone(&survivors), number, told.clone()));
                number += 1;
            }
        };
        let first = tokio::time::timeout(LIMIT, first).await;
        tasks.cancel();
        let first: Instant = first.with_context(|| format!("no write was acknowledged within {LIMIT:?}"))??;
        Ok(first - begun)
    })
}

/// One write; a failed one says nothing, the next is on its way.
async fn probe(door: Door, survivors: Arc<Vec<String>>, number: usize, told: Sender<Instant>) {
    let address = &survivors[number % survivors.len()];
    let tasks = Tasks::new();
    let written = async {
        let request: Request<Full<Bytes>> = match door {
            Door::Grpc => etcd::put(address, "failover".into(), number.to_string().into())?,
            Door::Http => Request::builder()
                .method("PUT")
                .uri("/v1/kv/failover")
                .header("Host", address)
                .body(Full::new(number.to_string().into()))?,
        };
        let (status, body) = Connection::open(door, address, &tasks).await?.ask(request).await?;
        anyhow::Ok(status.is_success() && (door == Door::Grpc || body.trim_ascii() == b"true"))
    };
    if tokio::time::timeout(LIMIT, written).await.is_ok_and(|it| it.unwrap_or(false)) {
        // Only the first counts; who comes later finds the channel full or closed.
        let _ = told.try_send(Instant::now());
    }
    tasks.cancel();
}
