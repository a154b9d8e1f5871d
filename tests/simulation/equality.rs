//! The servers compare their states as they run: one that differs is named, and counts as not healthy.

use lictor_server::raft::{Bug, Faults};

use crate::faults::Bias;
use crate::world::{Plan, run};

/// Seeds with one server whose state goes its own way.
const SEEDS: u64 = 6;

/// etcd 3.5: data and index were not stored in one step, and nobody compared the servers.
#[test]
fn a_server_whose_state_differs_is_named_by_the_servers_themselves() {
    for seed in 1..=SEEDS {
        let faulty = (seed % 3) as usize;
        let mut plan = Plan::of(seed);
        // What it gets wrong, the time of the leader, no reader ever sees.
        plan.shape.faults = Faults::planted(Bug::ApplyNotDeterministic);
        plan.shape.faulty = Some(faulty);
        // Its state is not handed on by snapshots, and it keeps its disk.
        plan.shape.snapshot_entries = 1_000_000;
        plan.bias = Bias::Leaders;
        let report = run(plan);
        let named: Vec<_> = report.differing.values().collect();
        assert_eq!(named, [&Some(faulty)], "seed {seed}: {:?}", report.violations);
    }
}
