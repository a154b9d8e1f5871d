//! A cluster that lost its quorum for ever, made anew from what one server holds.
//!
//! The server must not run. A membership of the survivors is appended to its log in a term that no lost server knew; when
//! it starts, it needs the votes of those members only, and commits all that it holds. What only lost servers held is
//! lost; what was acknowledged was on a quorum, so whoever chooses the survivor should compare all there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::vote::leader_id_adv::LeaderId;
use thiserror::Error;

use super::log::{Flusher, Log, LogFaults, Progress};
use super::snapshot::SnapshotStore;
use super::types::{Entry, LogId, Payload, Proposals, RaftMembership, Vote};
use super::{DataDirectory, LogError, LogOptions, Member, Membership, Server, ServerId, batch, codec};

/// Entries are looked through in parts of about this size.
const SCAN_BYTES: usize = 4 << 20;

/// Why nothing was recovered.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is in it cannot be understood, or the snapshot cannot be read.
    #[error("cannot read what the server holds: {0}")]
    Content(#[from] std::io::Error),
    /// There is no cluster to recover.
    #[error("the data directory holds no log of a cluster: a server with an empty directory joins as a new one")]
    Empty,
    /// The new members make no sense.
    #[error("the new members make no sense: {0}")]
    Members(String),
    /// The disk is full.
    #[error("the disk is full: free some room and try again; nothing was changed")]
    Full,
}

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The server.
    pub id: ServerId,
    /// Its cluster, if it knows it.
    pub cluster_id: Option<String>,
    /// The term and the index of the last entry.
    pub last: (u64, u64),
    /// The index up to which it knows that the log is committed.
    pub committed: u64,
    /// The term of its vote.
    pub vote_term: u64,
    /// The members as its log says.
    pub members: Membership,
}

/// A server that does not run, with its log open.
pub struct Survivor {
    log: Log,
    flusher: Flusher,
    last: LogId,
    /// What it holds.
    pub holding: Holding,
}

impl Survivor {
    /// Looks into the data directory, which this process holds.
    ///
    /// # Errors
    /// The log or the snapshot is damaged, or there is none.
    pub fn of(directory: &DataDirectory) -> Result<Self, RecoverError> {
        let faults = LogFaults::default();
        let (log, flusher) = Log::open(directory.fs(), &directory.log(), LogOptions::default(), faults)?;
        let snapshot = SnapshotStore::open(directory.fs(), directory.snapshots())?.latest()?.map(|(meta, _)| meta);
        let purged =
            log.purged().map(|body| codec::decode_position(&body)).transpose().map_err(std::io::Error::from)?;
        let mut last = snapshot.as_ref().and_then(|meta| meta.last_log_id).max(purged);
        let mut membership = snapshot.map(|meta| meta.last_membership.membership().clone());
        let mut next = purged.map_or(0, |purged| purged.index() + 1);
        loop {
            let entries = log.read(next, u64::MAX, SCAN_BYTES)?;
            let Some((index, _)) = entries.last() else { break };
            next = index + 1;
            for (_, body) in &entries {
                let entry = codec::decode_entry(body).map_err(std::io::Error::from)?;
                last = last.max(Some(entry.log_id));
                if let Payload::Membership(members) = entry.payload {
                    membership = Some(members);
                }
            }
        }
        let (Some(last), Some(membership)) = (last, membership) else { return Err(RecoverError::Empty) };
        let vote = log.vote().map(|body| codec::decode_vote(&body)).transpose().map_err(std::io::Error::from)?;
        let committed = log.committed().map(|body| codec::decode_position(&body)).transpose();
        let holding = Holding {
            id: directory.server_id(),
            cluster_id: directory.cluster_id(),
            last: (last.committed_leader_id().term, last.index()),
            committed: committed.map_err(std::io::Error::from)?.map_or(0, |id| id.index()),
            vote_term: vote.map_or(0, |vote| vote.leader_id.term),
            members: members_of(&membership),
        };
        Ok(Self { log, flusher, last, holding })
    }

    /// Makes `members` the only ones and has `envelopes` applied after all that the log holds, durably.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub fn recover(
        mut self,
        voters: BTreeMap<ServerId, Server>,
        learners: BTreeMap<ServerId, Server>,
        envelopes: &[Vec<u8>],
    ) -> Result<(), RecoverError> {
        if !voters.contains_key(&self.holding.id) && !learners.contains_key(&self.holding.id) {
            return Err(RecoverError::Members(format!("{}, whose log this is, is not among them", self.holding.id)));
        }
        let term = self.holding.vote_term.max(self.holding.last.0) + 1;
        let leader = LeaderId { term, node_id: self.holding.id };
        let config = vec![voters.keys().copied().collect()];
        let nodes: BTreeMap<ServerId, Server> = voters.into_iter().chain(learners).collect();
        let membership =
            RaftMembership::new(config, nodes).map_err(|error| RecoverError::Members(error.to_string()))?;
        let at = |offset: u64| LogId::new(leader, self.last.index() + offset);
        let mut entries = vec![Entry { log_id: at(1), payload: Payload::Membership(membership) }];
        if !envelopes.is_empty() {
            let joined = batch::join(envelopes.iter().map(Vec::as_slice));
            entries.push(Entry { log_id: at(2), payload: Payload::Normal(Proposals(joined)) });
        }
        let entries = entries.iter().map(|entry| (entry.log_id.index(), codec::encode_entry(entry))).collect();
        let vote = Vote { leader_id: leader, committed: true };
        self.log.save_vote(codec::encode_vote(&vote), Box::new(|_| {}))?;
        let durable = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&durable);
        let completion = move |outcome: Result<(), LogError>| told.store(outcome.is_ok(), Ordering::Relaxed);
        self.log.append(entries, Box::new(completion))?;
        while !durable.load(Ordering::Relaxed) {
            match self.flusher.step() {
                Progress::Flushed => {}
                Progress::Full => return Err(RecoverError::Full),
                Progress::Idle | Progress::Ended => {
                    let why = self.log.fatal().borrow().as_ref().map_or("it ended".to_owned(), ToString::to_string);
                    return Err(LogError::Poisoned(why).into());
                }
            }
        }
        Ok(())
    }
}

fn members_of(membership: &RaftMembership) -> Membership {
    let voters: Vec<ServerId> = membership.voter_ids().collect();
    let mut members = Membership { changing: membership.get_joint_config().len() > 1, ..Membership::default() };
    for (id, server) in membership.nodes() {
        let list = if voters.contains(id) { &mut members.voters } else { &mut members.learners };
        list.push(Member { id: *id, server: server.clone() });
    }
    members
}
