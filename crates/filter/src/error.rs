//! What is wrong with an expression, in the words of Consul where it has words.

use crate::{DEPTH_MAX, EXPRESSION_BYTES_MAX, MATCHES_MAX, VALUE_BYTES_MAX};

/// Why an expression was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Failed to create boolean expression evaluator: {0}")]
pub struct FilterError(#[from] pub(crate) Problem);

impl FilterError {
    /// What is wrong, without saying what it was meant to become.
    pub fn problem(&self) -> String {
        self.0.to_string()
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// The grammar does not allow it. Line and column from 1, offset in bytes from 0, as Consul counts.
    #[error("{line}:{column} ({offset}): {what}")]
    Syntax { line: usize, column: usize, offset: usize, what: String },
    #[error("the expression has {0} bytes, at most {EXPRESSION_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("1:{column} ({offset}): more than {DEPTH_MAX} parentheses or \"not\" within one another", column = .0 + 1, offset = .0)]
    TooDeep(usize),
    #[error("Number of match expressions ({0}) exceeds the limit ({MATCHES_MAX})")]
    TooManyMatches(usize),
    #[error("Value in expression with length {0} for selector {1:?} exceeds maximum length of {VALUE_BYTES_MAX}")]
    ValueTooLong(usize, String),
    #[error("Selector {0:?} is not valid")]
    Selector(String),
    #[error("Invalid match operator {operator:?} for selector {selector:?}")]
    Operator { operator: &'static str, selector: String },
    #[error("Failed to coerce value {value:?} for selector {selector:?}: {why}")]
    Coercion { value: String, selector: String, why: String },
    #[error("Failed to compile regular expression {pattern:?}: {why}")]
    Regex { pattern: String, why: String },
}
