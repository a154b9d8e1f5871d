//! Names: parsed once at the door, then trusted.
//!
//! Consul takes nearly any text; so do we, within a length and without control characters. Nothing is ever interpolated
//! into a certificate, a path or a query without its own check.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Bytes in the longest name of a node, a service, an instance or a check.
pub const NAME_BYTES_MAX: usize = 512;

/// A text that is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("{0} is {1} bytes long, at most {NAME_BYTES_MAX} are allowed")]
    TooLong(&'static str, usize),
    /// A control character is in it.
    #[error("{0} {1:?} contains a control character")]
    Control(&'static str, String),
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(what, text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control(what, text.into()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[cbor(transparent)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[n(0)] String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a node; compared without regard to ASCII case, see [`NodeName::key`].
    NodeName,
    "a node name"
);
name!(
    /// The name of a service: what its instances share.
    ServiceName,
    "a service name"
);
name!(
    /// The id of one instance of a service, unique on its node.
    ServiceId,
    "a service id"
);
name!(
    /// The id of a check, unique on its node.
    CheckId,
    "a check id"
);

impl NodeName {
    /// What two spellings of one node name have in common.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl ServiceName {
    /// What two spellings of one service name have in common: Consul finds services without regard to ASCII case.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_wrong_with_it() {
        assert_eq!("".parse::<NodeName>().unwrap_err().to_string(), "a node name must not be empty");
        assert!("a\nb".parse::<ServiceName>().unwrap_err().to_string().contains("control character"));
        assert!("x".repeat(513).parse::<CheckId>().unwrap_err().to_string().contains("513 bytes long"));
        assert_eq!("web v1".parse::<ServiceName>().unwrap().as_str(), "web v1");
    }
}
