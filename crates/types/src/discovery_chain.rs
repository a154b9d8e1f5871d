//! Where calls of a service go in the end: its router, splitters and resolvers, compiled into one graph.
//!
//! Keys of [`CompiledChain::nodes`] and [`CompiledChain::targets`] are those of Consul: they name one another and mean
//! nothing outside of their chain.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::json::{Opaque, OpaqueList};
use crate::{ServiceName, duration};

/// The one namespace, and the one partition.
pub const DEFAULT: &str = "default";

/// For which service a chain is compiled, and what it is to say other than its entries do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChainQuery {
    /// The service.
    #[n(0)]
    pub service: ServiceName,
    /// The datacenter that calls it.
    #[n(1)]
    pub datacenter: String,
    /// The protocol instead of its own; empty for its own.
    #[n(2)]
    pub protocol: String,
    /// Nanoseconds that a connection may take, instead of what resolvers say; 0 for what they say.
    #[n(3)]
    pub connect_timeout_nanos: u64,
    /// The mesh gateway mode instead of its own; empty for its own.
    #[n(4)]
    pub mesh_gateway: String,
}

/// A chain, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChainAnswer {
    /// The chain.
    #[n(0)]
    Compiled(#[n(0)] Box<CompiledChain>),
    /// What is wrong with its entries.
    #[n(1)]
    Broken(#[n(0)] String),
}

/// A compiled chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CompiledChain {
    /// The service it is of.
    #[n(0)]
    pub service: String,
    /// The datacenter that calls it.
    #[n(1)]
    pub datacenter: String,
    /// Another text for every other choice of overrides that had an effect; empty for none.
    #[n(2)]
    pub customization_hash: String,
    /// No entry routes, splits or resolves.
    #[n(3)]
    pub is_default: bool,
    /// The protocol that all of it speaks.
    #[n(4)]
    pub protocol: String,
    /// The meta of the service's defaults.
    #[n(5)]
    pub meta: BTreeMap<String, String>,
    /// The extensions of all proxies and of the service.
    #[n(6)]
    pub envoy_extensions: OpaqueList,
    /// Where to begin.
    #[n(7)]
    pub start: String,
    /// The steps.
    #[n(8)]
    pub nodes: BTreeMap<String, ChainNode>,
    /// What instances calls end at.
    #[n(9)]
    pub targets: BTreeMap<String, ChainTarget>,
    /// The service's own virtual address.
    #[n(10)]
    pub automatic_addresses: Vec<String>,
    /// Virtual addresses that people gave it; none when it has no own.
    #[n(11)]
    pub manual_addresses: Option<Vec<String>>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChainNode {
    /// Its name among those of its sort.
    #[n(0)]
    pub name: String,
    /// What it does.
    #[n(1)]
    pub step: ChainStep,
    /// How instances share the calls.
    #[n(2)]
    pub load_balancer: Option<Opaque>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChainStep {
    /// Chooses by what the request says; the first that fits.
    #[n(0)]
    Router(#[n(0)] Vec<ChainRoute>),
    /// Shares requests out.
    #[n(1)]
    Splitter(#[n(0)] Vec<ChainSplit>),
    /// Ends at instances.
    #[n(2)]
    Resolver(#[n(0)] ChainResolver),
}

impl ChainStep {
    /// Consul's word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Router(_) => "router",
            Self::Splitter(_) => "splitter",
            Self::Resolver(_) => "resolver",
        }
    }
}

/// Where requests of one sort go.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct ChainRoute {
    /// The route of the entry.
    #[n(0)]
    pub definition: Opaque,
    /// The step that follows.
    #[n(1)]
    pub next_node: String,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChainSplit {
    /// The split of the entry.
    #[n(0)]
    pub definition: Opaque,
    /// Hundredths of a hundredth.
    #[n(1)]
    pub hundredths: u32,
    /// The step that follows.
    #[n(2)]
    pub next_node: String,
}

/// At which instances requests end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChainResolver {
    /// No entry says anything of it.
    #[n(0)]
    pub is_default: bool,
    /// Nanoseconds that a connection may take.
    #[n(1)]
    pub connect_timeout_nanos: u64,
    /// Nanoseconds that a request may take; 0 for no limit.
    #[n(2)]
    pub request_timeout_nanos: u64,
    /// The target.
    #[n(3)]
    pub target: String,
    /// The targets that stand in for it, in this order.
    #[n(4)]
    pub failover: Vec<String>,
    /// How they stand in.
    #[n(5)]
    pub failover_policy: Option<Opaque>,
    /// Whether near instances come first.
    #[n(6)]
    pub prioritize_by_locality: Option<Opaque>,
}

/// Instances of one service, in one datacenter or at one peer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChainTarget {
    /// Its key.
    #[n(0)]
    pub id: String,
    /// The service.
    #[n(1)]
    pub service: String,
    /// The subset; empty for all.
    #[n(2)]
    pub subset_name: String,
    /// The datacenter; empty for a peer.
    #[n(3)]
    pub datacenter: String,
    /// The peer; empty for none.
    #[n(4)]
    pub peer: String,
    /// The mesh gateway mode.
    #[n(5)]
    pub mesh_gateway: String,
    /// What chooses the subset.
    #[n(6)]
    pub subset: Opaque,
    /// It is called by the address of its instances.
    #[n(7)]
    pub dialed_directly: bool,
    /// Nanoseconds that a connection may take.
    #[n(8)]
    pub connect_timeout_nanos: u64,
    /// It is outside of the mesh.
    #[n(9)]
    pub is_external: bool,
    /// The name to ask for over TLS.
    #[n(10)]
    pub sni: String,
    /// The name that no entry changes.
    #[n(11)]
    pub name: String,
}

fn go_duration(nanos: u64) -> String {
    duration::format(Duration::from_nanos(nanos))
}

/// Writes the fields of a JSON object, those with a value alone.
struct Shown<S: Serializer>(S::SerializeMap);

impl<S: Serializer> Shown<S> {
    fn text(&mut self, name: &'static str, text: &str) -> Result<(), S::Error> {
        if text.is_empty() { Ok(()) } else { self.0.serialize_entry(name, text) }
    }

    fn truth(&mut self, name: &'static str, truth: bool) -> Result<(), S::Error> {
        if truth { self.0.serialize_entry(name, &true) } else { Ok(()) }
    }

    fn some<T: Serialize>(&mut self, name: &'static str, value: Option<&T>) -> Result<(), S::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(name, value))
    }

    fn always<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), S::Error> {
        self.0.serialize_entry(name, value)
    }
}

impl Serialize for CompiledChain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = Shown::<S>(serializer.serialize_map(None)?);
        shown.always("ServiceName", &self.service)?;
        shown.always("Namespace", DEFAULT)?;
        shown.always("Partition", DEFAULT)?;
        shown.always("Datacenter", &self.datacenter)?;
        shown.text("CustomizationHash", &self.customization_hash)?;
        shown.truth("Default", self.is_default)?;
        shown.text("Protocol", &self.protocol)?;
        shown.some("ServiceMeta", Some(&self.meta).filter(|meta| !meta.is_empty()))?;
        shown.some("EnvoyExtensions", Some(&self.envoy_extensions).filter(|list| !list.0.is_empty()))?;
        shown.text("StartNode", &self.start)?;
        shown.always("Nodes", &self.nodes)?;
        shown.always("Targets", &self.targets)?;
        let automatic = Some(&self.automatic_addresses).filter(|addresses| !addresses.is_empty());
        shown.always("AutoVirtualIPs", &automatic)?;
        shown.always("ManualVirtualIPs", &self.manual_addresses)?;
        shown.0.end()
    }
}

impl Serialize for ChainNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = Shown::<S>(serializer.serialize_map(None)?);
        shown.always("Type", self.step.kind())?;
        shown.always("Name", &self.name)?;
        match &self.step {
            ChainStep::Router(routes) => shown.always("Routes", routes)?,
            ChainStep::Splitter(splits) => shown.always("Splits", splits)?,
            ChainStep::Resolver(resolver) => shown.always("Resolver", resolver)?,
        }
        shown.some("LoadBalancer", self.load_balancer.as_ref())?;
        shown.0.end()
    }
}

impl Serialize for ChainSplit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = Shown::<S>(serializer.serialize_map(None)?);
        shown.always("Definition", &self.definition)?;
        match self.hundredths {
            0 => {}
            whole if whole.is_multiple_of(100) => shown.always("Weight", &(whole / 100))?,
            part => shown.always("Weight", &(f64::from(part) / 100.0))?,
        }
        shown.always("NextNode", &self.next_node)?;
        shown.0.end()
    }
}

impl Serialize for ChainResolver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Failover<'a> {
            targets: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            policy: Option<&'a Opaque>,
        }
        let mut shown = Shown::<S>(serializer.serialize_map(None)?);
        shown.truth("Default", self.is_default)?;
        shown.text("ConnectTimeout", &go_duration(self.connect_timeout_nanos))?;
        // Of the two durations Consul writes this one as a number.
        shown.some("RequestTimeout", Some(&self.request_timeout_nanos).filter(|nanos| **nanos != 0))?;
        shown.text("Target", &self.target)?;
        let failover = Failover { targets: &self.failover, policy: self.failover_policy.as_ref() };
        shown.some("Failover", Some(&failover).filter(|it| !it.targets.is_empty()))?;
        shown.some("PrioritizeByLocality", self.prioritize_by_locality.as_ref())?;
        shown.0.end()
    }
}

impl Serialize for ChainTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_one = |name: &'static str, value: Option<serde_json::Value>| {
            value.map(|value| (name, value)).into_iter().collect::<BTreeMap<_, _>>()
        };
        let mode = Some(&self.mesh_gateway).filter(|mode| !mode.is_empty()).map(|mode| mode.as_str().into());
        let mut shown = Shown::<S>(serializer.serialize_map(None)?);
        shown.text("ID", &self.id)?;
        shown.text("Service", &self.service)?;
        shown.text("ServiceSubset", &self.subset_name)?;
        shown.always("Namespace", DEFAULT)?;
        shown.always("Partition", DEFAULT)?;
        shown.text("Datacenter", &self.datacenter)?;
        shown.text("Peer", &self.peer)?;
        shown.always("MeshGateway", &of_one("Mode", mode))?;
        shown.always("Subset", &self.subset)?;
        shown.always("TransparentProxy", &of_one("DialedDirectly", self.dialed_directly.then(|| true.into())))?;
        let timeout = (self.connect_timeout_nanos != 0).then(|| go_duration(self.connect_timeout_nanos));
        shown.some("ConnectTimeout", timeout.as_ref())?;
        shown.truth("External", self.is_external)?;
        shown.text("SNI", &self.sni)?;
        shown.text("Name", &self.name)?;
        shown.0.end()
    }
}
