//! Answers that are given again: what many readers ask of a service is put together once.
//!
//! Invariants
//! - An answer is given again only at the index it was made at: the index of a service moves with every change of what
//!   is told of it, and of nothing else.
//! - Only readers who may see every instance share answers; for all others the rows are chosen anew.
//! - At most [`ROWS_MAX`] rows are kept, those that were asked for last.

use std::collections::BTreeMap;

use lictor_types::query::ServiceQuery;
use lictor_types::{CheckServiceNode, Index, Rows};
use parking_lot::Mutex;

/// Rows kept, of all answers together. With what they are written as one takes 2 to 4 KiB.
const ROWS_MAX: usize = 16_384;
/// A shorter answer costs less to make than to find.
const ROWS_MIN: usize = 4;

/// The answers that are kept.
#[derive(Default)]
pub(crate) struct Answers {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: BTreeMap<ServiceQuery, KeptAnswer>,
    rows: usize,
    /// Counts the uses, so that the one that was used longest ago is known.
    uses: u64,
}

struct KeptAnswer {
    index: Index,
    rows: Rows<CheckServiceNode>,
    used: u64,
}

impl Answers {
    /// The answer to `query` if it was made at `index`.
    pub(crate) fn get(&self, query: &ServiceQuery, index: Index) -> Option<Rows<CheckServiceNode>> {
        let mut kept = self.kept.lock();
        kept.uses += 1;
        let uses = kept.uses;
        let answer = kept.answers.get_mut(query).filter(|answer| answer.index == index)?;
        answer.used = uses;
        Some(answer.rows.clone())
    }

    /// Keeps what was made at `index`, unless something newer is there.
    pub(crate) fn keep(&self, query: &ServiceQuery, index: Index, rows: &Rows<CheckServiceNode>) {
        if rows.len() < ROWS_MIN || rows.len() > ROWS_MAX {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.answers.get(query).is_some_and(|answer| answer.index >= index) {
            return;
        }
        kept.rows += rows.len();
        let answer = KeptAnswer { index, rows: rows.clone(), used: kept.uses };
        if let Some(older) = kept.answers.insert(query.clone(), answer) {
            kept.rows -= older.rows.len();
        }
        while kept.rows > ROWS_MAX {
            let last = kept.answers.iter().min_by_key(|(_, answer)| answer.used).map(|(query, _)| query.clone());
            let Some(gone) = last.and_then(|query| kept.answers.remove(&query)) else { return };
            kept.rows -= gone.rows.len();
        }
    }

    /// Forgets all, when the state is replaced by another.
    pub(crate) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Rows<CheckServiceNode> {
        let row: CheckServiceNode = serde_json::from_str(
            r#"{"Node":{"ID":"","Node":"n","Address":"10.0.0.1","Datacenter":"dc1"},"Service":{"Service":"web"},"Checks":[]}"#,
        )
        .unwrap();
        vec![row; count].into()
    }

    fn query(service: &str) -> ServiceQuery {
        ServiceQuery::all(service.parse().unwrap())
    }

    #[test]
    fn an_answer_is_given_again_at_its_index_only() {
        let answers = Answers::default();
        answers.keep(&query("web"), Index(7), &rows(ROWS_MIN));
        assert!(answers.get(&query("web"), Index(7)).is_some());
        assert!(answers.get(&query("web"), Index(8)).is_none());
        assert!(answers.get(&ServiceQuery { passing: true, ..query("web") }, Index(7)).is_none());
        // A reader of an older state does not replace what a reader of a newer one made.
        answers.keep(&query("web"), Index(6), &rows(ROWS_MIN + 1));
        assert_eq!(answers.get(&query("web"), Index(7)).unwrap().len(), ROWS_MIN);
        answers.clear();
        assert!(answers.get(&query("web"), Index(7)).is_none());
    }

    #[test]
    fn the_rows_that_are_kept_are_bounded_and_the_ones_used_last_stay() {
        let answers = Answers::default();
        for name in ["a", "b", "c", "d"] {
            answers.keep(&query(name), Index(1), &rows(ROWS_MAX / 4));
            assert!(answers.get(&query(name), Index(1)).is_some());
        }
        assert!(answers.get(&query("a"), Index(1)).is_some());
        answers.keep(&query("e"), Index(1), &rows(ROWS_MIN));
        let there = ["a", "b", "c", "d", "e"].map(|name| answers.get(&query(name), Index(1)).is_some());
        assert_eq!(there, [true, false, true, true, true]);
        assert_eq!(answers.kept.lock().rows, 3 * ROWS_MAX / 4 + ROWS_MIN);
        // Neither one that is too large for all nor one that is quicker made than found.
        answers.keep(&query("f"), Index(1), &rows(ROWS_MAX + 1));
        answers.keep(&query("g"), Index(1), &rows(ROWS_MIN - 1));
        assert!(answers.get(&query("f"), Index(1)).is_none() && answers.get(&query("g"), Index(1)).is_none());
    }
}
