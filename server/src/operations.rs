//! What the waist does that is neither a write nor a read.

use lictor_identity::mesh_authority::{MeshAuthority, MeshAuthorityParts};
use lictor_identity::spiffe::{SpiffeId, TrustDomain};
use lictor_state::access::Duty;
use lictor_types::authority::AuthorityRecord;
use lictor_types::command::Effect;
use lictor_types::rpc::{
    CreateJoinToken, ForceLeave, LogFigures, Operation, Probe, RaftServer, Report, ServerAddress, SignLeaf, Status,
};
use lictor_types::token::JoinToken;
use lictor_types::{
    Command, Consistency, Credential, LeafCertificate, Member, Refusal, Requirement, Resource, ServiceName, Timestamp,
};
use std::time::Duration;
use zeroize::Zeroizing;

use crate::datacenter::{ServerDatacenter, refuse_read};
use crate::membership;
use crate::raft::Role;

/// The longest that a join token may be valid.
const JOIN_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// What keys of the mesh CA are sealed for.
pub(crate) const SEAL_CONTEXT_ROOT: &[u8] = b"mesh-authority/root";
/// What keys of the mesh CA are sealed for.
pub(crate) const SEAL_CONTEXT_INTERMEDIATE: &[u8] = b"mesh-authority/intermediate";
/// What token secrets are sealed for.
pub(crate) const SEAL_CONTEXT_TOKEN: &[u8] = b"acl-token";

impl ServerDatacenter {
    /// Does `operation` on this server; those that need the leader are refused elsewhere, with a retry allowed.
    pub(crate) async fn operate_here(&self, credential: &Credential, operation: Operation) -> Result<Report, Refusal> {
        match operation {
            Operation::Keepalive(member) => self.keepalive(member),
            Operation::Leave(node) => {
                self.require_leader()?;
                self.members.left(&node);
                Ok(Report::Done)
            }
            Operation::Members => self.list_members(credential),
            Operation::Status => Ok(Report::Status(self.status())),
            Operation::SignLeaf(request) => self.sign_leaf(credential, &request).await.map(Report::Leaf),
            Operation::SignAgent(_) => Err(Refusal::bad_request(
                "an agent's certificate is renewed only over the connection of its present certificate",
            )),
            Operation::Login(request) => {
                self.require_leader()?;
                crate::login::grant(self, &request).await.map(|grant| Report::Granted(Box::new(grant)))
            }
            Operation::RenewLogin(node) => {
                self.require_leader()?;
                crate::login::renew(self, node).await?;
                Ok(Report::Done)
            }
            Operation::CreateJoinToken(request) => self.create_join_token(credential, &request).await,
            Operation::JoinServer(server) => self.join_server(&server).await,
            Operation::Probe => Ok(Report::Probe(self.current_probe())),
            Operation::RemoveServer(id) => self.remove_server(credential, &id).await,
            Operation::RenewSession(id) => {
                self.require_leader()?;
                self.renew_session(credential, &id).await
            }
            Operation::ReadIndex => {
                self.consensus.read_barrier().await.map_err(refuse_read)?;
                Ok(Report::ReadIndex(self.consensus.applied()))
            }
            Operation::TransferLeader => self.transfer_leader(credential, None).await,
            Operation::TransferLeaderTo(id) => self.transfer_leader(credential, Some(&id)).await,
            Operation::RemoveServerAt(address) => self.remove_server_at(credential, &address).await,
            Operation::LeaveRaft(id) => self.leave_raft(&id).await,
            Operation::Standing(id) => self.standing(&id),
            Operation::AutopilotState => self.autopilot_state(credential),
            Operation::RaftPeers => {
                self.require_leader()?;
                self.raft_peers(credential)
            }
            Operation::RaftPeersHere => self.raft_peers(credential),
            Operation::UpdateCoordinate(update) => {
                self.require_leader()?;
                update.coord.check()?;
                self.require(credential, &[Requirement::write(Resource::Node, update.node.as_str())])?;
                self.coordinates.add(update)?;
                Ok(Report::Done)
            }
            Operation::FireEvent(event) => self.fire_event(credential, event).await,
            Operation::FollowEvents(asked) => Ok(Report::Events(self.events.follow(&asked).await)),
            Operation::ForceLeave(what) => self.force_leave(credential, &what).await,
            Operation::GossipKeys(_) => self.gossip_keys().await,
            Operation::Keyring(asked) => self.keyring(credential, &asked).await,
            Operation::CompareState(asked) => Ok(self.compare_state(&asked).await),
            Operation::Authorize(requirements) => {
                self.fresh().await?;
                let rules = self.rules(credential)?;
                Ok(Report::Authorized(rules.check(&requirements)))
            }
            Operation::SnapshotOpen(_)
            | Operation::SnapshotRead(_)
            | Operation::RestoreOpen(_)
            | Operation::RestoreWrite(_)
            | Operation::RestoreFinish(_) => self.archive_operation(credential, operation).await,
            Operation::Usage => {
                self.fresh().await?;
                self.require(credential, &[Requirement::read(Resource::Operator, "")])?;
                Ok(Report::Usage(self.published.load().usage()))
            }
        }
    }

    pub(crate) async fn fresh(&self) -> Result<(), Refusal> {
        self.barrier(Consistency::Default).await
    }

    pub(crate) fn require(&self, credential: &Credential, requirements: &[Requirement]) -> Result<(), Refusal> {
        let rules = self.rules(credential)?;
        requirements.iter().try_for_each(|one| rules.require(one))
    }

    /// What this server says of itself to servers without a cluster.
    fn current_probe(&self) -> Probe {
        let mut probe = self.probe.borrow().clone();
        probe.initialized |= self.is_member();
        probe.cluster_id = self.published.load().cluster().map(|it| it.cluster_id.clone());
        probe
    }

    pub(crate) fn require_leader(&self) -> Result<(), Refusal> {
        if self.consensus.is_leader() { Ok(()) } else { Err(Refusal::no_leader()) }
    }

    /// Whether this server is in raft, as voter or learner.
    pub(crate) fn is_member(&self) -> bool {
        let members = self.consensus.membership();
        members.voters.iter().chain(&members.learners).any(|it| it.id == self.consensus.id())
    }

    fn keepalive(&self, member: Member) -> Result<Report, Refusal> {
        self.require_leader()?;
        // With the id of another node it would push that one out of the catalog.
        if let Some(id) = self.published.load().login_node_id(&member.name)
            && !member.is_server()
            && !id.eq_ignore_ascii_case(&member.id)
        {
            return Err(Refusal::permission_denied(format!(
                "the node {} has logged in with the id {id} and not {}: log in again",
                member.name, member.id
            )));
        }
        self.members.heard_of(member);
        Ok(Report::Servers(self.servers(), u32::try_from(self.members.count()).ok()))
    }

    /// The servers in raft, as clients dial them.
    pub(crate) fn servers(&self) -> Vec<ServerAddress> {
        let members = self.consensus.membership();
        members.voters.iter().chain(&members.learners).filter_map(membership::address).collect()
    }

    /// A member that has failed is gone from the members and the catalog at once, so there is nothing more to prune.
    async fn force_leave(&self, credential: &Credential, what: &ForceLeave) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.require(credential, &[Requirement::write(Resource::Operator, "")])?;
        if self.members.force_left(&what.node) {
            self.remove_from_pool(&what.node, what.prune).await;
            Ok(Report::Done)
        } else {
            Err(Refusal::failed(format!("agent: No node found with name '{}'", what.node)))
        }
    }

    fn list_members(&self, credential: &Credential) -> Result<Report, Refusal> {
        self.require_leader()?;
        let rules = self.rules(credential)?;
        let may_see = |member: &Member| rules.allows(&Requirement::read(Resource::Node, member.name.as_str()));
        Ok(Report::Members(self.members.list().into_iter().filter(may_see).collect()))
    }

    pub(crate) fn status(&self) -> Status {
        let leader = self.consensus.leader().borrow().as_ref().map(|leader| leader.address.clone());
        let members = self.consensus.membership();
        let mut peers: Vec<String> = members.voters.iter().map(|it| it.server.address.clone()).collect();
        peers.sort();
        let as_server = |voter: bool| move |it| Some(RaftServer { server: membership::address(it)?, voter });
        let servers = members.voters.iter().filter_map(as_server(true));
        let servers = servers.chain(members.learners.iter().filter_map(as_server(false))).collect();
        let is_leader = self.consensus.is_leader();
        let log = Some(self.log_figures(is_leader));
        Status { leader, peers, index: self.published.load().index(), is_leader, servers, log }
    }

    fn log_figures(&self, is_leader: bool) -> LogFigures {
        let raft = self.consensus.status();
        let contact = if is_leader { Duration::ZERO } else { self.consensus.last_contact() };
        let state = match raft.role {
            Role::Leader => "Leader",
            Role::Candidate => "Candidate",
            Role::Follower | Role::Learner => "Follower",
        };
        LogFigures {
            state: state.to_owned(),
            term: raft.term,
            last: raft.last_log,
            committed: raft.committed,
            applied: raft.applied,
            snapshot: raft.snapshot,
            applied_term: raft.last_term,
            contact_millis: u64::try_from(contact.as_millis()).unwrap_or(u64::MAX),
            pending: raft.committed.saturating_sub(raft.applied),
        }
    }

    /// The mesh CA with its keys, opened for one use.
    fn mesh_authority(&self) -> Result<MeshAuthority, Refusal> {
        let store = self.published.load();
        let Some(record) = store.authority() else {
            return Err(Refusal::failed(
                "the mesh CA does not exist yet: no leader has made it; try again in a moment",
            ));
        };
        open_authority(record, &self.seal).map_err(Refusal::failed)
    }

    async fn sign_leaf(&self, credential: &Credential, request: &SignLeaf) -> Result<LeafCertificate, Refusal> {
        self.fresh().await?;
        self.require(credential, &[Requirement::write(Resource::Service, request.service.as_str())])?;
        self.sign_for_service(&request.service, &request.csr)
    }

    fn sign_for_service(&self, service: &ServiceName, csr: &[u8]) -> Result<LeafCertificate, Refusal> {
        let domain = self.trust_domain()?;
        let id = SpiffeId::service(&domain, &self.settings.datacenter, service.as_str())
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        let settings = self.published.load().authority().and_then(|authority| authority.settings.clone());
        let lifetime = settings.as_ref().map_or(self.settings.leaf_lifetime, |it| Duration::from_secs(it.leaf_seconds));
        self.signatures.take(settings.unwrap_or_default().signatures_per_second)?;
        self.sign(&id, csr, lifetime)
    }

    /// Signs the certificate of the client agent of `node`, who has proven to be that.
    pub(crate) fn sign_for_node(&self, node: &str, csr: &[u8]) -> Result<LeafCertificate, Refusal> {
        let domain = self.trust_domain()?;
        let id = SpiffeId::client(&domain, &self.settings.datacenter, node)
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        self.sign(&id, csr, self.settings.agent_lifetime)
    }

    fn sign(&self, id: &SpiffeId, csr: &[u8], lifetime: Duration) -> Result<LeafCertificate, Refusal> {
        let csr = std::str::from_utf8(csr)
            .map_err(|_| Refusal::bad_request("the certificate signing request is not PEM text"))?;
        let chain = self
            .mesh_authority()?
            .sign_leaf(csr, id, lifetime, self.clock.now(), &*self.rng)
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        Ok(LeafCertificate {
            serial_number: chain.serial,
            chain_pem: chain.chain_pem,
            uri: chain.uri,
            valid_after: Timestamp::from(chain.valid_after),
            valid_before: Timestamp::from(chain.valid_before),
            roots_index: self.published.load().authority().map_or_else(Default::default, |it| it.root.modify_index),
        })
    }

    /// The mesh's trust domain, once the first leader has made it.
    pub(crate) fn trust_domain(&self) -> Result<TrustDomain, Refusal> {
        let store = self.published.load();
        let record = store.authority().ok_or_else(|| {
            Refusal::failed("the mesh CA does not exist yet: no leader has made it; try again in a moment")
        })?;
        record.trust_domain.parse().map_err(|error| Refusal::failed(format!("stored trust domain: {error}")))
    }

    async fn create_join_token(&self, credential: &Credential, request: &CreateJoinToken) -> Result<Report, Refusal> {
        self.require_leader()?;
        self.require(credential, &[Requirement::write(Resource::Acl, "")])?;
        let lifetime = Duration::from_secs(request.valid_seconds);
        if lifetime.is_zero() || lifetime > JOIN_TOKEN_LIFETIME_MAX {
            return Err(Refusal::bad_request(format!(
                "a join token must be valid for 1 to {} seconds, not {}",
                JOIN_TOKEN_LIFETIME_MAX.as_secs(),
                request.valid_seconds
            )));
        }
        let secret = self.rng.uuid();
        let token = JoinToken {
            lookup: self.seal.token_lookup(&secret),
            services: request.services.clone(),
            reusable: false,
            expiration_time: Timestamp::from(self.clock.now()).after(lifetime),
            node: request.node.clone(),
        };
        let outcome = self.write_as(Duty::Login, Command::JoinTokenSet(token)).await?;
        if let Effect::Refused(refusal) = outcome.effect {
            return Err(refusal);
        }
        Ok(Report::JoinToken(Credential::new(secret)))
    }
}

/// Opens the sealed keys of the mesh CA.
pub(crate) fn open_authority(
    record: &AuthorityRecord,
    seal: &lictor_identity::seal::SealKey,
) -> Result<MeshAuthority, String> {
    let open = |sealed: &[u8], context: &[u8]| -> Result<Zeroizing<String>, String> {
        let plain = seal.unseal(sealed, context).map_err(|error| error.to_string())?;
        String::from_utf8(plain.to_vec()).map(Zeroizing::new).map_err(|_| "a sealed key is not text".to_owned())
    };
    MeshAuthority::from_parts(&MeshAuthorityParts {
        trust_domain: record.trust_domain.clone(),
        root_certificate_pem: record.root.root_cert.clone(),
        root_key_pem: open(&record.sealed_root_key, SEAL_CONTEXT_ROOT)?,
        intermediate_certificate_pem: record.intermediate_pem.clone(),
        intermediate_key_pem: open(&record.sealed_intermediate_key, SEAL_CONTEXT_INTERMEDIATE)?,
    })
    .map_err(|error| error.to_string())
}
