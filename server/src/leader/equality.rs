//! Has the servers compare their states as they run: every thousand entries of the log, and at least once a minute if
//! anything has changed.
//!
//! Who differs from most others counts as not healthy until it was found equal again, and the log says so at the level of an
//! error. To hash a state costs as much as to write it, so there is never more than one hundredth of the time in it: the
//! pause after a comparison is at least a hundred times as long as the hash took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use lictor_state::access::Duty;
use lictor_types::rpc::{Operation, Report, Request, RequestBody, Response, StateHash};
use lictor_types::{Command, Credential, Index, Refusal};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;
use crate::equality::ANSWER_LIMIT;
use crate::raft::{Member, ServerId};

/// Between two looks whether a comparison is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a comparison is so many times as long as the hash took.
const PAUSE_TIMES: u32 = 100;
/// The same difference is told again after this long.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// An answer may take so much longer than the other server waits.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// Which servers differ, as the leader found them last.
#[derive(Default)]
pub(crate) struct EqualityTable(Mutex<Found>);

#[derive(Default)]
struct Found {
    differing: BTreeMap<ServerId, Index>,
    comparisons: u64,
    said: Option<(BTreeSet<ServerId>, Instant)>,
}

impl EqualityTable {
    /// A lead is over.
    pub(crate) fn end(&self) {
        let mut found = self.0.lock();
        found.differing.clear();
        found.said = None;
    }

    /// The index at which this server differed, unless it was found equal since.
    pub(crate) fn differs_at(&self, server: ServerId) -> Option<Index> {
        self.0.lock().differing.get(&server).copied()
    }

    /// How many servers differ.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().differing.len()
    }

    /// Takes a comparison in: who answered is as it was found, who did not is as before, who is gone is forgotten. Returns
    /// who differs by this comparison, if that should be said.
    fn note(&self, index: Index, hashes: &BTreeMap<ServerId, u32>, members: &BTreeSet<ServerId>) -> BTreeSet<ServerId> {
        let now = Instant::now();
        let wrong = differing(hashes);
        let mut found = self.0.lock();
        found.comparisons += 1;
        found.differing.retain(|id, _| members.contains(id) && !hashes.contains_key(id));
        found.differing.extend(wrong.iter().map(|id| (*id, index)));
        let is_known = found.said.as_ref().is_some_and(|(said, at)| *said == wrong && at.elapsed() < SAID_AGAIN_AFTER);
        if is_known {
            return BTreeSet::new();
        }
        found.said = Some((wrong.clone(), now));
        wrong
    }
}

/// Who differs from most others. When no hash is that of most servers, nobody knows who is right, and all are wrong.
fn differing(hashes: &BTreeMap<ServerId, u32>) -> BTreeSet<ServerId> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for hash in hashes.values() {
        *counts.entry(*hash).or_default() += 1;
    }
    let right = counts.iter().find(|(_, count)| **count * 2 > hashes.len()).map(|(hash, _)| *hash);
    hashes.iter().filter(|(_, hash)| Some(**hash) != right).map(|(id, _)| *id).collect()
}

/// Compares for as long as this server leads.
pub(crate) async fn compare(datacenter: &ServerDatacenter) {
    let settings = datacenter.settings.equality;
    let (mut begun, mut pause) = (Instant::now(), Duration::ZERO);
    let mut entries = datacenter.consensus.applied();
    // What this lead has compared; a new leader knows nothing of what those before it did.
    let mut compared = Index(0);
    loop {
        tokio::time::sleep(LOOK_INTERVAL.min(settings.interval / 2)).await;
        let has_changed = datacenter.published.load().index() != compared;
        let is_due = begun.elapsed() >= settings.interval
            || datacenter.consensus.applied().saturating_sub(entries) >= settings.entries;
        if !has_changed || !is_due || begun.elapsed() < pause {
            continue;
        }
        begun = Instant::now();
        entries = datacenter.consensus.applied();
        match compare_once(datacenter).await {
            Ok(index) => compared = index,
            Err(refusal) => tracing::debug!(%refusal, "the states were not compared"),
        }
        pause = datacenter.looks.took().saturating_mul(PAUSE_TIMES);
    }
}

/// One comparison; the index at which it was.
async fn compare_once(datacenter: &ServerDatacenter) -> Result<Index, Refusal> {
    let index = datacenter.write_as(Duty::Compare, Command::StateCompare).await?.index;
    let Some(own) = datacenter.looks.of(index, ANSWER_LIMIT).await else { return Ok(index) };
    let members = datacenter.consensus.membership();
    let members: Vec<Member> = members.voters.into_iter().chain(members.learners).collect();
    let own_id = datacenter.consensus.id();
    let name_of = |id: ServerId| members.iter().find(|it| it.id == id).map_or("unknown", |it| &it.server.name);
    let asked = StateHash {
        index,
        hash: own,
        leader: name_of(own_id).to_owned(),
        wait_millis: ANSWER_LIMIT.as_millis() as u64,
    };
    let others = members.iter().filter(|it| it.id != own_id).map(|it| ask(datacenter, it, &asked));
    let mut hashes: BTreeMap<ServerId, u32> = join_all(others).await.into_iter().flatten().collect();
    hashes.insert(own_id, own);
    datacenter.figures.states_compared.increment();
    let ids = members.iter().map(|it| it.id).collect();
    for wrong in datacenter.equality.note(index, &hashes, &ids) {
        datacenter.figures.states_differed.increment();
        let hash = hashes[&wrong];
        // Beside the leader if that can be: it is the one whose log this is.
        let differs = |id: &ServerId| hashes[id] != hash;
        let other = Some(own_id).filter(differs).or_else(|| hashes.keys().copied().find(differs));
        let Some(other) = other else { continue };
        tracing::error!(
            index = index.0,
            server = name_of(wrong),
            other = name_of(other),
            "the states of two servers differ at the same place of the log: {} has {hash:08x}, {} has {:08x}. Stop the one \
             that most others disagree with, empty its data directory and start it again",
            name_of(wrong),
            name_of(other),
            hashes[&other]
        );
    }
    Ok(index)
}

/// Another server's hash; none when it cannot be had.
async fn ask(datacenter: &ServerDatacenter, member: &Member, asked: &StateHash) -> Option<(ServerId, u32)> {
    let body = RequestBody::Operate(Operation::CompareState(asked.clone()));
    let request = Request { credential: Credential::anonymous(), body, forwarded: true };
    match datacenter.peers.call(&member.server.address, request, ANSWER_LIMIT + ON_THE_WAY).await {
        Ok(Response::Report(Report::StateHash(hash))) => hash.map(|hash| (member.id, hash)),
        Ok(_) | Err(_) => None,
    }
}

/// What the comparisons of a server have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// How many there were while it led.
    pub count: u64,
    /// The raft ids of the servers that differ, with the index at which they did.
    pub differing: BTreeMap<String, Index>,
}

impl ServerDatacenter {
    /// What this server's comparisons as leader have shown.
    pub fn comparisons(&self) -> Comparisons {
        let found = self.equality.0.lock();
        let differing = found.differing.iter().map(|(id, index)| (id.to_string(), *index)).collect();
        Comparisons { count: found.comparisons, differing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(of: &[(u8, u32)]) -> BTreeMap<ServerId, u32> {
        of.iter().map(|(id, hash)| (ServerId([*id; 16]), *hash)).collect()
    }

    fn ids(of: &[u8]) -> BTreeSet<ServerId> {
        of.iter().map(|id| ServerId([*id; 16])).collect()
    }

    #[test]
    fn who_differs_from_most_is_wrong_and_without_most_everybody_is() {
        assert_eq!(differing(&hashes(&[(1, 7), (2, 7), (3, 7)])), ids(&[]));
        assert_eq!(differing(&hashes(&[(1, 7), (2, 8), (3, 7)])), ids(&[2]));
        assert_eq!(differing(&hashes(&[(1, 8), (2, 7), (3, 7)])), ids(&[1]));
        assert_eq!(differing(&hashes(&[(1, 7), (2, 8)])), ids(&[1, 2]));
        assert_eq!(differing(&hashes(&[(1, 7), (2, 8), (3, 9)])), ids(&[1, 2, 3]));
        assert_eq!(differing(&hashes(&[(1, 7), (2, 7), (3, 8), (4, 9), (5, 7)])), ids(&[3, 4]));
        assert_eq!(differing(&hashes(&[(1, 7)])), ids(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_differed_is_remembered_until_it_is_found_equal_or_gone() {
        let table = EqualityTable::default();
        let members = ids(&[1, 2, 3]);
        assert_eq!(table.note(Index(5), &hashes(&[(1, 7), (2, 8), (3, 7)]), &members), ids(&[2]));
        assert_eq!(table.note(Index(6), &hashes(&[(1, 7), (2, 8), (3, 7)]), &members), ids(&[]), "it was said");
        tokio::time::advance(SAID_AGAIN_AFTER).await;
        assert_eq!(table.note(Index(7), &hashes(&[(1, 7), (2, 8), (3, 7)]), &members), ids(&[2]), "and again");
        assert_eq!(table.note(Index(8), &hashes(&[(1, 7), (3, 7)]), &members), ids(&[]));
        assert_eq!(table.differs_at(ServerId([2; 16])), Some(Index(7)), "it did not answer, so it is as it was");
        table.note(Index(9), &hashes(&[(1, 7), (2, 7), (3, 7)]), &members);
        assert_eq!(table.count(), 0);
        table.note(Index(10), &hashes(&[(1, 7), (2, 7), (3, 8)]), &members);
        table.note(Index(11), &hashes(&[(1, 7), (2, 7)]), &ids(&[1, 2]));
        assert_eq!(table.count(), 0, "it was replaced");
    }
}
