//! Histories of a lock by hand: what its model takes and what it does not.

use lictor_tests::linearizability::DelayedLockAnswer::{self, Done, Granted, Held, Refused};
use lictor_tests::linearizability::DelayedLockInput::{self, Acquire, End, Holder, Release};
use lictor_tests::linearizability::{BUDGET, DelayedLock, Operation, SessionEnd, Verdict, check};

type Written = (DelayedLockInput, Option<DelayedLockAnswer>, u64, u64);

fn is_legal(history: &[Written]) -> bool {
    let operations: Vec<Operation<DelayedLock>> = history
        .iter()
        .map(|(input, answer, began, ended)| Operation {
            input: input.clone(),
            answer: answer.clone(),
            began: *began,
            ended: answer.is_some().then_some(*ended),
        })
        .collect();
    check(&operations, BUDGET) == Verdict::Linearizable
}

fn end(session: u64, earliest: u64, delay: u64, deletes: bool) -> DelayedLockInput {
    End(SessionEnd { session, earliest, delay, deletes })
}

#[test]
fn what_a_lock_may_do_is_legal() {
    let taken = (Acquire(1, 2), Some(Granted), 1, 2);
    let ended = (end(1, 3, 10, false), Some(Done), 3, 4);
    let free = |history: &[Written]| is_legal(&[&[taken.clone(), ended.clone()], history].concat());
    assert!(free(&[(Acquire(2, 6), Some(Refused), 5, 6), (Acquire(2, 14), Some(Granted), 5, 14)]));
    assert!(free(&[(Acquire(2, 14), Some(Granted), 7, 14), (Holder, Some(Held(Some(2), 2)), 15, 16)]));
    assert!(free(&[(Release(1), Some(Refused), 5, 6), (Acquire(2, u64::MAX), Some(Granted), 5, 6)]));
    // Nobody knows whether the session ended, or when: its TTL is over.
    let perhaps = (end(1, 3, 0, false), None, 3, 0);
    assert!(is_legal(&[taken.clone(), perhaps.clone(), (Acquire(2, 9), Some(Granted), 8, 9)]));
    assert!(is_legal(&[taken.clone(), perhaps, (Acquire(2, 9), Some(Refused), 8, 9)]));
    let deleted = (end(1, 3, 0, true), Some(Done), 3, 4);
    assert!(is_legal(&[
        taken,
        deleted,
        (Acquire(2, 9), Some(Granted), 8, 9),
        (Holder, Some(Held(Some(2), 1)), 10, 11)
    ]));
}

#[test]
fn what_a_lock_may_not_do_is_found() {
    let taken = (Acquire(1, 2), Some(Granted), 1, 2);
    let ended = (end(1, 3, 10, false), Some(Done), 3, 4);
    let bad = |history: &[Written]| !is_legal(&[std::slice::from_ref(&taken), history].concat());
    assert!(bad(&[(Acquire(2, 4), Some(Granted), 3, 4)]), "two holders");
    assert!(bad(&[ended.clone(), (Acquire(2, 12), Some(Granted), 5, 12)]), "the delay was forgotten");
    assert!(bad(&[ended.clone(), (Holder, Some(Held(Some(1), 1)), 5, 6)]), "held by one that has ended");
    let sooner = (end(1, 10, 0, false), None, 10, 0);
    assert!(bad(&[sooner, (Acquire(2, 6), Some(Granted), 5, 6)]), "ended before its time");
    let open = (end(1, 3, 0, false), Some(Done), 3, 4);
    assert!(bad(&[open.clone(), (Acquire(2, 6), Some(Refused), 5, 6)]), "free, and refused");
    let regrant = (Acquire(2, 20), Some(Granted), 19, 20);
    assert!(bad(&[open, regrant, (Holder, Some(Held(Some(2), 1)), 21, 22)]), "the token did not grow");
    assert!(bad(&[(Release(1), Some(Refused), 3, 4)]), "its own lock was refused");
}
