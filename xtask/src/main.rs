//! `cargo xtask test`: everything that proves the project, in one command, with one summary.
//!
//! Tools and builds go to a cache outside the checkout: `$LICTOR_CACHE`, else `$XDG_CACHE_HOME/lictor`, else
//! `~/.cache/lictor`. A level that cannot run on this machine is skipped with its reason; with `CI` set that is a failure.

mod levels;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};

use levels::{LEVELS, Level, Outcome};

#[derive(Parser)]
#[command(about = "Builds and tests Lictor")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every level of tests, or only the named ones.
    Test {
        /// Levels to run; all when none is named.
        levels: Vec<String>,
        /// Seeds of the simulation.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// Histories of real processes.
        #[arg(long, default_value_t = 20)]
        histories: u64,
        /// Seconds for each target of the fuzz level.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Real agents of the agents level; more than 1,000 are without gossip.
        #[arg(long, default_value_t = 1_000)]
        agents: u64,
    },
    /// Lists the levels.
    Levels,
}

/// What the levels share.
pub(crate) struct Context {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Where builds and tools stay between runs.
    pub(crate) cache: PathBuf,
    /// Seeds of the simulation.
    pub(crate) seeds: u64,
    /// Histories of real processes.
    pub(crate) histories: u64,
    /// Seconds for each target of the fuzz level.
    pub(crate) seconds: u64,
    /// Real agents.
    pub(crate) agents: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    match Arguments::parse().command {
        Command::Levels => {
            for level in LEVELS {
                println!("{:12} {}", level.name, level.about);
            }
            Ok(true)
        }
        Command::Test { levels, seeds, histories, agents, seconds } => {
            let (root, cache) = (tools::project_root()?, tools::cache_directory()?);
            let context = Context { root, cache, seeds, histories, agents, seconds };
            let chosen = levels::choose(&levels)?;
            Ok(test(&context, &chosen))
        }
    }
}

fn test(context: &Context, chosen: &[&Level]) -> bool {
    let strict = std::env::var_os("CI").is_some();
    let mut rows: Vec<(&str, Outcome, Duration)> = Vec::new();
    for (at, level) in chosen.iter().enumerate() {
        println!("\n==> [{}/{}] {}: {}", at + 1, chosen.len(), level.name, level.about);
        let start = Instant::now();
        let outcome = (level.run)(context).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        match &outcome {
            Outcome::Passed(_) => {}
            Outcome::Failed(reason) => println!("==> {} FAILED: {reason}", level.name),
            Outcome::Skipped(reason) => println!("==> {} skipped: {reason}", level.name),
        }
        rows.push((level.name, outcome, start.elapsed()));
    }
    println!("\n==> Summary");
    let mut good = true;
    for (name, outcome, took) in &rows {
        let (word, detail) = match outcome {
            Outcome::Passed(detail) => ("passed", detail),
            Outcome::Failed(reason) => ("FAILED", reason),
            Outcome::Skipped(reason) => ("skipped", reason),
        };
        good &= match outcome {
            Outcome::Passed(_) => true,
            Outcome::Failed(_) => false,
            Outcome::Skipped(_) => !strict,
        };
        println!("    {name:12} {word:8} {:>6.1} s  {detail}", took.as_secs_f64());
    }
    if strict && rows.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Skipped(_))) {
        println!("    CI is set: a skipped level is a failure");
    }
    good
}
