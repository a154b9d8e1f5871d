//! Whether a history of one key is linearizable: whether every operation can be given one moment between its beginning
//! and its end so that a plain register gives the same answers.
//!
//! The search of Wing and Gong, driven by the ends of operations: what may have happened is a set of possible worlds,
//! each a value and the operations under way that have had their moment already. At the end of an operation only the
//! worlds stay in which it had its moment. An operation whose answer is unknown stays under way for ever.

use std::collections::BTreeSet;

use crate::history::{Action, Answer, Operation, Value};

/// More worlds than this are not followed: the history is then not judged.
const WORLDS_MAX: usize = 100_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains the history up to the end of this operation.
    Broken(usize),
    /// Too many possible worlds.
    Undecided,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    value: Value,
    /// Operations under way that have had their moment.
    done: BTreeSet<usize>,
}

/// The value after `operation` has its moment, if its answer fits.
fn step(value: Value, operation: &Operation) -> Option<Value> {
    match (operation.action, operation.answer) {
        (Action::Get, Answer::Read { value: read, .. }) => (read == value).then_some(value),
        (Action::Get, _) => Some(value),
        (Action::Set(new), _) => Some(new),
        (Action::Delete, _) => Some(0),
        (Action::Cas { expected, .. }, Answer::NotApplied) => (expected != value).then_some(value),
        // One of unknown outcome that finds another value does nothing, as if it never had its moment.
        (Action::Cas { expected, new }, _) => (expected == value).then_some(new),
    }
}

/// Judges the operations of one key, which start from a key that is not there.
pub(crate) fn check(operations: &[Operation]) -> Verdict {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        // A read without an answer says nothing.
        if operation.ended.is_none() && operation.action == Action::Get {
            continue;
        }
        events.push((operation.began, false, at));
        events.extend(operation.ended.map(|ended| (ended, true, at)));
    }
    events.sort_unstable();
    let mut worlds = BTreeSet::from([World { value: 0, done: BTreeSet::new() }]);
    let mut under_way: BTreeSet<usize> = BTreeSet::new();
    for (_, is_end, at) in events {
        if !is_end {
            under_way.insert(at);
            continue;
        }
        let mut open: Vec<World> = worlds.into_iter().collect();
        let mut seen: BTreeSet<World> = open.iter().cloned().collect();
        let mut left = BTreeSet::new();
        while let Some(world) = open.pop() {
            if world.done.contains(&at) {
                let mut world = world;
                world.done.remove(&at);
                left.insert(world);
                continue;
            }
            for next in under_way.iter().filter(|it| !world.done.contains(it)) {
                if let Some(value) = step(world.value, &operations[*next]) {
                    let mut done = world.done.clone();
                    done.insert(*next);
                    let world = World { value, done };
                    if seen.insert(world.clone()) {
                        open.push(world);
                    }
                }
            }
            if seen.len() > WORLDS_MAX {
                return Verdict::Undecided;
            }
        }
        if left.is_empty() {
            return Verdict::Broken(at);
        }
        under_way.remove(&at);
        worlds = left;
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests {
    use lictor_types::Index;

    use super::*;

    fn operation(action: Action, began: u64, ended: Option<u64>, answer: Answer) -> Operation {
        Operation { key: "k".into(), action, began, ended, answer, stale_at: None }
    }

    fn set(value: Value, began: u64, ended: u64) -> Operation {
        operation(Action::Set(value), began, Some(ended), Answer::Written(Index(2)))
    }

    fn lost(action: Action, began: u64) -> Operation {
        operation(action, began, None, Answer::Unknown)
    }

    fn get(value: Value, began: u64, ended: u64) -> Operation {
        operation(Action::Get, began, Some(ended), Answer::Read { value, index: Index(2) })
    }

    fn cas(expected: Value, new: Value, took: bool, began: u64, ended: u64) -> Operation {
        let answer = if took { Answer::Written(Index(2)) } else { Answer::NotApplied };
        operation(Action::Cas { expected, new }, began, Some(ended), answer)
    }

    #[test]
    fn histories_with_an_order_are_linearizable() {
        let fine: [&[Operation]; 7] = [
            &[set(1, 1, 2), get(1, 3, 4)],
            &[set(1, 1, 5), get(0, 2, 3), get(1, 4, 6)],
            &[set(1, 1, 6), set(2, 2, 5), get(2, 7, 8)],
            &[set(1, 1, 6), set(2, 2, 5), get(1, 7, 8)],
            &[set(1, 1, 2), cas(1, 2, true, 3, 4), cas(1, 3, false, 5, 6), get(2, 7, 8)],
            &[lost(Action::Set(1), 1), get(0, 2, 3), get(1, 4, 5)],
            &[set(1, 1, 2), lost(Action::Cas { expected: 1, new: 2 }, 3), set(3, 4, 5), get(3, 6, 7)],
        ];
        for history in fine {
            assert_eq!(check(history), Verdict::Linearizable, "{history:?}");
        }
    }

    #[test]
    fn histories_without_an_order_are_broken() {
        let wrong: [&[Operation]; 11] = [
            // A stale read, a lost write, a value from nowhere, a read that goes back.
            &[set(1, 1, 2), set(2, 3, 4), get(1, 5, 6)],
            &[set(1, 1, 2), get(0, 3, 4)],
            &[get(9, 1, 2)],
            &[set(1, 1, 2), set(2, 3, 8), get(2, 4, 5), get(1, 6, 7)],
            // Two that both took the same value's place; one that took a place that was gone.
            &[set(1, 1, 2), cas(1, 2, true, 3, 6), cas(1, 3, true, 4, 5)],
            &[set(1, 1, 2), set(2, 3, 4), cas(1, 3, true, 5, 6)],
            // One that says no and did it, and one that says no without a cause.
            &[set(1, 1, 2), cas(1, 2, false, 3, 4), get(2, 5, 6)],
            &[cas(0, 1, false, 1, 2)],
            // A write that is done twice, a delete that comes back, and a lost one that is undone.
            &[lost(Action::Set(1), 1), get(1, 2, 3), set(2, 4, 5), get(1, 6, 7)],
            &[set(1, 1, 2), operation(Action::Delete, 3, Some(4), Answer::Written(Index(3))), get(1, 5, 6)],
            &[lost(Action::Set(1), 1), get(1, 2, 3), get(0, 4, 5)],
        ];
        for history in wrong {
            assert!(matches!(check(history), Verdict::Broken(_)), "{history:?}");
        }
    }
}
