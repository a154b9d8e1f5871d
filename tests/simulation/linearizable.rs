//! The histories of keys as the checker of histories wants them.

use lictor_tests::linearizability::{self, BUDGET, Register};

use crate::history::{Action, Answer, Operation};

pub(crate) use lictor_tests::linearizability::Verdict;

/// Judges the operations of one key, which start from a key that is not there.
pub(crate) fn check(operations: &[Operation]) -> Verdict {
    let operations: Vec<_> = operations
        .iter()
        .map(|operation| {
            let input = match operation.action {
                Action::Get => (None, None),
                Action::Set(new) => (None, Some(new)),
                Action::Delete => (None, Some(0)),
                Action::Cas { expected, new } => (Some(expected), Some(new)),
            };
            let answer = match operation.answer {
                Answer::Written(_) => Some(Ok(true)),
                Answer::NotApplied => Some(Ok(false)),
                Answer::Read { value, .. } => Some(Err(value)),
                Answer::Unknown => None,
            };
            linearizability::Operation::<Register> { input, answer, began: operation.began, ended: operation.ended }
        })
        .collect();
    linearizability::check(&operations, BUDGET)
}
