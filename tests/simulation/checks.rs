//! Clients of checks: what a check says is a register, written by registrations and read by health.

use std::sync::Arc;

use lictor_runtime::{Rng, SeededRng};
use lictor_types::command::{Deregistration, Effect};
use lictor_types::{Answer as StateAnswer, CheckStatus, Command, Consistency, HealthCheck, Query, Read};

use crate::clients::{World, registration};
use crate::history::{Action, Answer, History, Value};
use crate::reach::Reach;

/// How these registers are named.
pub(crate) const PREFIX: &str = "check/";
/// Checks that everybody writes.
const CHECKS: u64 = 2;

/// A client of checks.
pub(crate) struct Checks {
    reach: Arc<Reach>,
    history: History,
    rng: SeededRng,
}

impl Checks {
    pub(crate) fn new(world: &World, reach: Arc<Reach>, rng: SeededRng) -> Self {
        Self { reach, history: world.history.clone(), rng }
    }

    /// Does one thing with one check.
    pub(crate) async fn one(&self) {
        let check = format!("{PREFIX}{}", self.rng.below(CHECKS));
        match self.rng.below(10) {
            0..4 => self.write(&check, Action::Set(self.history.fresh())).await,
            4 => self.write(&check, Action::Delete).await,
            5..8 => self.get(&check, Consistency::Consistent).await,
            _ => self.get(&check, Consistency::Default).await,
        }
    }

    async fn write(&self, check: &str, action: Action) {
        let mut registration = registration(&node(check));
        let id: lictor_types::CheckId = "mood".parse().expect("a legal id");
        let command = match action {
            Action::Set(value) => {
                let status = [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical][value as usize % 3];
                registration.check = Some(HealthCheck::new(id, "mood", status, &value.to_string()));
                Command::Register(Box::new(registration))
            }
            _ => Command::Deregister(Deregistration {
                node: registration.node,
                service_id: None,
                check_id: Some(id),
                authorized_service: None,
            }),
        };
        let Some(waist) = self.reach.waist().await else { return };
        let operation = self.history.begin(check, action, None);
        let outcome = self.reach.send(&waist, command).await;
        let answer = match outcome.map(|outcome| (outcome.index, outcome.effect)) {
            Some((index, Effect::Applied)) => Answer::Written(index),
            Some((_, other)) => {
                self.history.broken(format!("{check} {action:?} was answered with {other:?}"));
                Answer::Unknown
            }
            None => Answer::Unknown,
        };
        self.history.end(operation, answer);
    }

    async fn get(&self, check: &str, consistency: Consistency) {
        let Some(waist) = self.reach.waist().await else { return };
        let operation = self.history.begin(check, Action::Get, None);
        let read = self.reach.ask(&waist, question(check), consistency).await;
        let answer = read.map_or(Answer::Unknown, |read| Answer::Read { value: said(&read), index: read.index });
        self.history.end(operation, answer);
    }
}

fn node(check: &str) -> String {
    check.replace('/', "-")
}

/// What asks for a check.
pub(crate) fn question(check: &str) -> Query {
    Query::HealthNode(node(check).parse().expect("a legal name"))
}

/// What a check says; 0 where there is none.
pub(crate) fn said(read: &Read) -> Value {
    let StateAnswer::Checks(checks) = &read.answer else { return 0 };
    checks.first().and_then(|check| check.output.parse().ok()).unwrap_or_default()
}
