//! The child that runs under a lock.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{self, SignalKind};

use crate::output::Failure;

/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With 0.
    Well,
    /// With anything else.
    Failed,
}

/// A child that runs; killed if it is dropped while it does.
pub(super) struct Child {
    process: std::process::Child,
    changed: unix::Signal,
    ending: Option<Ending>,
}

impl Child {
    /// Starts `command`, which learns of the lock by `CONSUL_LOCK_HELD` and `LICTOR_FENCING_TOKEN`.
    ///
    /// # Errors
    /// There is no such program, or no process to be had.
    pub(super) fn start(command: &[String], shell: bool, pass_stdin: bool, token: &str) -> Result<Self, Failure> {
        // Before the start, so that the end of a quick child is not missed.
        let changed = unix::signal(SignalKind::child()).map_err(Failure::because("cannot take signals"))?;
        let mut process = match command {
            words if shell => {
                let mut process = Command::new("/bin/sh");
                process.arg("-c").arg(words.join(" "));
                process
            }
            [program, arguments @ ..] => {
                let mut process = Command::new(program);
                process.args(arguments);
                process
            }
            [] => return Err(Failure::new("Key prefix and child command must be specified")),
        };
        process.env("CONSUL_LOCK_HELD", "true").env("LICTOR_FENCING_TOKEN", token);
        process.stdin(if pass_stdin { Stdio::inherit() } else { Stdio::null() });
        let process = process.spawn().map_err(Failure::because("Error executing handler"))?;
        Ok(Self { process, changed, ending: None })
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> Result<Ending, Failure> {
        loop {
            if let Some(ending) = self.ending {
                return Ok(ending);
            }
            match self.process.try_wait().map_err(Failure::because("cannot wait for the child"))? {
                Some(status) => {
                    self.ending = Some(if status.success() { Ending::Well } else { Ending::Failed });
                }
                None => drop(self.changed.recv().await),
            }
        }
    }

    /// Asks it to end, and ends it when it does not.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        // Until it was waited for, its id is nobody else's.
        if self.ending.is_none()
            && let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
        {
            let _gone = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(GRACE, self.ended()).await.is_err() {
            eprintln!("The child does not end within {} s, killing it", GRACE.as_secs());
            self.process.kill().map_err(Failure::because("cannot kill the child"))?;
            self.ended().await?;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ending.is_none() {
            let _gone = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(text: &str) -> Child {
        Child::start(&[text.to_owned()], true, false, "7").unwrap()
    }

    #[tokio::test]
    async fn a_child_ends_well_or_not_and_knows_its_token() {
        assert_eq!(
            start("test \"$CONSUL_LOCK_HELD$LICTOR_FENCING_TOKEN\" = true7").ended().await.unwrap(),
            Ending::Well
        );
        assert_eq!(start("exit 3").ended().await.unwrap(), Ending::Failed);
        assert!(Child::start(&["/nowhere/program".into()], false, false, "").is_err());
    }

    #[tokio::test]
    async fn a_child_is_asked_to_end_before_anything_else() {
        let mut child = start("trap 'exit 0' TERM; while :; do sleep 0.01; done");
        child.end().await.unwrap();
        assert!(child.ending.is_some());
    }
}
