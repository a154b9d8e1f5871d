//! Running a program of a check: in a process group of its own, with bounded output, ended as one.
//!
//! Invariants
//! - When the future is dropped, the whole group is killed; every process is waited for, so none stays a zombie.
//! - The end of the program is the end of the run: something it left behind that holds its output open is not waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 4096;

/// Killed processes that had not ended when they were looked at last; the next run looks again.
static ENDING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// What became of a program.
#[derive(Debug)]
pub(super) struct Ended {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// The end of what it said, on both of its outputs.
    pub(super) output: Tail,
}

/// The end of a text that may be long.
#[derive(Debug, Default)]
pub(super) struct Tail {
    limit: usize,
    total: usize,
    bytes: Vec<u8>,
}

impl Tail {
    /// Keeps `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// There is more of it.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(self.limit)..]);
        let over = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..over);
    }

    /// The text, which says so if its beginning is missing.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.total > self.bytes.len() {
            return format!("Captured {} of {} bytes\n...\n{text}", self.bytes.len(), self.total);
        }
        text.into_owned()
    }
}

/// A program that runs. Dropping it kills it and all that it started in its group.
struct Running(Option<Child>);

impl Running {
    /// The program has ended: takes its status, which is there already.
    fn ended(mut self) -> io::Result<ExitStatus> {
        self.0.take().map_or_else(|| Err(io::Error::other("it was waited for already")), |mut child| child.wait())
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.0.as_ref()?.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.group();
        let Some(mut child) = self.0.take() else { return };
        if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
            tracing::debug!(%error, "the processes of a check cannot be killed");
        }
        if !matches!(child.try_wait(), Ok(Some(_))) {
            ENDING.lock().push(child);
        }
    }
}

/// Runs a program with `arguments`, the first of which names it. Keeps `kept` bytes of its output.
pub(super) async fn run(arguments: &[String], kept: usize) -> Result<Ended, String> {
    ENDING.lock().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    let program = arguments.first().cloned().unwrap_or_default();
    let failed = |error: io::Error| format!("cannot run {program:?}: {error}");
    let arguments = arguments.to_vec();
    // Starting a process waits for the disk that its program lies on.
    let started = tokio::task::spawn_blocking(move || start(&arguments)).await;
    let (running, output) = started.map_err(io::Error::other).and_then(|started| started).map_err(failed)?;
    let group = running.group().ok_or_else(|| format!("{program:?} has no process id"))?;
    let end = pidfd_open(group, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe; what is given to it here owns its descriptor, as that one asks"
    )]
    let end = AsyncFd::with_interest(end, Interest::READABLE).map_err(failed)?;
    let mut output = pipe::Receiver::from_owned_fd(output).map_err(failed)?;
    let mut tail = Tail::new(kept);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            read = output.read(&mut chunk), if open => match read.map_err(failed)? {
                0 => open = false,
                length => tail.push(&chunk[..length]),
            },
            ended = end.readable() => {
                ended.map_err(failed)?.retain_ready();
                break;
            }
        }
    }
    while open {
        match output.try_read(&mut chunk) {
            Ok(0) | Err(_) => open = false,
            Ok(length) => tail.push(&chunk[..length]),
        }
    }
    Ok(Ended { status: running.ended().map_err(failed)?, output: tail })
}

fn start(arguments: &[String]) -> io::Result<(Running, OwnedFd)> {
    let Some((program, rest)) = arguments.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    };
    let (reader, writer) = io::pipe()?;
    let child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((Running(Some(child)), reader.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn both_outputs_and_the_code_are_told() {
        let ended = run(&shell("echo one; echo two >&2; exit 3"), 100).await.unwrap();
        assert_eq!((ended.status.code(), ended.output.text().as_str()), (Some(3), "one\ntwo\n"));
    }

    #[tokio::test]
    async fn the_end_of_a_long_output_is_kept() {
        let ended = run(&shell("head -c 100000 /dev/zero | tr '\\0' x; echo end"), 10).await.unwrap();
        assert_eq!(ended.output.text(), "Captured 10 of 100004 bytes\n...\nxxxxxxend\n");
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_is_not_waited_for() {
        let ended = tokio::time::timeout(Duration::from_secs(20), run(&shell("sleep 60 & echo done"), 100)).await;
        assert_eq!(ended.unwrap().unwrap().output.text(), "done\n");
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_takes_its_whole_group_along() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        // The child of the shell is in its group.
        let script = format!("sleep 300 & echo $$ $! > {}.new; mv {0}.new {0}; wait", file.display());
        let arguments = shell(&script);
        tokio::select! {
            ended = run(&arguments, 100) => panic!("it ended: {ended:?}"),
            () = async { while !file.exists() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
        let pids = std::fs::read_to_string(&file).unwrap();
        let gone = |pid: &str| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(_) => true,
            // Dead already, only not yet waited for by whoever inherited it.
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !pids.split_whitespace().all(gone) {
            assert!(tokio::time::Instant::now() < deadline, "something of {pids} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let problem = run(&["/no/such/program".into()], 100).await.unwrap_err();
        assert!(problem.contains("/no/such/program"), "{problem}");
    }

    #[test]
    fn no_output_of_a_program_outgrows_its_limit() {
        use crate::testing::{random_bytes, random_cases};
        random_cases(5_000, |rng| {
            let limit = rng.below(200) as usize;
            let mut tail = Tail::new(limit);
            let mut all = Vec::new();
            for _ in 0..rng.below(6) {
                let piece = random_bytes(rng, 150);
                tail.push(&piece);
                all.extend_from_slice(&piece);
            }
            assert_eq!(tail.bytes, all[all.len().saturating_sub(limit)..]);
            assert_eq!(tail.text().starts_with("Captured "), all.len() > limit);
        });
    }

    /// The first bytes say where the output is cut into the pieces that it comes in, and how much is kept.
    #[test]
    fn fuzz_outputs() {
        use lictor_fuzz::{Target, outcome};
        let seeds = vec![
            b"\x04\x10all is well\n".to_vec(),
            b"\x01\x03\xc3\xa9\xe2\x82\xac\xf0\x9f\x92\xa9".to_vec(),
            b"\x20\x80DISK CRITICAL - free space: / 3326 MB (5%)|/=2643MB;5948;5958;0;5968\r\n\0\x1b[31m".to_vec(),
        ];
        let words: &[&[u8]] = &[b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x92\xa9", b"\xff", b"\n", b"\0", b"Captured "];
        let target = Target { name: "check-outputs", seeds, words, cases: 20_000 };
        target.run(|bytes| {
            let [step, limit, output @ ..] = bytes else { return 0 };
            let (step, limit) = (usize::from(*step).max(1), usize::from(*limit));
            let mut tail = Tail::new(limit);
            output.chunks(step).for_each(|piece| tail.push(piece));
            assert_eq!(tail.bytes, output[output.len().saturating_sub(limit)..], "not the end of what was said");
            let text = tail.text();
            let is_cut = output.len() > limit;
            assert_eq!(
                text.starts_with("Captured ") && !output.starts_with(b"Captured "),
                is_cut && !output.starts_with(b"Captured ")
            );
            // Each byte that is no text becomes three bytes of a sign for that, and a line says what is missing.
            assert!(text.len() <= 3 * limit.min(output.len()) + 100, "{} bytes of text", text.len());
            outcome((is_cut, text.contains('\u{fffd}'), output.len() % step == 0, limit == 0, output.is_empty()))
        });
    }
}
