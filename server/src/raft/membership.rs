//! Members: who votes, who learns, and who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError as RaftInitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::time::{Instant, timeout};

use super::types::{Server, ServerId, Types};
use super::{Consensus, InitializeError, Leader, MembershipError};

/// A server and what raft knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: ServerId,
    /// Its name and address.
    pub server: Server,
}

/// The members as this server knows them; a change may not be committed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those who vote.
    pub voters: Vec<Member>,
    /// Those who only receive the log.
    pub learners: Vec<Member>,
    /// A change of the voters is being made: two sets of voters must agree until it is done.
    pub changing: bool,
}

type Change = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

impl Consensus {
    /// Makes a new cluster of `members`, all of whom vote. To be called on one of them, once, ever.
    ///
    /// # Errors
    /// This server belongs to a cluster already or is not among the members.
    pub async fn initialize(&self, members: BTreeMap<ServerId, Server>) -> Result<(), InitializeError> {
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) => Err(InitializeError::AlreadyInitialized),
            Err(RaftError::APIError(RaftInitializeError::NotInMembers(_))) => Err(InitializeError::NotAMember),
            Err(RaftError::Fatal(error)) => Err(InitializeError::Fatal(error.to_string())),
        }
    }

    /// Whether this server has a log, and so belongs to a cluster or belonged to one.
    pub async fn is_initialized(&self) -> bool {
        // A raft that does not answer any more has none that could be made anew.
        self.inner.raft.is_initialized().await.unwrap_or(true)
    }

    /// The members.
    pub fn membership(&self) -> Membership {
        let metrics = self.inner.metrics.borrow_watched();
        let stored = metrics.membership_config.membership();
        let voters: BTreeSet<ServerId> = stored.voter_ids().collect();
        let mut membership = Membership { changing: stored.get_joint_config().len() > 1, ..Membership::default() };
        for (id, server) in stored.nodes() {
            let list = if voters.contains(id) { &mut membership.voters } else { &mut membership.learners };
            list.push(Member { id: *id, server: server.clone() });
        }
        membership
    }

    /// Adds a server that receives the log and does not vote. Its address is that of a known one when the id is known.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_learner(&self, id: ServerId, server: Server) -> Result<(), MembershipError> {
        self.confirmed(self.inner.raft.add_learner(id, server, false)).await
    }

    /// Makes learners voters. They should have caught up: see [`super::Status::matched`].
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn promote(&self, ids: BTreeSet<ServerId>) -> Result<(), MembershipError> {
        self.confirmed(self.inner.raft.change_membership(ChangeMembers::AddVoterIds(ids), false)).await
    }

    /// Replaces the whole set of voters by joint consensus; those who are not in it any more are no members any more.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn change_voters(&self, ids: BTreeSet<ServerId>) -> Result<(), MembershipError> {
        self.confirmed(self.inner.raft.change_membership(ChangeMembers::ReplaceAllVoters(ids), false)).await
    }

    /// Removes a server, voter or learner. A leader that removes itself gives its leadership away afterwards. The id
    /// must never join again.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove(&self, id: ServerId) -> Result<(), MembershipError> {
        let members = self.membership();
        let change = if members.voters.iter().any(|voter| voter.id == id) {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else if members.learners.iter().any(|learner| learner.id == id) {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        } else {
            return Err(MembershipError::Refused(format!("{id} is not a member")));
        };
        self.confirmed(self.inner.raft.change_membership(change, false)).await
    }

    /// Gives leadership to `to`, or to the voter that holds most of the log, and waits until this server does not lead.
    ///
    /// # Errors
    /// This server does not lead, `to` does not vote, nobody else does, or it did not take over in time.
    pub async fn transfer_leader(&self, to: Option<ServerId>) -> Result<(), MembershipError> {
        let inner = &*self.inner;
        if !self.is_leader() {
            return Err(MembershipError::NotLeader(inner.leader.borrow().clone()));
        }
        let voters: Vec<ServerId> = self.membership().voters.iter().map(|voter| voter.id).collect();
        let to = match to {
            Some(to) if !voters.contains(&to) => return Err(MembershipError::Refused(format!("{to} does not vote"))),
            Some(to) => to,
            None => {
                let matched = self.status().matched;
                let others = voters.into_iter().filter(|voter| *voter != inner.id);
                others
                    .max_by_key(|voter| matched.get(voter).copied())
                    .ok_or_else(|| MembershipError::Refused("no other server votes".to_owned()))?
            }
        };
        if to == inner.id {
            return Ok(());
        }
        // From here on another may lead at any moment, so the lease proves nothing until this is over.
        inner.transferring.send_replace(Some(Instant::now() + inner.settings.deadline));
        let trigger = inner.raft.trigger().transfer_leader(to).await;
        trigger.map_err(|error| MembershipError::Fatal(error.to_string()))?;
        let mut leader = inner.leader.clone();
        let gone = leader.wait_for(|leader| leader.as_ref().is_some_and(|leader| leader.id != inner.id));
        match timeout(inner.settings.deadline, gone).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::Fatal("this server is stopping".to_owned())),
            Err(_) => Err(MembershipError::Unavailable(format!("{to} did not take over in time"))),
        }
    }

    async fn confirmed(&self, change: impl Future<Output = Change>) -> Result<(), MembershipError> {
        // A change of voters is two entries, hence twice the time of one.
        let limit = self.inner.settings.deadline * 2;
        let Ok(changed) = timeout(limit, change).await else {
            let why = "no quorum of servers confirmed the change in time: look at the members before trying again";
            return Err(MembershipError::Unavailable(why.to_owned()));
        };
        let error = match changed {
            Ok(_) => return Ok(()),
            Err(RaftError::Fatal(error)) => return Err(MembershipError::Fatal(error.to_string())),
            Err(RaftError::APIError(error)) => error,
        };
        Err(match error {
            ClientWriteError::ForwardToLeader(forward) => {
                MembershipError::NotLeader(Leader::of(forward.leader_id, forward.leader_node))
            }
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                MembershipError::InProgress
            }
            ClientWriteError::ChangeMembershipError(error) => MembershipError::Refused(error.to_string()),
            ClientWriteError::LogEntryDiscarded(_) => {
                MembershipError::Unavailable("the leader changed before the change was confirmed".to_owned())
            }
            ClientWriteError::PreconditionFailed(error) => MembershipError::Refused(error.to_string()),
        })
    }
}
