//! Clients and watchers: each does one thing after the other at one agent and writes down what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lictor_client::{Client, ClientError};
use lictor_runtime::{Rng, SeededRng};
use lictor_tests::linearizability::{Entry, KvAnswer, KvInput, KvStep};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::journal::{Journal, Seen, entries};
use crate::sights::{ALL_KEYS, Sight};

/// After this nobody knows what became of an operation.
pub(crate) const OPERATION_LIMIT: Duration = Duration::from_millis(2_500);
/// Groups of keys; a list shows one group.
const GROUPS: u64 = 3;
/// Keys of a group.
const KEYS: u64 = 2;

/// What all of a history share.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) journal: Arc<Journal>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) prefix: String,
}

impl Work {
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What became of a request.
pub(crate) enum Told<T> {
    Answer(T),
    /// It was not done: nobody heard it.
    Nothing,
    Unknown,
}

pub(crate) async fn told<T>(asked: impl Future<Output = Result<T, ClientError>>) -> Told<T> {
    match timeout(OPERATION_LIMIT, asked).await {
        Ok(Ok(answer)) => Told::Answer(answer),
        Ok(Err(ClientError::Unreachable { reason, .. })) if reason.contains("refused") => Told::Nothing,
        Ok(Err(_)) | Err(_) => Told::Unknown,
    }
}

/// A client at one agent.
pub(crate) struct Worker {
    pub(crate) work: Work,
    pub(crate) client: Client,
    pub(crate) rng: SeededRng,
    pub(crate) seen: BTreeMap<String, Option<Seen>>,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        while !self.work.is_over() {
            let well = self.one().await;
            let pause = if well { 1_000 + self.rng.below(14_000) } else { 100_000 };
            sleep(Duration::from_micros(pause)).await;
        }
    }

    async fn one(&mut self) -> bool {
        let group = format!("{}g{}/", self.work.prefix, self.rng.below(GROUPS));
        let key = format!("{group}k{}", self.rng.below(KEYS));
        match self.rng.below(100) {
            0..16 => {
                let entry = Entry { value: self.work.journal.fresh(), index: None };
                let body = entry.value.clone();
                self.write(&group, &key, KvInput::Put(key.clone(), entry), "", Some(body)).await
            }
            16..30 => self.swap(&group, &key).await,
            30..44 => self.transact(&group).await,
            44..52 => self.delete_if(&group, &key).await,
            52..56 => self.write(&group, &key, KvInput::Delete(key.clone()), "", None).await,
            56..72 => self.get(&group, &key, &[]).await,
            72..86 => self.get(&group, &key, &[("consistent", "")]).await,
            86..93 => self.list(&group, &[("recurse", "")]).await,
            _ => self.list(&group, &[("recurse", ""), ("consistent", "")]).await,
        }
    }

    async fn swap(&mut self, group: &str, key: &str) -> bool {
        let Some(seen) = self.seen.get(key).cloned() else { return self.get(group, key, &[]).await };
        let entry = Entry { value: self.work.journal.fresh(), index: None };
        let index = seen.as_ref().map_or(0, |(_, index)| *index);
        let body = entry.value.clone();
        let input = KvInput::Cas(key.to_owned(), seen.map(|(value, _)| value), entry);
        self.write(group, key, input, &format!("cas={index}"), Some(body)).await
    }

    async fn delete_if(&mut self, group: &str, key: &str) -> bool {
        let Some(Some((value, index))) = self.seen.get(key).cloned() else { return self.get(group, key, &[]).await };
        self.write(group, key, KvInput::DeleteCas(key.to_owned(), value), &format!("cas={index}"), None).await
    }

    async fn write(&mut self, group: &str, key: &str, input: KvInput, query: &str, body: Option<String>) -> bool {
        let began = self.work.journal.now();
        let path = format!("/v1/kv/{key}");
        let query: Vec<(&str, &str)> = query.split_once('=').into_iter().collect();
        let told = match body {
            Some(body) => told(self.client.put_bytes(&path, &query, Bytes::from(body))).await,
            None => told(self.client.delete(&path, &query)).await,
        };
        self.seen.remove(key);
        let answer = match &told {
            Told::Nothing => return false,
            Told::Answer(reply) if reply.starts_with(b"true") => Some(KvAnswer::Done),
            Told::Answer(reply) if reply.starts_with(b"false") => Some(KvAnswer::NotApplied),
            Told::Answer(_) | Told::Unknown => None,
        };
        let well = answer.is_some();
        self.work.journal.note(group, input, began, answer);
        well
    }

    /// Several keys of a group, all or none; one in three only reads.
    async fn transact(&mut self, group: &str) -> bool {
        let keys: Vec<String> = (0..KEYS).map(|key| format!("{group}k{key}")).collect();
        let reads_only = self.rng.below(3) == 0;
        let (mut steps, mut body) = (Vec::new(), Vec::new());
        let list = |steps: &mut Vec<KvStep>, body: &mut Vec<Value>| {
            steps.push(KvStep::List);
            body.push(json!({"KV": {"Verb": "get-tree", "Key": group}}));
        };
        if reads_only {
            list(&mut steps, &mut body);
        }
        for key in keys.iter().filter(|_| !reads_only) {
            let seen = self.seen.get(key).cloned();
            let (step, operation) = self.step(key, seen);
            steps.push(step);
            body.push(json!({ "KV": operation }));
        }
        if !reads_only && self.rng.below(2) == 0 {
            list(&mut steps, &mut body);
        }
        let lists = steps.iter().filter(|step| **step == KvStep::List).count();
        let began = self.work.journal.now();
        let asked = self.client.put_json::<_, Value>("/v1/txn", &[], &body);
        let answer = match timeout(OPERATION_LIMIT, asked).await {
            Ok(Ok(done)) => {
                let rows: Vec<Value> =
                    done["Results"].as_array().into_iter().flatten().map(|it| it["KV"].clone()).collect();
                // What was written is told without its value.
                let read: Vec<Value> = rows.into_iter().filter(|row| row["Value"].is_string()).collect();
                let found = entries(&read);
                self.work.journal.saw(found.values());
                let values: BTreeMap<_, _> = found.into_iter().map(|(key, (value, _))| (key, value)).collect();
                Some(KvAnswer::Found(vec![values; lists]))
            }
            Ok(Err(ClientError::Status { status: 409, body })) if body.contains("\"Errors\":[") => {
                Some(KvAnswer::NotApplied)
            }
            Ok(Err(ClientError::Unreachable { reason, .. })) if reason.contains("refused") => return false,
            Ok(Err(_)) | Err(_) => None,
        };
        if !reads_only {
            keys.iter().for_each(|key| drop(self.seen.remove(key)));
        }
        let well = answer.is_some();
        self.work.journal.note(group, KvInput::Transaction(steps), began, answer);
        well
    }

    /// One step on a key of which this was seen last.
    fn step(&self, key: &str, seen: Option<Option<Seen>>) -> (KvStep, Value) {
        use base64::Engine;
        let entry = Entry { value: self.work.journal.fresh(), index: None };
        let value = base64::engine::general_purpose::STANDARD.encode(&entry.value);
        let index = seen.as_ref().and_then(|seen| seen.as_ref()).map_or(0, |(_, index)| *index);
        match (self.rng.below(6), seen) {
            (0, _) => (KvStep::Delete(key.into()), json!({"Verb": "delete", "Key": key})),
            (1..3, Some(seen)) => (
                KvStep::Cas(key.into(), seen.map(|(value, _)| value), entry),
                json!({"Verb": "cas", "Key": key, "Value": value, "Index": index}),
            ),
            (3, Some(Some((seen, _)))) => {
                (KvStep::Is(key.into(), Some(seen)), json!({"Verb": "check-index", "Key": key, "Index": index}))
            }
            (3, Some(None)) => (KvStep::Is(key.into(), None), json!({"Verb": "check-not-exists", "Key": key})),
            _ => (KvStep::Set(key.into(), entry), json!({"Verb": "set", "Key": key, "Value": value})),
        }
    }

    async fn get(&mut self, group: &str, key: &str, query: &[(&str, &str)]) -> bool {
        let began = self.work.journal.now();
        let asked = self.rows(&format!("/v1/kv/{key}"), query).await;
        let Some(rows) = asked else { return false };
        let found = rows.get(key).cloned();
        self.work.journal.saw(found.iter());
        let answer = KvAnswer::Value(found.as_ref().map(|(value, _)| value.clone()));
        self.work.journal.note(group, KvInput::Get(key.to_owned()), began, Some(answer));
        self.seen.insert(key.to_owned(), found);
        true
    }

    pub(crate) async fn list(&mut self, group: &str, query: &[(&str, &str)]) -> bool {
        let began = self.work.journal.now();
        let Some(rows) = self.rows(&format!("/v1/kv/{group}"), query).await else { return false };
        self.work.journal.saw(rows.values());
        let all = rows.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        self.work.journal.note(group, KvInput::List, began, Some(KvAnswer::All(all)));
        true
    }

    async fn rows(&self, path: &str, query: &[(&str, &str)]) -> Option<BTreeMap<String, Seen>> {
        match timeout(OPERATION_LIMIT, self.client.get_json::<Vec<Value>>(path, query)).await.ok()? {
            Ok((rows, _)) => Some(entries(&rows)),
            Err(error) if error.is_not_found() => Some(BTreeMap::new()),
            Err(_) => None,
        }
    }

    /// The groups of this history.
    pub(crate) fn groups(&self) -> Vec<String> {
        (0..GROUPS).map(|group| format!("{}g{group}/", self.work.prefix)).collect()
    }
}

/// What a watcher looks at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// [`ALL_KEYS`], or a service.
    pub(crate) subject: String,
    pub(crate) stale: bool,
}

impl Watched {
    /// Where it asks.
    fn path(&self, prefix: &str) -> String {
        if self.subject == ALL_KEYS {
            format!("/v1/kv/{prefix}")
        } else {
            format!("/v1/health/service/{}", self.subject)
        }
    }

    /// What an answer says.
    fn entries(&self, rows: &[Value]) -> BTreeMap<String, Seen> {
        if self.subject == ALL_KEYS { entries(rows) } else { instances(rows) }
    }

    /// What is there for certain; none for an answer that is not to be had.
    pub(crate) async fn now(&self, work: &Work, client: &Client) -> Result<BTreeMap<String, Seen>, String> {
        let query = [("recurse", ""), ("consistent", "")];
        match client.get_json::<Vec<Value>>(&self.path(&work.prefix), &query).await {
            Ok((rows, _)) => Ok(self.entries(&rows)),
            Err(error) if error.is_not_found() => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Instances by node and id: what they say, and their ModifyIndex.
fn instances(rows: &[Value]) -> BTreeMap<String, Seen> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|row| {
            let its = &row["Service"];
            let key = format!("{}/{}", text(&row["Node"]["Node"]), text(&its["ID"]));
            (key, (text(&its["Meta"]["content"]), its["ModifyIndex"].as_u64().unwrap_or(0)))
        })
        .collect()
}

/// Follows something by blocking queries at one agent.
pub(crate) async fn watch(work: Work, client: Client, watcher: usize, watched: Watched) {
    let mut after = 0u64;
    let path = watched.path(&work.prefix);
    while !work.is_over() {
        let began = work.journal.now();
        let index = after.to_string();
        let mut query = vec![("recurse", ""), ("index", &*index), ("wait", "1s")];
        query.extend(watched.stale.then_some(("stale", "")));
        match timeout(OPERATION_LIMIT, client.get_json::<Vec<Value>>(&path, &query)).await {
            Ok(Ok((rows, meta))) => {
                let (entries, ended) = (watched.entries(&rows), work.journal.now());
                let (subject, stale, index) = (watched.subject.clone(), watched.stale, meta.index);
                work.journal.sight(Sight { watcher, subject, stale, began, ended, after, index, entries });
                after = index;
            }
            // Of an answer without rows the client gives no index: begin anew.
            Ok(Err(error)) if error.is_not_found() => {
                work.journal.saw_nothing(watcher);
                after = 0;
                sleep(Duration::from_millis(20)).await;
            }
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
