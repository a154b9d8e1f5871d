//! What a lock does whose holders may end, and that then stays shut for a while.

use std::collections::BTreeSet;

use super::Model;

/// A number for each session.
pub type SessionNumber = u64;

/// What is asked of a lock. Times are those of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelayedLockInput {
    /// This session wants it, and was answered at this time: `u64::MAX` when that says nothing about the time of the servers.
    Acquire(SessionNumber, u64),
    /// This session gives it back.
    Release(SessionNumber),
    /// This session ends.
    End(SessionEnd),
    /// Who holds it?
    Holder,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The session.
    pub session: SessionNumber,
    /// It did not end before.
    pub earliest: u64,
    /// What it held stays shut for so long; 0 for not at all.
    pub delay: u64,
    /// What it held is deleted, not only given back.
    pub deletes: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelayedLockAnswer {
    /// It is the caller's.
    Granted,
    /// It is another's, or shut, or was not the caller's.
    Refused,
    /// Done.
    Done,
    /// Who holds it, and the fencing token.
    Held(Option<SessionNumber>, u64),
}

/// Where a lock stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockState {
    holder: Option<SessionNumber>,
    token: u64,
    /// It may be shut, and is for certain before this time.
    shut: Option<u64>,
    /// Sessions that are over hold nothing any more.
    over: BTreeSet<SessionNumber>,
}

/// A lock with a fencing token whose holder may end: at most one holder, which lives; the token grows by one with every new
/// holder; and nobody holds it for the delay after its holder ended.
#[derive(Clone, Copy, Debug)]
pub struct DelayedLock;

impl Model for DelayedLock {
    type State = LockState;
    type Input = DelayedLockInput;
    type Answer = DelayedLockAnswer;

    fn initial() -> LockState {
        LockState::default()
    }

    fn step(state: &LockState, input: &DelayedLockInput, answer: Option<&DelayedLockAnswer>) -> Option<LockState> {
        let same = || Some(state.clone());
        match (input, answer) {
            (DelayedLockInput::Acquire(session, _), Some(DelayedLockAnswer::Refused)) => {
                let is_others = state.holder.is_some_and(|holder| holder != *session);
                (is_others || state.shut.is_some()).then(|| state.clone())
            }
            (DelayedLockInput::Acquire(session, answered), None | Some(DelayedLockAnswer::Granted)) => {
                let may = match state.holder {
                    Some(holder) => holder == *session,
                    None => state.shut.is_none_or(|until| *answered >= until) && !state.over.contains(session),
                };
                let token = state.token + u64::from(state.holder.is_none());
                may.then(|| LockState { holder: Some(*session), token, shut: None, over: state.over.clone() })
            }
            (DelayedLockInput::Release(session), answer) => {
                let is_its = state.holder == Some(*session);
                match answer {
                    None | Some(DelayedLockAnswer::Done) if is_its => Some(LockState { holder: None, ..state.clone() }),
                    None => same(),
                    Some(DelayedLockAnswer::Refused) if !is_its => same(),
                    Some(_) => None,
                }
            }
            // It changes nothing here, and keeps the search small.
            (DelayedLockInput::End(end), None) if state.holder != Some(end.session) => same(),
            (DelayedLockInput::End(end), None | Some(DelayedLockAnswer::Done)) => {
                let mut after = state.clone();
                after.over.insert(end.session);
                if state.holder == Some(end.session) {
                    after.holder = None;
                    after.shut = (end.delay > 0).then(|| end.earliest.saturating_add(end.delay));
                    if end.deletes {
                        after.token = 0;
                    }
                }
                Some(after)
            }
            (DelayedLockInput::Holder, None) => same(),
            (DelayedLockInput::Holder, Some(DelayedLockAnswer::Held(holder, token))) => {
                (*holder == state.holder && *token == state.token).then(|| state.clone())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizability::{BUDGET, Operation, Verdict, check};
    use DelayedLockAnswer::{Done, Granted, Held, Refused};
    use DelayedLockInput::{Acquire, End, Holder, Release};

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
        assert!(bad(&[ended.clone(), (Acquire(1, 20), Some(Granted), 19, 20)]), "taken by one that has ended");
        let sooner = (end(1, 10, 0, false), None, 10, 0);
        assert!(bad(&[sooner, (Acquire(2, 6), Some(Granted), 5, 6)]), "ended before its time");
        let open = (end(1, 3, 0, false), Some(Done), 3, 4);
        assert!(bad(&[open.clone(), (Acquire(2, 6), Some(Refused), 5, 6)]), "free, and refused");
        let regrant = (Acquire(2, 20), Some(Granted), 19, 20);
        assert!(bad(&[open, regrant, (Holder, Some(Held(Some(2), 1)), 21, 22)]), "the token did not grow");
        assert!(bad(&[(Release(1), Some(Refused), 3, 4)]), "its own lock was refused");
    }
}
