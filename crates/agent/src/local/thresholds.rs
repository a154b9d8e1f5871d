//! How many runs in a row it takes to change a status. Pure.

use lictor_types::CheckStatus;

use super::definition::CheckDefinition;

/// Counts runs in a row.
#[derive(Clone, Debug)]
pub(super) struct Thresholds {
    before_passing: u32,
    before_warning: u32,
    before_critical: u32,
    successes: u32,
    failures: u32,
}

impl Thresholds {
    pub(super) fn of(definition: &CheckDefinition) -> Self {
        Self {
            before_passing: definition.success_before_passing,
            before_warning: definition.failures_before_warning.unwrap_or(definition.failures_before_critical),
            before_critical: definition.failures_before_critical,
            successes: 0,
            failures: 0,
        }
    }

    /// The status that a run which found `status` gives the check; none to leave it as it is.
    pub(super) fn count(&mut self, status: CheckStatus) -> Option<CheckStatus> {
        if status == CheckStatus::Critical {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            if self.failures >= self.before_critical {
                Some(CheckStatus::Critical)
            } else {
                (self.failures >= self.before_warning).then_some(CheckStatus::Warning)
            }
        } else {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            (self.successes >= self.before_passing).then_some(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CheckStatus::{Critical, Passing, Warning};

    #[test]
    fn runs_in_a_row_decide() {
        let definition = CheckDefinition {
            success_before_passing: 2,
            failures_before_warning: Some(2),
            failures_before_critical: 3,
            ..CheckDefinition::default()
        };
        let mut thresholds = Thresholds::of(&definition);
        let found =
            [Critical, Critical, Critical, Passing, Critical, Passing, Passing].map(|found| thresholds.count(found));
        assert_eq!(found, [None, Some(Warning), Some(Critical), None, None, None, Some(Passing)]);
    }

    #[test]
    fn without_thresholds_every_run_counts() {
        let mut thresholds = Thresholds::of(&CheckDefinition::default());
        assert_eq!(thresholds.count(Critical), Some(Critical));
        assert_eq!(thresholds.count(Passing), Some(Passing));
    }
}
