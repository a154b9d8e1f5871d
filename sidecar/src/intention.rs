//! Who may call a service: its intentions as a watched value that starts closed.
//!
//! Invariants
//! - Until the intentions are known, nobody may call. "No intentions" is an answer; "not known" is not.
//! - A list that the servers have cut for lack of rights is not known: the missing line may be the one that denies.
//! - Losing the servers changes nothing: the last known intentions stay in force.

use std::sync::Arc;

use lictor_identity::SpiffeId;
use lictor_types::query::IntentionMatch;
use lictor_types::{Action, Answer, Consistency, Intention, Query, Read, intention};
use tokio::sync::watch;

use crate::follow::Asker;

/// The intentions of one service, complete.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The service that is called.
    pub(crate) destination: String,
    /// Everything that may speak of a call to it.
    pub(crate) intentions: Vec<Intention>,
    /// What holds for a call that none speaks of.
    pub(crate) default_allow: bool,
}

impl Rules {
    /// Whether `caller` may call; if not, why.
    pub(crate) fn judge(&self, caller: &SpiffeId) -> Result<(), String> {
        let SpiffeId::Service { service, .. } = caller else {
            return Err(format!("{caller} is no service"));
        };
        match intention::decide(&self.intentions, service.as_str(), &self.destination) {
            Some(Intention { source, .. }) if source.action == Action::Allow => Ok(()),
            Some(Intention { source, destination, .. }) => {
                Err(format!("the intention {} => {destination} denies it", source.name))
            }
            None if self.default_allow => Ok(()),
            None => Err("no intention allows it, and the default is to deny".into()),
        }
    }
}

/// The intentions in force; clones read the same value.
#[derive(Clone, Debug)]
pub(crate) struct Intentions(watch::Receiver<Option<Arc<Rules>>>);

/// The publishing end.
#[derive(Debug)]
pub(crate) struct IntentionsPublisher(watch::Sender<Option<Arc<Rules>>>);

impl Intentions {
    /// Both ends, with nothing known yet.
    pub(crate) fn closed() -> (IntentionsPublisher, Self) {
        let (sender, receiver) = watch::channel(None);
        (IntentionsPublisher(sender), Self(receiver))
    }

    /// Whether anything is known yet.
    pub(crate) fn known(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the intentions are known.
    pub(crate) async fn ready(&mut self) {
        // Without a publisher they stay unknown, and then waiting for ever is right.
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether `caller` may call now; later changes are told by [`Intentions::until_denied`] of this same value.
    pub(crate) fn judge(&mut self, caller: &SpiffeId) -> Result<(), String> {
        match &*self.0.borrow_and_update() {
            Some(rules) => rules.judge(caller),
            None => Err("its intentions are not known yet".into()),
        }
    }

    /// Becomes ready when a change of the intentions denies `caller`, with the reason.
    pub(crate) async fn until_denied(&mut self, caller: &SpiffeId) -> String {
        loop {
            if self.0.changed().await.is_err() {
                // The sidecar is stopping; it closes connections in its own way.
                std::future::pending::<()>().await;
            }
            if let Err(reason) = self.judge(caller) {
                return reason;
            }
        }
    }
}

impl IntentionsPublisher {
    /// Puts these in force, for open connections too.
    pub(crate) fn publish(&self, rules: Rules) {
        self.0.send_replace(Some(Arc::new(rules)));
    }
}

/// Keeps the intentions of `destination` up to date, for ever.
pub(crate) async fn keep(asker: Asker, destination: String, default_allow: bool, publisher: IntentionsPublisher) {
    let query = Query::IntentionMatch(IntentionMatch { by_source: false, name: destination.clone() });
    let what = format!("intentions of {destination}");
    // Not stale: a server that lags behind must not undo a denial that another has told us of.
    asker
        .follow(&what, query, Consistency::Default, |Read { answer, filtered_by_acls, .. }| match answer {
            Answer::Intentions(_) if filtered_by_acls => {
                tracing::error!(destination, "the token may not read all intentions: they stay as they are");
            }
            Answer::Intentions(intentions) => {
                tracing::debug!(destination, count = intentions.len(), "intentions are known");
                publisher.publish(Rules { destination: destination.clone(), intentions, default_allow });
            }
            _ => tracing::error!(destination, "a server answered something else than intentions"),
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{intention, spiffe_id};
    use futures_util::FutureExt;

    fn rules(intentions: Vec<Intention>, default_allow: bool) -> Rules {
        Rules { destination: "web".into(), intentions, default_allow }
    }

    #[test]
    fn the_most_specific_intention_decides_and_then_the_default() {
        let both = || vec![intention("*", "web", Action::Deny), intention("api", "web", Action::Allow)];
        for (intentions, default_allow, caller, allowed) in [
            (vec![], true, "api", true),
            (vec![], false, "api", false),
            (both(), false, "api", true),
            (both(), true, "other", false),
            (vec![intention("api", "*", Action::Deny)], true, "api", false),
            (vec![intention("api", "other", Action::Allow)], false, "api", false),
        ] {
            let verdict = rules(intentions, default_allow).judge(&spiffe_id(caller));
            assert_eq!(verdict.is_ok(), allowed, "{caller}: {verdict:?}");
        }
    }

    #[test]
    fn an_agent_is_no_caller_even_where_everything_is_allowed() {
        let domain = spiffe_id("web").trust_domain().clone();
        let agent = SpiffeId::client(&domain, "dc1", "web").unwrap();
        assert!(rules(vec![intention("*", "*", Action::Allow)], true).judge(&agent).is_err());
    }

    #[tokio::test]
    async fn nobody_may_call_until_the_intentions_are_known_and_a_denial_reaches_who_was_allowed() {
        let (publisher, mut intentions) = Intentions::closed();
        let caller = spiffe_id("api");
        assert!(intentions.judge(&caller).is_err());
        publisher.publish(rules(vec![], true));
        assert!(intentions.judge(&caller).is_ok());
        assert!(intentions.until_denied(&caller).now_or_never().is_none());
        publisher.publish(rules(vec![intention("other", "web", Action::Deny)], true));
        assert!(intentions.until_denied(&caller).now_or_never().is_none());
        publisher.publish(rules(vec![intention("api", "web", Action::Deny)], true));
        assert!(intentions.until_denied(&caller).now_or_never().is_some());
    }
}
