//! `lictor operator recover`: a cluster whose quorum is lost for ever goes on from one surviving data directory.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lictor_runtime::{Resolver, SystemClock, SystemRng};
use lictor_server::raft::Holding;
use lictor_server::recover::StoppedServer;
use tokio::net::TcpStream;

use crate::output::{Failure, Output};
use crate::runtime::run_here;

/// How long another server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// From what.
#[derive(Args)]
pub(crate) struct RecoverFlags {
    /// Data directory of a server that is stopped. The first is made the only server; others are only compared with it.
    #[arg(long, value_name = "DIRECTORY", required = true)]
    data_dir: Vec<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(flags: RecoverFlags) -> Result<Output, Failure> {
    let open = |path: &PathBuf| StoppedServer::open(path, &SystemRng).map_err(|error| Failure::of(&error));
    let mut servers = flags.data_dir.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    for (path, server) in flags.data_dir.iter().zip(&servers) {
        // Writing to a text cannot fail.
        let _infallible = writeln!(text, "{}\n{}", path.display(), shown(server.holding()));
    }
    let chosen = servers.remove(0);
    let holding = chosen.holding();
    let answering = run_here(async { Ok(answering(holding).await) })?;
    refuse(&text, &flags.data_dir, holding, &servers, &answering)?;
    let _infallible = write!(text, "{}", plan(holding, &answering));
    if !flags.yes {
        eprint!("{text}\nGo on? Only 'yes' goes on: ");
        let mut answer = String::new();
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || stdin.lock().read_line(&mut answer).is_err() || answer.trim() != "yes" {
            return Err(Failure::new("Nothing was changed. Answer 'yes', or give -yes"));
        }
        text.clear();
    }
    chosen.become_the_only_voter(&SystemClock, &SystemRng).map_err(|error| Failure::of(&error))?;
    text.push_str("\nRecovered. Start this server now; empty the data directories of the others, then start them.\n");
    Ok(Output { bytes: text.into_bytes(), ..Output::default() })
}

fn shown(holding: &Holding) -> String {
    let mut text = format!(
        "  server id:  {}\n  cluster id: {}\n  last entry: term {}, index {}; known as committed up to {}\n  vote:       term {}\n",
        holding.id,
        holding.cluster_id.as_deref().unwrap_or("not known yet"),
        holding.last.0,
        holding.last.1,
        holding.committed,
        holding.vote_term
    );
    let lists = [("voter", &holding.members.voters), ("learner", &holding.members.learners)];
    for (kind, members) in lists {
        for member in members {
            let (name, address) = (&member.server.name, &member.server.address);
            let _infallible = writeln!(text, "  {:<11} {name} at {address} ({})", format!("{kind}:"), member.id);
        }
    }
    text
}

/// Addresses of other voters at which somebody answers.
async fn answering(holding: &Holding) -> Vec<String> {
    let resolver = Resolver::from_system();
    let mut answering = Vec::new();
    for voter in holding.members.voters.iter().filter(|it| it.id != holding.id) {
        let address = &voter.server.address;
        let dial = async {
            let found = resolver.resolve(address).await.ok()?;
            for socket in found {
                if TcpStream::connect(socket).await.is_ok() {
                    return Some(());
                }
            }
            None
        };
        if tokio::time::timeout(ANSWER_LIMIT, dial).await.ok().flatten().is_some() {
            answering.push(address.clone());
        }
    }
    answering
}

fn refuse(
    text: &str,
    paths: &[PathBuf],
    chosen: &Holding,
    others: &[StoppedServer],
    answering: &[String],
) -> Result<(), Failure> {
    let quorum = chosen.members.voters.len() / 2 + 1;
    if answering.len() >= quorum {
        return Err(Failure::new(format!(
            "{text}Nothing was changed: {} of {} voters answer, which is a quorum: start this server, and it catches up",
            answering.len(),
            chosen.members.voters.len()
        )));
    }
    for (path, other) in paths.iter().skip(1).zip(others) {
        let other = other.holding();
        if other.cluster_id != chosen.cluster_id {
            return Err(Failure::new(format!(
                "{text}Nothing was changed: {} is of another cluster: leave it out",
                path.display()
            )));
        }
        if other.last > chosen.last {
            return Err(Failure::new(format!("{text}Nothing was changed: {} is newer: give it first", path.display())));
        }
    }
    Ok(())
}

fn plan(holding: &Holding, answering: &[String]) -> String {
    let mut text = String::from("Plan:\n");
    let own = holding.members.voters.iter().chain(&holding.members.learners).find(|it| it.id == holding.id);
    let name = own.map_or("this server", |it| it.server.name.as_str());
    let _infallible = writeln!(
        text,
        "  1. {name} becomes the only voter, with everything its log holds up to index {}.\n  2. These are removed for \
         ever, and what only they held is lost:",
        holding.last.1
    );
    for member in holding.members.voters.iter().chain(&holding.members.learners).filter(|it| it.id != holding.id) {
        let _infallible = writeln!(text, "       {} at {} ({})", member.server.name, member.server.address, member.id);
    }
    text.push_str("  3. Others join it as new servers, with empty data directories.\n");
    for address in answering {
        let _infallible =
            writeln!(text, "Warning: {address} answers: stop it before you go on, and empty its directory.");
    }
    text
}
