//! What went wrong with others where messages were late, links half open and snapshots in the way: named seeds whose faults
//! are of that kind. `docs/regressions.md` lists them all.

use crate::faults::Bias;
use crate::judged;
use crate::world::Plan;

/// Seeds of each kind.
const SEEDS: u64 = 6;

fn all_well(bias: Bias, change: impl Fn(&mut Plan)) {
    for seed in 1..=SEEDS {
        // Others than those that every run looks at.
        let mut plan = Plan::of(1_000_000 + seed);
        plan.bias = bias;
        change(&mut plan);
        let report = judged(plan);
        assert_eq!(report.violations, Vec::<String>::new(), "seed {}", plan.seed);
        assert_eq!(report.undecided, 0, "a history that cannot be judged is no pass");
        assert!(report.acknowledged > 100, "seed {}: {} operations", plan.seed, report.acknowledged);
    }
}

/// openraft cecb5de8, fbbf37b1, #1500: answers that came after the log had been turned back counted for what was there now.
#[test]
fn openraft_cecb5de8_fbbf37b1_1500_late_answers_after_a_log_was_turned_back_form_no_quorum() {
    all_well(Bias::Reversions, |_| {});
}

/// openraft #1747: a lease that was read under while the lead was handed on.
#[test]
fn openraft_1747_no_read_is_stale_while_the_lead_is_handed_on() {
    all_well(Bias::Transfers, |_| {});
}

/// openraft #1892, #1808, #1828: snapshots that met entries, members and logs that did not fit them.
#[test]
fn openraft_1892_1808_1828_snapshots_meet_logs_that_are_purged_to_their_end() {
    all_well(Bias::Snapshots, |plan| {
        plan.shape.snapshot_entries = 15;
        plan.shape.kept_entries = 0;
    });
}

/// Servers that join, vote, lose their disks, and go, while everything else goes wrong: RethinkDB 2.2.3 and others split
/// their brain here.
#[test]
fn members_change_under_faults() {
    all_well(Bias::Members, |_| {});
}
