//! How the rest of a process uses its member of a pool.

use std::net::SocketAddr;
use std::time::Duration;

use lictor_runtime::Resolver;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::core::{Core, EventError, KeyOperation, KeyReport, QueryError, QueryOptions, Question};
use crate::event::{Event, Member};
use crate::keyring::{KeyError, decode_key};
use crate::wire::WireError;
use crate::wire::tags::Tags;

/// The most answers to one query that wait to be read.
const MAX_ANSWERS: usize = 1024;
/// The longest any request waits for its end: a join with all its streams, a leave with all its steps.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

type Work<T> = Box<dyn FnOnce(&mut Core, Duration) -> T + Send>;

/// What a handle asks of the task.
pub(super) enum Command {
    Run(Work<()>),
    /// The event that the work answers is the end of it; none when it has failed already.
    Await(Work<Option<Wait>>, oneshot::Sender<Event>),
    Query {
        name: String,
        payload: Vec<u8>,
        options: QueryOptions,
        answers: mpsc::Sender<Answer>,
        reply: oneshot::Sender<Result<u64, QueryError>>,
    },
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wait {
    Join(u64),
    Removal(u64),
    Keys(u64),
    Tags,
    Gone,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The member has stopped.
    #[error("the gossip pool has stopped")]
    Stopped,
    /// It took too long.
    #[error("the request did not end within {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
    /// Nobody could be joined.
    #[error("{}", .0.join("\n"))]
    Join(Vec<String>),
    /// An event is too long.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A query or an answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Tags.
    #[error(transparent)]
    Tags(#[from] WireError),
    /// Not every member did what was asked of all.
    #[error("{}/{} nodes reported success", .0.responses - .0.errors, .0.members)]
    Keys(Box<KeyReport>),
    /// A removal was not told in time.
    #[error("timed out broadcasting node removal")]
    Removal,
}

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A member has received it.
    Received {
        /// Who.
        from: String,
    },
    /// A member has answered.
    Response {
        /// Who.
        from: String,
        /// What.
        payload: Vec<u8>,
    },
}

/// The answers to a query as they come; the end of it is the end of its time.
pub type Answers = mpsc::Receiver<Answer>;

/// A running member of a pool. Cloning shares it; when the last handle is dropped, the member stops without a goodbye.
#[derive(Clone)]
pub struct Gossip {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) address: SocketAddr,
    pub(super) resolver: Resolver,
}

impl std::fmt::Debug for Gossip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gossip").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gossip {
    /// Where others reach this member.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens from now on. Who reads too slowly is told how much was lost, and looks at [`Gossip::members`].
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Does something with the core, and answers what that answers.
    ///
    /// # Errors
    /// The member has stopped.
    pub async fn with_core<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core, Duration) -> T + Send + 'static,
    ) -> Result<T, GossipError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Run(Box::new(move |core, now| {
            let _ = reply.send(work(core, now));
        }));
        self.commands.send(command).await.map_err(|_| GossipError::Stopped)?;
        answer.await.map_err(|_| GossipError::Stopped)
    }

    async fn until(
        &self,
        work: impl FnOnce(&mut Core, Duration) -> Option<Wait> + Send + 'static,
    ) -> Result<Event, GossipError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Await(Box::new(work), reply)).await.map_err(|_| GossipError::Stopped)?;
        match tokio::time::timeout(REQUEST_LIMIT, answer).await {
            Ok(event) => event.map_err(|_| GossipError::Stopped),
            Err(_) => Err(GossipError::TimedOut),
        }
    }

    /// Everybody this member knows, by name.
    ///
    /// # Errors
    /// The member has stopped.
    pub async fn members(&self) -> Result<Vec<Member>, GossipError> {
        let mut members = self.with_core(|core, _| core.members().collect::<Vec<_>>()).await?;
        members.sort_by(|one, other| one.record.name().cmp(other.record.name()));
        Ok(members)
    }

    /// Joins the pool of these members: `host:port`, or `name/host:port`. Answers how many were reached.
    ///
    /// # Errors
    /// None was.
    pub async fn join(&self, addresses: &[String], ignore_old: bool) -> Result<usize, GossipError> {
        let (mut resolved, mut failures) = (Vec::new(), Vec::new());
        for address in addresses {
            let place = address.rsplit_once('/').map_or(address.as_str(), |(_, place)| place);
            match self.resolver.resolve(place).await {
                Ok(found) => resolved.extend(found),
                Err(error) => failures.push(format!("Failed to resolve {address}: {error}")),
            }
        }
        if resolved.is_empty() {
            failures.push("there is no address to join".into());
            return Err(GossipError::Join(failures));
        }
        let event = self.until(move |core, now| Some(Wait::Join(core.join(now, &resolved, ignore_old)))).await?;
        match event {
            Event::Joined { reached: 0, failures: more, .. } => {
                failures.extend(more);
                Err(GossipError::Join(failures))
            }
            Event::Joined { reached, .. } => Ok(reached),
            _ => Err(GossipError::Stopped),
        }
    }

    /// Says goodbye and waits until that was told. The member still answers until its tasks stop.
    ///
    /// # Errors
    /// It has stopped, or takes too long.
    pub async fn leave(&self) -> Result<(), GossipError> {
        self.until(|core, now| {
            core.leave(now);
            Some(Wait::Gone)
        })
        .await
        .map(|_| ())
    }

    /// Makes a failed member one that left; with `prune`, forgets it everywhere.
    ///
    /// # Errors
    /// The pool was not told in time.
    pub async fn remove(&self, node: &str, prune: bool) -> Result<(), GossipError> {
        let node = node.to_owned();
        match self.until(move |core, now| Some(Wait::Removal(core.remove(now, &node, prune)))).await? {
            Event::RemovalTold { told: true, .. } => Ok(()),
            _ => Err(GossipError::Removal),
        }
    }

    /// Tells everybody something.
    ///
    /// # Errors
    /// It is too long.
    pub async fn user_event(&self, name: &str, payload: &[u8], coalesce: bool) -> Result<u64, GossipError> {
        let (name, payload) = (name.to_owned(), payload.to_vec());
        Ok(self.with_core(move |core, now| core.user_event(now, &name, &payload, coalesce)).await??)
    }

    /// Asks. The answers come until the query's time is over.
    ///
    /// # Errors
    /// The query is too long, or too many run.
    pub async fn query(&self, name: &str, payload: &[u8], options: QueryOptions) -> Result<Answers, GossipError> {
        let (answers, received) = mpsc::channel(MAX_ANSWERS);
        let (reply, asked) = oneshot::channel();
        let command = Command::Query { name: name.to_owned(), payload: payload.to_vec(), options, answers, reply };
        self.commands.send(command).await.map_err(|_| GossipError::Stopped)?;
        asked.await.map_err(|_| GossipError::Stopped)??;
        Ok(received)
    }

    /// Answers somebody's query.
    ///
    /// # Errors
    /// The answer is too long or too late.
    pub async fn respond(&self, question: Question, payload: Vec<u8>) -> Result<(), GossipError> {
        Ok(self.with_core(move |core, now| core.respond(now, &question, &payload)).await??)
    }

    /// Does something with a key, given in base64, at every member; lists keys when `key` is empty.
    ///
    /// # Errors
    /// The key is none, or not every member did it: the report tells who did not.
    pub async fn change_keys(&self, operation: KeyOperation, key: &str, relay: u8) -> Result<KeyReport, GossipError> {
        let key = if operation == KeyOperation::List { Vec::new() } else { decode_key(key)?.to_vec() };
        let (failed, why) = oneshot::channel();
        let event = self
            .until(move |core, now| match core.change_keys(now, operation, &key, relay) {
                Ok(query) => Some(Wait::Keys(query)),
                Err(error) => {
                    let _ = failed.send(error);
                    None
                }
            })
            .await;
        match event {
            Ok(Event::Keys { report, .. }) if report.is_complete() => Ok(report),
            Ok(Event::Keys { report, .. }) => Err(GossipError::Keys(Box::new(report))),
            Ok(_) => Err(GossipError::Stopped),
            Err(error) => Err(why.await.map_or(error, GossipError::Query)),
        }
    }

    /// Takes other tags and waits until they were told.
    ///
    /// # Errors
    /// They do not fit.
    pub async fn set_tags(&self, tags: Tags) -> Result<(), GossipError> {
        let (failed, why) = oneshot::channel();
        let told = self
            .until(move |core, now| match core.set_tags(now, tags) {
                Ok(()) => Some(Wait::Tags),
                Err(error) => {
                    let _ = failed.send(error);
                    None
                }
            })
            .await;
        match told {
            Ok(_) => Ok(()),
            Err(error) => Err(why.await.map_or(error, GossipError::Tags)),
        }
    }
}
