//! What operators and servers ask about who is in raft.

use lictor_state::access::Duty;
use lictor_types::autopilot::Standing;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Report, ServerAddress};
use lictor_types::{Command, Credential, Refusal, Requirement, Resource};

use crate::datacenter::ServerDatacenter;
use crate::leader::autopilot;
use crate::membership;
use crate::raft::{Member, ServerId};

impl ServerDatacenter {
    fn raft_member(&self, is_it: impl Fn(&Member) -> bool) -> Option<Member> {
        let members = self.consensus.membership();
        members.voters.into_iter().chain(members.learners).find(is_it)
    }

    fn may_operate(&self, credential: &Credential, write: bool) -> Result<(), Refusal> {
        let requirement = if write { Requirement::write } else { Requirement::read };
        self.require(credential, &[requirement(Resource::Operator, "")])
    }

    /// A new server asks to become a learner, or one that left asks to come back.
    pub(crate) async fn join_server(&self, server: &ServerAddress) -> Result<Report, Refusal> {
        self.require_leader()?;
        if self.published.load().is_removed_server(&server.id) {
            return Err(Refusal::failed(removed_for_ever(&server.id, server.name.as_str())));
        }
        let (id, server) = membership::raft_server(server)?;
        self.consensus.add_learner(id, server).await.map_err(membership::refuse)?;
        Ok(Report::Servers(self.servers(), None))
    }

    /// Removes for ever. The id is remembered first, so that a removal that was cut off is finished by the leader's duty.
    pub(crate) async fn remove_server(&self, credential: &Credential, id: &str) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.may_operate(credential, true)?;
        let id = membership::id(id)?;
        let member = self.raft_member(|it| it.id == id);
        let is_removed = self.published.load().is_removed_server(&id.to_string());
        if member.is_none() && !is_removed {
            return Err(Refusal::failed(format!("id {:?} was not found in the Raft configuration", id.to_string())));
        }
        self.refuse_to_lose_the_last_voter(id)?;
        if !is_removed {
            self.write_as(Duty::Membership, Command::ServerRemoved(id.to_string())).await?;
        }
        if member.is_some() {
            self.take_out(id).await?;
        }
        Ok(Report::Done)
    }

    pub(crate) async fn remove_server_at(&self, credential: &Credential, address: &str) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.may_operate(credential, true)?;
        match self.raft_member(|it| it.server.address == address) {
            Some(member) => self.remove_server(credential, &member.id.to_string()).await,
            None => Err(Refusal::failed(format!("address {address:?} was not found in the Raft configuration"))),
        }
    }

    /// A server goes on purpose. It keeps its log, so it may come back.
    pub(crate) async fn leave_raft(&self, id: &str) -> Result<Report, Refusal> {
        self.require_leader()?;
        let id = membership::id(id)?;
        self.refuse_to_lose_the_last_voter(id)?;
        if self.raft_member(|it| it.id == id).is_some() {
            self.take_out(id).await?;
        }
        Ok(Report::Done)
    }

    fn refuse_to_lose_the_last_voter(&self, id: ServerId) -> Result<(), Refusal> {
        match self.consensus.membership().voters.as_slice() {
            [only] if only.id == id => {
                Err(Refusal::failed("this is the only server that votes: without it there is no cluster"))
            }
            _ => Ok(()),
        }
    }

    async fn take_out(&self, id: ServerId) -> Result<(), Refusal> {
        if id != self.consensus.id() {
            return self.consensus.remove(id).await.map_err(membership::refuse);
        }
        // A leader does not take itself out: it hands the lead on, and the next one is asked again.
        self.consensus.transfer_leader(None).await.map_err(membership::refuse)?;
        Err(Refusal::no_leader())
    }

    pub(crate) async fn transfer_leader(&self, credential: &Credential, to: Option<&str>) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.may_operate(credential, true)?;
        let to = to.map(membership::id).transpose()?;
        self.consensus.transfer_leader(to).await.map_err(membership::refuse)?;
        Ok(Report::Done)
    }

    /// What the server with this id is to this cluster; only who is part of it and hears a leader knows.
    pub(crate) fn standing(&self, id: &str) -> Result<Report, Refusal> {
        let id = membership::id(id)?;
        if self.published.load().is_removed_server(&id.to_string()) {
            return Ok(Report::Standing(Standing::Removed));
        }
        if !self.is_member() || !self.hears_a_leader() {
            let why = "this server hears no leader, so it does not know who is in the cluster";
            return Err(Refusal::new(RefusalKind::Unavailable, why));
        }
        let standing = if self.raft_member(|it| it.id == id).is_some() { Standing::Member } else { Standing::Stranger };
        Ok(Report::Standing(standing))
    }

    pub(crate) fn autopilot_state(&self, credential: &Credential) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.may_operate(credential, false)?;
        Ok(Report::Autopilot(Box::new(autopilot::state(self))))
    }

    pub(crate) fn raft_peers(&self, credential: &Credential) -> Result<Report, Refusal> {
        self.may_operate(credential, false)?;
        Ok(Report::RaftPeers(autopilot::peers(self)))
    }
}

/// What a server is told that was removed for ever.
pub(crate) fn removed_for_ever(id: &str, name: &str) -> String {
    format!(
        "the server id {id} was removed from this cluster and must never come back: start {name} with an empty data \
         directory"
    )
}
