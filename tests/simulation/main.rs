//! The servers' raft, state and RPC under one seed: what is below [`Transport`], `Fs`, `Clock` and `Rng` is simulated,
//! all above is the shipped code.
//!
//! A seed decides the delays, the faults, what the clients ask and what a crash takes. At the end the history must be
//! linearizable, nothing acknowledged may be missing, and all servers must hold the same state. `LICTOR_SEEDS` says how
//! many seeds are run, `LICTOR_SEED` runs one and talks of it.
//!
//! [`Transport`]: lictor_runtime::Transport

mod checks;
mod clients;
mod equality;
mod faults;
mod groups;
mod history;
mod invariants;
mod linearizable;
mod links;
mod lock_model;
mod locks;
mod network;
mod planted;
mod reach;
mod regressions;
mod servers;
mod trace;
mod watchers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::world::{Plan, Report, run};

/// Seeds that are run when nobody says how many.
const SEEDS: u64 = 200;
/// A seed with fewer shows too little.
const ACKNOWLEDGED_MIN: u64 = 200;
/// Seeds that are run twice when nobody says how many; `LICTOR_TWICE` does.
const TWICE: u64 = 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|it| it.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {it:?}")))
}

/// A run of a seed; a panic in it is a violation too.
fn judged(plan: Plan) -> Report {
    let seed = plan.seed;
    catch_unwind(AssertUnwindSafe(|| run(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned())).unwrap_or_default();
        Report { seed, violations: vec![format!("something panicked: {text}")], ..Report::default() }
    })
}

/// What is wrong with a run of the shipped code.
fn complaints(report: &Report) -> Vec<String> {
    let mut complaints = report.violations.clone();
    if report.acknowledged < ACKNOWLEDGED_MIN {
        complaints.push(format!(
            "only {} operations were acknowledged, {ACKNOWLEDGED_MIN} are needed for a seed to count",
            report.acknowledged
        ));
    }
    if report.grants == 0 || report.transactions == 0 {
        complaints.push("no lock was granted, or no transaction was carried out, so the seed does not count".into());
    }
    if report.undecided > 0 {
        complaints
            .push(format!("{} histories of keys and locks could not be judged, which is no pass", report.undecided));
    }
    if report.comparisons == 0 {
        complaints.push("the servers never compared their states, so the seed does not count".into());
    }
    complaints
}

#[test]
fn every_seed_keeps_what_is_promised() {
    let started = Instant::now();
    let one = number("LICTOR_SEED");
    let (first, end) = one.map_or((1, number("LICTOR_SEEDS").unwrap_or(SEEDS) + 1), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = judged(Plan { talk: one.is_some(), ..Plan::of(seed) });
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|report| report.seed);
    let mut failed = 0;
    for report in &reports {
        let complaints = complaints(report);
        if !complaints.is_empty() {
            failed += 1;
            println!("seed {} failed:\n  {}", report.seed, complaints.join("\n  "));
            println!("  replay: LICTOR_SEED={} cargo test -p lictor-tests --test simulation", report.seed);
        }
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "summary: {} seeds, {} failed, {} simulated seconds in {:.0} s",
        reports.len(),
        failed,
        sum(|it| it.simulated_seconds),
        started.elapsed().as_secs_f64()
    );
    println!(
        "summary: {} operations acknowledged, at least {} in a seed; {} changes of leader, at least {} in a seed",
        sum(|it| it.acknowledged),
        reports.iter().map(|it| it.acknowledged).min().unwrap_or_default(),
        sum(|it| it.leader_changes),
        reports.iter().map(|it| it.leader_changes).min().unwrap_or_default(),
    );
    println!(
        "summary: {} locks granted, at least {} in a seed; {} transactions carried out, at least {} in a seed",
        sum(|it| it.grants),
        reports.iter().map(|it| it.grants).min().unwrap_or_default(),
        sum(|it| it.transactions),
        reports.iter().map(|it| it.transactions).min().unwrap_or_default(),
    );
    println!("summary: {} histories of keys and locks were too wide to judge", sum(|it| it.undecided));
    println!(
        "summary: the servers compared their states {} times, at least {} in a seed, and found none that differs; {} changes \
         of members",
        sum(|it| it.comparisons),
        reports.iter().map(|it| it.comparisons).min().unwrap_or_default(),
        sum(|it| it.member_changes)
    );
    assert_eq!(failed, 0, "seeds failed; see above");
    // A draw of faults may spare every leader; only few may, or the seeds show little.
    let quiet: Vec<_> = reports.iter().filter(|it| it.leader_changes == 0).map(|it| it.seed).collect();
    println!("summary: seeds without a change of leader: {quiet:?}");
    assert!(quiet.len() <= 1 + reports.len() / 20, "too many seeds had no change of leader: {quiet:?}");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    if number("LICTOR_SEED").is_some() {
        return;
    }
    let seeds = number("LICTOR_TWICE").unwrap_or(TWICE);
    let (next, events, different) = (AtomicU64::new(1), AtomicU64::new(0), Mutex::new(Vec::<String>::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    match twice(seed) {
                        Ok(its) => events.fetch_add(its, Ordering::Relaxed),
                        Err(difference) => {
                            different.lock().unwrap().push(difference);
                            0
                        }
                    };
                }
            });
        }
    });
    let different = different.into_inner().unwrap();
    assert!(different.is_empty(), "{}", different.join("\n"));
    let events = events.into_inner();
    println!("summary: {seeds} seeds run twice gave the same trace, of {events} events");
}

/// Runs a seed twice: how many events there were, or where the two runs differ.
fn twice(seed: u64) -> Result<u64, String> {
    let plan = Plan { keep_trace: true, ..Plan::of(seed) };
    let (one, two) = (run(plan), run(plan));
    if one.trace == two.trace {
        return Ok(one.events);
    }
    let same = one.lines.iter().zip(&two.lines).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(3);
    let part = |lines: &[String]| lines[from..lines.len().min(same + 2)].join("\n  ");
    Err(format!("seed {seed} differs at event {same}:\n  {}\nand\n  {}", part(&one.lines), part(&two.lines)))
}
