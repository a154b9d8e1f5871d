//! Ours beside Consul and etcd: one run, one machine, one load generator, equal durability and consistency.
//!
//! ```text
//! systems: processes ─> cluster: interleaved rounds ┐
//!                       failover: kill -9           ├─> results ─> tables, with the targets of rows
//!                       single: start and memory    │
//!                       agent: a client agent       ┘
//! ```
//!
//! Invariants
//! - All three keep their data on the same disk, which is not memory, and what shows that they sync is printed.
//! - Consul is tuned, etcd is asked by gRPC. What one system does not have stays empty instead of being imitated.

mod agent;
mod cluster;
pub(crate) mod dns;
mod failover;
mod results;
mod rows;
mod single;
mod systems;
mod watchers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use lictor_tests::debian;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::compare::results::Results;
use crate::compare::rows::{ROWS, Row, Setting};
use crate::compare::systems::{Programs, System};
use crate::report::heading;
use crate::{Common, disk};

/// Open files that ten thousand watchers and Consul's own limits need.
const FILES: u64 = 16_000;
/// The kernel's number for a file system in memory.
const TMPFS: i64 = 0x0102_1994;

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    common: Common,
    /// Consul's program; by default Debian bullseye's 1.8.7, fetched into the cache.
    #[arg(long, value_name = "PATH")]
    consul: Option<PathBuf>,
    /// etcd's program; by default Debian's package, fetched into the cache.
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Only these rows.
    #[arg(long, value_name = "ROW", num_args = 1.., value_parser = rows::parse)]
    only: Vec<&'static str>,
    /// Interleaved rounds, of which the median is printed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Seconds of each measurement under load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Times that each system's leader is killed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    /// Also write every single measurement as a line of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much of everything.
pub(crate) struct Plan {
    only: Vec<&'static str>,
    rounds: u32,
    kills: u32,
    measured: Duration,
}

impl Plan {
    fn has(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.contains(&row)
    }

    fn rows(&self, setting: Setting) -> Vec<&'static Row> {
        ROWS.iter().filter(|row| row.setting == setting && self.has(row.name)).collect()
    }
}

/// Lines that show that it goes on, apart from the report.
pub(crate) struct Progress(Instant);

impl Progress {
    fn say(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.0.elapsed().as_secs());
    }
}

/// Measures and prints.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let programs = programs(flags)?;
    let directory = flags.common.directory()?;
    if rustix::fs::statfs(directory.path())?.f_type as i64 == TMPFS {
        bail!("{} is in memory, where nothing is durable: choose a disk with --directory", directory.path().display());
    }
    raise_the_limit_of_files()?;
    let plan = Plan {
        only: flags.only.clone(),
        rounds: flags.rounds,
        kills: flags.kills,
        measured: Duration::from_secs(flags.seconds),
    };
    heading(&programs.ours);
    println!("beside: {}; {}", programs.version(System::Consul), programs.version(System::Etcd));
    let before = disk::sync_time(directory.path())?;
    let (progress, mut results) = (Progress(Instant::now()), Results::default());
    let finished = cluster::run(&plan, &programs, directory.path(), &mut results, &progress)
        .and_then(|()| failover::run(&plan, &programs, directory.path(), &mut results, &progress))
        .and_then(|()| single::run(&plan, &programs, directory.path(), &mut results, &progress))
        .and_then(|()| agent::run(&plan, &programs, directory.path(), &mut results, &progress));
    let after = disk::sync_time(directory.path())?;
    println!(
        "{} rounds of {} s, {} kills; append of 512 bytes and fdatasync in {}: {before:?} before and {after:?} after (p50); \
         {} s in all\n",
        flags.rounds,
        flags.seconds,
        flags.kills,
        directory.path().display(),
        progress.0.elapsed().as_secs()
    );
    results.print();
    println!();
    results.print_details();
    if let Some(path) = &flags.json {
        let machine = json!({
            "ours": programs.version(System::Ours), "consul": programs.version(System::Consul),
            "etcd": programs.version(System::Etcd), "sync_us_before": before.as_micros() as u64,
            "sync_us_after": after.as_micros() as u64, "rounds": flags.rounds, "seconds": flags.seconds,
        });
        results.write(path, &machine).with_context(|| format!("writing {}", path.display()))?;
    }
    // What was measured before something failed is not lost.
    finished
}

fn programs(flags: &Flags) -> anyhow::Result<Programs> {
    let ours = flags.common.lictor()?;
    Ok(Programs { ours, consul: program(&flags.consul, &debian::CONSUL)?, etcd: program(&flags.etcd, &debian::ETCD)? })
}

/// The program that was given, or Debian's.
fn program(given: &Option<PathBuf>, package: &debian::Package) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => path.canonicalize().with_context(|| format!("no program at {}", path.display())),
        None => package.program(&cache()?).map_err(anyhow::Error::msg),
    }
}

/// Where the tests keep their tools, too.
fn cache() -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("LICTOR_CACHE").map(PathBuf::from);
    let of_the_user = || std::env::var_os("XDG_CACHE_HOME").map(|base| PathBuf::from(base).join("lictor"));
    let at_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/lictor"));
    given.or_else(of_the_user).or_else(at_home).context("set LICTOR_CACHE: no HOME here")
}

/// For this process and all that it starts.
fn raise_the_limit_of_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|it| it < FILES) {
        bail!("only {:?} open files are allowed here, and {FILES} are needed: raise `ulimit -Hn`", limit.maximum);
    }
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
