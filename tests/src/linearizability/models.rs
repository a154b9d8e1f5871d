//! What a register, a group of keys and a lock do when one asks after the other.

use std::collections::BTreeMap;

use super::Model;

/// What a key holds: the value, and the index of the change that put it there, as far as anybody was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The value. In a history no two writes may write the same one.
    pub value: String,
    /// Its ModifyIndex.
    pub index: Option<u64>,
}

/// What is asked of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvInput {
    /// Store.
    Put(String, Entry),
    /// Store if the key holds this value; `None` is a key that is not there.
    Cas(String, Option<String>, Entry),
    /// Remove.
    Delete(String),
    /// Remove if the key holds this value. A key that is not there counts as removed.
    DeleteCas(String, String),
    /// Read one key.
    Get(String),
    /// Read all keys of the group.
    List,
    /// Several of these, all or none.
    Transaction(Vec<KvStep>),
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvStep {
    /// Store.
    Set(String, Entry),
    /// Store if the key holds this value.
    Cas(String, Option<String>, Entry),
    /// Remove.
    Delete(String),
    /// Only if the key holds this value; `None` is a key that is not there.
    Is(String, Option<String>),
    /// Read all keys of the group as they are at this step.
    List,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvAnswer {
    /// Done.
    Done,
    /// The condition did not hold.
    NotApplied,
    /// What one key holds.
    Value(Option<String>),
    /// What all keys hold.
    All(BTreeMap<String, String>),
    /// The transaction was carried out, and its reads found this.
    Found(Vec<BTreeMap<String, String>>),
}

/// A group of keys with compare-and-set by index, as Consul's KV has it. One key is a register.
///
/// The state is what each key holds and the greatest index so far: a change whose index is known must have a greater one.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue;

impl Model for KeyValue {
    type State = (BTreeMap<String, String>, u64);
    type Input = KvInput;
    type Answer = KvAnswer;

    fn initial() -> Self::State {
        (BTreeMap::new(), 0)
    }

    fn step(state: &Self::State, input: &KvInput, answer: Option<&KvAnswer>) -> Option<Self::State> {
        let (keys, index) = state;
        let put = |key: &str, entry: &Entry| {
            let greatest = match entry.index {
                Some(its) if its <= *index => return None,
                Some(its) => its,
                None => *index,
            };
            let mut keys = keys.clone();
            keys.insert(key.to_owned(), entry.value.clone());
            Some((keys, greatest))
        };
        let remove = |key: &str| {
            let mut keys = keys.clone();
            keys.remove(key);
            Some((keys, *index))
        };
        let same = || Some(state.clone());
        match (input, answer) {
            (KvInput::Put(key, entry), None | Some(KvAnswer::Done)) => put(key, entry),
            (KvInput::Delete(key), None | Some(KvAnswer::Done)) => remove(key),
            (KvInput::Cas(key, expected, entry), answer) => {
                let holds = keys.get(key) == expected.as_ref();
                match answer {
                    None | Some(KvAnswer::Done) if holds => put(key, entry),
                    None => same(),
                    Some(KvAnswer::NotApplied) if !holds => same(),
                    Some(_) => None,
                }
            }
            (KvInput::DeleteCas(key, expected), answer) => {
                let holds = keys.get(key).is_none_or(|value| value == expected);
                match answer {
                    None | Some(KvAnswer::Done) if holds => remove(key),
                    None => same(),
                    Some(KvAnswer::NotApplied) if !holds => same(),
                    Some(_) => None,
                }
            }
            (KvInput::Get(_) | KvInput::List, None) => same(),
            (KvInput::Transaction(steps), answer) => match (carried_out(state, steps), answer) {
                (Carried::Refused, None | Some(KvAnswer::NotApplied)) => same(),
                // Its changes have indexes that do not fit here: it was carried out elsewhere.
                (Carried::Misplaced, None) => None,
                (Carried::Out(after, _), None) => Some(after),
                (Carried::Out(after, found), Some(KvAnswer::Found(told))) if found == *told => Some(after),
                _ => None,
            },
            (KvInput::Get(key), Some(KvAnswer::Value(value))) if keys.get(key) == value.as_ref() => same(),
            (KvInput::List, Some(KvAnswer::All(all))) if keys == all => same(),
            _ => None,
        }
    }
}

/// What a transaction comes to in a state.
enum Carried {
    /// A condition does not hold.
    Refused,
    /// It could be carried out, but an index that it is known to have does not fit.
    Misplaced,
    /// The state after it, and what its reads find.
    Out((BTreeMap<String, String>, u64), Vec<BTreeMap<String, String>>),
}

fn carried_out((keys, index): &(BTreeMap<String, String>, u64), steps: &[KvStep]) -> Carried {
    let (mut keys, mut found, mut its) = (keys.clone(), Vec::new(), None);
    for step in steps {
        let entry = match step {
            KvStep::Is(key, expected) | KvStep::Cas(key, expected, _) if keys.get(key) != expected.as_ref() => {
                return Carried::Refused;
            }
            KvStep::Is(..) => continue,
            KvStep::List => {
                found.push(keys.clone());
                continue;
            }
            KvStep::Delete(key) => {
                keys.remove(key);
                continue;
            }
            KvStep::Set(key, entry) | KvStep::Cas(key, _, entry) => {
                keys.insert(key.clone(), entry.value.clone());
                entry
            }
        };
        // All that one transaction writes has one index.
        if let Some(known) = entry.index {
            if known <= *index || its.is_some_and(|its| its != known) {
                return Carried::Misplaced;
            }
            its = Some(known);
        }
    }
    Carried::Out((keys, its.unwrap_or(*index)), found)
}

/// A register of numbers, where 0 is nothing: [`KeyValue`] with one key, for those who have numbers.
#[derive(Clone, Copy, Debug)]
pub struct Register;

impl Model for Register {
    type State = u64;
    /// What it must hold before (`None`: anything), and what it holds after (`None`: as before).
    type Input = (Option<u64>, Option<u64>);
    /// Whether it was done, or what was read.
    type Answer = Result<bool, u64>;

    fn initial() -> u64 {
        0
    }

    fn step(state: &u64, input: &Self::Input, answer: Option<&Self::Answer>) -> Option<u64> {
        let holds = input.0.is_none_or(|expected| expected == *state);
        let after = input.1.unwrap_or(*state);
        match answer {
            None => Some(if holds { after } else { *state }),
            Some(Ok(true)) => holds.then_some(after),
            Some(Ok(false)) => (!holds).then_some(*state),
            Some(Err(read)) => (read == state).then_some(*state),
        }
    }
}

/// What is asked of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockInput {
    /// This session wants it.
    Acquire(String),
    /// This session gives it back.
    Release(String),
    /// This session ends, and what it held is free.
    Invalidate(String),
    /// Who holds it?
    Holder,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// It is the caller's, with this fencing token when it was told.
    Granted(Option<u64>),
    /// It is another's, or was not the caller's.
    Refused,
    /// Done.
    Done,
    /// Who holds it, and the fencing token.
    Held(Option<String>, u64),
}

/// A lock with a fencing token: at most one holder, and the token grows by one with every new holder.
#[derive(Clone, Copy, Debug)]
pub struct Lock;

impl Model for Lock {
    type State = (Option<String>, u64);
    type Input = LockInput;
    type Answer = LockAnswer;

    fn initial() -> Self::State {
        (None, 0)
    }

    fn step(state: &Self::State, input: &LockInput, answer: Option<&LockAnswer>) -> Option<Self::State> {
        let (holder, token) = state;
        match input {
            LockInput::Acquire(session) => {
                let after = match holder {
                    Some(held) if held == session => Some((holder.clone(), *token)),
                    Some(_) => None,
                    None => Some((Some(session.clone()), token + 1)),
                };
                match answer {
                    None => Some(after.unwrap_or_else(|| state.clone())),
                    Some(LockAnswer::Granted(told)) => {
                        after.filter(|(_, token)| told.is_none_or(|told| told == *token))
                    }
                    Some(LockAnswer::Refused) => after.is_none().then(|| state.clone()),
                    Some(_) => None,
                }
            }
            LockInput::Release(session) => {
                let is_its = holder.as_ref() == Some(session);
                match answer {
                    None => Some(if is_its { (None, *token) } else { state.clone() }),
                    Some(LockAnswer::Done) => is_its.then_some((None, *token)),
                    Some(LockAnswer::Refused) => (!is_its).then(|| state.clone()),
                    Some(_) => None,
                }
            }
            LockInput::Invalidate(session) => {
                let is_its = holder.as_ref() == Some(session);
                matches!(answer, None | Some(LockAnswer::Done))
                    .then(|| if is_its { (None, *token) } else { state.clone() })
            }
            LockInput::Holder => match answer {
                None => Some(state.clone()),
                Some(LockAnswer::Held(held, told)) => (held == holder && told == token).then(|| state.clone()),
                Some(_) => None,
            },
        }
    }
}
