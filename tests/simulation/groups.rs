//! Clients of transactions: two keys, a node and an instance that are always written together, and so always say the same.
//!
//! A group is a register for the model of registers: every transaction writes all of it or nothing, and every reader that
//! finds its parts to differ has seen half of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_runtime::{Rng, SeededRng};
use lictor_types::command::Effect;
use lictor_types::transaction::{
    KvOperation, NodeOperation, RowVerb, ServiceOperation, TransactionKvVerb, TransactionOperation, TransactionOutcome,
    TransactionResult,
};
use lictor_types::{Answer as StateAnswer, Command, Consistency, Index, Node, NodeService, Query, Transaction};
use parking_lot::Mutex;

use crate::clients::{World, registration};
use crate::history::{Action, Answer, History, Value};
use crate::reach::Reach;
use crate::trace::Trace;
use crate::watchers::Rows;

/// Where the groups are.
pub(crate) const PREFIX: &str = "group/";
/// Groups that everybody writes.
const GROUPS: u64 = 3;
/// No key has it.
const NEVER: Index = Index(1);

/// The key of a group that holds what the group holds.
pub(crate) fn first_key(group: &str) -> String {
    format!("{group}/a")
}

/// The two keys of a group where they differ.
pub(crate) fn half(rows: &Rows) -> Option<String> {
    (0..GROUPS).find_map(|group| {
        let keys = ["a", "b"].map(|key| format!("{PREFIX}{group}/{key}"));
        let indexes = [rows.get(&keys[0]), rows.get(&keys[1])];
        (indexes[0] != indexes[1]).then(|| format!("{keys:?} have the indexes {indexes:?}"))
    })
}

/// A client of groups.
pub(crate) struct Groups {
    number: usize,
    reach: Arc<Reach>,
    history: History,
    rng: SeededRng,
    trace: Trace,
    /// What this client saw last of each group, for cas.
    seen: Mutex<BTreeMap<String, (Value, Index)>>,
}

impl Groups {
    pub(crate) fn new(world: &World, number: usize, reach: Arc<Reach>, rng: SeededRng) -> Self {
        let (history, trace) = (world.history.clone(), world.trace.clone());
        Self { number, reach, history, rng, trace, seen: Mutex::default() }
    }

    /// Does one thing with one group.
    pub(crate) async fn one(&self) {
        let group = format!("{PREFIX}{}", self.rng.below(GROUPS));
        match self.rng.below(100) {
            0..30 => self.set(&group).await,
            30..45 => self.swap(&group).await,
            45..60 => self.fail(&group).await,
            60..66 => self.remove(&group).await,
            66..85 => self.get(&group, Consistency::Consistent).await,
            _ => self.get(&group, Consistency::Default).await,
        }
    }

    /// Writes all of a group.
    async fn set(&self, group: &str) {
        let value = self.history.fresh();
        self.write(group, Action::Set(value), content(group, value, TransactionKvVerb::Set, Index(0))).await;
    }

    /// Writes all of a group if it is as this client saw it last.
    async fn swap(&self, group: &str) {
        let Some((expected, index)) = self.seen.lock().get(group).copied() else {
            return self.get(group, Consistency::Default).await;
        };
        let new = self.history.fresh();
        self.write(group, Action::Cas { expected, new }, content(group, new, TransactionKvVerb::Cas, index)).await;
    }

    /// Writes all of a group, and then asks for what cannot be: nothing may be left of it.
    async fn fail(&self, group: &str) {
        let new = self.history.fresh();
        let mut operations = content(group, new, TransactionKvVerb::Set, Index(0));
        operations.push(kv(TransactionKvVerb::CheckIndex, first_key(group), 0, NEVER));
        self.write(group, Action::Cas { expected: Value::MAX, new }, operations).await;
    }

    async fn remove(&self, group: &str) {
        let keys = kv(TransactionKvVerb::DeleteTree, format!("{group}/"), 0, Index(0));
        let node = TransactionOperation::Node(NodeOperation { verb: RowVerb::Delete, node: node(group) });
        self.write(group, Action::Delete, vec![keys, node]).await;
    }

    async fn write(&self, group: &str, action: Action, operations: Vec<TransactionOperation>) {
        let Some(waist) = self.reach.waist().await else { return };
        let operation = self.history.begin(group, action, None);
        self.trace.note(|| format!("client {} {group} {action:?}", self.number));
        let outcome = self.reach.send(&waist, Command::Transaction(Transaction::new(operations))).await;
        let answer = match outcome.map(|outcome| (outcome.index, outcome.effect)) {
            Some((index, Effect::Transaction(it))) if it.errors.is_empty() => {
                self.written(group, index, &it);
                Answer::Written(index)
            }
            Some((_, Effect::Transaction(it))) => {
                let whys = ["index is stale", "failed index check"];
                if !it.errors.iter().all(|error| whys.iter().any(|why| error.what.contains(why))) {
                    self.history.broken(format!("{group} {action:?} failed: {:?}", it.errors));
                }
                Answer::NotApplied
            }
            Some((_, other)) => {
                self.history.broken(format!("{group} {action:?} was answered with {other:?}"));
                Answer::Unknown
            }
            None => Answer::Unknown,
        };
        self.trace.note(|| format!("client {} {group} {action:?} = {answer:?}", self.number));
        self.history.end(operation, answer);
    }

    /// All that a transaction wrote has its index.
    fn written(&self, group: &str, index: Index, outcome: &TransactionOutcome) {
        let others: Vec<_> = outcome.results.iter().map(modified).filter(|modified| *modified != index).collect();
        if !others.is_empty() {
            self.history.broken(format!("a transaction on {group} at {index} tells of rows of {others:?}"));
        }
    }

    /// Reads all of a group at once.
    async fn get(&self, group: &str, consistency: Consistency) {
        let Some(waist) = self.reach.waist().await else { return };
        let operation = self.history.begin(group, Action::Get, None);
        let service = ServiceOperation { verb: RowVerb::Get, node: node(group).name, service: instance(group, 0) };
        let tree = kv(TransactionKvVerb::GetTree, format!("{group}/"), 0, Index(0));
        let query = Query::Transaction(vec![tree, TransactionOperation::Service(Box::new(service))]);
        let read = self.reach.ask(&waist, query, consistency).await;
        let found = read.and_then(|read| match read.answer {
            StateAnswer::Transaction(outcome) => Some((read.index, outcome)),
            _ => None,
        });
        let answer = match found {
            None => Answer::Unknown,
            // Without the instance there is nothing.
            Some((index, outcome)) if !outcome.errors.is_empty() => Answer::Read { value: 0, index },
            Some((index, outcome)) => Answer::Read { value: self.same(group, &outcome), index },
        };
        self.trace.note(|| format!("client {} {group} = {answer:?}", self.number));
        self.history.end(operation, answer);
    }

    /// What all parts of a group say.
    fn same(&self, group: &str, outcome: &TransactionOutcome) -> Value {
        let said: Vec<_> = outcome.results.iter().map(|result| (said(result), modified(result))).collect();
        let first = said.first().copied().unwrap_or_default();
        if said.len() != 3 || said.iter().any(|its| *its != first) {
            self.history.broken(format!("the parts of {group} were read as {said:?}"));
        }
        if first.0 > 0 {
            self.seen.lock().insert(group.to_owned(), first);
        }
        first.0
    }
}

fn kv(verb: TransactionKvVerb, key: String, value: Value, index: Index) -> TransactionOperation {
    let value = value.to_string().into_bytes();
    TransactionOperation::Kv(KvOperation { verb, key, value, flags: 0, index, session: String::new() })
}

/// The operations that write all of a group.
fn content(group: &str, value: Value, verb: TransactionKvVerb, index: Index) -> Vec<TransactionOperation> {
    let mut node = node(group);
    node.meta.insert("value".into(), value.to_string());
    let service = ServiceOperation { verb: RowVerb::Set, node: node.name.clone(), service: instance(group, value) };
    vec![
        kv(verb, first_key(group), value, index),
        TransactionOperation::Node(NodeOperation { verb: RowVerb::Set, node }),
        kv(TransactionKvVerb::Set, format!("{group}/b"), value, Index(0)),
        TransactionOperation::Service(Box::new(service)),
    ]
}

fn node(group: &str) -> Node {
    let registration = registration(&group.replace('/', "-"));
    Node {
        id: String::new(),
        name: registration.node,
        address: registration.address,
        datacenter: registration.datacenter,
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: Index(0),
        modify_index: Index(0),
        locality: None,
    }
}

fn instance(group: &str, value: Value) -> NodeService {
    let mut service = NodeService::new(group.replace('/', "-").parse().expect("a legal name"));
    service.meta.insert("value".into(), value.to_string());
    service
}

fn modified(result: &TransactionResult) -> Index {
    match result {
        TransactionResult::Kv(it) => it.modify_index,
        TransactionResult::Node(it) => it.modify_index,
        TransactionResult::Service(it) => it.modify_index,
        TransactionResult::Check(it) => it.modify_index,
    }
}

fn said(result: &TransactionResult) -> Value {
    let text = match result {
        TransactionResult::Kv(it) => std::str::from_utf8(&it.value).ok(),
        TransactionResult::Service(it) => it.meta.get("value").map(String::as_str),
        TransactionResult::Node(_) | TransactionResult::Check(_) => None,
    };
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
