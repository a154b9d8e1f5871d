//! The waist of a server: authorise, propose, wait, answer.
//!
//! A write is authorised on the leader just before its proposal, never on a forwarder's word. A read passes a barrier that
//! fits its consistency and is then answered from this server's own snapshot, so that any server serves any reader and a
//! parked query costs the leader nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lictor_agent::events::Ring;
use lictor_agent::forward::RpcPool;
use lictor_agent::pools::Pools;
use lictor_agent::{Datacenter, Standing};
use lictor_identity::seal::SealKey;
use lictor_runtime::transport::Boxed;
use lictor_runtime::{Clock, Rng};
use lictor_state::access::{Authorized, Authorizer, Duty, Rules};
use lictor_state::published::Published;
use lictor_types::autopilot::AutopilotConfig;
use lictor_types::command::BoundedSession;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, RelayedWrite, Report, Request, RequestBody, Response, WriteRequest};
use lictor_types::session::TTL_MIN;
use lictor_types::{
    Command, Consistency, Credential, Envelope, Freshness, Outcome, Query, Read, Refusal, RequestId, Timestamp,
    encoding,
};
use minicbor::bytes::ByteVec;
use tokio::time::{Instant, timeout, timeout_at};

use crate::equality::{EqualitySettings, Looks};
use crate::leader::autopilot::HealthTable;
use crate::leader::coordinates::CoordinateBatch;
use crate::leader::equality::EqualityTable;
use crate::leader::members::MemberTable;
use crate::leader::sessions::SessionTimers;
use crate::login::LoginMethods;
use crate::raft::{Bug, Consensus, ProposeError, ReadError};
use crate::relay::Relay;
use crate::signatures::SignatureLimit;

/// Between two tries to reach a leader. A new one is elected within about a second.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A leader that was not heard for so long is gone, or this server is not among those it speaks to any more.
pub(crate) const LEADER_SILENT_AFTER: Duration = Duration::from_secs(2);

/// What a server's waist is made of.
pub struct ServerDatacenter {
    pub(crate) consensus: Consensus,
    pub(crate) published: Arc<Published>,
    pub(crate) authorizer: Authorizer,
    pub(crate) seal: Arc<SealKey>,
    pub(crate) peers: RpcPool,
    pub(crate) relay: Relay,
    pub(crate) members: MemberTable,
    pub(crate) sessions: SessionTimers,
    pub(crate) health: HealthTable,
    pub(crate) looks: Arc<Looks>,
    pub(crate) equality: EqualityTable,
    pub(crate) coordinates: CoordinateBatch,
    pub(crate) pools: Arc<Pools>,
    pub(crate) events: Ring,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) logins: LoginMethods,
    pub(crate) settings: ServerSettings,
    pub(crate) signatures: SignatureLimit,
    pub(crate) probe: tokio::sync::watch::Receiver<lictor_types::rpc::Probe>,
    pub(crate) archives: crate::archive::Archives,
    pub(crate) figures: crate::figures::ServerFigures,
}

/// What of the configuration the waist needs.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The datacenter's name.
    pub datacenter: String,
    /// How long a request waits for a leader before it is refused (`performance.rpc_hold_timeout`).
    pub hold: Duration,
    /// How long a leaf certificate is valid.
    pub leaf_lifetime: Duration,
    /// How long a client agent's certificate is valid.
    pub agent_lifetime: Duration,
    /// How the first leader looks after the servers of raft.
    pub autopilot: AutopilotConfig,
    /// A call that no intention speaks of is allowed.
    pub default_intention_allow: bool,
    /// When the servers compare their states.
    pub equality: EqualitySettings,
    /// The shortest TTL that a session may have.
    pub session_ttl_min: Duration,
    /// How long a failed node that is no pod is remembered.
    pub reconnect_timeout: Duration,
}

impl ServerDatacenter {
    fn now(&self) -> Timestamp {
        Timestamp::from(self.clock.now())
    }

    pub(crate) fn new_request_id(&self) -> RequestId {
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        id
    }

    /// What the holder of `credential` may, by the newest state this server has.
    pub(crate) fn rules(&self, credential: &Credential) -> Result<Rules, Refusal> {
        let lookup = (!credential.is_anonymous()).then(|| self.seal.token_lookup(&credential.secret));
        self.authorizer.resolve(&self.published.load(), lookup, self.now())
    }

    /// Applies `command` here if this server leads. The envelope's id makes a repeat harmless.
    pub(crate) async fn write_here(
        &self,
        credential: &Credential,
        request_id: RequestId,
        command: Command,
    ) -> Result<Outcome, Refusal> {
        // A token that was made a moment ago must be known here before it is judged.
        self.consensus.lease_read().await.map_err(refuse_read)?;
        let rules = self.rules(credential)?;
        let command = self.bounded(self.sealed(command)?);
        let authorized = self.authorizer.authorize_command(&rules, &self.published.load(), command)?;
        let mut outcome = self.propose(request_id, authorized).await?;
        rules.filter_effect(&mut outcome.effect);
        Ok(outcome)
    }

    /// A session is made within the bounds of this leader, whatever was sent.
    fn bounded(&self, command: Command) -> Command {
        let session = match command {
            Command::SessionCreate(session) => session,
            Command::SessionCreateWithin(sent) => sent.session,
            other => return other,
        };
        let least = self.settings.session_ttl_min;
        if least == TTL_MIN {
            return Command::SessionCreate(session);
        }
        Command::SessionCreateWithin(BoundedSession { session, ttl_min_nanos: least.as_nanos() as u64 })
    }

    async fn propose(&self, request_id: RequestId, command: Authorized<Command>) -> Result<Outcome, Refusal> {
        self.propose_at(request_id, command, self.now()).await
    }

    /// Proposes with this stamp, which is the leader's time for all but planted bugs.
    pub(crate) async fn propose_at(
        &self,
        request_id: RequestId,
        command: Authorized<Command>,
        leader_time: Timestamp,
    ) -> Result<Outcome, Refusal> {
        let begin = Instant::now();
        let of_command = self.figures.sample_of(command.get());
        let envelope = Envelope { request_id, leader_time, command: command.into_inner() };
        let bytes = self.consensus.propose(encoding::encode(&envelope)).await.map_err(refuse_proposal)?;
        self.figures.committed(of_command, begin.elapsed());
        let outcome: Outcome = encoding::decode(&bytes).map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(outcome)
    }

    /// Applies a command of the leader's own. Refused when this server does not lead.
    pub(crate) async fn write_as(&self, duty: Duty, command: Command) -> Result<Outcome, Refusal> {
        self.propose(self.new_request_id(), Authorized::system(duty, command)).await
    }

    /// Applies `command` once, here or at the leader, within the hold time.
    async fn write_with_id(
        &self,
        credential: &Credential,
        request_id: RequestId,
        command: Command,
    ) -> Result<Outcome, Refusal> {
        let deadline = Instant::now() + self.settings.hold;
        loop {
            let refusal = if self.consensus.is_leader() {
                match self.write_here(credential, request_id, command.clone()).await {
                    Err(refusal) if refusal.may_retry() => refusal,
                    done => return done,
                }
            } else {
                let write = WriteRequest { request_id, command: command.clone() };
                match self.relay.write(&RelayedWrite { credential: credential.clone(), write }, deadline).await {
                    Err(refusal) if refusal.may_retry() => refusal,
                    done => return done,
                }
            };
            self.pause_before_retry(deadline, refusal).await?;
        }
    }

    /// Applies what another server passes on, all at once, each on its own.
    async fn write_each(&self, writes: &[ByteVec]) -> Vec<Result<Outcome, Refusal>> {
        let each = writes.iter().map(async |bytes| {
            let relayed: RelayedWrite =
                encoding::decode(bytes).map_err(|error| Refusal::bad_request(error.to_string()))?;
            let WriteRequest { request_id, command } = relayed.write;
            self.write_here(&relayed.credential, request_id, command).await
        });
        join_all(each).await
    }

    /// Waits for a moment or a change of leader; gives up with `refusal` at the deadline.
    async fn pause_before_retry(&self, deadline: Instant, refusal: Refusal) -> Result<(), Refusal> {
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(refusal);
        }
        let mut leader = self.consensus.leader();
        leader.mark_unchanged();
        match timeout(RETRY_PAUSE, leader.changed()).await {
            // Consensus has ended: there is nothing to wait for, and to try again at once would spin.
            Ok(Err(_)) => Err(refusal),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Sends `body` to the leader, if there is one that is not this server.
    pub(crate) async fn ask_leader(
        &self,
        credential: &Credential,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<Response, Refusal> {
        let address = self.consensus.leader().borrow().as_ref().map(|leader| leader.address.clone());
        let Some(address) = address else { return Err(Refusal::no_leader()) };
        if self.consensus.is_leader() {
            return Err(Refusal::no_leader());
        }
        let request = Request { credential: credential.clone(), body, forwarded: true };
        match self.peers.call(&address, request, deadline.saturating_duration_since(Instant::now())).await {
            Ok(Response::Refused(refusal)) => Err(refusal),
            Ok(response) => Ok(response),
            Err(error) => Err(error.into_refusal()),
        }
    }

    /// Whether this server leads, or has heard a leader lately.
    pub(crate) fn hears_a_leader(&self) -> bool {
        self.consensus.last_contact() < LEADER_SILENT_AFTER && self.consensus.leader().borrow().is_some()
    }

    /// Waits until this server's snapshot is as fresh as `consistency` asks.
    pub(crate) async fn barrier(&self, consistency: Consistency) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.settings.hold;
        loop {
            let error = match consistency {
                Consistency::Stale => return Ok(()),
                Consistency::Default if self.consensus.faults().has(Bug::FollowerServesDefault) => return Ok(()),
                Consistency::Default if self.consensus.is_leader() => self.consensus.lease_read().await,
                Consistency::Default | Consistency::Consistent => {
                    match timeout_at(deadline, self.consensus.read_barrier()).await {
                        Ok(result) => result,
                        Err(_) => return Err(Refusal::no_leader()),
                    }
                }
            };
            match error {
                Ok(()) => return Ok(()),
                Err(error) => self.pause_before_retry(deadline, refuse_read(error)).await?,
            }
        }
    }

    async fn read_here(&self, credential: &Credential, query: Query, freshness: Freshness) -> Result<Read, Refusal> {
        self.barrier(freshness.consistency).await?;
        let Some(block) = freshness.block.filter(|block| block.after.0 > 0) else {
            return self.answer(credential, query);
        };
        let deadline = Instant::now() + block.wait();
        // Register, then read, then wait: a change between the two wakes us.
        let mut watch = self.published.watches().register(&query);
        loop {
            // Authorised anew at every wake: a token may have lost its rights meanwhile.
            let read = self.answer(credential, query.clone())?;
            // An index that the newest state has not reached is of another cluster's life: answer with a lower one, so that the
            // client starts anew. A state that may be behind reaches it.
            let is_of_another_life = freshness.consistency != Consistency::Stale
                && read.index < block.after
                && block.after > self.published.load().index();
            if read.index > block.after || is_of_another_life || Instant::now() >= deadline {
                return Ok(read);
            }
            if timeout_at(deadline, watch.changed()).await.is_err() {
                return self.answer(credential, query);
            }
        }
    }

    fn answer(&self, credential: &Credential, query: Query) -> Result<Read, Refusal> {
        self.figures.queries.increment();
        let store = self.published.load();
        let rules = self.rules(credential)?;
        let rules = self.authorizer.rules_of_question(&store, rules, &query, self.now())?;
        let query = self.authorizer.authorize_query(&rules, query)?;
        let mut answered = self.published.answer(&store, &query);
        self.unseal(&mut answered.answer)?;
        let filtered = answered.filtered && !credential.is_anonymous();
        let mut index = answered.index;
        if self.consensus.faults().has(Bug::IndexGoesBack) && index.0.is_multiple_of(7) {
            index.0 -= 5;
        }
        Ok(Read {
            index,
            answer: answered.answer,
            filtered_by_acls: filtered,
            last_contact_millis: self.consensus.last_contact().as_millis() as u64,
            known_leader: self.consensus.leader().borrow().is_some(),
        })
    }

    pub(crate) async fn operate_anywhere(
        &self,
        credential: &Credential,
        operation: Operation,
    ) -> Result<Report, Refusal> {
        if !needs_leader(&operation) {
            return self.operate_here(credential, operation).await;
        }
        let deadline = Instant::now() + self.settings.hold;
        loop {
            let refusal = if self.consensus.is_leader() {
                match self.operate_here(credential, operation.clone()).await {
                    Err(refusal) if refusal.may_retry() => refusal,
                    done => return done,
                }
            } else {
                match self.ask_leader(credential, RequestBody::Operate(operation.clone()), deadline).await {
                    Ok(Response::Report(report)) => return Ok(report),
                    Ok(other) => return Err(other.unexpected()),
                    Err(refusal) if refusal.may_retry() => refusal,
                    Err(refusal) => return Err(refusal),
                }
            };
            self.pause_before_retry(deadline, refusal).await?;
        }
    }

    /// Serves a request of another agent or server. `forwarded` ones are served here or refused.
    pub(crate) async fn serve(&self, request: Request) -> Response {
        let Request { credential, body, forwarded } = request;
        self.figures.requests.increment();
        let done = match body {
            RequestBody::Write(write) => {
                let WriteRequest { request_id, command } = *write;
                let written = if forwarded {
                    self.write_here(&credential, request_id, command).await
                } else {
                    self.write_with_id(&credential, request_id, command).await
                };
                written.map(Response::Written)
            }
            // Another server's only: so that none goes in circles.
            RequestBody::Relay(writes) if forwarded => Ok(Response::Relayed(self.write_each(&writes).await)),
            RequestBody::Relay(_) => Err(Refusal::bad_request("writes are passed on by servers only")),
            RequestBody::Read(read) => {
                self.read_here(&credential, read.query, read.freshness).await.map(Response::Read)
            }
            RequestBody::Operate(operation) if forwarded => {
                self.operate_here(&credential, operation).await.map(Response::Report)
            }
            RequestBody::Operate(operation) => {
                self.operate_anywhere(&credential, operation).await.map(Response::Report)
            }
        };
        done.unwrap_or_else(|refusal| {
            self.figures.request_errors.increment();
            Response::Refused(refusal)
        })
    }
}

impl Datacenter for ServerDatacenter {
    fn write<'a>(&'a self, credential: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>> {
        Box::pin(self.write_with_id(credential, self.new_request_id(), command))
    }

    fn read<'a>(
        &'a self,
        credential: &'a Credential,
        query: Query,
        freshness: Freshness,
    ) -> Boxed<'a, Result<Read, Refusal>> {
        Box::pin(self.read_here(credential, query, freshness))
    }

    fn operate<'a>(&'a self, credential: &'a Credential, operation: Operation) -> Boxed<'a, Result<Report, Refusal>> {
        Box::pin(self.operate_anywhere(credential, operation))
    }

    fn standing(&self, credential: &Credential) -> Option<Standing> {
        let version = self.published.version()?;
        // A token may have expired since, which is no change of the state.
        self.rules(credential).ok()?;
        Some(Standing { version, last_contact: self.consensus.last_contact() })
    }
}

/// Whether only the leader can do it.
fn needs_leader(operation: &Operation) -> bool {
    match operation {
        Operation::Keepalive(_)
        | Operation::Leave(_)
        | Operation::Members
        | Operation::CreateJoinToken(_)
        | Operation::JoinServer(_)
        | Operation::RemoveServer(_)
        | Operation::ReadIndex
        | Operation::Login(_)
        | Operation::RenewLogin(_)
        | Operation::RenewSession(_)
        | Operation::RestoreOpen(_)
        | Operation::RestoreWrite(_)
        | Operation::RestoreFinish(_)
        | Operation::TransferLeader
        | Operation::TransferLeaderTo(_)
        | Operation::RemoveServerAt(_)
        | Operation::LeaveRaft(_)
        | Operation::AutopilotState
        | Operation::RaftPeers
        | Operation::UpdateCoordinate(_)
        | Operation::FireEvent(_)
        | Operation::ForceLeave(_)
        | Operation::GossipKeys(_) => true,
        Operation::Status
        | Operation::Standing(_)
        | Operation::RaftPeersHere
        | Operation::Probe
        | Operation::SignLeaf(_)
        | Operation::SignAgent(_)
        | Operation::SnapshotOpen(_)
        | Operation::SnapshotRead(_)
        | Operation::Usage
        | Operation::FollowEvents(_)
        | Operation::CompareState(_)
        | Operation::Keyring(_)
        | Operation::Authorize(_) => false,
    }
}

/// The refusal that a client sees for a proposal that consensus did not take.
fn refuse_proposal(error: ProposeError) -> Refusal {
    let kind = match &error {
        ProposeError::NotLeader(_) => return Refusal::no_leader(),
        ProposeError::Overloaded { .. } => RefusalKind::Unavailable,
        ProposeError::Unavailable(_) => RefusalKind::Uncertain,
        ProposeError::TooLarge { .. } => RefusalKind::TooLarge,
        ProposeError::NoSpace | ProposeError::Fatal(_) => RefusalKind::Failed,
    };
    Refusal::new(kind, error.to_string())
}

/// The refusal that a client sees for a read that consensus could not confirm. Nothing was done, so it may be retried.
pub(crate) fn refuse_read(error: ReadError) -> Refusal {
    match &error {
        ReadError::NotLeader(_) => Refusal::no_leader(),
        ReadError::Unavailable(_) | ReadError::Overloaded { .. } | ReadError::Fatal(_) => {
            Refusal::new(RefusalKind::Unavailable, error.to_string())
        }
    }
}
