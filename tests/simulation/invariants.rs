//! What must hold of a history and of the state at its end.

use std::collections::{BTreeMap, BTreeSet};

use lictor_types::{Index, KvEntry};

use crate::history::{Action, Answer, Operation};
use crate::linearizable::{self, Verdict};

/// When an operation began or ended (then true), and the index it was told in the end.
type IndexEvent = (u64, bool, Index);

/// What was found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) broken: Vec<String>,
    /// Keys whose history was too wide to judge.
    pub(crate) undecided: usize,
}

/// Judges `operations` with the entries that were there at the end.
pub(crate) fn judge(operations: &[Operation], entries: &[KvEntry]) -> Findings {
    let mut findings = Findings::default();
    let mut by_key: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(&operation.key).or_default().push(operation.clone());
    }
    let entries: BTreeMap<&str, &KvEntry> = entries.iter().map(|entry| (&*entry.key, entry)).collect();
    for (key, operations) in by_key {
        let entry = entries.get(key).copied();
        indexes_of_reads(key, &operations, &mut findings);
        if key.starts_with("unique/") {
            unique_key(&operations, entry, &mut findings);
            continue;
        }
        if key.starts_with("counter/") {
            counter(key, &operations, entry, &mut findings);
        }
        let judged: Vec<Operation> = operations.into_iter().filter(|it| it.stale_at.is_none()).collect();
        match linearizable::check(&judged) {
            Verdict::Linearizable => {}
            Verdict::Unknown => findings.undecided += 1,
            Verdict::Broken(explained) => {
                let at = (0..judged.len()).find(|at| judged[*at].ended.is_some() && !explained.contains(at));
                let at = at.unwrap_or_default();
                let from = judged.len().min(at + 1).saturating_sub(8);
                let near: Vec<String> = judged[from..=at].iter().map(|it| format!("    {it:?}")).collect();
                let text = format!("{key} is not linearizable around the last of these:\n{}", near.join("\n"));
                findings.broken.push(text);
            }
        }
    }
    indexes_of_writes(operations, &mut findings);
    findings
}

/// What was acknowledged is there.
fn unique_key(operations: &[Operation], entry: Option<&KvEntry>, findings: &mut Findings) {
    for operation in operations {
        let (Action::Set(value), Answer::Written(index)) = (operation.action, operation.answer) else { continue };
        let is_right =
            entry.is_some_and(|entry| entry.value == value.to_string().into_bytes() && entry.modify_index == index);
        if !is_right {
            let there = entry.map(|entry| entry.modify_index);
            findings.broken.push(format!("{operation:?} was acknowledged, and its key has index {there:?} at the end"));
        }
    }
}

/// It was counted up once for each cas that succeeded, and at most once for each whose outcome nobody knows.
fn counter(key: &str, operations: &[Operation], entry: Option<&KvEntry>, findings: &mut Findings) {
    let count = |wanted: fn(&Answer) -> bool| {
        operations.iter().filter(|it| matches!(it.action, Action::Cas { .. }) && wanted(&it.answer)).count() as u64
    };
    let (known, unknown) = (count(|it| matches!(it, Answer::Written(_))), count(|it| matches!(it, Answer::Unknown)));
    let counted = entry.map_or(0, |entry| entry.flags);
    if counted < known || counted > known + unknown {
        findings.broken.push(format!(
            "{key} was counted up {known} times for certain and {unknown} times perhaps, but stands at {counted}"
        ));
    }
}

/// The index that readers are told never goes backwards: for reads of the newest state not at all, for stale ones not
/// at one life of one server.
fn indexes_of_reads(key: &str, operations: &[Operation], findings: &mut Findings) {
    let mut told: BTreeMap<_, Vec<IndexEvent>> = BTreeMap::new();
    for operation in operations {
        if let (Answer::Read { index, .. }, Some(ended)) = (operation.answer, operation.ended) {
            let told = told.entry(operation.stale_at).or_default();
            told.extend([(operation.began, false, index), (ended, true, index)]);
        }
    }
    for (place, mut events) in told {
        events.sort_unstable();
        let mut greatest = Index(1);
        for (_, is_end, index) in events {
            if is_end {
                greatest = greatest.max(index);
            } else if index < greatest {
                findings.broken.push(format!("{key} had index {greatest} and then {index} for a reader at {place:?}"));
            }
        }
    }
}

/// Every write has an index of its own, and a later one a greater one.
fn indexes_of_writes(operations: &[Operation], findings: &mut Findings) {
    let mut events: Vec<IndexEvent> = Vec::new();
    let mut seen = BTreeSet::new();
    for operation in operations {
        if let (Answer::Written(index), Some(ended)) = (operation.answer, operation.ended) {
            if !seen.insert(index) {
                findings.broken.push(format!("two writes were acknowledged at index {index}, one is {operation:?}"));
            }
            events.extend([(operation.began, false, index), (ended, true, index)]);
        }
    }
    events.sort_unstable();
    let mut greatest = Index(0);
    for (_, is_end, index) in events {
        if is_end {
            greatest = greatest.max(index);
        } else if index <= greatest {
            findings.broken.push(format!("a write got index {index} after another was acknowledged at {greatest}"));
        }
    }
}
