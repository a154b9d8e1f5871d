//! `lictor operator`: the Kubernetes operator and the definitions it watches, and what operators do with raft.

use std::time::Duration;

use clap::{Args, Subcommand};
use lictor_operator::OperatorSettings;
use tokio_util::sync::CancellationToken;

use super::raft::{self, AutopilotCommand, RaftCommand};
use super::recover::{self, RecoverFlags};
use crate::logging::{self, Level};
use crate::output::{Failure, Output};
use crate::runtime::{AGENT_BLOCKING_THREADS, Signals, of_threads, run_here};

/// Workers of the operator: it waits for the API server most of the time.
const WORKERS: usize = 2;
/// How long the operator may take to give its Lease back.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How to run it.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct OperatorFlags {
    #[command(subcommand)]
    command: Option<OperatorCommand>,
    /// How much to log.
    #[arg(long, value_enum, ignore_case = true, default_value = "info")]
    log_level: Level,
    /// Log lines are JSON objects.
    #[arg(long)]
    log_json: bool,
}

/// What else there is.
#[derive(Subcommand)]
enum OperatorCommand {
    /// Shows and changes who is in raft
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Shows and changes how the leader looks after the servers
    #[command(subcommand)]
    Autopilot(AutopilotCommand),
    /// Makes a cluster of one server from the data directory of a survivor, when most servers are lost for ever
    Recover(RecoverFlags),
    /// Prints the custom resource definitions, for kubectl apply --server-side -f -
    Crds,
    /// Counts what the servers hold
    #[command(subcommand)]
    Usage(super::usage::UsageCommand),
}

pub(super) fn run(flags: OperatorFlags) -> Result<Output, Failure> {
    match flags.command {
        Some(OperatorCommand::Crds) => {
            return Ok(Output { bytes: lictor_crds::yaml().into_bytes(), ..Output::default() });
        }
        Some(OperatorCommand::Usage(command)) => return run_here(super::usage::run(command)),
        Some(OperatorCommand::Raft(command)) => return run_here(raft::run_raft(command)),
        Some(OperatorCommand::Autopilot(command)) => return run_here(raft::run_autopilot(command)),
        Some(OperatorCommand::Recover(flags)) => return recover::run(flags),
        None => {}
    }
    let settings = OperatorSettings::from_environment(|name| std::env::var(name).ok())
        .map_err(Failure::because("Error starting the operator"))?;
    logging::begin(flags.log_level, flags.log_json)?;
    let runtime = of_threads(Some(WORKERS), AGENT_BLOCKING_THREADS)?;
    let result = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(settings: OperatorSettings) -> Result<Output, Failure> {
    let mut signals = Signals::take()?;
    let shutdown = CancellationToken::new();
    let running = lictor_operator::run(settings, shutdown.clone());
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        stop = signals.stop() => {
            tracing::info!(?stop, "the operator stops");
            shutdown.cancel();
            // Cut off it loses nothing: another replica takes over when the Lease ends.
            tokio::time::timeout(STOP_LIMIT, running).await.unwrap_or(Ok(()))
        }
    };
    ended.map(|()| Output::default()).map_err(|error| Failure::of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_printed_as_they_are_committed() {
        let flags = OperatorFlags { command: Some(OperatorCommand::Crds), log_level: Level::Info, log_json: false };
        assert_eq!(run(flags).unwrap().bytes, lictor_crds::yaml().into_bytes());
    }
}
