//! Transactions: several operations, all or none.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{HealthCheck, Index, KvEntry, Node, NodeName, NodeService, Requirement};

/// Operations in the largest transaction.
pub const OPERATIONS_MAX: usize = 128;

/// Several operations, applied all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Transaction {
    /// What to do, in order.
    #[n(0)]
    pub operations: Vec<TransactionOperation>,
    /// What the authoriser granted, unless the asker may do everything. If the rows that the operations meet require more
    /// by then, nothing is done and the request is refused.
    #[n(1)]
    pub granted: Option<Vec<Requirement>>,
    /// What the authoriser refused: nothing is done, and this is the answer. Nobody sends it.
    #[n(2)]
    #[cbor(default)]
    pub denied: Vec<TransactionError>,
}

impl Transaction {
    /// A transaction that nobody has judged yet.
    pub fn new(operations: Vec<TransactionOperation>) -> Self {
        Self { operations, ..Self::default() }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TransactionOperation {
    /// On a key.
    #[n(0)]
    Kv(#[n(0)] KvOperation),
    /// On a node.
    #[n(1)]
    Node(#[n(0)] NodeOperation),
    /// On an instance.
    #[n(2)]
    Service(#[n(0)] Box<ServiceOperation>),
    /// On a check.
    #[n(3)]
    Check(#[n(0)] Box<CheckOperation>),
    /// Ends the session with this id.
    #[n(4)]
    SessionDelete(#[n(0)] String),
}

impl TransactionOperation {
    /// Whether it only looks.
    pub fn is_read(&self) -> bool {
        use TransactionKvVerb as Kv;
        match self {
            Self::Kv(it) => matches!(
                it.verb,
                Kv::Get | Kv::GetOrEmpty | Kv::GetTree | Kv::CheckIndex | Kv::CheckSession | Kv::CheckNotExists
            ),
            Self::Node(it) => it.verb == RowVerb::Get,
            Self::Service(it) => it.verb == RowVerb::Get,
            Self::Check(it) => it.verb == RowVerb::Get,
            Self::SessionDelete(_) => false,
        }
    }
}

/// An operation on a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KvOperation {
    /// What to do.
    #[n(0)]
    pub verb: TransactionKvVerb,
    /// The key, or the prefix of a tree.
    #[n(1)]
    pub key: String,
    /// The new value.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// The new flags.
    #[n(3)]
    pub flags: u64,
    /// The index to compare with.
    #[n(4)]
    pub index: Index,
    /// The session that locks, unlocks or is compared with.
    #[n(5)]
    pub session: String,
}

macro_rules! verbs {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
        pub enum $name {
            $($(#[$variant_doc])* #[n($number)] $variant,)*
        }

        impl $name {
            /// The verb of this word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

verbs! {
    /// What to do with a key in a transaction.
    TransactionKvVerb {
        /// Store.
        Set = 0 "set",
        /// Store if the entry's modify index is this one; 0 means that there must be none.
        Cas = 1 "cas",
        /// Take the lock and store.
        Lock = 2 "lock",
        /// Give the lock back and store.
        Unlock = 3 "unlock",
        /// Read; the key must be there.
        Get = 4 "get",
        /// Read; an absent key is an empty entry.
        GetOrEmpty = 5 "get-or-empty",
        /// Read everything that starts with the key.
        GetTree = 6 "get-tree",
        /// Fail unless the entry's modify index is this one.
        CheckIndex = 7 "check-index",
        /// Fail unless this session holds the key.
        CheckSession = 8 "check-session",
        /// Fail if the key is there.
        CheckNotExists = 9 "check-not-exists",
        /// Remove.
        Delete = 10 "delete",
        /// Remove everything that starts with the key.
        DeleteTree = 11 "delete-tree",
        /// Remove if the entry's modify index is this one.
        DeleteCas = 12 "delete-cas",
    }
}

verbs! {
    /// What to do with a row of the catalog in a transaction.
    RowVerb {
        /// Read; it must be there.
        Get = 0 "get",
        /// Store.
        Set = 1 "set",
        /// Store if its modify index is this one; 0 means that there must be none.
        Cas = 2 "cas",
        /// Remove.
        Delete = 3 "delete",
        /// Remove if its modify index is this one.
        DeleteCas = 4 "delete-cas",
    }
}

/// An operation on a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeOperation {
    /// What to do.
    #[n(0)]
    pub verb: RowVerb,
    /// The node; its modify index is the one to compare with.
    #[n(1)]
    pub node: Node,
}

/// An operation on an instance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServiceOperation {
    /// What to do.
    #[n(0)]
    pub verb: RowVerb,
    /// Its node.
    #[n(1)]
    pub node: NodeName,
    /// The instance; its modify index is the one to compare with.
    #[n(2)]
    pub service: NodeService,
}

/// An operation on a check.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CheckOperation {
    /// What to do.
    #[n(0)]
    pub verb: RowVerb,
    /// Its node.
    #[n(1)]
    pub node: NodeName,
    /// The check; its modify index is the one to compare with.
    #[n(2)]
    pub check: HealthCheck,
}

/// What came of a transaction: with errors, nothing was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransactionOutcome {
    /// What the operations found or made, in their order; a removal gives nothing.
    #[n(0)]
    pub results: Vec<TransactionResult>,
    /// Why nothing was done.
    #[n(1)]
    pub errors: Vec<TransactionError>,
}

/// What one operation found or made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub enum TransactionResult {
    /// An entry; without its value unless it was read.
    #[n(0)]
    #[serde(rename = "KV")]
    Kv(#[n(0)] KvEntry),
    /// A node.
    #[n(1)]
    Node(#[n(0)] Node),
    /// An instance.
    #[n(2)]
    Service(#[n(0)] Box<NodeService>),
    /// A check.
    #[n(3)]
    Check(#[n(0)] Box<HealthCheck>),
}

/// Why an operation could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct TransactionError {
    /// Which one it was.
    #[n(0)]
    pub op_index: u64,
    /// Consul's words for why.
    #[n(1)]
    pub what: String,
}
