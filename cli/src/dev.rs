//! `lictor dev`: a whole datacenter on this machine, in this process.
//!
//! ```text
//!  curl, dig ──> client agent ──RPC over mTLS──> 3 servers (raft)
//!                                                    ^
//!                              ┌─────login, RPC──────┴───────────────┐
//!       curl ──> web ──> its sidecar ════════ mutual TLS ════════ its sidecar ──> api
//! ```
//!
//! Invariants
//! - Everything is started by the code that `lictor agent` and `lictor sidecar` run; nothing stands in for anything.
//! - Nothing outside its data directory is read or written: not the user's certificates, not the user's state.
//! - It listens on loopback only.

mod datacenter;
mod home;
mod plan;
mod sample;
mod screen;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use lictor_runtime::{Resolver, SystemClock, SystemRng};
use lictor_server::boot::ServerDeps;

use crate::logging::{self, Level};
use crate::output::{Failure, Output};
use crate::runtime::{AGENT_BLOCKING_THREADS, Signals, of_threads};
use datacenter::Datacenter;
use home::Home;
use plan::{PORT_OFFSET_MAX, Plan};

/// How long everything together may take to be ready; on an idle machine it takes two seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How to run it.
#[derive(Args)]
pub(crate) struct DevFlags {
    /// Where the data is kept; without one in a temporary directory that goes with the process.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Added to every port, so that several can run side by side.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=PORT_OFFSET_MAX))]
    port_offset: u16,
    /// Port of the client agent's HTTP API; 8500 and the offset without one.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
    /// Port of the client agent's DNS; 8600 and the offset without one.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: Option<u16>,
    /// How much to log.
    #[arg(long, value_enum, ignore_case = true, default_value = "warn")]
    log_level: Level,
}

/// Where everything of `lictor dev` listens on `port`.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Runs it until Ctrl-C.
///
/// # Errors
/// It did not start, or a part of it cannot go on.
pub(crate) fn run(flags: DevFlags) -> Result<Output, Failure> {
    let begun = Instant::now();
    let plan = Plan::new(flags.port_offset, flags.http_port, flags.dns_port);
    plan.check()?;
    logging::begin_beside_text(flags.log_level)?;
    let runtime = of_threads(None, AGENT_BLOCKING_THREADS)?;
    let home = Home::open(flags.data_dir, flags.port_offset, &SystemRng)?;
    let result = runtime.block_on(serve(&plan, &home, begun));
    runtime.shutdown_timeout(Duration::from_secs(1));
    // Only now: until the runtime has ended, something could still write there.
    let left = home.leave();
    result.and(left)
}

async fn serve(plan: &Plan, home: &Home, begun: Instant) -> Result<Output, Failure> {
    let mut signals = Signals::take()?;
    let deps = ServerDeps {
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
        resolver: Resolver::from_system(),
        state_base: Some(home.certificates()),
    };
    say(&screen::starting());
    let mut datacenter = Datacenter::new(deps);
    let started = tokio::select! {
        started = tokio::time::timeout(START_LIMIT, datacenter.start(plan, home)) => {
            started.unwrap_or_else(|_| {
                let waiting = datacenter.stage();
                Err(Failure::new(format!("not ready within {} s; still {waiting}", START_LIMIT.as_secs())))
            })
        }
        _ = signals.stop() => {
            datacenter.stop().await;
            return Ok(Output::default());
        }
    };
    let result = match started {
        Ok(found) => {
            say(&screen::ready(plan, home, &found, begun.elapsed()));
            tokio::select! {
                _ = signals.stop() => {
                    say("\nStopping ...\n");
                    Ok(())
                }
                trouble = datacenter.trouble() => Err(Failure::new(trouble)),
            }
        }
        Err(failure) => Err(failure),
    };
    let stopping = Instant::now();
    tokio::select! {
        () = datacenter.stop() => {}
        _ = signals.stop() => tracing::warn!("a second signal: everything ends at once"),
    }
    result?;
    say(&format!("Stopped in {:.1} s.\n", stopping.elapsed().as_secs_f64()));
    Ok(Output::default())
}

/// Shows text at once.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is no reason to stop the datacenter.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
