//! The bytes of what servers say and store of raft's members, pinned for ever like those of `golden.rs`.

use lictor_types::autopilot::{
    AutopilotConfig, AutopilotSet, AutopilotState, RaftPeer, RaftPeers, ServerHealth, Standing,
};
use lictor_types::rpc::ServerAddress;
use lictor_types::{Answer, Command, Index, Operation, Query, Report, Timestamp};

use super::check;

fn server() -> ServerAddress {
    ServerAddress { id: "i".into(), name: "s1".parse().unwrap(), address: "10.0.0.1:8300".into() }
}

fn config() -> AutopilotConfig {
    AutopilotConfig { min_quorum: 3, create_index: Index(4), modify_index: Index(9), ..AutopilotConfig::default() }
}

#[test]
fn what_is_said_of_rafts_members_has_the_bytes_it_always_had() {
    check("command-autopilot-set", Command::AutopilotSet(AutopilotSet { config: config(), cas: Some(Index(4)) }));
    check("query-autopilot", Query::Autopilot);
    check("answer-autopilot", Answer::Autopilot(config()));
    check("operation-remove-server-at", Operation::RemoveServerAt("10.0.0.1:8300".into()));
    check("operation-standing", Operation::Standing("i".into()));
    check("operation-autopilot-state", Operation::AutopilotState);
    check("operation-transfer-leader-to", Operation::TransferLeaderTo("i".into()));
    check("operation-raft-peers", Operation::RaftPeers);
    check("operation-raft-peers-here", Operation::RaftPeersHere);
    check("operation-leave-raft", Operation::LeaveRaft("i".into()));
    check("report-standing-member", Report::Standing(Standing::Member));
    check("report-standing-stranger", Report::Standing(Standing::Stranger));
    check("report-standing-removed", Report::Standing(Standing::Removed));
    let health = ServerHealth {
        server: server(),
        member_status: "alive".into(),
        version: "1.21.4".into(),
        leader: false,
        voter: true,
        last_contact_millis: Some(40),
        last_term: 2,
        last_index: 17,
        healthy: true,
        stable_since: Timestamp(1_700_000_000_000),
        differs_at: None,
    };
    let state = AutopilotState { healthy: true, failure_tolerance: 1, servers: vec![health] };
    check("report-autopilot", Report::Autopilot(Box::new(state)));
    let peer = RaftPeer { server: server(), leader: true, voter: true, last_index: 17 };
    check("report-raft-peers", Report::RaftPeers(RaftPeers { servers: vec![peer], index: 17 }));
}
