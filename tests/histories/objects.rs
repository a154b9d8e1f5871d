//! Clients of locks and of the catalog, as [`crate::workers`] are of keys.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_runtime::{Rng, SeededRng};
use lictor_tests::linearizability::{CatalogAnswer, CatalogInput, Instance, LockAnswer, LockInput};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::workers::{OPERATION_LIMIT, Told, Work, told};

/// Locks of a history.
const LOCKS: u64 = 2;
/// Services of a history.
const SERVICES: u64 = 2;
/// Nodes that have instances; nobody but the clients knows them.
const NODES: u64 = 2;
/// Instances on a node.
const INSTANCES: u64 = 2;

/// A client at one agent that takes locks, one session for each lock.
pub(crate) struct Locker {
    pub(crate) work: Work,
    pub(crate) client: Client,
    pub(crate) rng: SeededRng,
    sessions: BTreeMap<String, String>,
}

impl Locker {
    pub(crate) fn new(work: Work, client: Client, rng: SeededRng) -> Self {
        Self { work, client, rng, sessions: BTreeMap::new() }
    }

    pub(crate) async fn run(mut self) {
        while !self.work.is_over() {
            let well = self.one().await;
            let pause = if well { 5_000 + self.rng.below(30_000) } else { 100_000 };
            sleep(Duration::from_micros(pause)).await;
        }
    }

    async fn one(&mut self) -> bool {
        let lock = format!("locks/{}{}", self.work.prefix, self.rng.below(LOCKS));
        let Some(session) = self.session(&lock).await else { return false };
        match self.rng.below(100) {
            0..35 => self.change(&lock, "acquire", LockInput::Acquire(session.clone()), &session).await,
            35..60 => self.change(&lock, "release", LockInput::Release(session.clone()), &session).await,
            60..75 => self.holder(&lock, &[]).await,
            75..92 => self.holder(&lock, &[("consistent", "")]).await,
            _ => self.end(&lock, &session).await,
        }
    }

    /// The session of this client for a lock. It has no delay, which the model does not know, and nothing ends it but its
    /// client.
    async fn session(&mut self, lock: &str) -> Option<String> {
        if let Some(session) = self.sessions.get(lock) {
            return Some(session.clone());
        }
        let body = json!({"LockDelay": "0s", "NodeChecks": [], "Checks": []});
        let asked = self.client.put_json::<_, Value>("/v1/session/create", &[], &body);
        let made = timeout(OPERATION_LIMIT, asked).await.ok()?.ok()?;
        let id = made["ID"].as_str()?.to_owned();
        self.sessions.insert(lock.to_owned(), id.clone());
        Some(id)
    }

    async fn change(&mut self, lock: &str, verb: &str, input: LockInput, session: &str) -> bool {
        let began = self.work.journal.now();
        let path = format!("/v1/kv/{lock}");
        let told = told(self.client.put_bytes(&path, &[(verb, session)], Bytes::new())).await;
        let is_acquire = matches!(input, LockInput::Acquire(_));
        let answer = match told {
            Told::Nothing => return false,
            Told::Answer(reply) if reply.starts_with(b"true") && is_acquire => Some(LockAnswer::Granted(None)),
            Told::Answer(reply) if reply.starts_with(b"true") => Some(LockAnswer::Done),
            Told::Answer(reply) if reply.starts_with(b"false") => Some(LockAnswer::Refused),
            Told::Answer(_) | Told::Unknown => None,
        };
        let well = answer.is_some();
        self.work.journal.note_lock(lock, input, began, answer);
        well
    }

    async fn end(&mut self, lock: &str, session: &str) -> bool {
        self.sessions.remove(lock);
        let began = self.work.journal.now();
        let path = format!("/v1/session/destroy/{session}");
        let answer = match told(self.client.put_bytes(&path, &[], Bytes::new())).await {
            Told::Nothing => return false,
            Told::Answer(reply) if reply.starts_with(b"true") => Some(LockAnswer::Done),
            Told::Answer(_) | Told::Unknown => None,
        };
        let well = answer.is_some();
        self.work.journal.note_lock(lock, LockInput::Invalidate(session.to_owned()), began, answer);
        well
    }

    async fn holder(&self, lock: &str, query: &[(&str, &str)]) -> bool {
        let began = self.work.journal.now();
        let path = format!("/v1/kv/{lock}");
        let asked = timeout(OPERATION_LIMIT, self.client.get_json::<Vec<Value>>(&path, query)).await;
        let held = match asked {
            Ok(Ok((rows, _))) => {
                let row = rows.first().cloned().unwrap_or_default();
                LockAnswer::Held(row["Session"].as_str().map(str::to_owned), row["LockIndex"].as_u64().unwrap_or(0))
            }
            Ok(Err(error)) if error.is_not_found() => LockAnswer::Held(None, 0),
            Ok(Err(_)) | Err(_) => return false,
        };
        self.work.journal.note_lock(lock, LockInput::Holder, began, Some(held));
        true
    }

    /// Reads every lock once.
    pub(crate) async fn all(&self) -> bool {
        let mut well = true;
        for lock in 0..LOCKS {
            well &= self.holder(&format!("locks/{}{lock}", self.work.prefix), &[("consistent", "")]).await;
        }
        well
    }
}

/// A service of a history.
pub(crate) fn service(work: &Work, number: u64) -> String {
    let history = work.prefix.trim_matches('/').replace('/', "-");
    format!("{history}-service-{number}")
}

/// A client at one agent that registers and deregisters.
pub(crate) struct Registrar {
    pub(crate) work: Work,
    pub(crate) client: Client,
    pub(crate) rng: SeededRng,
}

impl Registrar {
    pub(crate) async fn run(self) {
        while !self.work.is_over() {
            let well = self.one().await;
            let pause = if well { 5_000 + self.rng.below(30_000) } else { 100_000 };
            sleep(Duration::from_micros(pause)).await;
        }
    }

    /// A name that no other history has: the catalog has no folders. Each service has nodes of its own, so that a node that
    /// goes takes only its instances along.
    fn service(&self, number: u64) -> String {
        service(&self.work, number)
    }

    async fn one(&self) -> bool {
        let service = self.service(self.rng.below(SERVICES));
        let node = format!("{service}-node-{}", self.rng.below(NODES));
        let instance = (node.clone(), format!("{service}-{}", self.rng.below(INSTANCES)));
        match self.rng.below(100) {
            0..40 => self.register(&service, instance).await,
            40..55 => {
                let body = json!({"Node": node, "ServiceID": instance.1});
                self.deregister(&service, CatalogInput::Deregister(instance), body).await
            }
            55..62 => {
                self.deregister(&service, CatalogInput::DeregisterNode(node.clone()), json!({"Node": node})).await
            }
            62..80 => self.instances(&service, &[]).await,
            _ => self.instances(&service, &[("consistent", "")]).await,
        }
    }

    async fn register(&self, service: &str, (node, id): Instance) -> bool {
        let content = self.work.journal.fresh();
        let body = json!({
            "Node": node,
            "Address": "10.9.9.9",
            "Service": {"ID": id, "Service": service, "Port": 80, "Meta": {"content": content}},
        });
        self.change("register", service, CatalogInput::Register((node, id), content), body).await
    }

    async fn deregister(&self, service: &str, input: CatalogInput, body: Value) -> bool {
        self.change("deregister", service, input, body).await
    }

    async fn change(&self, verb: &str, service: &str, input: CatalogInput, body: Value) -> bool {
        let began = self.work.journal.now();
        let path = format!("/v1/catalog/{verb}");
        let body = Bytes::from(body.to_string());
        let answer = match told(self.client.put_bytes(&path, &[], body)).await {
            Told::Nothing => return false,
            Told::Answer(reply) if reply.starts_with(b"true") => Some(CatalogAnswer::Done),
            Told::Answer(_) | Told::Unknown => None,
        };
        let well = answer.is_some();
        self.work.journal.note_catalog(service, input, began, answer);
        well
    }

    /// Reads all instances, by the catalog or by health: both must tell the same.
    async fn instances(&self, service: &str, query: &[(&str, &str)]) -> bool {
        let by_health = self.rng.below(2) == 0;
        let began = self.work.journal.now();
        let path = if by_health { "health" } else { "catalog" };
        let path = format!("/v1/{path}/service/{service}");
        let asked = timeout(OPERATION_LIMIT, self.client.get_json::<Vec<Value>>(&path, query)).await;
        let Ok(Ok((rows, _))) = asked else { return false };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let registered = rows.iter().map(|row| match by_health {
            true => {
                let its = &row["Service"];
                ((text(&row["Node"]["Node"]), text(&its["ID"])), text(&its["Meta"]["content"]))
            }
            false => ((text(&row["Node"]), text(&row["ServiceID"])), text(&row["ServiceMeta"]["content"])),
        });
        let answer = CatalogAnswer::Registered(registered.collect());
        self.work.journal.note_catalog(service, CatalogInput::Instances, began, Some(answer));
        true
    }

    /// Reads every service once.
    pub(crate) async fn all(&self) -> bool {
        let mut well = true;
        for service in 0..SERVICES {
            well &= self.instances(&self.service(service), &[("consistent", "")]).await;
        }
        well
    }

    /// Takes away what the history leaves: the next one should not find a larger catalog.
    pub(crate) async fn clear(&self) {
        for node in (0..SERVICES).flat_map(|service| {
            let service = self.service(service);
            (0..NODES).map(move |node| format!("{service}-node-{node}"))
        }) {
            let body = Bytes::from(json!({"Node": node}).to_string());
            let _either = timeout(OPERATION_LIMIT, self.client.put_bytes("/v1/catalog/deregister", &[], body)).await;
        }
    }
}
