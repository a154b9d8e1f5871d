//! Everything that can be asked of the replicated state, and what it answers.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::authority::AuthoritySettings;
use crate::autopilot::AutopilotConfig;
use crate::config_entry::{ConfigEntry, ConfigEntryKey, ConfigKind};
use crate::discovery_chain::{ChainAnswer, ChainQuery};
use crate::gateway::{GatewayService, VirtualAddress};
use crate::prepared_query::{PreparedQuery, PreparedQueryExecute, PreparedQueryFound};
use crate::{
    CaRoots, CheckServiceNode, HealthCheck, Index, Intention, KvEntry, Node, NodeCoordinate, NodeName, Rows, Selection,
    ServiceIntentions, ServiceName, ServiceNode, Session,
    service::{NodeService, NodeServices},
    transaction::{TransactionOperation, TransactionOutcome},
};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// One key.
    #[n(0)]
    KvGet(#[n(0)] String),
    /// Everything under a prefix.
    #[n(1)]
    KvList(#[n(0)] String),
    /// The keys under a prefix, up to the first separator after it.
    #[n(2)]
    KvKeys(#[n(0)] KeysQuery),
    /// All nodes that have this meta.
    #[n(3)]
    Nodes(#[n(0)] BTreeMap<String, String>),
    /// The names of all services on nodes that have this meta, with their tags.
    #[n(4)]
    Services(#[n(0)] BTreeMap<String, String>),
    /// The instances of a service.
    #[n(5)]
    ServiceNodes(#[n(0)] ServiceQuery),
    /// What one node runs.
    #[n(6)]
    NodeServices(#[n(0)] NodeName),
    /// The instances of a service with their checks.
    #[n(7)]
    HealthService(#[n(0)] ServiceQuery),
    /// The checks of one node.
    #[n(8)]
    HealthNode(#[n(0)] NodeName),
    /// The checks of a service's instances.
    #[n(9)]
    HealthChecks(#[n(0)] ServiceQuery),
    /// All checks in a state; `any` for all.
    #[n(10)]
    HealthState(#[n(0)] StateQuery),
    /// The roots of the mesh CA.
    #[n(11)]
    CaRoots,
    /// All intentions, most specific first.
    #[n(12)]
    Intentions,
    /// One intention.
    #[n(13)]
    IntentionExact(#[n(0)] IntentionQuery),
    /// The intentions that may matter to a service, most specific first.
    #[n(14)]
    IntentionMatch(#[n(0)] IntentionMatch),
    /// The entry with all intentions of a destination.
    #[n(15)]
    ServiceIntentions(#[n(0)] String),
    /// All such entries.
    #[n(16)]
    ServiceIntentionsList,
    /// One node by name.
    #[n(17)]
    Node(#[n(0)] NodeName),
    /// How the mesh CA signs.
    #[n(60)]
    AuthoritySettings,
    /// One session by id.
    #[n(20)]
    Session(#[n(0)] String),
    /// The sessions of a node.
    #[n(21)]
    NodeSessions(#[n(0)] NodeName),
    /// All sessions.
    #[n(22)]
    Sessions,
    /// A transaction that only looks.
    #[n(23)]
    Transaction(#[n(0)] Vec<TransactionOperation>),
    /// How the leader looks after the servers of raft.
    #[n(50)]
    Autopilot,
    /// Another question with a choice among its rows.
    #[n(30)]
    Selected(#[n(0)] Box<Selection>),
    /// The coordinates of all nodes.
    #[n(31)]
    Coordinates,
    /// The coordinates of one node.
    #[n(32)]
    CoordinatesOf(#[n(0)] NodeName),
    /// One prepared query by its id.
    #[n(40)]
    PreparedQuery(#[n(0)] String),
    /// All prepared queries.
    #[n(41)]
    PreparedQueries,
    /// The prepared query that a name or id finds, rendered.
    #[n(42)]
    PreparedQueryExplain(#[n(0)] String),
    /// What the prepared query finds that a name or id finds.
    #[n(43)]
    PreparedQueryExecute(#[n(0)] PreparedQueryExecute),
    /// One config entry.
    #[n(80)]
    ConfigEntry(#[n(0)] ConfigEntryKey),
    /// All config entries of a kind.
    #[n(81)]
    ConfigEntries(#[n(0)] ConfigKind),
    /// The services behind a gateway, by its name.
    #[n(82)]
    GatewayServices(#[n(0)] ServiceName),
    /// The ingress gateways that let callers of a service in, with their checks.
    #[n(83)]
    HealthIngress(#[n(0)] ServiceQuery),
    /// The virtual address of a service.
    #[n(84)]
    VirtualAddress(#[n(0)] ServiceName),
    /// An instance that an agent holds, as the config entries complete it.
    #[n(85)]
    Completed(#[n(0)] Box<NodeService>),
    /// Which nodes and services have this IP address.
    #[n(120)]
    AddressNames(#[n(0)] String),
    /// Where calls of a service go, as its config entries say.
    #[n(100)]
    DiscoveryChain(#[n(0)] ChainQuery),
    /// The services that peers may call.
    #[n(101)]
    ExportedServices,
}

/// The keys under a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeysQuery {
    /// The prefix.
    #[n(0)]
    pub prefix: String,
    /// Cut after the first of these behind the prefix; empty for whole keys.
    #[n(1)]
    pub separator: String,
}

/// The instances of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct ServiceQuery {
    /// The service.
    #[n(0)]
    pub service: ServiceName,
    /// Instances that have all of these, without regard to case.
    #[n(1)]
    pub tags: Vec<String>,
    /// Instances on nodes that have all of this meta.
    #[n(2)]
    pub node_meta: BTreeMap<String, String>,
    /// Only instances all of whose checks pass.
    #[n(3)]
    pub passing: bool,
    /// The instances that serve `service` over mutual TLS, instead of the plain ones.
    #[n(4)]
    pub connect: bool,
}

impl ServiceQuery {
    /// All instances of `service`.
    pub fn all(service: ServiceName) -> Self {
        Self { service, tags: Vec::new(), node_meta: BTreeMap::new(), passing: false, connect: false }
    }
}

/// What has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AddressNames {
    /// The nodes at it.
    #[n(0)]
    pub nodes: Vec<NodeName>,
    /// The services with instances of their own at it.
    #[n(1)]
    pub services: Vec<ServiceName>,
}

/// Checks by state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StateQuery {
    /// `any`, `passing`, `warning`, `critical`; others match nothing.
    #[n(0)]
    pub state: String,
    /// On nodes that have all of this meta.
    #[n(1)]
    pub node_meta: BTreeMap<String, String>,
}

/// One intention, or whether a call is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionQuery {
    /// The caller.
    #[n(0)]
    pub source: String,
    /// The called.
    #[n(1)]
    pub destination: String,
}

/// The intentions that may matter to a service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IntentionMatch {
    /// The service is the source, else the destination.
    #[n(0)]
    pub by_source: bool,
    /// The service.
    #[n(1)]
    pub name: String,
}

/// An answer with what the reader must know of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Read {
    /// What the next blocking query must carry; never 0.
    #[n(0)]
    pub index: Index,
    /// The answer.
    #[n(1)]
    pub answer: Answer,
    /// Rows were left out because the token may not see them.
    #[n(2)]
    pub filtered_by_acls: bool,
    /// Milliseconds since this server heard of its leader; 0 at the leader.
    #[n(3)]
    pub last_contact_millis: u64,
    /// The server that answered knows a leader.
    #[n(4)]
    pub known_leader: bool,
}

/// An answer; the variant belongs to the query's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To `KvGet`.
    #[n(0)]
    KvEntry(#[n(0)] Option<KvEntry>),
    /// To `KvList`.
    #[n(1)]
    KvEntries(#[n(0)] Vec<KvEntry>),
    /// To `KvKeys`.
    #[n(2)]
    Keys(#[n(0)] Vec<String>),
    /// To `Nodes`.
    #[n(3)]
    Nodes(#[n(0)] Vec<Node>),
    /// To `Services`.
    #[n(4)]
    Services(#[n(0)] BTreeMap<String, Vec<String>>),
    /// To `ServiceNodes`.
    #[n(5)]
    ServiceNodes(#[n(0)] Vec<ServiceNode>),
    /// To `NodeServices`.
    #[n(6)]
    NodeServices(#[n(0)] Option<NodeServices>),
    /// To `HealthService`.
    #[n(7)]
    CheckServiceNodes(#[n(0)] Rows<CheckServiceNode>),
    /// To `HealthNode`, `HealthChecks`, `HealthState`.
    #[n(8)]
    Checks(#[n(0)] Vec<HealthCheck>),
    /// To `CaRoots`; none until the first leader has made the mesh CA.
    #[n(9)]
    CaRoots(#[n(0)] Option<CaRoots>),
    /// To `Intentions`, `IntentionMatch`.
    #[n(10)]
    Intentions(#[n(0)] Vec<Intention>),
    /// To `IntentionExact`.
    #[n(11)]
    Intention(#[n(0)] Option<Intention>),
    /// To `ServiceIntentions`.
    #[n(12)]
    ServiceIntentions(#[n(0)] Option<ServiceIntentions>),
    /// To `ServiceIntentionsList`.
    #[n(13)]
    ServiceIntentionsList(#[n(0)] Vec<ServiceIntentions>),
    /// To `Node`.
    #[n(14)]
    Node(#[n(0)] Option<Node>),
    /// To `AuthoritySettings`; none until the first leader has made the mesh CA.
    #[n(60)]
    AuthoritySettings(#[n(0)] Option<AuthoritySettings>),
    /// To `Session`, `NodeSessions`, `Sessions`.
    #[n(20)]
    Sessions(#[n(0)] Vec<Session>),
    /// To `Transaction`.
    #[n(21)]
    Transaction(#[n(0)] TransactionOutcome),
    /// To `Autopilot`.
    #[n(50)]
    Autopilot(#[n(0)] AutopilotConfig),
    /// To `Coordinates`, `CoordinatesOf`.
    #[n(30)]
    Coordinates(#[n(0)] Vec<NodeCoordinate>),
    /// To `PreparedQuery`, `PreparedQueries`, `PreparedQueryExplain`.
    #[n(40)]
    PreparedQueries(#[n(0)] Vec<PreparedQuery>),
    /// To `PreparedQueryExecute`.
    #[n(41)]
    PreparedQueryFound(#[n(0)] Box<PreparedQueryFound>),
    /// To `ConfigEntry`.
    #[n(80)]
    ConfigEntry(#[n(0)] Option<Box<ConfigEntry>>),
    /// To `ConfigEntries`.
    #[n(81)]
    ConfigEntries(#[n(0)] Vec<ConfigEntry>),
    /// To `GatewayServices`.
    #[n(82)]
    GatewayServices(#[n(0)] Vec<GatewayService>),
    /// To `VirtualAddress`.
    #[n(83)]
    VirtualAddress(#[n(0)] Option<VirtualAddress>),
    /// To `Completed`.
    #[n(84)]
    Completed(#[n(0)] Box<NodeService>),
    /// To `AddressNames`.
    #[n(120)]
    AddressNames(#[n(0)] AddressNames),
    /// To `DiscoveryChain`; none until the first leader has made the mesh CA, which names the targets.
    #[n(100)]
    DiscoveryChain(#[n(0)] Option<ChainAnswer>),
    /// To `ExportedServices`.
    #[n(101)]
    ExportedServices(#[n(0)] Vec<ExportedService>),
}

/// A service that peers may call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportedService {
    /// The service.
    #[n(0)]
    pub service: String,
    /// The peers, sorted.
    #[n(1)]
    pub peers: Vec<String>,
}
