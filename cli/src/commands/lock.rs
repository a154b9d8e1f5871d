//! `lictor lock`: runs a child for as long as a lock, or a seat of a semaphore, is held.
//!
//! Invariants
//! - The child runs only while the lock was held at the last look; when it is lost the child is ended.
//! - However it ends, short of SIGKILL, the child is gone before the lock is given back.

mod child;
mod seat;

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::runtime::Signals;
use child::{Child, Ending};
use seat::Seat;

/// The exit code for a child that failed, with `-child-exit-code`.
const CHILD_FAILED: u8 = 2;

/// Under which lock to run what.
#[derive(Args)]
pub(crate) struct LockFlags {
    /// Exit with 2 when the child failed.
    #[arg(long)]
    child_exit_code: bool,
    /// How often a failed look at the lock is tried again before it counts as lost.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    monitor_retry: u32,
    /// How many may hold it at once; from 2 on it is a semaphore.
    #[arg(long = "n", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// A name for the session.
    #[arg(long, default_value = "")]
    name: String,
    /// The child reads our standard input.
    #[arg(long)]
    pass_stdin: bool,
    /// Run the child by a shell.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    shell: bool,
    /// Give up when the lock cannot be had within this time.
    #[arg(long = "try", value_name = "DURATION", value_parser = lictor_types::duration::parse)]
    within: Option<Duration>,
    /// The same, and 0s waits for ever; with `-try` the shorter of both.
    #[arg(long, value_name = "DURATION", value_parser = lictor_types::duration::parse)]
    timeout: Option<Duration>,
    /// Say what is done.
    #[arg(long)]
    verbose: bool,
    /// Prefix of the keys, then the child and its arguments.
    #[arg(value_name = "PREFIX CHILD", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
    #[command(flatten)]
    api: ApiFlags,
}

impl LockFlags {
    /// How long the lock is waited for; none for ever.
    fn longest_wait(&self) -> Option<Duration> {
        let timeout = self.timeout.filter(|timeout| !timeout.is_zero());
        self.within.into_iter().chain(timeout).min()
    }
}

pub(super) async fn run(flags: LockFlags) -> Result<Output, Failure> {
    let (prefix, command) = match flags.words.split_first() {
        Some((prefix, command)) if !command.is_empty() => (prefix.trim_matches('/').to_owned(), command),
        _ => return Err(Failure::new("Key prefix and child command must be specified")),
    };
    if prefix.is_empty() {
        return Err(Failure::new("Key prefix must not be empty"));
    }
    let say = |text: &str| {
        if flags.verbose {
            eprintln!("{text}");
        }
    };
    let api = Api::connect(&flags.api)?;
    let mut signals = Signals::take()?;
    let name = if flags.name.is_empty() {
        format!("Lictor lock for '{}' at '{prefix}'", command.join(" "))
    } else {
        flags.name.clone()
    };
    say(&format!("Setting up the lock at {prefix}"));
    let seat = Seat::open(api, &prefix, flags.limit, &name).await.map_err(Failure::because("Lock setup failed"))?;
    let deadline = flags.longest_wait().map(|wait| Instant::now() + wait);
    say("Attempting lock acquisition");
    let taken = tokio::select! {
        taken = seat.take(deadline) => taken,
        _ = signals.stop() => Ok(None),
    };
    let token = match taken {
        Ok(Some(token)) => token,
        Ok(None) => {
            seat.close().await;
            return Err(Failure::new("Shutdown triggered or timeout during lock acquisition"));
        }
        Err(failure) => {
            seat.close().await;
            return Err(Failure::because("Lock acquisition failed")(failure));
        }
    };
    say("Starting handler");
    let ending = run_child(&flags, command, &token, &seat, &mut signals, &say).await;
    say("Cleaning up");
    seat.close().await;
    match ending? {
        Ending::Failed if flags.child_exit_code => Ok(Output::default().with_code(CHILD_FAILED)),
        Ending::Well | Ending::Failed => Ok(Output::default()),
    }
}

async fn run_child(
    flags: &LockFlags,
    command: &[String],
    token: &str,
    seat: &Seat,
    signals: &mut Signals,
    say: &impl Fn(&str),
) -> Result<Ending, Failure> {
    let mut child = Child::start(command, flags.shell, flags.pass_stdin, token)?;
    let ended = tokio::select! {
        ending = child.ended() => return ending,
        lost = seat.watch(flags.monitor_retry) => Some(lost),
        _ = signals.stop() => None,
    };
    match &ended {
        Some(why) => eprintln!("Lock lost, killing child: {why}"),
        None => say("Shutdown triggered, killing child"),
    }
    child.end().await?;
    match ended {
        Some(why) => Err(Failure::new(format!("Lock lost: {why}"))),
        None => Ok(Ending::Well),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Whole {
        #[command(flatten)]
        flags: LockFlags,
    }

    #[test]
    fn the_shorter_of_both_limits_counts_and_zero_waits_for_ever() {
        let wait = |words: &[&str]| {
            let words = ["lock"].iter().chain(words).chain(&["p", "true"]);
            Whole::parse_from(words).flags.longest_wait()
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--timeout=0s"]), None);
        assert_eq!(wait(&["--timeout=3s"]), Some(Duration::from_secs(3)));
        assert_eq!(wait(&["--timeout=3s", "--try=1m"]), Some(Duration::from_secs(3)));
        assert_eq!(wait(&["--timeout=0s", "--try=2s"]), Some(Duration::from_secs(2)));
    }
}
