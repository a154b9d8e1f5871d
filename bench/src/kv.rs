//! The key/value store of three durable servers under load, and what one client alone waits.

use std::time::{Duration, Instant};

use clap::Args;

use crate::agents::{Cluster, processor_time};
use crate::connection::Door;
use crate::kind::{KEYS, Kind, VALUE_BYTES};
use crate::load::{Load, Outcome};
use crate::report::{heading, median, spread};
use crate::{Common, disk};

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);
const KINDS: [Kind; 4] = [Kind::Put, Kind::Get, Kind::GetConsistent, Kind::GetStale];

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    common: Common,
    /// Seconds of each measurement, after a warm-up of one.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds, of which the median is printed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
}

/// One line of the table, over all rounds.
#[derive(Default)]
struct Row {
    title: String,
    rates: Vec<f64>,
    median_millis: Vec<f64>,
    late_millis: Vec<f64>,
    /// Microseconds of the servers' processor time per request.
    cost: Vec<f64>,
    /// The share of all processor time of the machine that the load generator itself took.
    own: Vec<f64>,
    errors: u64,
    first_error: Option<String>,
}

impl Row {
    fn add(&mut self, outcome: Outcome, servers: Duration, own: Duration, elapsed: Duration) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        self.rates.push(outcome.rate());
        self.median_millis.push(outcome.quantile(0.5).as_secs_f64() * 1e3);
        self.late_millis.push(outcome.quantile(0.99).as_secs_f64() * 1e3);
        // Both over the time between the two looks, so that what ran a little longer does not count as dearer.
        let requests = outcome.rate() * elapsed.as_secs_f64();
        self.cost.push(servers.as_secs_f64() * 1e6 / requests.max(1.0));
        self.own.push(own.as_secs_f64() * 100.0 / elapsed.as_secs_f64() / cores);
        self.errors += outcome.errors;
        self.first_error = self.first_error.take().or(outcome.first_error);
    }

    fn print(&self) {
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.0} | {:.0} % | {} |",
            self.title,
            spread(&self.rates, 0),
            median(self.median_millis.clone()),
            median(self.late_millis.clone()),
            median(self.cost.clone()),
            median(self.own.clone()),
            self.errors
        );
    }
}

/// Measures and prints.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let lictor = flags.common.lictor()?;
    let directory = flags.common.directory()?;
    heading(&lictor);
    let before = disk::sync_time(directory.path())?;
    let cluster = Cluster::start(&lictor, directory.path())?;
    let leader = cluster.leader()?;
    let follower = (leader + 1) % cluster.servers.len();
    crate::load::fill(Door::Http, &cluster.servers[leader].http(), Kind::Put, KEYS, 1)?;
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..flags.rounds {
        let mut place = 0;
        for connections in [flags.connections as usize, 1] {
            for (at, server) in [("leader", leader), ("follower", follower)] {
                for kind in KINDS {
                    let load = Load {
                        door: Door::Http,
                        address: cluster.servers[server].http(),
                        kind,
                        connections,
                        warm_up: WARM_UP,
                        measured: Duration::from_secs(flags.seconds),
                    };
                    if rows.len() == place {
                        let title = format!("{} at the {at}, {connections} connections", kind.name());
                        rows.push(Row { title, ..Row::default() });
                    }
                    measure(&cluster, &load, &mut rows[place])?;
                    place += 1;
                }
            }
        }
    }
    let after = disk::sync_time(directory.path())?;
    println!(
        "3 servers, {VALUE_BYTES}-byte values, {KEYS} keys, {} rounds of {} s after {WARM_UP:?}; one {:?} before and \
         {:?} after of the disk of {} (append of 512 bytes and fdatasync, p50)",
        flags.rounds,
        flags.seconds,
        before,
        after,
        directory.path().display()
    );
    println!();
    println!(
        "| what | per second: median (least to most) | p50 ms | p99 ms | servers' CPU µs per request | load generator's \
         share of the machine | errors |"
    );
    println!("|---|---|---|---|---|---|---|");
    rows.iter().for_each(Row::print);
    for row in rows.iter().filter(|row| row.errors > 0) {
        println!("first error of {}: {}", row.title, row.first_error.as_deref().unwrap_or("unknown"));
    }
    if cluster.leader()? != leader {
        println!("note: the leader changed while this ran, so the lines do not say who led");
    }
    Ok(())
}

fn measure(cluster: &Cluster, load: &Load, row: &mut Row) -> anyhow::Result<()> {
    let look = || (cluster.processor_time(), processor_time("self"), Instant::now());
    let (outcome, (servers, own, begun)) = load.run(look)?;
    let (servers_after, own_after, now) = look();
    row.add(outcome, servers_after?.saturating_sub(servers?), own_after?.saturating_sub(own?), now - begun);
    Ok(())
}
