//! What can go wrong, as callers see it.

use std::io;

use thiserror::Error;

use super::Leader;
use super::log::LogError;

fn who_does(leader: Option<&Leader>) -> String {
    match leader {
        Some(leader) => format!(": {} at {} does", leader.name, leader.address),
        None => " and knows of no leader".to_owned(),
    }
}

/// Consensus cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots cannot be used.
    #[error("cannot read the snapshots: {0}")]
    Snapshot(#[source] io::Error),
    /// The log's thread cannot be made.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[source] io::Error),
    /// The settings do not fit together.
    #[error("the settings of raft do not fit together: {0}")]
    Settings(String),
    /// What is on disk does not fit together.
    #[error("cannot recover: {0}")]
    Raft(String),
}

impl StartError {
    /// Whether something that was durable once is broken: this server must not vote with what is left.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(LogError::Corrupt { .. } | LogError::Missing { .. }) => true,
            Self::Snapshot(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Log(_) | Self::Thread(_) | Self::Settings(_) | Self::Raft(_) => false,
        }
    }
}

/// A proposal was not applied, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// This server does not lead; ask the one named. The proposal was not applied.
    #[error("this server does not lead{}", who_does(.0.as_ref()))]
    NotLeader(Option<Leader>),
    /// It was not confirmed. It may have been applied or may still be: try again with the same request id.
    #[error("{0}: try again with the same request id")]
    Unavailable(String),
    /// Too many proposals wait. It was not applied.
    #[error("{limit} writes wait already: try again later")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// The disk is full. It was not applied.
    #[error("the disk of the leader is full: free some room in its data directory")]
    NoSpace,
    /// The envelope does not fit an entry. It was not applied.
    #[error("the write takes {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// This server cannot go on.
    #[error("this server cannot go on: {0}")]
    Fatal(String),
}

/// A read cannot be called linearizable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader is known, or this server does not lead and the read needs one that does.
    #[error("this server does not lead{}", who_does(.0.as_ref()))]
    NotLeader(Option<Leader>),
    /// Nobody confirmed in time that the leader still leads.
    #[error("{0}")]
    Unavailable(String),
    /// Too many readers wait.
    #[error("{limit} reads wait already: try again later")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// This server cannot go on.
    #[error("this server cannot go on: {0}")]
    Fatal(String),
}

/// A cluster was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InitializeError {
    /// This server belongs to one already.
    #[error("this server belongs to a cluster already")]
    AlreadyInitialized,
    /// It would not be a member itself.
    #[error("the members of a new cluster must include the server that makes it")]
    NotAMember,
    /// This server cannot go on.
    #[error("this server cannot go on: {0}")]
    Fatal(String),
}

/// A change of the members was not made, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// This server does not lead; ask the one named.
    #[error("this server does not lead{}", who_does(.0.as_ref()))]
    NotLeader(Option<Leader>),
    /// Another change is being made.
    #[error("another change of the servers is being made: try again when it is done")]
    InProgress,
    /// The change makes no sense for the members as they are.
    #[error("the change was refused: {0}")]
    Refused(String),
    /// It was not confirmed: look at the members before trying again.
    #[error("{0}")]
    Unavailable(String),
    /// This server cannot go on.
    #[error("this server cannot go on: {0}")]
    Fatal(String),
}
