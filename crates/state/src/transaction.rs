//! Transactions: several operations, all or none.
//!
//! The operations run one after the other on a draft, which is a clone and so costs next to nothing, and each sees what
//! those before it did. Only a draft without an error becomes the state, with all changes told at once: no reader and no
//! watcher sees half of it.
//!
//! Invariants
//! - Every operation is tried even after one failed, so that the answer names all that is wrong.
//! - What an asker may is judged twice over the same walk: by the authoriser on its snapshot, and by `apply` against what
//!   was granted then, because rows may have changed between the two.

use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::transaction::{
    CheckOperation, KvOperation, NodeOperation, RowVerb, ServiceOperation, TransactionError, TransactionKvVerb,
    TransactionOperation, TransactionOutcome, TransactionResult,
};
use lictor_types::{
    CheckId, Deregistration, Index, KvEntry, Node, NodeName, Refusal, Registration, Requirement, Resource, ServiceId,
    Transaction,
};

use crate::access::Rules;
use crate::answer::Filter;
use crate::authorize::{needs_of_deregistration, needs_of_registration};
use crate::changes::{Changes, Commit};
use crate::store::Store;
use crate::tables::checks::check_id;
use crate::tables::kv::{Content, Holders, Locking};
use crate::tables::nodes::node_key;

/// Why one operation cannot be done.
type What = String;

impl Store {
    pub(crate) fn transact(&mut self, commit: &mut Commit, transaction: &Transaction) -> Result<Effect, Refusal> {
        let refused = |errors| Ok(Effect::Transaction(Box::new(TransactionOutcome { results: Vec::new(), errors })));
        if !transaction.denied.is_empty() {
            return refused(transaction.denied.clone());
        }
        let mut draft = self.clone();
        let mut changes = Commit { at: commit.at, now: commit.now, changes: Changes::default() };
        let mut outcome = TransactionOutcome::default();
        for (at, operation) in transaction.operations.iter().enumerate() {
            if let Some(granted) = &transaction.granted {
                let allows = |need: &Requirement| granted.contains(need);
                let needs = draft.needs_of_operation(operation, allows).unwrap_or_default();
                if let Some(need) = needs.iter().find(|need| !granted.contains(need)) {
                    return Err(Refusal::new(
                        RefusalKind::Conflict,
                        format!(
                            "what operation {at} is about has changed meanwhile, so that it needs {need} too: retry"
                        ),
                    ));
                }
            }
            match draft.operate(&mut changes, operation) {
                Ok(results) => outcome.results.extend(results),
                Err(what) => outcome.errors.push(TransactionError { op_index: at as u64, what }),
            }
        }
        if !outcome.errors.is_empty() {
            return refused(outcome.errors);
        }
        *self = draft;
        commit.changes.merge(changes.changes);
        Ok(Effect::Transaction(Box::new(outcome)))
    }

    /// What an asker with `rules` may not do of a transaction, and all that the rest requires.
    pub(crate) fn judge(&self, rules: &Rules, operations: &[TransactionOperation]) -> Judged {
        let mut draft = self.clone();
        let mut changes = Commit { at: self.index.next(), now: self.leader_time, changes: Changes::default() };
        let mut judged = Judged::default();
        for (at, operation) in operations.iter().enumerate() {
            // One that makes no sense is refused when it is tried, in the words for that.
            let needs = draft.needs_of_operation(operation, |need| rules.allows(need)).unwrap_or_default();
            match needs.iter().find_map(|need| rules.require(need).err()) {
                Some(refusal) => judged.denied.push(TransactionError { op_index: at as u64, what: refusal.text }),
                None => {
                    judged.granted.extend(needs);
                    let _tried = draft.operate(&mut changes, operation);
                }
            }
        }
        judged.granted.sort();
        judged.granted.dedup();
        judged
    }

    /// What one operation requires as the rows are now; `allows` tells of two rights that would do which one there is.
    fn needs_of_operation(
        &self,
        operation: &TransactionOperation,
        allows: impl Fn(&Requirement) -> bool,
    ) -> Result<Vec<Requirement>, Refusal> {
        use TransactionKvVerb as Kv;
        let one = |need| Ok(vec![need]);
        match operation {
            TransactionOperation::Kv(it) => match it.verb {
                // Its rows are chosen one by one.
                Kv::GetTree => Ok(Vec::new()),
                Kv::Get | Kv::GetOrEmpty | Kv::CheckIndex | Kv::CheckSession | Kv::CheckNotExists => {
                    one(Requirement::read(Resource::Key, it.key.as_str()))
                }
                Kv::DeleteTree => one(Requirement::write(Resource::KeyPrefix, it.key.as_str())),
                Kv::Set | Kv::Cas | Kv::Lock | Kv::Unlock | Kv::Delete | Kv::DeleteCas => {
                    one(Requirement::write(Resource::Key, it.key.as_str()))
                }
            },
            TransactionOperation::Node(it) => match it.verb {
                RowVerb::Get => {
                    let name = self.stored_node(&it.node).map_or_else(|| it.node.name.clone(), |stored| stored.name);
                    one(Requirement::read(Resource::Node, name.as_str()))
                }
                RowVerb::Set | RowVerb::Cas => {
                    // To write what is there already is to write, too: the answer tells the row.
                    let mut needs = needs_of_registration(self, &registration_of_node(&it.node))?;
                    needs.push(Requirement::write(Resource::Node, it.node.name.as_str()));
                    Ok(needs)
                }
                RowVerb::Delete | RowVerb::DeleteCas => one(Requirement::write(Resource::Node, it.node.name.as_str())),
            },
            TransactionOperation::Service(it) => match it.verb {
                RowVerb::Get => {
                    let stored = self.services.get(&node_key(&it.node), it.service.id_text());
                    let name = stored.map_or(it.service.name.as_str(), |stored| stored.name.as_str());
                    one(Requirement::read(Resource::Service, name))
                }
                RowVerb::Set | RowVerb::Cas => needs_of_registration(self, &registration_of_service(it)),
                RowVerb::Delete | RowVerb::DeleteCas => {
                    one(needs_of_deregistration(self, allows, &deregistration(&it.node, it.service.id.clone(), None)))
                }
            },
            TransactionOperation::Check(it) => match it.verb {
                RowVerb::Get => {
                    let stored = self.checks.get(&node_key(&it.node), check_id(&it.check));
                    one(match stored.filter(|stored| !stored.service_name.is_empty()) {
                        Some(stored) => Requirement::read(Resource::Service, stored.service_name.as_str()),
                        None => Requirement::read(Resource::Node, it.node.as_str()),
                    })
                }
                RowVerb::Set | RowVerb::Cas => needs_of_registration(self, &registration_of_check(it)),
                RowVerb::Delete | RowVerb::DeleteCas => {
                    let what = deregistration(&it.node, None, it.check.check_id.clone());
                    one(needs_of_deregistration(self, allows, &what))
                }
            },
            TransactionOperation::SessionDelete(id) => Ok(self
                .session(id)
                .map(|session| Requirement::write(Resource::Session, session.node.as_str()))
                .into_iter()
                .collect()),
        }
    }

    /// Answers a transaction that only looks.
    pub(crate) fn look_up(&self, filter: &mut Filter<'_>, operations: &[TransactionOperation]) -> TransactionOutcome {
        let mut outcome = TransactionOutcome::default();
        for (at, operation) in operations.iter().enumerate() {
            let rules = filter.rules;
            let needs = self.needs_of_operation(operation, |need| rules.allows(need)).unwrap_or_default();
            let found = match needs.iter().find_map(|need| rules.require(need).err()) {
                Some(refusal) => Err(refusal.text),
                None => self.look(operation),
            };
            match found {
                Ok(results) => outcome.results.extend(results),
                Err(what) => outcome.errors.push(TransactionError { op_index: at as u64, what }),
            }
        }
        outcome.results.retain(|result| match result {
            TransactionResult::Kv(entry) => filter.may_read(Resource::Key, &entry.key),
            _ => true,
        });
        if !outcome.errors.is_empty() {
            outcome.results.clear();
        }
        outcome
    }

    /// Does one operation that only looks.
    fn look(&self, operation: &TransactionOperation) -> Result<Vec<TransactionResult>, What> {
        match operation {
            TransactionOperation::Kv(it) => self.look_at_key(it),
            TransactionOperation::Node(it) => match self.stored_node(&it.node) {
                Some(node) => Ok(vec![TransactionResult::Node(node)]),
                None => Err(format!("node {:?} doesn't exist", it.node.name.as_str())),
            },
            TransactionOperation::Service(it) => match self.services.get(&node_key(&it.node), it.service.id_text()) {
                Some(service) => Ok(vec![TransactionResult::Service(Box::new((**service).clone()))]),
                None => Err(format!("service {:?} on node {:?} doesn't exist", it.service.id_text(), it.node.as_str())),
            },
            TransactionOperation::Check(it) => match self.checks.get(&node_key(&it.node), check_id(&it.check)) {
                Some(check) => Ok(vec![TransactionResult::Check(Box::new((**check).clone()))]),
                None => Err(format!("check {:?} on node {:?} doesn't exist", check_id(&it.check), it.node.as_str())),
            },
            TransactionOperation::SessionDelete(_) => Err("it changes the state".into()),
        }
    }

    fn look_at_key(&self, it: &KvOperation) -> Result<Vec<TransactionResult>, What> {
        use TransactionKvVerb as Verb;
        let key = it.key.as_str();
        let found = self.kv.get(key);
        match it.verb {
            Verb::Get => match found {
                Some(entry) => Ok(vec![TransactionResult::Kv((**entry).clone())]),
                None => Err(format!("key {key:?} doesn't exist")),
            },
            Verb::GetOrEmpty => {
                let entry = found.map_or_else(|| empty_entry(key), |entry| (**entry).clone());
                Ok(vec![TransactionResult::Kv(entry)])
            }
            Verb::GetTree => Ok(self.kv.under(key).map(|entry| TransactionResult::Kv((**entry).clone())).collect()),
            Verb::CheckIndex => match found {
                None => Err(format!("failed to check index, key {key:?} doesn't exist")),
                Some(entry) if entry.modify_index != it.index => Err(format!(
                    "failed index check for key {key:?}, current modify index {} != {}",
                    entry.modify_index, it.index
                )),
                Some(entry) => Ok(vec![without_value(entry)]),
            },
            Verb::CheckSession => match found {
                None => Err(format!("failed to check session, key {key:?} doesn't exist")),
                Some(entry) if entry.session.as_deref().unwrap_or_default() != it.session => Err(format!(
                    "failed session check for key {key:?}, current session {:?} != {:?}",
                    entry.session.as_deref().unwrap_or_default(),
                    it.session
                )),
                Some(entry) => Ok(vec![without_value(entry)]),
            },
            Verb::CheckNotExists => match found {
                Some(_) => Err(format!("key {key:?} exists")),
                None => Ok(Vec::new()),
            },
            _ => Err("it changes the state".into()),
        }
    }

    /// Does one operation on a draft. After an error the draft is of no use, but may be tried further.
    fn operate(
        &mut self,
        commit: &mut Commit,
        operation: &TransactionOperation,
    ) -> Result<Vec<TransactionResult>, What> {
        if operation.is_read() {
            return self.look(operation);
        }
        match operation {
            TransactionOperation::Kv(it) => self.operate_on_key(commit, it),
            TransactionOperation::Node(it) => self.operate_on_node(commit, it),
            TransactionOperation::Service(it) => self.operate_on_service(commit, it),
            TransactionOperation::Check(it) => self.operate_on_check(commit, it),
            TransactionOperation::SessionDelete(id) => {
                self.end_session(commit, id);
                Ok(Vec::new())
            }
        }
    }

    fn operate_on_key(&mut self, commit: &mut Commit, it: &KvOperation) -> Result<Vec<TransactionResult>, What> {
        use TransactionKvVerb as Verb;
        let key = it.key.as_str();
        if key.is_empty() && it.verb != Verb::DeleteTree {
            return Err("Missing key name".into());
        }
        let content = Content { key, value: &it.value, flags: it.flags };
        let (kv, indexes) = (&mut self.kv, &mut self.indexes);
        match it.verb {
            Verb::Set => kv.set(commit, indexes, content),
            Verb::Cas if !kv.set_if(commit, indexes, content, it.index) => {
                return Err(format!("failed to set key {key:?}, index is stale"));
            }
            Verb::Lock => {
                let holders = Holders { sessions: &self.sessions, delays: &self.lock_delays };
                match kv.lock(commit, indexes, holders, content, &it.session).map_err(|refusal| refusal.text)? {
                    Locking::Taken => {}
                    Locking::HeldByOther => return Err(format!("failed to lock key {key:?}, lock is already held")),
                    Locking::Delayed => return Err(format!("failed to lock key {key:?} due to lock delay")),
                }
            }
            Verb::Unlock if !kv.unlock(commit, indexes, content, &it.session).map_err(|refusal| refusal.text)? => {
                return Err(format!("failed to unlock key {key:?}, lock isn't held, or is held by another session"));
            }
            Verb::Delete => kv.remove(commit, indexes, key),
            Verb::DeleteTree => kv.remove_under(commit, indexes, key),
            Verb::DeleteCas if !kv.remove_if(commit, indexes, key, it.index) => {
                return Err(format!("failed to delete key {key:?}, index is stale"));
            }
            _ => {}
        }
        Ok(self
            .kv
            .get(key)
            .filter(|_| it.verb != Verb::DeleteTree)
            .map(|entry| without_value(entry))
            .into_iter()
            .collect())
    }

    /// The stored row of a node that is named by its id, if it has one, else by its name.
    fn stored_node(&self, node: &Node) -> Option<Node> {
        let found = if node.id.is_empty() { self.nodes.get(&node_key(&node.name)) } else { self.nodes.by_id(&node.id) };
        found.map(|node| (**node).clone())
    }

    fn operate_on_node(&mut self, commit: &mut Commit, it: &NodeOperation) -> Result<Vec<TransactionResult>, What> {
        let key = node_key(&it.node.name);
        let name = it.node.name.as_str();
        let stored = self.nodes.get(&key).map(|node| node.modify_index);
        match it.verb {
            RowVerb::Cas if stored.unwrap_or_default() != it.node.modify_index => {
                return Err(format!("failed to set node {name:?}, index is stale"));
            }
            RowVerb::DeleteCas if stored != Some(it.node.modify_index) => {
                return Err(format!("failed to delete node {name:?}, index is stale"));
            }
            RowVerb::Get => {}
            RowVerb::Set | RowVerb::Cas => {
                self.register(commit, &registration_of_node(&it.node)).map_err(|refusal| refusal.text)?;
            }
            RowVerb::Delete | RowVerb::DeleteCas => {
                self.deregister(commit, &deregistration(&it.node.name, None, None)).map_err(|refusal| refusal.text)?;
            }
        }
        Ok(self.nodes.get(&key).map(|node| TransactionResult::Node((**node).clone())).into_iter().collect())
    }

    fn operate_on_service(
        &mut self,
        commit: &mut Commit,
        it: &ServiceOperation,
    ) -> Result<Vec<TransactionResult>, What> {
        let (node, id) = (node_key(&it.node), it.service.id_text());
        let stored = self.services.get(&node, id).map(|service| service.modify_index);
        let stale =
            |what: &str| format!("failed to {what} service {id:?} on node {:?}, index is stale", it.node.as_str());
        match it.verb {
            RowVerb::Cas if stored.unwrap_or_default() != it.service.modify_index => return Err(stale("set")),
            RowVerb::DeleteCas if stored != Some(it.service.modify_index) => return Err(stale("delete")),
            RowVerb::Get => {}
            RowVerb::Set | RowVerb::Cas => {
                self.require_node(&it.node)?;
                self.register(commit, &registration_of_service(it)).map_err(|refusal| refusal.text)?;
            }
            RowVerb::Delete | RowVerb::DeleteCas => {
                let id = id.parse().map_err(|error| format!("{error}"))?;
                self.deregister(commit, &deregistration(&it.node, Some(id), None)).map_err(|refusal| refusal.text)?;
            }
        }
        let stored = self.services.get(&node, id);
        Ok(stored.map(|service| TransactionResult::Service(Box::new((**service).clone()))).into_iter().collect())
    }

    fn operate_on_check(&mut self, commit: &mut Commit, it: &CheckOperation) -> Result<Vec<TransactionResult>, What> {
        let (node, id) = (node_key(&it.node), check_id(&it.check));
        let stored = self.checks.get(&node, id).map(|check| check.modify_index);
        let stale =
            |what: &str| format!("failed to {what} check {id:?} on node {:?}, index is stale", it.node.as_str());
        match it.verb {
            RowVerb::Cas if stored.unwrap_or_default() != it.check.modify_index => return Err(stale("set")),
            RowVerb::DeleteCas if stored != Some(it.check.modify_index) => return Err(stale("delete")),
            RowVerb::Get => {}
            RowVerb::Set | RowVerb::Cas => {
                self.require_node(&it.node)?;
                self.register(commit, &registration_of_check(it)).map_err(|refusal| refusal.text)?;
            }
            RowVerb::Delete | RowVerb::DeleteCas => {
                let what = deregistration(&it.node, None, it.check.check_id.clone());
                if what.check_id.is_none() {
                    return Err("Missing check ID".into());
                }
                self.deregister(commit, &what).map_err(|refusal| refusal.text)?;
            }
        }
        let stored = self.checks.get(&node, id);
        Ok(stored.map(|check| TransactionResult::Check(Box::new((**check).clone()))).into_iter().collect())
    }

    fn require_node(&self, name: &NodeName) -> Result<(), What> {
        match self.nodes.get(&node_key(name)) {
            Some(_) => Ok(()),
            None => Err("Missing node registration".into()),
        }
    }
}

/// What the authoriser found of a transaction.
#[derive(Default)]
pub(crate) struct Judged {
    pub(crate) granted: Vec<Requirement>,
    pub(crate) denied: Vec<TransactionError>,
}

/// Leaves out of what a transaction found the entries that its asker may not read.
pub(crate) fn filter_results(rules: &Rules, outcome: &mut TransactionOutcome) {
    outcome.results.retain(|result| match result {
        // What it wrote, it may be told of: the value is not in there.
        TransactionResult::Kv(entry) => {
            entry.value.is_empty() || rules.allows(&Requirement::read(Resource::Key, entry.key.as_str()))
        }
        _ => true,
    });
}

fn empty_entry(key: &str) -> KvEntry {
    KvEntry {
        lock_index: 0,
        key: key.into(),
        flags: 0,
        value: Vec::new(),
        session: None,
        create_index: Index(0),
        modify_index: Index(0),
    }
}

fn without_value(entry: &KvEntry) -> TransactionResult {
    let KvEntry { lock_index, key, flags, value: _, session, create_index, modify_index } = entry;
    TransactionResult::Kv(KvEntry {
        lock_index: *lock_index,
        key: key.clone(),
        flags: *flags,
        value: Vec::new(),
        session: session.clone(),
        create_index: *create_index,
        modify_index: *modify_index,
    })
}

fn registration_of_node(node: &Node) -> Registration {
    Registration {
        id: node.id.clone(),
        node: node.name.clone(),
        address: node.address.clone(),
        datacenter: node.datacenter.clone(),
        tagged_addresses: node.tagged_addresses.clone(),
        node_meta: node.meta.clone(),
        skip_node_update: false,
        locality: node.locality.clone(),
        ..registration_on(&node.name)
    }
}

/// A registration on a node that leaves the node as it is.
fn registration_on(node: &NodeName) -> Registration {
    Registration {
        id: String::new(),
        node: node.clone(),
        address: String::new(),
        datacenter: String::new(),
        tagged_addresses: Default::default(),
        node_meta: Default::default(),
        service: None,
        check: None,
        checks: Vec::new(),
        skip_node_update: true,
        locality: None,
    }
}

fn registration_of_service(it: &ServiceOperation) -> Registration {
    Registration { service: Some(it.service.clone()), ..registration_on(&it.node) }
}

fn registration_of_check(it: &CheckOperation) -> Registration {
    Registration { check: Some(it.check.clone()), ..registration_on(&it.node) }
}

fn deregistration(node: &NodeName, service_id: Option<ServiceId>, check_id: Option<CheckId>) -> Deregistration {
    Deregistration { node: node.clone(), service_id, check_id, authorized_service: None }
}
