//! The load alone, against a server that somebody else started: to hold this generator against another one.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::agents::processor_time;
use crate::connection::Door;
use crate::kind::{KEYS, Kind};
use crate::load::{Load, fill};

const WARM_UP: Duration = Duration::from_millis(500);

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    /// Where the server is: `IP:PORT`; of etcd with --grpc.
    #[arg(value_name = "ADDRESS")]
    address: String,
    #[arg(long, value_enum, default_value_t = What::Get)]
    what: What,
    /// Ask by etcd's gRPC.
    #[arg(long)]
    grpc: bool,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Put,
    Get,
    Consistent,
    Stale,
}

/// Measures and prints a line for each round.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let door = if flags.grpc { Door::Grpc } else { Door::Http };
    let kind = match flags.what {
        What::Put => Kind::Put,
        What::Get => Kind::Get,
        What::Consistent => Kind::GetConsistent,
        What::Stale => Kind::GetStale,
    };
    fill(door, &flags.address, Kind::Put, KEYS, 1)?;
    for _ in 0..flags.rounds {
        let load = Load {
            door,
            address: flags.address.clone(),
            kind,
            connections: flags.connections as usize,
            warm_up: WARM_UP,
            measured: Duration::from_secs(flags.seconds),
        };
        let (outcome, (own, begun)) = load.run(|| (processor_time("self"), Instant::now()))?;
        let own = processor_time("self")?.saturating_sub(own?).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!(
            "{} on {} connections: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, errors {}, the generator took {own:.2} of a core",
            kind.name(),
            flags.connections,
            outcome.rate(),
            outcome.quantile(0.5).as_secs_f64() * 1e3,
            outcome.quantile(0.99).as_secs_f64() * 1e3,
            outcome.errors
        );
    }
    Ok(())
}
