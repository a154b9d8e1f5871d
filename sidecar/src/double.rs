//! Servers as a test needs them: a state that a test sets, behind the waist, with blocking queries and a real mesh CA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lictor_agent::{Datacenter, SharedDatacenter};
use lictor_identity::{Credential as Certificate, MeshAuthority, SigningRequest, SpiffeId, TrustDomain};
use lictor_runtime::clock::SimulatedClock;
use lictor_runtime::transport::Boxed;
use lictor_runtime::{Clock, SeededRng, SystemClock, SystemRng};
use lictor_types::command::Effect;
use lictor_types::rpc::{Operation, Report};
use lictor_types::service::NodeServices;
use lictor_types::{
    Action, Answer, CaRoot, CaRoots, CheckServiceNode, CheckStatus, Command, Credential, Freshness, HealthCheck, Index,
    Intention, LeafCertificate, Node, Outcome, Query, Read, Refusal, SourceIntention, intention,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::follow::Asker;

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn trust_domain() -> TrustDomain {
    "11111111-2222-3333-4444-555555555555.consul".parse().unwrap()
}

pub(crate) fn spiffe_id(service: &str) -> SpiffeId {
    SpiffeId::service(&trust_domain(), "dc1", service).unwrap()
}

pub(crate) fn authority() -> MeshAuthority {
    MeshAuthority::create(trust_domain(), "dc1", SystemClock.now(), &SystemRng).unwrap()
}

/// A certificate for `service` by `authority`, which trusts the roots of the same authority.
pub(crate) fn certificate(authority: &MeshAuthority, service: &str) -> Certificate {
    let (id, now) = (spiffe_id(service), SystemClock.now());
    let request = SigningRequest::create(&id).unwrap();
    let leaf = authority.sign_leaf(&request.csr_pem, &id, Duration::from_secs(3600), now, &SystemRng).unwrap();
    Certificate::from_pem(&leaf.chain_pem, &request.key_pem, authority.root_pem(), now).unwrap()
}

pub(crate) fn intention(source: &str, destination: &str, action: Action) -> Intention {
    Intention {
        destination: destination.into(),
        source: SourceIntention {
            name: source.into(),
            action,
            precedence: intention::precedence(source, destination),
            kind: SourceIntention::consul_type(),
            description: String::new(),
            created_at: Default::default(),
            updated_at: Default::default(),
        },
        create_index: Index(1),
        modify_index: Index(1),
        meta: BTreeMap::new(),
    }
}

/// A healthy proxy of `service` at `address`.
pub(crate) fn instance(service: &str, address: &str) -> CheckServiceNode {
    let (host, port) = address.rsplit_once(':').unwrap();
    let service = serde_json::from_value(serde_json::json!({
        "Kind": "connect-proxy",
        "Service": format!("{service}-sidecar-proxy"),
        "Address": host,
        "Port": port.parse::<u16>().unwrap(),
        "Proxy": { "DestinationServiceName": service },
    }));
    CheckServiceNode {
        node: Node {
            id: String::new(),
            name: "pod.apps".parse().unwrap(),
            address: host.into(),
            datacenter: "dc1".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: Index(1),
            modify_index: Index(1),
            locality: None,
        },
        service: service.unwrap(),
        checks: Vec::new(),
    }
}

/// What the servers know.
#[derive(Default)]
struct Known {
    intentions: Vec<Intention>,
    instances: BTreeMap<String, Vec<CheckServiceNode>>,
    nodes: BTreeMap<String, NodeServices>,
    checks: BTreeMap<(String, String), HealthCheck>,
    operations: Vec<Operation>,
    signatures_to_refuse: usize,
}

impl Known {
    /// What a test has set, and the proxies of the catalog whose checks pass.
    fn healthy(&self, service: &str) -> Vec<CheckServiceNode> {
        let mut rows = self.instances.get(service).cloned().unwrap_or_default();
        for NodeServices { node, services } in self.nodes.values() {
            let passes = |id: &str| {
                let mut checks = self.checks.iter().filter(|((on, _), _)| on == node.name.as_str());
                checks.all(|(_, check)| check.service_id != id || check.status == CheckStatus::Passing)
            };
            let proxies =
                services.values().filter(|it| it.connect_destination() == Some(service) && passes(it.id_text()));
            rows.extend(proxies.map(|it| CheckServiceNode {
                node: node.clone(),
                service: it.clone(),
                checks: Vec::new(),
            }));
        }
        rows
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Register(registration) => {
                let registration = *registration;
                let name = registration.node.to_string();
                let node = self.nodes.entry(name.clone()).or_insert_with(|| NodeServices {
                    node: Node {
                        id: registration.id,
                        name: registration.node,
                        address: registration.address,
                        datacenter: "dc1".into(),
                        tagged_addresses: registration.tagged_addresses,
                        meta: registration.node_meta,
                        create_index: Index(1),
                        modify_index: Index(1),
                        locality: registration.locality,
                    },
                    services: BTreeMap::new(),
                });
                if let Some(service) = registration.service {
                    node.services.insert(service.id_text().into(), service);
                }
                for check in registration.checks.into_iter().chain(registration.check) {
                    let id = check.check_id.as_ref().unwrap().to_string();
                    self.checks.insert((name.clone(), id), check);
                }
            }
            Command::Deregister(gone) => {
                let name = gone.node.to_string();
                if let (Some(id), Some(node)) = (&gone.service_id, self.nodes.get_mut(&name)) {
                    node.services.remove(id.as_str());
                    self.checks.retain(|(on, _), check| *on != name || check.service_id != id.as_str());
                }
                if let Some(id) = &gone.check_id {
                    self.checks.remove(&(name, id.to_string()));
                }
            }
            other => panic!("this double does not apply {other:?}"),
        }
    }
}

/// All servers of a datacenter.
pub(crate) struct Servers {
    clock: Arc<dyn Clock>,
    authority: Mutex<MeshAuthority>,
    known: Mutex<Known>,
    index: watch::Sender<u64>,
    away: watch::Sender<bool>,
}

impl Servers {
    pub(crate) fn new() -> Arc<Self> {
        // It runs with the machine, or under a paused clock with the test.
        let clock = SimulatedClock::starting_at(SystemClock.now());
        Arc::new(Self {
            clock: Arc::new(clock),
            authority: Mutex::new(authority()),
            known: Mutex::default(),
            index: watch::Sender::new(1),
            away: watch::Sender::new(false),
        })
    }

    pub(crate) fn asker(self: &Arc<Self>) -> Asker {
        let datacenter: SharedDatacenter = Arc::clone(self) as SharedDatacenter;
        let token = Arc::new(ArcSwap::from_pointee(Credential::new("secret")));
        Asker { datacenter, token, rng: Arc::new(SeededRng::new(1)) }
    }

    /// The clock that its certificates are made by.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock());
        self.index.send_modify(|index| *index += 1);
    }

    pub(crate) fn set_intentions(&self, intentions: Vec<Intention>) {
        self.change(|known| known.intentions = intentions);
    }

    pub(crate) fn set_instances(&self, service: &str, addresses: &[String]) {
        let rows = addresses.iter().map(|address| instance(service, address)).collect();
        self.change(|known| drop(known.instances.insert(service.into(), rows)));
    }

    /// From now on the mesh has another authority.
    pub(crate) fn rotate(&self) {
        *self.authority.lock() = authority();
        self.change(|_| {});
    }

    pub(crate) fn root_pem(&self) -> String {
        self.authority.lock().root_pem().to_owned()
    }

    pub(crate) fn refuse_signatures(&self, count: usize) {
        self.known.lock().signatures_to_refuse = count;
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }

    /// The ids of the services of all nodes.
    pub(crate) fn registered(&self) -> Vec<String> {
        self.known.lock().nodes.values().flat_map(|node| node.services.keys().cloned()).collect()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.known.lock().operations.clone()
    }

    fn answer(&self, query: &Query) -> Result<Answer, Refusal> {
        let known = self.known.lock();
        Ok(match query {
            Query::IntentionMatch(_) => Answer::Intentions(known.intentions.clone()),
            Query::HealthService(asked) => Answer::CheckServiceNodes(known.healthy(asked.service.as_str()).into()),
            Query::NodeServices(node) => Answer::NodeServices(known.nodes.get(node.as_str()).cloned()),
            Query::HealthNode(node) => Answer::Checks(
                known
                    .checks
                    .iter()
                    .filter(|((on, _), _)| on == node.as_str())
                    .map(|(_, check)| check.clone())
                    .collect(),
            ),
            Query::CaRoots => Answer::CaRoots(Some(self.roots())),
            other => return Err(Refusal::failed(format!("this double does not answer {other:?}"))),
        })
    }

    fn roots(&self) -> CaRoots {
        let root = CaRoot {
            id: "root".into(),
            name: String::new(),
            serial_number: 1,
            signing_key_id: String::new(),
            external_trust_domain: String::new(),
            not_before: String::new(),
            not_after: String::new(),
            root_cert: self.root_pem(),
            intermediate_certs: None,
            active: true,
            private_key_type: "ec".into(),
            private_key_bits: 256,
            create_index: Index(1),
            modify_index: Index(1),
        };
        CaRoots { active_root_id: "root".into(), trust_domain: trust_domain().to_string(), roots: vec![root] }
    }

    pub(crate) fn sign(&self, id: &SpiffeId, csr: &[u8]) -> Result<LeafCertificate, Refusal> {
        let pem = std::str::from_utf8(csr).map_err(|_| Refusal::bad_request("not PEM"))?;
        let (lifetime, now) = (Duration::from_secs(3600), self.clock.now());
        let leaf = self
            .authority
            .lock()
            .sign_leaf(pem, id, lifetime, now, &SystemRng)
            .map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(LeafCertificate {
            serial_number: leaf.serial,
            chain_pem: leaf.chain_pem,
            uri: leaf.uri,
            valid_after: leaf.valid_after.into(),
            valid_before: leaf.valid_before.into(),
            roots_index: Index(1),
        })
    }

    fn reachable(&self) -> Result<(), Refusal> {
        if *self.away.borrow() { Err(Refusal::no_leader()) } else { Ok(()) }
    }
}

impl Datacenter for Servers {
    fn write<'a>(&'a self, _: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>> {
        Box::pin(async move {
            self.reachable()?;
            self.change(|known| known.apply(command));
            Ok(Outcome { index: Index(*self.index.borrow()), effect: Effect::Applied })
        })
    }

    fn read<'a>(&'a self, _: &'a Credential, query: Query, freshness: Freshness) -> Boxed<'a, Result<Read, Refusal>> {
        Box::pin(async move {
            self.reachable()?;
            if let Some(block) = freshness.block {
                let (mut index, mut away) = (self.index.subscribe(), self.away.subscribe());
                tokio::select! {
                    biased;
                    _ = away.wait_for(|away| *away) => return Err(Refusal::no_leader()),
                    waited = tokio::time::timeout(block.wait(), index.wait_for(|at| *at > block.after.0)) => {
                        drop(waited);
                    }
                }
            }
            let index = Index(*self.index.borrow());
            let answer = self.answer(&query)?;
            Ok(Read { index, answer, filtered_by_acls: false, last_contact_millis: 0, known_leader: true })
        })
    }

    fn operate<'a>(&'a self, _: &'a Credential, operation: Operation) -> Boxed<'a, Result<Report, Refusal>> {
        Box::pin(async move {
            self.reachable()?;
            self.known.lock().operations.push(operation.clone());
            match operation {
                Operation::SignLeaf(asked) => {
                    {
                        let mut known = self.known.lock();
                        if known.signatures_to_refuse > 0 {
                            known.signatures_to_refuse -= 1;
                            return Err(Refusal::failed("too busy to sign"));
                        }
                    }
                    self.sign(&spiffe_id(asked.service.as_str()), &asked.csr).map(Report::Leaf)
                }
                Operation::Keepalive(_) => Ok(Report::Servers(Vec::new(), None)),
                _ => Ok(Report::Done),
            }
        })
    }
}
