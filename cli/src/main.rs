//! The one binary, `lictor`: agent, sidecar, operator, and a verb per noun of the HTTP API.
//!
//! ```text
//! argv ─> arguments (Consul's spelling) ─> commands::{agent, sidecar, operator, dev}   run until a signal
//!                                     └──> commands::{kv, catalog, ...} ─> client ─> HTTP API of an agent
//! ```
//!
//! Called by the name `consul` it behaves the same; only the first line of `version` differs.
//!
//! Invariants
//! - Answers go to the standard output, complaints to the standard error; the exit code is 0 or 1, and 2 only where
//!   Consul's is.
//! - A secret that was handed in is never printed.

mod allocator;
mod api;
mod arguments;
mod commands;
mod dev;
mod input;
mod key_file;
mod logging;
mod output;
mod runtime;
mod table;

use std::process::ExitCode;

use arguments::Parsed;
use output::report;

fn main() -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("a TLS provider was installed before main began");
        return ExitCode::FAILURE;
    }
    match arguments::parse(std::env::args_os().collect()) {
        Parsed::Command { command, called_consul } => report(commands::run(*command, called_consul)),
        Parsed::Help(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Parsed::Wrong(text) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
    }
}
