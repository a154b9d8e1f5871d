//! Members whose protocols are not ours, and how far servers are.

use lictor_types::rpc::LogFigures;

use super::*;

#[test]
fn members_of_other_protocols() {
    let member = Member {
        name: "n1".parse().unwrap(),
        id: "i".into(),
        address: "10.0.0.1".into(),
        port: 8301,
        tags: pairs(),
        meta: pairs(),
        status: MemberStatus::Alive,
        protocols: Some([1, 5, 2, 2, 5, 5]),
    };
    check("member-of-other-protocols", member);
}

#[test]
fn how_far_a_server_is() {
    let log = LogFigures {
        state: "Leader".into(),
        term: 2,
        last: 9,
        committed: 8,
        applied: 7,
        snapshot: 6,
        applied_term: 2,
        contact_millis: 5,
        pending: 1,
    };
    check("report-status-with-log", Response::Report(Report::Status(Status { log: Some(log), ..Status::default() })));
}
