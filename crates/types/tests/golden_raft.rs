//! The bytes of what servers say and store of raft's members, pinned for ever like those of `golden.rs`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test; its names are legal or it fails")]

use std::fmt::Debug;
use std::path::PathBuf;

use lictor_types::autopilot::{
    AutopilotConfig, AutopilotSet, AutopilotState, RaftPeer, RaftPeers, ServerHealth, Standing,
};
use lictor_types::rpc::ServerAddress;
use lictor_types::{Answer, Command, Index, Operation, Query, Report, Timestamp, encoding};
use minicbor::{Decode, Encode};

fn check<T>(name: &str, value: T)
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
    let hex: String = encoding::encode(&value).iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os("LICTOR_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, format!("{hex}\n")).expect("a golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden = golden.trim();
    let byte = |at: usize| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).expect("hex");
    let stored: Vec<u8> = (0..golden.len() / 2).map(byte).collect();
    let read: T = encoding::decode(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read, value, "{name}: what was written then is read as something else now");
    assert_eq!(hex, golden, "{name}: the bytes have changed");
}

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
    };
    let state = AutopilotState { healthy: true, failure_tolerance: 1, servers: vec![health] };
    check("report-autopilot", Report::Autopilot(Box::new(state)));
    let peer = RaftPeer { server: server(), leader: true, voter: true, last_index: 17 };
    check("report-raft-peers", Report::RaftPeers(RaftPeers { servers: vec![peer], index: 17 }));
}
