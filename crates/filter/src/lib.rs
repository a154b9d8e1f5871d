//! `?filter=`: Consul's boolean expressions over rows, one evaluator for every endpoint that has them.
//!
//! ```text
//!  text ─parse─> Expression ─compile against the fields of T─> Filter<T> ─matches(&T)─> keep or drop
//! ```
//!
//! A compiled filter holds closures over accessors of the row, so that a row is read where it lies: nothing is
//! serialised, copied or looked up by name while rows are chosen.
//!
//! Invariants
//! - What is wrong with an expression is told when it is compiled, rows or none; evaluation cannot fail.
//! - Parsing takes time linear in the text, and recursion is no deeper than [`DEPTH_MAX`].
//! - Everything is bounded: the text, the number of matches, the length of a value, the memory of a regular expression.

mod coerce;
mod compile;
pub mod config_rows;
mod error;
mod parse;
mod quote;
pub mod rows;

#[cfg(test)]
mod tests;

pub use compile::{Fields, Filter};
pub use error::FilterError;

/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 32 * 1024;
/// Matches (`selector operator value`) in one expression.
pub const MATCHES_MAX: usize = 32;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 512;
/// Parentheses and `not` within one another.
pub const DEPTH_MAX: usize = 64;
/// Bytes that one compiled regular expression may take, and as much again for its cache of states.
pub const REGEX_BYTES_MAX: usize = 512 * 1024;
