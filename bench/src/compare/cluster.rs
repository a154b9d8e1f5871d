//! Three servers of each system, all alive, measured in turn: ours, Consul, etcd, and again.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::agents::processor_time;
use crate::compare::results::{Results, Sample};
use crate::compare::systems::{Group, Programs, SERVERS, System};
use crate::compare::{Plan, Progress, watchers};
use crate::connection::Door;
use crate::kind::Kind;
use crate::load::{self, Load};

const WARM_UP: Duration = Duration::from_millis(500);
/// Watchers that wait for one key.
const WATCHERS: usize = 5000;
/// Writes, one after another, that show what is synced for each.
const SYNC_WRITES: u64 = 200;
/// The kernel counts what a process sends to the disk in pages of this size.
const PAGE: u64 = 4096;
/// How long the three are watched doing nothing.
const IDLE: Duration = Duration::from_secs(2);

/// Where a request goes.
#[derive(Clone, Copy)]
enum At {
    Leader,
    Follower,
}

/// What a row of a cluster asks, where, and on how many connections.
fn request(row: &str) -> Option<(Kind, At, usize)> {
    Some(match row {
        "put-leader" => (Kind::Put, At::Leader, 64),
        "put-follower" => (Kind::Put, At::Follower, 64),
        "put-single" => (Kind::Put, At::Leader, 1),
        "get-leader" => (Kind::Get, At::Leader, 64),
        "get-follower" => (Kind::Get, At::Follower, 64),
        "consistent-leader" => (Kind::GetConsistent, At::Leader, 64),
        "consistent-follower" => (Kind::GetConsistent, At::Follower, 64),
        "stale-follower" => (Kind::GetStale, At::Follower, 64),
        "health-100" => (Kind::Health { service: "hundred", instances: 100 }, At::Leader, 16),
        "health-1000" => (Kind::Health { service: "thousand", instances: 1000 }, At::Leader, 16),
        "register" => (Kind::Register, At::Leader, 64),
        _ => return None,
    })
}

/// Whether etcd has this at all: it knows no services, and no read under a lease.
fn has(system: System, kind: Kind) -> bool {
    system != System::Etcd || matches!(kind, Kind::Put | Kind::GetConsistent | Kind::GetStale)
}

/// Measures the rows of this setting that were asked for.
pub(crate) fn run(
    plan: &Plan,
    programs: &Programs,
    base: &Path,
    results: &mut Results,
    progress: &Progress,
) -> anyhow::Result<()> {
    let rows = plan.rows(crate::compare::rows::Setting::Cluster);
    if rows.is_empty() {
        return Ok(());
    }
    let mut groups = Vec::new();
    for (number, system) in System::ALL.into_iter().enumerate() {
        progress.say(&format!("starting three servers of {}", system.name()));
        let group = Group::start(programs, system, base, number as u32, SERVERS)?;
        group.fill()?;
        if system != System::Etcd && rows.iter().any(|row| row.name.starts_with("health")) {
            let leader = group.address(group.leader()?);
            for (prefix, count) in [("hundred", 100), ("thousand", 1000)] {
                load::fill(Door::Http, &leader, Kind::Instance { services: 1, prefix }, count, 16)?;
            }
        }
        groups.push(group);
    }
    print_idle(&groups, progress)?;
    for group in &groups {
        print_durability(group)?;
    }
    println!();
    for round in 1..=plan.rounds {
        for row in &rows {
            for group in &groups {
                let sample = match request(row.name) {
                    Some((kind, _, _)) if !has(group.system, kind) => continue,
                    Some((kind, at, connections)) => measure(group, row.name, kind, at, connections, plan.measured),
                    None => watch(group),
                };
                let step = format!("round {round} of {}: {}: {}", plan.rounds, row.title, group.system.name());
                match sample {
                    Ok(sample) => {
                        progress.say(&format!("{step} {}", row.unit.show(sample.value)));
                        results.add(row.name, group.system, sample);
                    }
                    Err(error) => {
                        progress.say(&format!("{step} failed: {error:#}"));
                        results.fail(row.name, group.system, &error);
                    }
                }
            }
        }
    }
    Ok(())
}

fn measure(
    group: &Group,
    row: &str,
    kind: Kind,
    at: At,
    connections: usize,
    measured: Duration,
) -> anyhow::Result<Sample> {
    let leader = group.leader()?;
    let place = match at {
        At::Leader => leader,
        At::Follower => (leader + 1) % group.servers.len(),
    };
    let address = group.address(place);
    let load = Load { door: group.system.door(), address, kind, connections, warm_up: WARM_UP, measured };
    let look = || (group.processor_time(), processor_time("self"), Instant::now());
    let (outcome, (servers, own, begun)) = load.run(look)?;
    let (servers_after, own_after, now) = look();
    let elapsed = (now - begun).as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let p50 = outcome.quantile(0.5).as_secs_f64() * 1e3;
    Ok(Sample {
        value: if row == "put-single" { p50 } else { outcome.rate() },
        p50_millis: Some(p50),
        p99_millis: Some(outcome.quantile(0.99).as_secs_f64() * 1e3),
        cost: Some((servers_after?.saturating_sub(servers?)).as_secs_f64() * 1e6 / (outcome.rate() * elapsed).max(1.0)),
        own: Some(own_after?.saturating_sub(own?).as_secs_f64() * 100.0 / elapsed / cores),
        errors: outcome.errors,
        first_error: outcome.first_error,
    })
}

fn watch(group: &Group) -> anyhow::Result<Sample> {
    let leader = group.leader()?;
    let (woken, ()) = watchers::run(group, leader, WATCHERS, || Ok(()))?;
    Ok(Sample { errors: woken.errors, first_error: woken.first_error, ..Sample::of(woken.last.as_secs_f64() * 1e3) })
}

/// The two that are not measured are not free: says what all three take while nobody asks them anything.
fn print_idle(groups: &[Group], progress: &Progress) -> anyhow::Result<()> {
    let look = || groups.iter().map(Group::processor_time).collect::<anyhow::Result<Vec<_>>>();
    progress.say("watching them idle");
    let before = look()?;
    std::thread::sleep(IDLE);
    let shares: Vec<String> = look()?
        .iter()
        .zip(before)
        .zip(groups)
        .map(|((after, before), group)| {
            let share = after.saturating_sub(before).as_secs_f64() * 100.0 / IDLE.as_secs_f64();
            format!("{} {share:.1} %", group.system.name())
        })
        .collect();
    println!("three idle servers take of one core: {}", shares.join(", "));
    Ok(())
}

/// Shows that what is acknowledged is on the disk: the kernel counts a page for a process when it is dirtied, so a record that
/// is appended to a page counts again only after that page was synced. Writes one after another that count about one page
/// each at a majority were each synced before the next was asked.
fn print_durability(group: &Group) -> anyhow::Result<()> {
    let leader = group.leader()?;
    let look = || group.servers.iter().map(crate::agents::Process::written).collect::<anyhow::Result<Vec<_>>>();
    let before = look()?;
    load::fill(group.system.door(), &group.address(leader), Kind::Put, SYNC_WRITES, 1)?;
    let mut each: Vec<u64> = look()?.iter().zip(before).map(|(after, before)| (after - before) / SYNC_WRITES).collect();
    each.sort_unstable();
    // Without a sync for each it would be a tenth of a page: what the records themselves take.
    let synced = each[each.len() / 2] >= PAGE * 9 / 10;
    println!(
        "{}: {SYNC_WRITES} PUTs one after another made its servers write {each:?} bytes each: {}",
        group.system.name(),
        if synced { "synced for every one" } else { "NOT SYNCED FOR EVERY ONE: do not compare its writes" }
    );
    Ok(())
}
