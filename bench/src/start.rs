//! From exec to the first answer of `agent -dev`.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::Common;
use crate::agents::{Process, START_LIMIT, address, get};
use crate::connection;
use crate::report::{heading, spread};

/// Between two looks; a look is short beside it.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    common: Common,
    /// Starts, of which the median is printed.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
}

/// Measures and prints.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let lictor = flags.common.lictor()?;
    heading(&lictor);
    let (mut answers, mut writes) = (Vec::new(), Vec::new());
    for round in 0..flags.rounds {
        // Its own directory each time: also the certificates are made anew, as on a new machine.
        let directory = flags.common.directory()?;
        let address = address(round + 1);
        let arguments = ["agent".into(), "-dev".into(), format!("-bind={address}"), format!("-client={address}")];
        let begun = Instant::now();
        let process = Process::start(&lictor, directory.path(), "dev", &address, &arguments)?;
        answers.push(first(begun, || get(&process.http(), "/v1/agent/self"))?);
        writes.push(first(begun, || connection::once(&process.http(), "PUT", "/v1/kv/first", b"1".to_vec()))?);
    }
    println!("{} starts of `agent -dev`, milliseconds from exec: median (least to most)", flags.rounds);
    println!();
    println!("| what | ms |");
    println!("|---|---|");
    println!("| first answer of /v1/agent/self | {} |", spread(&answers, 0));
    println!("| first write acknowledged | {} |", spread(&writes, 0));
    Ok(())
}

fn first(begun: Instant, ask: impl Fn() -> anyhow::Result<Vec<u8>>) -> anyhow::Result<f64> {
    loop {
        match ask() {
            Ok(_) => return Ok(begun.elapsed().as_secs_f64() * 1e3),
            Err(error) if begun.elapsed() > START_LIMIT => bail!("no answer within {START_LIMIT:?}: {error:#}"),
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}
