//! Decides whether a datacenter may be touched. Pure.
//!
//! The schema has refused what is wrong by itself; here is what only shows beside what exists.

use lictor_crds::ConsulDatacenter;

use super::fetch::Found;
use crate::names::Names;

/// Why a datacenter is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Its author asked for it.
    #[error("spec.paused is true: nothing is changed until it is false")]
    Paused,
    /// A Secret is gone that cannot be made anew.
    #[error(
        "the Secret {secret} is gone, and {consequence}: restore it from a backup, or delete this ConsulDatacenter and its volumes"
    )]
    KeyLost {
        /// Which Secret.
        secret: String,
        /// What a new one would do.
        consequence: &'static str,
    },
}

impl Refusal {
    /// One word for a condition.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Paused => "Paused",
            Self::KeyLost { .. } => "KeyLost",
        }
    }
}

/// Checks what was found against what must be there.
pub(crate) fn validate(datacenter: &ConsulDatacenter, found: &Found) -> Result<(), Refusal> {
    if datacenter.spec.paused {
        return Err(Refusal::Paused);
    }
    let bootstrapped = datacenter.status.as_ref().is_some_and(|status| status.bootstrapped);
    if !bootstrapped {
        return Ok(());
    }
    let names = Names::of(datacenter);
    let needed = [
        (found.keys.seal_key.is_none(), names.seal_key(), "the servers cannot read their own state with another key"),
        (found.keys.server_ca.is_none(), names.server_ca(), "agents would not trust servers of another authority"),
        (found.keys.bootstrap_token.is_none(), names.bootstrap_token(), "the servers know no other management token"),
    ];
    match needed.into_iter().find(|(missing, ..)| *missing) {
        Some((_, secret, consequence)) => Err(Refusal::KeyLost { secret, consequence }),
        None => Ok(()),
    }
}
