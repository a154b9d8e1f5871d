//! `lictor dev`: a whole datacenter on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::output::{Failure, Output};

/// How to run it.
#[derive(Args)]
pub(crate) struct DevFlags {
    /// Where the data is kept; without one in a temporary directory that goes with the process.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Port of the client agent's HTTP API.
    #[arg(long, value_name = "PORT", default_value_t = 8500)]
    pub(crate) http_port: u16,
    /// Port of the client agent's DNS.
    #[arg(long, value_name = "PORT", default_value_t = 8600)]
    pub(crate) dns_port: u16,
    /// Port of the sample service `web`.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) web_port: u16,
}

/// Runs it until Ctrl-C.
///
/// # Errors
/// It did not start.
pub(crate) fn run(_flags: DevFlags) -> Result<Output, Failure> {
    Err(Failure::new("`lictor dev` is not part of this build"))
}
