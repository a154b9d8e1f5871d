//! What servers say to compare their states.

use lictor_types::autopilot::{AutopilotState, ServerHealth};
use lictor_types::rpc::{ServerAddress, StateHash};
use lictor_types::{Command, Index, Operation, Report, Timestamp};

use super::check;

#[test]
fn what_servers_say_to_compare_their_states_has_the_bytes_it_always_had() {
    check("command-state-compare", Command::StateCompare);
    let asked = StateHash { index: Index(9), hash: 0xdead_beef, leader: "s1".into(), wait_millis: 5_000 };
    check("operation-compare-state", Operation::CompareState(asked));
    check("report-state-hash", Report::StateHash(Some(0xdead_beef)));
    check("report-state-hash-none", Report::StateHash(None));
    let differing = ServerHealth {
        server: ServerAddress { id: "i".into(), name: "s1".parse().unwrap(), address: "10.0.0.1:8300".into() },
        member_status: "alive".into(),
        version: String::new(),
        leader: false,
        voter: true,
        last_contact_millis: None,
        last_term: 2,
        last_index: 17,
        healthy: false,
        stable_since: Timestamp(5),
        differs_at: Some(Index(9)),
    };
    let state = AutopilotState { healthy: false, failure_tolerance: 0, servers: vec![differing] };
    check("report-autopilot-differing", Report::Autopilot(Box::new(state)));
}
