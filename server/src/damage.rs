//! A server whose log or snapshot is damaged where it was durable once.
//!
//! It may have acknowledged what it cannot read any more, so it must never vote again under its id: a quorum that counts
//! it could elect a leader that lacks what was committed. Its files are put aside, and it starts as a new server, which
//! only joins: the leader gives it everything and then the old one's place.

use std::path::{Path, PathBuf};

use lictor_agent::config::Config;
use lictor_runtime::fs::{Fs, RealFs};

use crate::boot::StartError;
use crate::raft::DataDirectoryError;

/// What the directories of damaged files are called, with a number behind it.
const ASIDE: &str = "raft.damaged-";
/// So many damaged directories are kept; with more, people must look.
const ASIDE_MAX: u32 = 8;

/// Whether `error` says that what was durable is broken.
fn is_damage(error: &StartError) -> bool {
    match error {
        StartError::Raft(error) => error.is_damage(),
        StartError::DataDirectory(DataDirectoryError::Damaged { .. }) => true,
        _ => false,
    }
}

/// Puts the damaged files aside if others can give this server what it lost. Returns whether to start again.
pub(crate) fn put_aside(config: &Config, error: &StartError) -> bool {
    let Some(data) = &config.data_dir else { return false };
    // Alone there is nobody to ask: then the files are all there is, and only people may decide.
    if !is_damage(error) || config.bootstrap_expect == 1 || config.join.servers.is_empty() {
        return false;
    }
    match rename(data) {
        Ok(aside) => {
            tracing::error!(
                %error,
                aside = %aside.display(),
                "what this server had stored is damaged: its files are put aside, and it joins as a new server"
            );
            true
        }
        Err(failure) => {
            tracing::error!(%failure, "the damaged files cannot be put aside");
            false
        }
    }
}

fn rename(data: &Path) -> std::io::Result<PathBuf> {
    let names = RealFs.list(data)?;
    let free = (1..=ASIDE_MAX).map(|number| format!("{ASIDE}{number}")).find(|name| !names.contains(name));
    let free =
        free.ok_or_else(|| std::io::Error::other(format!("there are {ASIDE_MAX} already in {}", data.display())))?;
    let aside = data.join(free);
    RealFs.rename(&data.join("raft"), &aside)?;
    RealFs.sync_dir(data)?;
    Ok(aside)
}

/// Whether damaged files were put aside here: then this server must not begin a cluster, whatever it was told.
pub(crate) fn was_damaged(data: &Path) -> bool {
    RealFs.list(data).is_ok_and(|names| names.iter().any(|name| name.starts_with(ASIDE)))
}
