//! The whole of it on a real Kubernetes node: chart, datacenter, injected workloads, mutual TLS, faults, removal.
//!
//! It needs root, the programs of `node/kube build` and two static binaries of ours, so it runs only when asked:
//!
//! ```text
//! LICTOR_BINARY=…/lictor SAMPLE_BINARY=…/sample \
//!   cargo test -p lictor-tests --test kubernetes -- --ignored --nocapture
//! ```
//!
//! `LICTOR_E2E_UNTIL=PHASE` ends after that phase, `LICTOR_E2E_KEEP=1` leaves the cluster running, `KUBE_RUN` and
//! `KUBE_DIR` are the node script's. Phases build on each other and run in the order of [`PHASES`].

mod faults;
mod harness;
mod install;
mod login;
mod manifests;
mod mesh;
mod workloads;

use std::{
    env,
    time::{Duration, Instant},
};

use harness::{Harness, Outcome};

/// One step: its name, what it may take, what it does.
struct Phase(&'static str, Duration, fn(&mut Scene) -> Outcome);

/// What the phases share.
struct Scene {
    harness: Harness,
    /// Whether the datacenter's CA and token have been fetched.
    token: Option<String>,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const PHASES: &[Phase] = &[
    Phase("images", seconds(60), install::images),
    Phase("node", seconds(120), install::node),
    Phase("sample", seconds(60), install::sample),
    Phase("crds", seconds(30), install::custom_resources),
    Phase("chart", seconds(120), install::chart),
    Phase("datacenter", seconds(120), install::datacenter),
    Phase("workloads", seconds(90), workloads::become_ready),
    Phase("catalog", seconds(60), workloads::appear_in_the_catalog),
    Phase("call", seconds(60), mesh::a_call_needs_an_intention),
    Phase("identity", seconds(60), mesh::certificates_carry_the_right_identities),
    Phase("refusal", seconds(90), mesh::strangers_are_refused),
    Phase("deny", seconds(90), mesh::a_deny_stops_calls_within_a_second),
    Phase("capture", seconds(60), mesh::nothing_readable_is_on_the_wire),
    Phase("synonyms", seconds(60), workloads::consul_annotations_work),
    Phase("admission", seconds(60), workloads::wrong_pods_are_refused),
    Phase("login", seconds(90), login::only_right_proofs_log_in),
    Phase("leader", seconds(150), faults::no_acknowledged_write_is_lost_with_the_leader),
    Phase("deletion", seconds(150), faults::a_deleted_pod_is_forgotten),
    Phase("uninstall", seconds(150), install::uninstall),
];

#[test]
#[ignore = "needs root and a Kubernetes node built by tests/kubernetes/node/kube: see tests/kubernetes/README.md"]
fn lictor_on_a_real_node() {
    let until = env::var("LICTOR_E2E_UNTIL").ok();
    if let Some(name) = &until {
        let known: Vec<&str> = PHASES.iter().map(|phase| phase.0).collect();
        assert!(known.contains(&name.as_str()), "LICTOR_E2E_UNTIL={name}: the phases are {}", known.join(", "));
    }
    let mut scene = Scene { harness: Harness::new(), token: None };
    for Phase(name, limit, run) in PHASES {
        let begun = Instant::now();
        scene.harness.say(&format!("{name}: begins"));
        scene.harness.allow(*limit);
        if let Err(error) = run(&mut scene) {
            scene.harness.say(&format!("{name}: FAILED after {:.1} s", begun.elapsed().as_secs_f32()));
            println!("{error}");
            scene.harness.report_failure();
            panic!("phase {name}: {error}");
        }
        scene.harness.say(&format!("{name}: ok ({:.1} s)", begun.elapsed().as_secs_f32()));
        if until.as_deref() == Some(name) {
            return;
        }
    }
    println!("summary: {} phases on a real node", PHASES.len());
}
