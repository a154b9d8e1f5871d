//! The dialling side: how raft reaches other servers.
//!
//! Each client that raft makes has a stream of its own, so that heartbeats, replication, votes and snapshots never
//! wait for each other. Streams are kept when a client goes and given to the next one for the same server.
//!
//! Invariants
//! - Every wait has a limit.
//! - A reply is never taken for that of another request: replies come in order, and abandoned ones are counted and
//!   skipped.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{SinkExt, Stream, StreamExt};
use lictor_runtime::Tasks;
use lictor_runtime::transport::{ALPN_RAFT, SharedTransport};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::codec;
use super::data_directory::DataDirectory;
use super::snapshot::SnapshotFile;
use super::types::{LogId, Server, ServerId, Types, Vote};
use super::wire::{self, PIPELINE, Reply, Request};

/// So many streams to one server are kept while nobody uses them.
const IDLE_STREAMS: usize = 4;
/// A stream that owes more replies than this is given up.
const OWED_LIMIT: usize = 2 * PIPELINE;
/// After a failed dial nobody dials the same address for this long.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// A dial takes at most this long.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// A chunk of a snapshot is answered within this.
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// The installation of a whole snapshot takes at most this long.
const INSTALL_DEADLINE: Duration = Duration::from_secs(120);

type RpcError = RPCError<Types>;

fn unreachable(why: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn broken(why: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(why))
}

/// A stream that was dialled. Dropping it closes it.
struct Connection {
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Bytes>,
    /// Replies that have not come yet.
    owed: usize,
    broken: bool,
    tasks: Tasks,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Connection {
    fn usable(&self) -> bool {
        !self.broken && !self.outgoing.is_closed() && !self.incoming.is_closed() && self.owed <= OWED_LIMIT
    }

    async fn send(&mut self, request: &Request<'_>) -> Result<(), RpcError> {
        let frame = codec::encode(request);
        if frame.len() > wire::FRAME_LIMIT {
            return Err(unreachable(format!("a message of {} bytes is longer than any may be", frame.len())));
        }
        match self.outgoing.send(frame.into()).await {
            Ok(()) => {
                self.owed += 1;
                Ok(())
            }
            Err(_) => {
                self.broken = true;
                Err(broken("the stream ended"))
            }
        }
    }

    /// The next reply, when the last `inflight` requests are those whose replies are wanted.
    async fn receive(&mut self, inflight: usize) -> Result<Reply, RpcError> {
        loop {
            let Some(frame) = self.incoming.recv().await else {
                self.broken = true;
                return Err(broken("the stream ended"));
            };
            let abandoned = self.owed > inflight;
            self.owed = self.owed.saturating_sub(1);
            match codec::decode("reply", &frame) {
                Ok(Reply::Refused(why)) => {
                    self.broken = true;
                    return Err(unreachable(format!("the server refused the stream: {why}")));
                }
                Ok(_) if abandoned => {}
                Ok(Reply::Failed(why)) => return Err(broken(format!("the server could not do it: {why}"))),
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    self.broken = true;
                    return Err(broken(error));
                }
            }
        }
    }

    async fn call(&mut self, request: &Request<'_>, limit: Duration) -> Result<Reply, RpcError> {
        let answered = timeout(limit, async {
            self.send(request).await?;
            self.receive(1).await
        })
        .await;
        answered.unwrap_or_else(|_| Err(unreachable(format!("no answer within {limit:?}"))))
    }
}

/// What all clients of one server share.
pub(super) struct Links {
    own: ServerId,
    directory: Arc<DataDirectory>,
    transport: SharedTransport,
    tasks: Tasks,
    /// How long one message may go unanswered.
    deadline: Duration,
    idle: Mutex<BTreeMap<(ServerId, String), Vec<Connection>>>,
    not_before: Mutex<BTreeMap<String, Instant>>,
    /// The highest index that any server was told to be committed.
    pub(super) told: AtomicU64,
}

impl Links {
    pub(super) fn new(
        directory: Arc<DataDirectory>,
        transport: SharedTransport,
        tasks: Tasks,
        deadline: Duration,
    ) -> Arc<Self> {
        let own = directory.server_id();
        let idle = Mutex::default();
        Arc::new(Self {
            own,
            directory,
            transport,
            tasks,
            deadline,
            idle,
            not_before: Mutex::default(),
            told: AtomicU64::new(0),
        })
    }

    /// The message of an append. What it tells to be committed is remembered before it is sent: from then on the other
    /// side may apply it and show it to readers.
    fn append<'r>(&self, request: &'r AppendEntriesRequest<Types>) -> Request<'r> {
        if let Some(committed) = &request.leader_commit {
            self.told.fetch_max(committed.index(), Ordering::SeqCst);
        }
        wire::append(request)
    }

    /// The highest index that any server was told by this one to be committed. Who reads here must not see less: another
    /// reader may have seen that much there.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    fn keep(&self, target: ServerId, address: String, connection: Connection) {
        if connection.usable() {
            let mut idle = self.idle.lock();
            let kept = idle.entry((target, address)).or_default();
            kept.retain(Connection::usable);
            if kept.len() < IDLE_STREAMS {
                kept.push(connection);
            }
        }
    }

    async fn connect(self: &Arc<Self>, target: ServerId, address: &str) -> Result<Connection, RpcError> {
        if target == self.own {
            return Err(unreachable("a server does not dial itself"));
        }
        {
            let mut idle = self.idle.lock();
            while let Some(connection) = idle.get_mut(&(target, address.to_owned())).and_then(Vec::pop) {
                if connection.usable() {
                    return Ok(connection);
                }
            }
        }
        if self.not_before.lock().get(address).is_some_and(|until| Instant::now() < *until) {
            return Err(unreachable(format!("{address} could not be reached a moment ago")));
        }
        let (sender, receiver) = oneshot::channel();
        let links = self.clone();
        let dialled = address.to_owned();
        // In a task of its own: a caller that gives up early leaves the stream to the next one, instead of none ever
        // getting through on a slow machine.
        self.tasks.spawn(async move {
            let outcome = links.dial(target, &dialled).await;
            if let Err(Ok(connection)) = sender.send(outcome) {
                links.keep(target, dialled, connection);
            }
        });
        receiver.await.unwrap_or_else(|_| Err(unreachable("this server is stopping")))
    }

    async fn dial(&self, target: ServerId, address: &str) -> Result<Connection, RpcError> {
        let dialled = timeout(DIAL_DEADLINE, self.transport.dial(address, ALPN_RAFT)).await;
        let failure = match dialled {
            Ok(Ok(stream)) => {
                self.not_before.lock().remove(address);
                return self.greet(target, stream).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {DIAL_DEADLINE:?}"),
        };
        self.not_before.lock().insert(address.to_owned(), Instant::now() + DIAL_PAUSE);
        Err(unreachable(format!("cannot dial {address}: {failure}")))
    }

    async fn greet(&self, target: ServerId, stream: lictor_runtime::Stream) -> Result<Connection, RpcError> {
        let (read, write) = tokio::io::split(stream);
        let mut source = FramedRead::new(read, wire::framing());
        let mut sink = FramedWrite::new(write, wire::framing());
        let (outgoing, mut to_send) = mpsc::channel::<Bytes>(PIPELINE);
        let (received, incoming) = mpsc::channel(2 * OWED_LIMIT);
        let tasks = self.tasks.child();
        tasks.spawn(async move {
            while let Some(frame) = to_send.recv().await {
                let mut sent = sink.feed(frame).await;
                while let (Ok(()), Ok(frame)) = (&sent, to_send.try_recv()) {
                    sent = sink.feed(frame).await;
                }
                if sent.is_err() || SinkExt::<Bytes>::flush(&mut sink).await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            while let Some(Ok(frame)) = source.next().await {
                if received.send(frame.freeze()).await.is_err() {
                    return;
                }
            }
        });
        let mut connection = Connection { outgoing, incoming, owed: 0, broken: false, tasks };
        let hello = Request::Hello {
            version: wire::VERSION,
            from: self.own.0.into(),
            to: target.0.into(),
            cluster: self.directory.cluster_id(),
        };
        connection.send(&hello).await?;
        // It is answered only when it is refused.
        connection.owed = 0;
        Ok(connection)
    }

    /// Asks `leader` how far one must have applied to read what is committed now.
    pub(super) async fn read_index(
        self: &Arc<Self>,
        leader: ServerId,
        address: &str,
        limit: Duration,
    ) -> Result<Result<LogId, Option<ServerId>>, RpcError> {
        let asked = async {
            let mut connection = self.connect(leader, address).await?;
            let reply = connection.call(&Request::ReadIndex, limit).await;
            self.keep(leader, address.to_owned(), connection);
            match reply? {
                Reply::ReadIndex(position) => Ok(Ok(position.into())),
                Reply::NotLeader(other) => Ok(Err(other.map(|id| ServerId(id.into())))),
                other => Err(broken(format!("a reply to something else: {other:?}"))),
            }
        };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(unreachable(format!("no answer within {limit:?}"))))
    }
}

/// Makes clients.
pub(super) struct Dialler(pub Arc<Links>);

impl RaftNetworkFactory<Types> for Dialler {
    type Network = PeerClient;

    async fn new_client(&mut self, target: ServerId, node: &Server) -> PeerClient {
        PeerClient { links: self.0.clone(), target, address: node.address.clone(), connection: None }
    }
}

/// Reaches one server.
pub(super) struct PeerClient {
    links: Arc<Links>,
    target: ServerId,
    address: String,
    connection: Option<Connection>,
}

impl Drop for PeerClient {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.links.keep(self.target, self.address.clone(), connection);
        }
    }
}

impl PeerClient {
    async fn connection(&mut self) -> Result<&mut Connection, RpcError> {
        let connection = match self.connection.take().filter(Connection::usable) {
            Some(connection) => connection,
            None => self.links.connect(self.target, &self.address).await?,
        };
        Ok(self.connection.insert(connection))
    }

    async fn call(&mut self, request: &Request<'_>, limit: Duration) -> Result<Reply, RpcError> {
        let asked = async { self.connection().await?.call(request, limit).await };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(unreachable(format!("no answer within {limit:?}"))))
    }

    async fn candidacy(&mut self, request: &Request<'_>, limit: Duration) -> Result<VoteResponse<Types>, RpcError> {
        match self.call(request, limit).await? {
            Reply::Vote { vote, granted, last } => {
                Ok(VoteResponse::new(Vote::from(vote), last.map(Into::into), granted))
            }
            other => Err(broken(format!("a reply to something else: {other:?}"))),
        }
    }

    async fn send_snapshot(&mut self, vote: &Vote, snapshot: &SnapshotFile) -> Result<Vote, RpcError> {
        let length = snapshot.len();
        let connection = self.connection().await?;
        let begin = Request::SnapshotBegin { vote: vote.into(), length };
        match connection.call(&begin, CHUNK_DEADLINE).await? {
            Reply::SnapshotTaken => {}
            other => return Err(broken(format!("a reply to something else: {other:?}"))),
        }
        let mut sent = 0;
        loop {
            let chunk = snapshot.chunk(sent).map_err(broken)?;
            sent += chunk.len() as u64;
            let limit = if sent == length { INSTALL_DEADLINE } else { CHUNK_DEADLINE };
            let request = Request::SnapshotChunk { bytes: (&chunk[..]).into() };
            match connection.call(&request, limit).await? {
                Reply::SnapshotTaken if sent < length => {}
                Reply::Snapshot(vote) => return Ok(vote.into()),
                other => return Err(broken(format!("a reply to something else: {other:?}"))),
            }
        }
    }
}

async fn receive(connection: &mut Option<Connection>, inflight: usize) -> Result<Reply, RpcError> {
    match connection {
        Some(connection) => connection.receive(inflight).await,
        None => Err(broken("the stream ended")),
    }
}

/// One run of pipelined append requests.
///
/// It connects only when the first request is there: raft waits out its backoff before it makes that one, and a
/// session that failed earlier would be tried again at once, without end.
struct Session<'s, S> {
    client: &'s mut PeerClient,
    input: S,
    input_open: bool,
    /// What each unanswered request follows and ends with.
    inflight: VecDeque<(Option<LogId>, Option<LogId>)>,
    deadline: Duration,
    over: bool,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin> Session<'_, S> {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RpcError>> {
        while !self.over && (self.input_open || !self.inflight.is_empty()) {
            let may_send = self.input_open && self.inflight.len() < PIPELINE;
            tokio::select! {
                biased;
                reply = timeout(self.deadline, receive(&mut self.client.connection, self.inflight.len())),
                    if !self.inflight.is_empty() =>
                {
                    let reply = reply.unwrap_or_else(|_| Err(broken("the follower does not answer")));
                    return Some(self.take(reply));
                }
                request = self.input.next(), if may_send => {
                    let Some(request) = request else {
                        self.input_open = false;
                        continue;
                    };
                    let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                    let sent = timeout(self.deadline, self.send(&request)).await;
                    if let Err(error) = sent.unwrap_or_else(|_| Err(unreachable("the follower cannot be reached"))) {
                        return Some(self.take(Err(error)));
                    }
                    self.inflight.push_back((request.prev_log_id, last));
                }
            }
        }
        None
    }

    async fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), RpcError> {
        if self.inflight.is_empty() {
            let message = self.client.links.append(request);
            self.client.connection().await?.send(&message).await
        } else if let Some(connection) = &mut self.client.connection {
            // Never a new one: the answers that are missing come over this one.
            connection.send(&self.client.links.append(request)).await
        } else {
            Err(broken("the stream ended"))
        }
    }

    fn take(&mut self, reply: Result<Reply, RpcError>) -> Result<StreamAppendResult<Types>, RpcError> {
        let (previous, last) = self.inflight.pop_front().unwrap_or_default();
        let response = reply.and_then(|reply| match reply {
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedPart(last) => Ok(AppendEntriesResponse::PartialSuccess(last.map(Into::into))),
            Reply::Conflict if previous.is_some() => Ok(AppendEntriesResponse::Conflict),
            Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(broken(format!("a reply to something else: {other:?}"))),
        });
        match response {
            Ok(AppendEntriesResponse::Success) => {}
            // The requests behind this one cannot succeed either: their replies are skipped.
            Ok(_) => self.over = true,
            Err(_) => {
                self.over = true;
                self.client.connection = None;
            }
        }
        Ok(response?.into_stream_result(previous, last))
    }
}

impl RaftNetworkV2<Types> for PeerClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let links = self.links.clone();
        match self.call(&links.append(&rpc), option.soft_ttl().max(self.links.deadline)).await? {
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedPart(last) => Ok(AppendEntriesResponse::PartialSuccess(last.map(Into::into))),
            Reply::Conflict => Ok(AppendEntriesResponse::Conflict),
            Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(broken(format!("a reply to something else: {other:?}"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            // The limit that raft offers is its heartbeat interval, less than a slow disk may need for one sync.
            let deadline = self.links.deadline;
            let inflight = VecDeque::with_capacity(PIPELINE);
            let session = Session { client: self, input, input_open: true, inflight, deadline, over: false };
            let replies = unfold(session, |mut session| async move {
                let next = session.next().await?;
                Some((next, session))
            });
            let replies: BoxStream<'s, _> = Box::pin(replies);
            Ok(replies)
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RpcError> {
        self.candidacy(&Request::Vote((&rpc).into()), option.soft_ttl()).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RpcError> {
        self.candidacy(&Request::PreVote((&rpc).into()), option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(&vote, &snapshot.snapshot) => sent,
        };
        if sent.is_err() {
            // The other side may wait for the rest: it must see an end.
            self.connection = None;
        }
        Ok(SnapshotResponse::new(sent?))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        match self.call(&wire::transfer(&request), option.soft_ttl()).await? {
            Reply::TransferLeader { accepted: true } => Ok(Ok(())),
            Reply::TransferLeader { accepted: false } => {
                let expected = request.last_log_id().copied();
                Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual: None }))
            }
            other => Err(broken(format!("a reply to something else: {other:?}"))),
        }
    }
}
