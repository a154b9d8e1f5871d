//! Members as gossip tells of them, in the words of the rest.

use std::collections::BTreeMap;

use lictor_gossip::{Gossip, Member as PoolMember, Status};
use lictor_types::member::PROTOCOLS;
use lictor_types::{Member, MemberStatus};

/// A member of a pool; none when its name is none that a node may have.
pub fn as_member(member: &PoolMember) -> Option<Member> {
    let record = &member.record;
    let tags: BTreeMap<String, String> = record.tags().into_iter().collect();
    Some(Member {
        name: record.name().parse().ok()?,
        id: tags.get("id").cloned().unwrap_or_default(),
        address: record.address().ip().to_string(),
        port: record.address().port(),
        tags,
        meta: BTreeMap::new(),
        status: match member.status {
            Status::Alive => MemberStatus::Alive,
            Status::Leaving => MemberStatus::Leaving,
            Status::Left => MemberStatus::Left,
            Status::Failed => MemberStatus::Failed,
        },
        protocols: Some(record.versions().bytes()).filter(|bytes| *bytes != PROTOCOLS),
    })
}

/// The node's name and the datacenter of a WAN member, whose name is both.
pub fn node_of_wan(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
}

pub(super) async fn of(pool: Option<Gossip>) -> Vec<Member> {
    let Some(pool) = pool else { return Vec::new() };
    // A pool that has stopped has no members.
    let members = pool.members().await.unwrap_or_default();
    members.iter().filter_map(as_member).collect()
}
