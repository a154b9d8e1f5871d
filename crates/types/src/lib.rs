//! The nouns everyone shares: parsed once, then trusted.
//!
//! One definition per type gives both Consul's JSON (serde) and the binary form of log, snapshot and RPC (CBOR maps keyed by
//! field number, see [`encoding`]). Data only: nothing here does IO, waits, or decides.

pub mod access;
pub mod archive;
pub mod authority;
pub mod autopilot;
pub mod check;
pub mod command;
pub mod config_entry;
pub mod coordinate;
pub mod discovery_chain;
pub mod duration;
pub mod encoding;
pub mod event;
pub mod freshness;
pub mod gateway;
pub mod index;
pub mod intention;
pub mod json;
pub mod keyring;
pub mod kv;
pub mod member;
pub mod name;
pub mod node;
pub mod ports;
pub mod prepared_query;
pub mod query;
pub mod refusal;
pub mod rows;
pub mod rpc;
pub mod selection;
pub mod service;
pub mod session;
pub mod token;
pub mod transaction;

pub use access::{Access, Requirement, Resource};
pub use authority::{AuthorityRecord, CaRoot, CaRoots, LeafCertificate};
pub use check::{CheckStatus, HealthCheck};
pub use command::{Command, Deregistration, Envelope, KvVerb, Outcome, Registration, RequestId};
pub use config_entry::{ConfigEntry, ConfigKind};
pub use coordinate::{Coordinate, NodeCoordinate};
pub use freshness::{Block, Consistency, Freshness};
pub use gateway::{Locality, VirtualAddressesSet};
pub use index::{Index, Timestamp};
pub use intention::{Action, Intention, ServiceIntentions, SourceIntention};
pub use kv::KvEntry;
pub use member::{Member, MemberStatus};
pub use name::{CheckId, NodeName, ServiceId, ServiceName};
pub use node::Node;
pub use query::{Answer, Query, Read};
pub use refusal::Refusal;
pub use rows::{Rows, RowsMark};
pub use rpc::{Credential, Operation, Report};
pub use selection::{Merge, Near, Selection};
pub use service::{CheckServiceNode, NodeService, ServiceNode};
pub use session::Session;
pub use token::Token;
pub use transaction::Transaction;
