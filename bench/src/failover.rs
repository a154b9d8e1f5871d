//! From kill -9 of the leader to the next acknowledged write.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::Common;
use crate::agents::{Cluster, Process, START_LIMIT, address, agent, eventually};
use crate::connection::once;
use crate::report::heading;

/// Pause before a kill, so that it meets the followers at any moment between two heartbeats.
const SETTLE: Duration = Duration::from_millis(300);
/// The moments of the kills are spread over so much of the time between two heartbeats.
const SPREAD: Duration = Duration::from_millis(100);

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    common: Common,
    /// Kills.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: u32,
}

/// Measures and prints.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let lictor = flags.common.lictor()?;
    let directory = flags.common.directory()?;
    heading(&lictor);
    let mut cluster = Cluster::start(&lictor, directory.path())?;
    let own = address(9);
    let mut arguments = agent("client", &own, directory.path());
    arguments.extend_from_slice(&cluster.join);
    let client = Process::start(&lictor, directory.path(), "client", &own, &arguments)?;
    let put = || once(&client.http(), "PUT", "/v1/kv/failover", b"1".to_vec());
    eventually("a write", put)?;
    let mut pauses = Vec::new();
    for round in 0..flags.rounds {
        let leader = eventually("the leader's place", || cluster.leader())?;
        std::thread::sleep(SETTLE + SPREAD * round / flags.rounds);
        put().context("a write before the kill")?;
        let killed = Instant::now();
        cluster.end(leader);
        loop {
            if put().is_ok_and(|reply| reply.starts_with(b"true")) {
                break;
            }
            if killed.elapsed() > START_LIMIT {
                bail!("no write within {START_LIMIT:?} of the kill");
            }
        }
        pauses.push(killed.elapsed());
        cluster.start_again(&lictor, leader)?;
    }
    pauses.sort();
    let at =
        |share: f64| pauses[((pauses.len() as f64 * share).ceil() as usize).clamp(1, pauses.len()) - 1].as_millis();
    println!("milliseconds from kill -9 of the leader to the next acknowledged write, over {} kills", pauses.len());
    println!();
    println!("| p50 | p90 | p99 | most |");
    println!("|---|---|---|---|");
    println!("| {} | {} | {} | {} |", at(0.5), at(0.9), at(0.99), at(1.0));
    Ok(())
}
