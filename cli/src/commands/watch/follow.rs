//! One view after another as it changes: what `lictor watch` and the watches of an agent do alike.
//!
//! Invariants
//! - An index that goes back begins the view anew; a view that is as it was is not shown.
//! - Between two failures there is a pause that grows, up to [`RETRY_MAX`].

use std::time::Duration;

use super::view::{Seen, View};
use crate::api::Api;

/// The pause after the first failure; times the square of the failures in a row.
const RETRY_STEP: Duration = Duration::from_secs(5);
/// The longest pause between two failures.
const RETRY_MAX: Duration = Duration::from_secs(180);
/// Between two looks at a view that cannot be waited for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A view as it was shown.
pub(crate) struct Shown {
    /// As JSON on one line.
    pub(crate) json: String,
    /// Its index.
    pub(crate) index: u64,
}

/// Follows one view.
pub(crate) struct Follower {
    api: Api,
    view: View,
    seen: Seen,
    failures: u32,
    pause: bool,
    complain: fn(&str),
}

impl Follower {
    /// Follows `view`; failures are told to `complain`.
    pub(crate) fn new(api: Api, view: View, complain: fn(&str)) -> Self {
        Self { api, view, seen: Seen::default(), failures: 0, pause: false, complain }
    }

    /// The view, as soon as it is another than was shown last.
    pub(crate) async fn next(&mut self) -> Shown {
        loop {
            if std::mem::take(&mut self.pause) {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            let looked = match self.view.look(&self.api, self.seen.index).await {
                Ok(looked) => looked,
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    let squared = self.failures.saturating_mul(self.failures);
                    let pause = RETRY_STEP.saturating_mul(squared).min(RETRY_MAX);
                    (self.complain)(&format!("Watch ({}) errored: {error}, retry in {pause:?}", self.view.kind));
                    self.seen.index = 0;
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            self.failures = 0;
            self.pause = looked.index == 0;
            if let Some(json) = self.seen.take(&self.view, looked) {
                return Shown { json, index: self.seen.shown_index };
            }
        }
    }
}
