//! `lictor seal-key`: the key that secrets in the servers' replicated state are sealed with.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lictor_identity::SealKey;
use lictor_runtime::SystemRng;
use zeroize::Zeroizing;

use crate::key_file::{Secrecy, create_all};
use crate::output::{Failure, Output};

/// What to do with seal keys.
#[derive(Subcommand)]
pub(crate) enum SealKeyCommand {
    /// Makes a new key, the same file for every server of a datacenter
    Create(CreateFlags),
}

/// Where to.
#[derive(Args)]
pub(crate) struct CreateFlags {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "seal.key")]
    out: PathBuf,
}

pub(super) fn run(SealKeyCommand::Create(CreateFlags { out }): SealKeyCommand) -> Result<Output, Failure> {
    let key = SealKey::generate(&SystemRng).map_err(Failure::because("cannot make a key"))?;
    let text = Zeroizing::new(format!("{}\n", *key.to_base64()));
    create_all(&[(&out, &text, Secrecy::Secret)])?;
    Ok(Output::line(format!("==> Saved {}", out.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_written_once_and_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("seal.key");
        let create = || run(SealKeyCommand::Create(CreateFlags { out: out.clone() }));
        create().unwrap();
        let written = std::fs::read(&out).unwrap();
        SealKey::from_bytes(&written).unwrap();
        assert!(create().unwrap_err().to_string().ends_with("seal.key already exists."));
        assert_eq!(std::fs::read(&out).unwrap(), written);
    }
}
