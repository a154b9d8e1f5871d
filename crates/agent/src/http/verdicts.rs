//! What the servers last said of who may do what at this agent: for the time when no server answers.
//!
//! An agent holds its own services, checks and log; whether a caller may have them is said by the servers. While they cannot be
//! asked, what they said last holds, as Consul's `acl.down_policy = "extend-cache"` has it: else a service that renews its TTL
//! every ten seconds would be called critical because of servers that it never spoke with.
//!
//! Invariants
//! - While a server answers, its answer is given and no older one.
//! - At most [`VERDICTS_MAX`] are kept; nothing is allowed that no server ever allowed.

use std::collections::HashMap;

use lictor_types::{Credential, Refusal, Requirement};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Verdicts that are kept; the one given longest ago goes first.
const VERDICTS_MAX: usize = 1024;

/// One for each requirement that was asked about: none where it is met.
pub(super) type Verdict = Vec<Option<Refusal>>;

/// The verdicts that are kept, by token and by what was asked.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<(String, Vec<Requirement>), Kept>>);

struct Kept {
    verdict: Verdict,
    at: Instant,
}

impl Verdicts {
    /// What was said last.
    pub(super) fn last(&self, of: &Credential, requirements: &[Requirement]) -> Option<Verdict> {
        let kept = self.0.lock();
        kept.get(&(of.secret.clone(), requirements.to_vec())).map(|kept| kept.verdict.clone())
    }

    /// A server says this now.
    pub(super) fn said(&self, of: &Credential, requirements: Vec<Requirement>, verdict: Verdict) {
        let mut all = self.0.lock();
        let key = (of.secret.clone(), requirements);
        if !all.contains_key(&key) && all.len() >= VERDICTS_MAX {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        all.insert(key, Kept { verdict, at: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lictor_types::Resource;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_word_is_kept_for_each_token_and_the_oldest_is_given_up() {
        let verdicts = Verdicts::default();
        let needed = |name: &str| vec![Requirement::write(Resource::Service, name)];
        let (one, two) = (Credential::new("one"), Credential::new("two"));
        verdicts.said(&one, needed("web"), vec![None]);
        assert_eq!(verdicts.last(&one, &needed("web")), Some(vec![None]));
        assert_eq!(verdicts.last(&two, &needed("web")), None, "another token");
        assert_eq!(verdicts.last(&one, &needed("api")), None, "something else");
        verdicts.said(&one, needed("web"), vec![Some(Refusal::permission_denied("no"))]);
        assert_ne!(verdicts.last(&one, &needed("web")), Some(vec![None]), "it was taken away");
        for number in 0..VERDICTS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            verdicts.said(&two, needed(&number.to_string()), vec![None]);
        }
        assert_eq!(verdicts.last(&one, &needed("web")), None);
        assert!(verdicts.last(&two, &needed("0")).is_some() && verdicts.0.lock().len() == VERDICTS_MAX);
    }
}
