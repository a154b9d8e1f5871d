//! What can be wrong in a configuration.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// A file or directory cannot be read.
    #[error("{file}: cannot be read: {reason}")]
    Unreadable {
        /// Its path.
        file: String,
        /// What the operating system says.
        reason: String,
    },
    /// A file is neither HCL nor JSON by its name.
    #[error(
        "Missing or invalid file extension for {file:?}. Please use \".json\" or \".hcl\", or give -config-format."
    )]
    Extension {
        /// Its path.
        file: String,
    },
    /// A file is not what its format says.
    #[error("{file}: {reason}")]
    Syntax {
        /// Its path.
        file: String,
        /// What the parser says.
        reason: String,
    },
    /// There is no such key.
    #[error("{file}: invalid config key {key}{}", nearest.as_ref().map_or(String::new(), |near| format!("; the nearest known key is {near}")))]
    UnknownKey {
        /// Where it is.
        file: String,
        /// The key, with the keys above it.
        key: String,
        /// A known key that looks like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("{file}: {key} must be {expected}, not {found}")]
    WrongKind {
        /// Where it is.
        file: String,
        /// The key, with the keys above it.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A value that cannot be, alone or with others.
    #[error("{0}")]
    Invalid(String),
}

/// Everything that is wrong in a configuration, in the order it was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
