//! Figures, honest and with the command that made them. Nothing here passes or fails.
//!
//! ```text
//! kv, idle, start, failover, compare, dns ─> agents: real processes on 127.x ─> load: keep-alive connections ─> report
//! ```
//!
//! Invariants
//! - Every run is bounded in time and ends only the processes that it started.
//! - What is measured of a server is durable: its data directory is on the disk whose sync time is printed beside.

mod agents;
mod compare;
mod connection;
mod disk;
mod encoding;
mod etcd;
mod failover;
mod idle;
mod kind;
mod kv;
mod load;
mod only;
mod report;
mod start;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Measures Lictor on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Bytes and CPU of one command in three binary forms
    Encoding,
    /// PUT/s and GET/s with three durable servers, and the time of a single client's requests
    Kv(kv::Flags),
    /// Ours beside Consul and etcd, with ratios and targets
    Compare(compare::Flags),
    /// DNS of ours beside Consul's, asked by dnsperf
    Dns(compare::dns::Flags),
    /// The load alone, against a server that runs
    Load(only::Flags),
    /// Time from kill -9 of the leader to the next acknowledged write
    Failover(failover::Flags),
    /// Resident memory of an idle server, client agent and sidecar
    Idle(Common),
    /// Time from exec to the first answer of `agent -dev`
    Start(start::Flags),
}

/// What every bench of processes is told.
#[derive(clap::Args)]
struct Common {
    /// The program; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    lictor: Option<PathBuf>,
    /// Where data directories are made: a disk, not memory.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Common {
    fn lictor(&self) -> anyhow::Result<PathBuf> {
        let program = match &self.lictor {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("lictor"),
        };
        let missing = || {
            format!("no program at {}: build it with `cargo build --release` or give --lictor PATH", program.display())
        };
        program.canonicalize().with_context(missing)
    }

    fn directory(&self) -> anyhow::Result<tempfile::TempDir> {
        let base = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::tempdir_in(&base).with_context(|| format!("a directory in {}", base.display()))
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Encoding => encoding::run(),
        Bench::Kv(flags) => return kv::run(&flags),
        Bench::Compare(flags) => return compare::run(&flags),
        Bench::Dns(flags) => return compare::dns::run(&flags),
        Bench::Load(flags) => return only::run(&flags),
        Bench::Failover(flags) => return failover::run(&flags),
        Bench::Idle(common) => return idle::run(&common),
        Bench::Start(flags) => return start::run(&flags),
    }
    Ok(())
}
