//! A stand-in for the replicated state, for tests of the doors: canned answers, and a record of what was asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use lictor_runtime::fs::MemoryFs;
use lictor_runtime::transport::Boxed;
use lictor_runtime::{Clock, Resolver, SeededRng, SystemClock, Tasks};
use lictor_types::command::Effect;
use lictor_types::keyring::{KeyringAnswer, KeyringOperation, KeyringRequest};
use lictor_types::rpc::{Operation, Report, Status};
use lictor_types::{
    Answer, Command, Credential, Freshness, Index, LeafCertificate, Member, Outcome, Query, Read, Refusal, Timestamp,
};
use parking_lot::Mutex;
use tower::ServiceExt;

use crate::agent::{Agent, AgentIdentity};
use crate::config::{Config, Flags, Host};
use crate::datacenter::{Datacenter, Standing};
use crate::events::Ring;
use crate::local::{Local, LocalSettings};
use crate::orders::Orders;

/// What the waist was asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) reads: Vec<(Credential, Query, Freshness)>,
    pub(crate) writes: Vec<(Credential, Command)>,
    pub(crate) operations: Vec<(Credential, Operation)>,
}

/// The stand-in.
pub(crate) struct Double {
    pub(crate) asked: Mutex<Asked>,
    /// Answers by turn; the last one stays.
    pub(crate) reads: Mutex<Vec<Result<Read, Refusal>>>,
    /// What becomes of every write.
    pub(crate) effect: Mutex<Effect>,
    /// Names that nobody may touch.
    pub(crate) forbidden: Mutex<Vec<String>>,
    pub(crate) members: Mutex<Vec<Member>>,
    pub(crate) leader: Mutex<Option<String>>,
    /// Where the state stands; none for one that is elsewhere.
    pub(crate) standing: Mutex<Option<Standing>>,
    /// Whether gossip has keys.
    pub(crate) encrypted: Mutex<bool>,
    /// No operation is answered.
    pub(crate) silent: Mutex<bool>,
}

/// With ACLs, so that local endpoints ask who may do what.
pub(crate) const ACLS: &str = "acl {\n enabled = true\n default_policy = \"deny\"\n}\n";

/// An answer at an index.
pub(crate) fn at(index: u64, answer: Answer) -> Result<Read, Refusal> {
    Ok(Read { index: Index(index), answer, filtered_by_acls: false, last_contact_millis: 0, known_leader: true })
}

impl Double {
    /// One that answers every read with this.
    pub(crate) fn answering(read: Result<Read, Refusal>) -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            reads: Mutex::new(vec![read]),
            effect: Mutex::new(Effect::Applied),
            forbidden: Mutex::default(),
            members: Mutex::default(),
            leader: Mutex::new(Some("10.0.0.1:8300".into())),
            standing: Mutex::default(),
            encrypted: Mutex::default(),
            silent: Mutex::default(),
        })
    }

    fn authorized(&self, name: &str) -> Option<Refusal> {
        let forbidden = self.forbidden.lock().iter().any(|it| it == name);
        forbidden.then(|| Refusal::permission_denied(format!("{name:?}")))
    }
}

impl Datacenter for Double {
    fn write<'a>(&'a self, credential: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>> {
        self.asked.lock().writes.push((credential.clone(), command));
        let effect = self.effect.lock().clone();
        Box::pin(async { Ok(Outcome { index: Index(7), effect }) })
    }

    fn read<'a>(
        &'a self,
        credential: &'a Credential,
        query: Query,
        freshness: Freshness,
    ) -> Boxed<'a, Result<Read, Refusal>> {
        self.asked.lock().reads.push((credential.clone(), query, freshness));
        let mut reads = self.reads.lock();
        let read = if reads.len() > 1 { reads.remove(0) } else { reads[0].clone() };
        Box::pin(async move {
            if let (Ok(read), Some(block)) = (&read, freshness.block)
                && read.index <= block.after
            {
                tokio::time::sleep(block.wait()).await;
            }
            read
        })
    }

    fn operate<'a>(&'a self, credential: &'a Credential, operation: Operation) -> Boxed<'a, Result<Report, Refusal>> {
        self.asked.lock().operations.push((credential.clone(), operation.clone()));
        let report = match operation {
            Operation::Authorize(needed) => {
                Report::Authorized(needed.iter().map(|requirement| self.authorized(&requirement.name)).collect())
            }
            Operation::Status => Report::Status(Status {
                leader: self.leader.lock().clone(),
                peers: vec!["10.0.0.1:8300".into()],
                ..Status::default()
            }),
            Operation::Members => Report::Members(self.members.lock().clone()),
            Operation::SignLeaf(_) => Report::Leaf(LeafCertificate {
                serial_number: "01".into(),
                chain_pem: "chain".into(),
                uri: "spiffe://x".into(),
                valid_after: Timestamp(0),
                valid_before: Timestamp(SystemClock.unix_millis() + 3_600_000),
                roots_index: Index(5),
            }),
            Operation::Keyring(asked) => Report::Keyring(self.keyring(&asked)),
            Operation::CreateJoinToken(_) => Report::JoinToken(Credential::new("join-secret")),
            _ => Report::Done,
        };
        let silent = *self.silent.lock();
        Box::pin(async move { if silent { std::future::pending().await } else { Ok(report) } })
    }

    fn standing(&self, _: &Credential) -> Option<Standing> {
        *self.standing.lock()
    }
}

impl Double {
    /// What a server without keys answers, or one with the key `K` in both pools.
    fn keyring(&self, asked: &KeyringRequest) -> Vec<KeyringAnswer> {
        let encrypted = *self.encrypted.lock();
        let held: BTreeMap<String, u32> = encrypted.then(|| ("K".to_owned(), 1)).into_iter().collect();
        let error = match (encrypted, asked.operation) {
            (true, KeyringOperation::Remove) => "1/2 nodes reported success",
            (true, _) => "",
            (false, KeyringOperation::List) => "Keyring is empty (encryption not enabled)",
            (false, _) => "No keyring to modify (encryption not enabled)",
        };
        let of_pool = |wan| KeyringAnswer {
            wan,
            datacenter: "dc1".into(),
            segment: String::new(),
            messages: BTreeMap::new(),
            keys: held.clone(),
            primary_keys: held.clone(),
            num_nodes: 1,
            error: error.into(),
        };
        vec![of_pool(true), of_pool(false)]
    }
}

/// An agent in front of `double`, configured by these fragments of HCL on top of a plain loopback agent.
pub(crate) fn agent(double: &Arc<Double>, fragment: &str) -> Arc<Agent> {
    let base = "bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\"\nnode_name = \"n1\"\n";
    let flags = Flags { fragments: vec![base.into(), fragment.into()], ..Flags::default() };
    let host = Host { name: "n1".into(), ..Host::default() };
    let config = Config::load(&flags, &host).unwrap_or_else(|errors| panic!("{errors}"));
    let identity = AgentIdentity::new(&config, "6f1d2c3b-0000-4000-8000-000000000001".into());
    let rng = Arc::new(SeededRng::new(7));
    let resolver = Resolver::from_system();
    let fs = Arc::new(MemoryFs::new());
    let settings = LocalSettings::new(identity.clone(), &config, fs, resolver, rng.clone(), Tasks::new());
    let local = Local::start(settings).unwrap();
    Arc::new(Agent {
        identity,
        datacenter: double.clone(),
        local: Arc::clone(&local),
        tokens: local.tokens(),
        events: Arc::new(Ring::new("ring".into())),
        clock: Arc::new(SystemClock),
        rng,
        figures: crate::figures::Figures::new(Arc::default(), &config),
        config: Arc::new(config).into(),
        orders: Orders::default(),
        pools: crate::pools::Pools::none(),
    })
}

/// A door with its double.
pub(crate) struct Tested {
    pub(crate) double: Arc<Double>,
    router: axum::Router,
}

/// What a request got.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Tested {
    pub(crate) fn answering(read: Result<Read, Refusal>) -> Self {
        Self::configured(read, "")
    }

    /// With ACLs.
    pub(crate) fn guarded(read: Result<Read, Refusal>) -> Self {
        Self::configured(read, ACLS)
    }

    pub(crate) fn configured(read: Result<Read, Refusal>, fragment: &str) -> Self {
        let double = Double::answering(read);
        let router = super::router(agent(&double, fragment));
        Self { double, router }
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Got {
        let response = self.answer(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn call(&self, method: &str, uri: &str, body: &str) -> Got {
        let request = Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Got {
        self.call("GET", uri, "").await
    }
}
