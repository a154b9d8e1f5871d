//! Bugs planted on purpose: a simulation that does not find them would not find others either.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lictor_server::raft::{Bug, Faults};

use crate::faults::Bias;
use crate::world::Plan;
use crate::{judged, number};

/// A bug must show itself within so many seeds.
const SEEDS_MOST: u64 = 200;
/// So much of what was found is printed.
const FOUND_MAX: usize = 100;

// Not here: a truncation that is not written. What it cuts was never committed, so a restart that finds it again stands where it
// stood before the truncation, which is allowed; a run of 200 seeds saw no harm in it either. Nor a leader that trusts its lease
// before it has applied an entry of its own term: a quorum's word in that term comes so shortly before that 120 seeds and more
// saw nothing.
/// Each bug, what the generator prefers for it, and whether snapshots are taken often.
const BUGS: &[(Bug, Bias)] = &[
    (Bug::AckBeforeFsync, Bias::Power),
    (Bug::VoteNotPersisted, Bias::Votes),
    (Bug::ReadWithoutQuorum, Bias::None),
    (Bug::LeaseTooLong, Bias::Leaders),
    (Bug::FollowerServesDefault, Bias::None),
    (Bug::ReadIndexNotAwaited, Bias::None),
    (Bug::AppliedTwiceAfterRestart, Bias::None),
    (Bug::RetryAppliedTwice, Bias::None),
    (Bug::ReapedTooEarly, Bias::None),
    (Bug::CasIgnoresIndex, Bias::None),
    (Bug::BatchPartlyApplied, Bias::None),
    (Bug::ApplyNotDeterministic, Bias::None),
    (Bug::LostWakeup, Bias::None),
    (Bug::IndexGoesBack, Bias::None),
    (Bug::StaleSnapshot, Bias::Snapshots),
    (Bug::SnapshotDropsIndex, Bias::Snapshots),
    (Bug::SnapshotDropsKv, Bias::Snapshots),
    (Bug::SnapshotDropsOutcomes, Bias::Snapshots),
    (Bug::SnapshotDropsNodes, Bias::Snapshots),
    (Bug::SnapshotDropsChecks, Bias::Snapshots),
    (Bug::SnapshotDropsTombstones, Bias::Snapshots),
    (Bug::SnapshotDropsSessions, Bias::Snapshots),
    (Bug::SnapshotDropsLockDelays, Bias::Snapshots),
    (Bug::TransactionPartlyApplied, Bias::None),
    (Bug::LockDelaysLostOnFailover, Bias::Leaders),
    (Bug::TimersNotReset, Bias::Leaders),
    (Bug::TimersNotStarted, Bias::Leaders),
    (Bug::RenewalForgotten, Bias::None),
    (Bug::RenewalOfTheEnding, Bias::Leaders),
];

fn plan(seed: u64, bias: Bias) -> Plan {
    let mut plan = Plan::of(seed);
    plan.bias = bias;
    plan
}

/// The first seed that shows it, which must pass without it under the same faults, and what was seen.
fn caught(name: &str, plant: impl Fn(&mut Plan), bias: Bias) -> Result<(u64, String), String> {
    for seed in 1..=SEEDS_MOST {
        let mut with = plan(seed, bias);
        plant(&mut with);
        let Some(violation) = judged(with).violations.into_iter().next() else { continue };
        let without = judged(plan(seed, bias)).violations;
        if !without.is_empty() {
            return Err(format!("{name}: seed {seed} fails without it too: {}", without.join("; ")));
        }
        return Ok((seed, violation.lines().next().unwrap_or_default().chars().take(FOUND_MAX).collect()));
    }
    Err(format!("{name}: not caught by {SEEDS_MOST} seeds"))
}

#[test]
fn every_planted_bug_is_caught() {
    if number("LICTOR_SEED").is_some() {
        return;
    }
    type Outcome = (usize, String, Result<(u64, String), String>);
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::<Outcome>::new()));
    // `LICTOR_BUG` says a part of the name of those that are looked for.
    let wanted = std::env::var("LICTOR_BUG").unwrap_or_default();
    let bugs: Vec<_> = BUGS.iter().filter(|(bug, _)| format!("{bug:?}").contains(&wanted)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (name, outcome) = match bugs.get(at) {
                        Some((bug, bias)) => {
                            let name = format!("{bug:?}");
                            let outcome = caught(&name, |plan| plan.shape.faults = Faults::planted(*bug), *bias);
                            (name, outcome)
                        }
                        // The one bug that is the operator's: a voter that lost its disk comes back under its id.
                        None if at == bugs.len() && "NodeIdReused".contains(&wanted) => {
                            let name = "NodeIdReused".to_owned();
                            let outcome = caught(&name, |plan| plan.shape.id_reused = true, Bias::Power);
                            (name, outcome)
                        }
                        None => return,
                    };
                    outcomes.lock().unwrap().push((at, name, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(at, _, _)| *at);
    println!("{:<26} {:>6}  what was seen", "planted bug", "seed");
    for (_, name, outcome) in &outcomes {
        match outcome {
            Ok((seed, seen)) => println!("{name:<26} {seed:>6}  {seen}"),
            Err(why) => println!("{name:<26} {:>6}  {why}", "MISSED"),
        }
    }
    let missed = outcomes.iter().filter(|(_, _, outcome)| outcome.is_err()).count();
    let last = outcomes.iter().filter_map(|(_, _, outcome)| outcome.as_ref().ok()).map(|(seed, _)| *seed).max();
    println!(
        "summary: {} of {} planted bugs caught, each within {} seeds",
        outcomes.len() - missed,
        outcomes.len(),
        last.unwrap_or_default()
    );
    assert_eq!(missed, 0, "planted bugs were not caught; see above");
}
