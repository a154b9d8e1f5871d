//! Whether a history is linearizable: whether every operation can be given one moment between its beginning and its end
//! so that a sequential [`Model`] gives the same answers.
//!
//! The search of Wing and Gong with Lowe's memory: depth first over the operations that may come next, never twice to the
//! same set of done operations with the same state. Histories are taken apart by key first.
//!
//! Invariants
//! - An operation whose answer is unknown may have its moment at any time after its beginning, or never.
//! - A search that meets its budget says so: [`Verdict::Unknown`] is no pass.

mod catalog;
mod delayed;
mod models;
mod notation;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

pub use catalog::{Catalog, CatalogAnswer, CatalogInput, Instance};
pub use delayed::{DelayedLock, DelayedLockAnswer, DelayedLockInput, LockState, SessionEnd, SessionNumber};
pub use models::{Entry, KeyValue, KvAnswer, KvInput, KvStep, Lock, LockAnswer, LockInput, Register};
pub use notation::{history_of_catalog, history_of_keys, history_of_locks};

/// States that a search looks at before it gives up.
pub const BUDGET: usize = 2_000_000;

/// What a sequential object does.
pub trait Model: Debug {
    /// Its state.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked of it.
    type Input: Clone + Debug;
    /// What it answers.
    type Answer: Clone + Debug;

    /// The state before the first operation.
    fn initial() -> Self::State;

    /// The state after `input`, if the answer fits; any answer fits when it is not known.
    fn step(state: &Self::State, input: &Self::Input, answer: Option<&Self::Answer>) -> Option<Self::State>;
}

/// One operation: times count in any unit, as long as all operations share it.
#[derive(Clone, Debug)]
pub struct Operation<M: Model> {
    /// What was asked.
    pub input: M::Input,
    /// What was answered; `None` when nobody knows.
    pub answer: Option<M::Answer>,
    /// When it began.
    pub began: u64,
    /// When it was answered; `None` when it was not.
    pub ended: Option<u64>,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none; of the operations in the order given, these could be explained at most.
    Broken(Vec<usize>),
    /// The budget was used up.
    Unknown,
}

/// A set of operations by number.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Box<[u64]>);

impl Done {
    fn of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into())
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// A place in the search: the state before the choice, and what may still be chosen.
struct Place<S> {
    state: S,
    choices: Vec<usize>,
    chosen: Option<usize>,
}

/// Judges the operations of one object within `budget` states.
pub fn check<M: Model>(operations: &[Operation<M>], budget: usize) -> Verdict {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|at| (operations[*at].began, operations[*at].ended.unwrap_or(u64::MAX)));
    let closed = operations.iter().filter(|it| it.ended.is_some()).count();
    let mut done = Done::of(operations.len());
    let mut left = closed;
    // All before it in `order` are done: histories are long and their open part is short.
    let mut first = 0;
    let mut seen: HashSet<(Done, M::State)> = HashSet::new();
    let mut best = (closed + 1, Vec::new());
    let begin = M::initial();
    let choices = choices(operations, &order, &done, &mut first);
    let mut stack = vec![Place { state: begin, choices, chosen: None }];
    while let Some(place) = stack.last_mut() {
        if left == 0 {
            return Verdict::Linearizable;
        }
        if let Some(chosen) = place.chosen.take() {
            done.flip(chosen);
            left += usize::from(operations[chosen].ended.is_some());
            first = 0;
        }
        let Some(next) = place.choices.pop() else {
            stack.pop();
            continue;
        };
        let operation = &operations[next];
        let Some(state) = M::step(&place.state, &operation.input, operation.answer.as_ref()) else { continue };
        // One of unknown outcome that changes nothing is as well left out.
        if operation.ended.is_none() && state == place.state {
            continue;
        }
        done.flip(next);
        if !seen.insert((done.clone(), state.clone())) {
            done.flip(next);
            continue;
        }
        if seen.len() > budget {
            return Verdict::Unknown;
        }
        place.chosen = Some(next);
        left -= usize::from(operation.ended.is_some());
        if left < best.0 {
            best = (left, order.iter().copied().filter(|at| done.has(*at)).collect());
        }
        let choices = self::choices(operations, &order, &done, &mut first);
        stack.push(Place { state, choices, chosen: None });
    }
    if left == 0 { Verdict::Linearizable } else { Verdict::Broken(best.1) }
}

/// The operations that may come next: those that began before the first end of one that is not done. The last is tried
/// first: the one that ends first, and those that never ended after all others.
fn choices<M: Model>(operations: &[Operation<M>], order: &[usize], done: &Done, first: &mut usize) -> Vec<usize> {
    while order.get(*first).is_some_and(|at| done.has(*at)) {
        *first += 1;
    }
    let mut earliest_end = u64::MAX;
    let mut open = Vec::new();
    for at in &order[*first..] {
        let operation = &operations[*at];
        if operation.began > earliest_end {
            break;
        }
        if !done.has(*at) {
            earliest_end = earliest_end.min(operation.ended.unwrap_or(u64::MAX));
            open.push(*at);
        }
    }
    open.retain(|at| operations[*at].began <= earliest_end);
    open.sort_by_key(|at| std::cmp::Reverse(operations[*at].ended.unwrap_or(u64::MAX)));
    open
}

/// Judges each part of a history by itself, and returns what is wrong: parts that are broken or that nobody could judge.
pub fn check_parts<M: Model>(parts: &BTreeMap<String, Vec<Operation<M>>>, budget: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, operations) in parts {
        match check(operations, budget) {
            Verdict::Linearizable => {}
            Verdict::Unknown => wrong.push(format!(
                "{name}: unknown: {} operations are more than {budget} states can judge, which is no pass",
                operations.len()
            )),
            Verdict::Broken(explained) => {
                let mut text = format!("{name} is not linearizable: no order explains all of\n");
                let explained: HashSet<usize> = explained.into_iter().collect();
                let first_bad =
                    (0..operations.len()).filter(|at| !explained.contains(at) && operations[*at].ended.is_some());
                let moment = first_bad.map(|at| operations[at].ended.unwrap_or(0)).min().unwrap_or(0);
                let mut near: Vec<(usize, &Operation<M>)> =
                    operations.iter().enumerate().filter(|(_, it)| it.began <= moment).collect();
                near.sort_by_key(|(_, it)| it.began);
                for (at, operation) in near.iter().rev().take(14).rev() {
                    let mark = if explained.contains(at) { ' ' } else { '!' };
                    text.push_str(&format!("  {mark} {operation:?}\n"));
                }
                wrong.push(text);
            }
        }
    }
    wrong
}
