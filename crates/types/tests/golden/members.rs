//! Members whose protocols are not ours.

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
