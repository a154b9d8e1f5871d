//! A client agent of ours and one of Consul, each with three servers behind it: what it weighs at rest, and how fast it is told
//! of services and checks.
//!
//! They differ in what an answer means: ours to a registration says that the servers were told, Consul's that the agent will tell
//! them.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::agents::{self, Process, eventually};
use crate::compare::results::{Results, Sample};
use crate::compare::rows::{Setting, find};
use crate::compare::systems::{Group, Programs, SERVERS, System};
use crate::compare::{Plan, Progress};
use crate::connection::{Door, once};
use crate::kind::{AGENT_CHECKS, Kind};
use crate::load::{self, Load};

/// The two that have agents.
const SYSTEMS: [System; 2] = [System::Ours, System::Consul];
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_millis(500);
/// What starts an agent is over by then.
const SETTLE: Duration = Duration::from_secs(8);
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(20);

/// One agent and what is behind it.
struct Behind {
    agent: Process,
    group: Group,
}

/// Measures the rows of this setting that were asked for.
pub(crate) fn run(
    plan: &Plan,
    programs: &Programs,
    base: &Path,
    results: &mut Results,
    progress: &Progress,
) -> anyhow::Result<()> {
    let rows = plan.rows(Setting::Agent);
    if rows.is_empty() {
        return Ok(());
    }
    let mut all = Vec::new();
    for (number, system) in SYSTEMS.into_iter().enumerate() {
        progress.say(&format!("starting three servers and a client agent of {}", system.name()));
        let behind = start(programs, system, base, 50 + number as u32)?;
        load::fill(Door::Http, &behind.agent.http(), Kind::AgentInstance, AGENT_CHECKS, 4)?;
        all.push(behind);
    }
    std::thread::sleep(SETTLE);
    let before: Vec<Duration> = all.iter().map(|it| it.agent.processor_time()).collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    std::thread::sleep(REST);
    for (behind, before) in all.iter().zip(before) {
        let taken = behind.agent.processor_time()?.saturating_sub(before);
        let share = taken.as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64();
        let resident = behind.agent.status_kib("VmRSS")? as f64 * 1024.0 / 1e6;
        for (row, value) in [("agent-memory", resident), ("agent-rest", share)] {
            if plan.has(row) {
                say(progress, row, behind.group.system, value);
                results.add(row, behind.group.system, Sample::of(value));
            }
        }
    }
    for _ in 0..plan.rounds {
        for (row, kind) in [("agent-register", Kind::AgentRegister), ("agent-ttl", Kind::AgentPass)] {
            for behind in all.iter().filter(|_| plan.has(row)) {
                match measure(behind, kind, plan.measured) {
                    Ok(sample) => {
                        say(progress, row, behind.group.system, sample.value);
                        results.add(row, behind.group.system, sample);
                    }
                    Err(error) => results.fail(row, behind.group.system, &error),
                }
            }
        }
    }
    Ok(())
}

fn say(progress: &Progress, row: &str, system: System, value: f64) {
    let shown = find(row).map(|it| it.unit.show(value)).unwrap_or_default();
    progress.say(&format!("{row}: {} {shown}", system.name()));
}

fn start(programs: &Programs, system: System, base: &Path, number: u32) -> anyhow::Result<Behind> {
    let group = Group::start(programs, system, base, number, SERVERS)?;
    let (address, directory) = (agents::address(number * 4), base.join(format!("{}-agent", system.name())));
    std::fs::create_dir_all(&directory)?;
    let mut arguments = agents::agent("client", &address, &directory);
    let limit = "-hcl=limits { http_max_conns_per_client = 1000 }";
    arguments.extend(["-log-level=warn".to_owned(), limit.to_owned()]);
    arguments.extend(group.servers.iter().map(|it| format!("-retry-join={}", it.address)));
    let agent = group.beside("client", &address, &arguments)?;
    eventually("the client agent knows a leader", || once(&agent.http(), "GET", "/v1/kv/?keys&consistent", Vec::new()))?;
    Ok(Behind { agent, group })
}

fn measure(behind: &Behind, kind: Kind, measured: Duration) -> anyhow::Result<Sample> {
    let address = behind.agent.http();
    let load = Load { door: Door::Http, address, kind, connections: CONNECTIONS, warm_up: WARM_UP, measured };
    let look = || Ok::<_, anyhow::Error>(behind.agent.processor_time()? + behind.group.processor_time()?);
    let (outcome, before) = load.run(look)?;
    let taken = look()?.saturating_sub(before?);
    Ok(Sample {
        value: outcome.rate(),
        p50_millis: Some(outcome.quantile(0.5).as_secs_f64() * 1e3),
        p99_millis: Some(outcome.quantile(0.99).as_secs_f64() * 1e3),
        cost: Some(taken.as_secs_f64() * 1e6 / outcome.done.max(1) as f64),
        errors: outcome.errors,
        first_error: outcome.first_error,
        ..Sample::default()
    })
}
