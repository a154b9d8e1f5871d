//! The accepting side: what other servers ask over `raft/1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use lictor_runtime::Stream;
use openraft::raft::AppendEntriesRequest;
use openraft::{Raft, ReadPolicy, Snapshot};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::codec;
use super::data_directory::DataDirectory;
use super::settings::Drive;
use super::snapshot::{Incoming, SnapshotStore};
use super::state_machine::{Applier, blocking};
use super::types::{ServerId, Types, Vote};
use super::wire::{self, PIPELINE, Reply, Request};

/// Whoever connects says who it is within this.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Whoever asks takes the answer within this.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// Why a stream from another server ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Bytes could not be read or written.
    #[error("the stream failed: {0}")]
    Stream(#[from] std::io::Error),
    /// The other side did something that the protocol does not allow.
    #[error("the other server does not follow the protocol: {0}")]
    Protocol(String),
    /// The other side meant another server, or belongs to another cluster.
    #[error("the stream was refused: {0}")]
    Refused(String),
    /// The other side was too slow.
    #[error("the other server did not {0} in time")]
    TooSlow(&'static str),
}

/// When a leader was last heard.
#[derive(Debug)]
pub(super) struct Contact(Mutex<Instant>);

impl Contact {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    pub(super) fn age(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// Answers other servers.
pub(super) struct Service {
    pub raft: Raft<Types, Applier>,
    pub directory: Arc<DataDirectory>,
    pub snapshots: SnapshotStore,
    pub drive: Drive,
    pub contact: Arc<Contact>,
    /// Before this moment no vote is given: before the restart one may have been promised to a leader whose lease
    /// still runs.
    pub votes_from: Instant,
    pub next_incoming: AtomicU64,
}

/// A snapshot on its way in.
struct Receiving {
    vote: Vote,
    length: u64,
    file: Incoming,
}

fn failed(why: impl ToString) -> Reply {
    Reply::Failed(why.to_string())
}

impl Service {
    /// Answers one stream until the other side closes it.
    pub(super) async fn serve(self: &Arc<Self>, stream: Stream) -> Result<(), ServeError> {
        let (read, write) = tokio::io::split(stream);
        let mut source = FramedRead::new(read, wire::framing());
        let mut sink = FramedWrite::new(write, wire::framing());
        let hello = timeout(HELLO_DEADLINE, source.next()).await.map_err(|_| ServeError::TooSlow("say who it is"))?;
        let Some(hello) = hello.transpose()? else { return Ok(()) };
        if let Err(why) = self.greet(&hello) {
            let refusal = codec::encode(&Reply::Refused(why.clone()));
            // The refusal is a courtesy: the other side may be gone.
            let _ = timeout(REPLY_DEADLINE, sink.send(Bytes::from(refusal))).await;
            return Err(ServeError::Refused(why));
        }
        let mut receiving = None;
        let mut replies: FuturesOrdered<BoxFuture<'static, Reply>> = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                Some(reply) = replies.next(), if !replies.is_empty() => {
                    let sent = sink.send(Bytes::from(codec::encode(&reply)));
                    timeout(REPLY_DEADLINE, sent).await.map_err(|_| ServeError::TooSlow("take an answer"))??;
                }
                frame = source.next(), if replies.len() < PIPELINE => {
                    let Some(frame) = frame.transpose()? else { return Ok(()) };
                    replies.push_back(self.answer(frame.freeze(), &mut receiving).await?);
                }
            }
        }
    }

    fn greet(&self, frame: &[u8]) -> Result<(), String> {
        let hello = codec::decode::<Request<'_>>("hello", frame).map_err(|error| error.to_string())?;
        let Request::Hello { version, from, to, cluster } = hello else {
            return Err("the first message does not say who sends it".to_owned());
        };
        let (from, to, own) = (ServerId(from.into()), ServerId(to.into()), self.directory.server_id());
        if version != wire::VERSION {
            return Err(format!(
                "{from} speaks version {version} of raft's protocol and this server {}",
                wire::VERSION
            ));
        }
        if to != own {
            return Err(format!("{from} means server {to}, but this is server {own}"));
        }
        match (cluster, self.directory.cluster_id()) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                Err(format!("{from} is of cluster {theirs}, but this server is of cluster {ours}"))
            }
            _ => Ok(()),
        }
    }

    /// Starts to answer one request. What changes `receiving` is done before this returns.
    async fn answer(
        self: &Arc<Self>,
        frame: Bytes,
        receiving: &mut Option<Receiving>,
    ) -> Result<BoxFuture<'static, Reply>, ServeError> {
        let request = codec::decode::<Request<'_>>("request", &frame);
        let request = request.map_err(|error| ServeError::Protocol(error.to_string()))?;
        let service = self.clone();
        Ok(match request {
            Request::Hello { .. } => return Err(ServeError::Protocol("it said twice who it is".to_owned())),
            Request::Append { vote, previous, committed, entries } => {
                let request = wire::append_request(vote, previous, committed, entries, &frame)
                    .map_err(|error| ServeError::Protocol(error.to_string()))?;
                async move { service.append(request).await }.boxed()
            }
            Request::Vote(candidacy) => async move {
                if Instant::now() < service.votes_from {
                    return failed("this server started a moment ago and does not vote yet");
                }
                match service.raft.vote(candidacy.into()).await {
                    Ok(response) => response.into(),
                    Err(error) => failed(error),
                }
            }
            .boxed(),
            Request::PreVote(candidacy) => async move {
                if Instant::now() < service.votes_from {
                    return failed("this server started a moment ago and does not vote yet");
                }
                match service.raft.pre_vote(candidacy.into()).await {
                    Ok(response) => response.into(),
                    Err(error) => failed(error),
                }
            }
            .boxed(),
            Request::TransferLeader { from, to, last } => {
                let request = wire::transfer_request(from, to, last);
                async move {
                    match service.raft.handle_transfer_leader(request).await {
                        Ok(outcome) => Reply::TransferLeader { accepted: outcome.is_ok() },
                        Err(error) => failed(error),
                    }
                }
                .boxed()
            }
            Request::ReadIndex => async move { service.read_index().await }.boxed(),
            Request::SnapshotBegin { vote, length } => {
                *receiving = None;
                let serial = self.next_incoming.fetch_add(1, Ordering::Relaxed);
                let reply = match self.snapshots.incoming(serial) {
                    Ok(file) => {
                        *receiving = Some(Receiving { vote: vote.into(), length, file });
                        Reply::SnapshotTaken
                    }
                    Err(error) => failed(error),
                };
                async move { reply }.boxed()
            }
            Request::SnapshotChunk { bytes } => {
                let reply = self.chunk(receiving, bytes).await;
                async move { reply }.boxed()
            }
        })
    }

    async fn append(&self, request: AppendEntriesRequest<Types>) -> Reply {
        match self.raft.append_entries(request).await {
            Ok(response) => {
                let reply = response.into();
                if !matches!(reply, Reply::HigherVote(_)) {
                    self.contact.touch();
                }
                reply
            }
            Err(error) => failed(error),
        }
    }

    async fn read_index(&self) -> Reply {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Reply::ReadIndex(linearizer.read_log_id().log_id().into()),
            Err(error) => match error.forward_to_leader() {
                Some(forward) => Reply::NotLeader(forward.leader_id.map(|id| id.0.into())),
                None => failed(error),
            },
        }
    }

    async fn chunk(&self, receiving: &mut Option<Receiving>, bytes: &[u8]) -> Reply {
        let Some(mut current) = receiving.take() else {
            return failed("a part of a snapshot came before its beginning");
        };
        self.contact.touch();
        if let Err(error) = current.file.push(bytes) {
            return failed(error);
        }
        if current.file.received() > current.length {
            return failed("the snapshot is longer than was said");
        }
        if current.file.received() < current.length {
            *receiving = Some(current);
            return Reply::SnapshotTaken;
        }
        let (meta, snapshot) = match blocking(self.drive, move || current.file.finish()).await {
            Ok(finished) => finished,
            Err(error) => return failed(error),
        };
        match self.raft.install_full_snapshot(current.vote, Snapshot { meta, snapshot }).await {
            Ok(response) => Reply::Snapshot((&response.vote).into()),
            Err(error) => failed(error),
        }
    }
}
