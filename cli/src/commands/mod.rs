//! The commands, one file per noun.

mod agent;
mod catalog;
mod completion;
mod config;
mod connect;
mod debug;
mod event;
mod info;
mod intention;
mod join_token;
mod keygen;
mod keyring;
mod kv;
mod lock;
mod maint;
mod members;
mod membership;
mod monitor;
mod operator;
mod raft;
mod recover;
mod rtt;
mod seal_key;
mod services;
mod session;
mod sidecar;
mod snapshot;
mod tls;
mod usage;
mod validate;
mod version;
mod watch;

use clap::Subcommand;

use crate::output::{Failure, Output};
use crate::runtime::run_here;

/// Every command.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs an agent, client or server
    Agent(Box<agent::AgentFlags>),
    /// Lists nodes, services and datacenters of the catalog
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Prints what a shell needs to complete commands and flags
    Completion(completion::CompletionFlags),
    /// Reads and writes config entries
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Shows the mesh
    #[command(subcommand)]
    Connect(connect::ConnectCommand),
    /// Captures what helps to find out what is wrong with an agent, in one archive
    Debug(debug::DebugFlags),
    /// Runs a whole datacenter on this machine, to try things out
    Dev(crate::dev::DevFlags),
    /// Sends a user event
    Event(event::EventFlags),
    /// Counts a member that has failed as left
    ForceLeave(membership::ForceLeaveFlags),
    /// Shows figures of an agent
    Info(info::InfoFlags),
    /// Says which service may call which
    #[command(subcommand)]
    Intention(intention::IntentionCommand),
    /// Confirms that an agent has joined a member
    Join(membership::JoinFlags),
    /// Makes proofs for the first certificate of clients and sidecars
    #[command(subcommand)]
    JoinToken(join_token::JoinTokenCommand),
    /// Makes a gossip key
    Keygen,
    /// Lists, installs, uses and removes keys of gossip
    Keyring(keyring::KeyringFlags),
    /// Reads and writes the key/value store
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Runs a child for as long as a lock is held
    Lock(lock::LockFlags),
    /// Writes the manual, one page for every command
    Man(completion::ManFlags),
    /// Makes an agent leave its cluster and stop
    Leave(membership::AgentOnlyFlags),
    /// Takes a node or a service out of use, and back
    Maint(maint::MaintFlags),
    /// Lists the members of a cluster
    Members(members::MembersFlags),
    /// Shows the log of an agent as it is written
    Monitor(monitor::MonitorFlags),
    /// Runs the Kubernetes operator, or looks after the servers of raft
    Operator(operator::OperatorFlags),
    /// Estimates the round-trip time between two nodes
    Rtt(rtt::RttFlags),
    /// Makes an agent read its configuration again
    Reload(membership::AgentOnlyFlags),
    /// Makes the key that secrets in the servers' state are sealed with
    #[command(subcommand)]
    SealKey(seal_key::SealKeyCommand),
    /// Registers and deregisters services with an agent
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// Makes, renews and ends sessions, which hold locks
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Runs the agent and proxy beside an application
    Sidecar(Box<sidecar::SidecarFlags>),
    /// Saves, restores and inspects the state of the servers
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Makes the servers' CA and their certificates
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// Checks configuration files
    Validate(validate::ValidateFlags),
    /// Shows the version
    Version(version::VersionFlags),
    /// Shows a view of the datacenter, or runs a program at every change of it
    Watch(Box<watch::WatchFlags>),
}

/// Runs a command to its end.
///
/// # Errors
/// It did not do its work.
pub(crate) fn run(command: Command, called_consul: bool) -> Result<Output, Failure> {
    match command {
        Command::Agent(flags) => agent::run(*flags),
        Command::Catalog(command) => run_here(catalog::run(command)),
        Command::Completion(flags) => completion::completion(&flags),
        Command::Config(command) => run_here(config::run(command)),
        Command::Connect(command) => run_here(connect::run(command)),
        Command::Debug(flags) => run_here(debug::run(flags)),
        Command::Dev(flags) => crate::dev::run(flags),
        Command::Event(flags) => run_here(event::run(flags)),
        Command::ForceLeave(flags) => run_here(membership::force_leave(flags)),
        Command::Info(flags) => run_here(info::run(flags)),
        Command::Intention(command) => run_here(intention::run(command)),
        Command::Join(flags) => run_here(membership::join(flags)),
        Command::JoinToken(command) => run_here(join_token::run(command)),
        Command::Keygen => keygen::run(),
        Command::Keyring(flags) => run_here(keyring::run(flags)),
        Command::Kv(command) => run_here(kv::run(command)),
        Command::Lock(flags) => run_here(lock::run(flags)),
        Command::Man(flags) => completion::man(&flags),
        Command::Leave(flags) => run_here(membership::leave(flags)),
        Command::Maint(flags) => run_here(maint::run(flags)),
        Command::Members(flags) => run_here(members::run(flags)),
        Command::Monitor(flags) => run_here(monitor::run(flags)),
        Command::Operator(flags) => operator::run(flags),
        Command::Rtt(flags) => run_here(rtt::run(flags)),
        Command::Reload(flags) => run_here(membership::reload(flags)),
        Command::SealKey(command) => seal_key::run(command),
        Command::Services(command) => run_here(services::run(command)),
        Command::Session(command) => run_here(session::run(command)),
        Command::Sidecar(flags) => sidecar::run(*flags),
        Command::Snapshot(command) => run_here(snapshot::run(command)),
        Command::Tls(command) => tls::run(command),
        Command::Validate(flags) => validate::run(flags),
        Command::Version(flags) => version::run(&flags, called_consul),
        Command::Watch(flags) => run_here(watch::run(*flags)),
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Pretty,
    /// For programs.
    Json,
}

/// Reads `key=value`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".into()),
    }
}

#[cfg(test)]
mod fake;
