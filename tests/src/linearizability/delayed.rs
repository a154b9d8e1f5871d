//! What a lock does whose holders may end, and that then stays shut for a while.

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
}

/// A lock with a fencing token whose holder may end: at most one holder; the token grows by one with every new
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
                    None => state.shut.is_none_or(|until| *answered >= until),
                };
                let token = state.token + u64::from(state.holder.is_none());
                may.then_some(LockState { holder: Some(*session), token, shut: None })
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
            (DelayedLockInput::End(end), None | Some(DelayedLockAnswer::Done)) => {
                let mut after = state.clone();
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
