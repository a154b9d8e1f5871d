//! What a pool tells those who listen.

use std::sync::Arc;

use crate::core::{KeyReport, Question};
use crate::members::Status;
use crate::record::Record;

/// A member as others see it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who and where it is, and its tags.
    pub record: Arc<Record>,
    /// Its standing.
    pub status: Status,
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, for the first time or again.
    Joined,
    /// It said goodbye, or was removed.
    Left,
    /// It went without a word.
    Failed,
    /// It has new tags.
    Updated,
    /// It was forgotten.
    Reaped,
}

/// Something that happened in the pool.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a member.
    Member {
        /// What.
        change: Change,
        /// To whom.
        member: Member,
    },
    /// Somebody told something to everybody.
    User {
        /// The Lamport time of it.
        time: u64,
        /// What.
        name: String,
        /// What about it.
        payload: Vec<u8>,
        /// Whether only the last of that name matters.
        coalesce: bool,
    },
    /// Somebody asks. Answer with [`crate::Core::respond`] or [`crate::Gossip::respond`], or not at all.
    Query(Question),
    /// A member received this member's query.
    QueryReceived {
        /// The query's time.
        query: u64,
        /// Who.
        from: String,
    },
    /// A member answered this member's query.
    QueryAnswered {
        /// The query's time.
        query: u64,
        /// Who.
        from: String,
        /// What.
        payload: Vec<u8>,
    },
    /// The time of this member's query is over.
    QueryEnded {
        /// The query's time.
        query: u64,
    },
    /// What became of a change of keys.
    Keys {
        /// Its query's time.
        query: u64,
        /// How it went.
        report: KeyReport,
    },
    /// The keyring changed: this is its content in base64, the primary first.
    KeyringChanged(Vec<String>),
    /// An attempt to join is over.
    Joined {
        /// Which.
        join: u64,
        /// How many members answered.
        reached: usize,
        /// Why the others did not.
        failures: Vec<String>,
    },
    /// New tags were told to the pool.
    TagsTold,
    /// A removal was told to the pool, or not in time.
    RemovalTold {
        /// Which.
        removal: u64,
        /// Whether it was.
        told: bool,
    },
    /// Another member claims a name. `own` tells whether it is this member's.
    Conflict {
        /// Whose.
        name: String,
        /// Where the other one is.
        other: std::net::SocketAddr,
        /// Whether it is this member's name.
        own: bool,
    },
    /// Most members know another one by this member's name: this one must stop.
    NameLost,
    /// This member has left: nothing more comes.
    Gone,
}
