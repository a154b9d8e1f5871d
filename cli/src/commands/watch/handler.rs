//! The program that a change runs.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::output::Failure;

/// The shell unless SHELL names another.
const SHELL: &str = "/bin/sh";
/// Bytes of what a program says that are kept.
const OUTPUT_BYTES_MAX: u64 = 4096;
/// Between two looks whether a program has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Runs the program to its end with the view on its standard input; what it says goes where ours does.
///
/// # Errors
/// It cannot be started, or ends badly.
pub(super) fn run(program: &[String], shell: bool, index: u64, json: &str) -> Result<(), Failure> {
    let (mut child, name) = start(command(program, shell), index)?;
    // Beside it, for a program may write much before it reads.
    let ended = std::thread::scope(|scope| {
        let input = child.stdin.take();
        scope.spawn(move || feed(input, json));
        child.wait()
    });
    judge(ended, &name)
}

/// The same for an agent: the program is killed after `limit`; the beginning of what it says is returned.
///
/// # Errors
/// It cannot be started, ends badly or not in time; with what it said.
pub(super) fn run_quietly(
    program: &[String],
    shell: bool,
    index: u64,
    json: &str,
    limit: Duration,
) -> Result<String, Failure> {
    let mut command = command(program, shell);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, name) = start(command, index)?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (ended, said) = std::thread::scope(|scope| {
        scope.spawn(move || feed(input, json));
        let output = scope.spawn(move || beginning(output));
        let errors = scope.spawn(move || beginning(errors));
        let ended = wait(&mut child, limit);
        let said = [output, errors].map(|reader| reader.join().unwrap_or_default());
        (ended, said.concat())
    });
    match judge(ended, &name) {
        Ok(()) => Ok(said),
        Err(failure) => Err(Failure::new(format!("{failure}: {}", said.trim()))),
    }
}

fn command(program: &[String], shell: bool) -> Command {
    if shell {
        let mut command = Command::new(std::env::var_os("SHELL").unwrap_or_else(|| SHELL.into()));
        command.arg("-c").arg(program.join(" "));
        return command;
    }
    let mut command = Command::new(program.first().map_or("", String::as_str));
    command.args(program.iter().skip(1));
    command
}

fn start(mut command: Command, index: u64) -> Result<(Child, String), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.env("CONSUL_INDEX", index.to_string()).stdin(Stdio::piped()).spawn();
    let child = child.map_err(|error| failed(format!("{name}: {error}")))?;
    Ok((child, name))
}

fn feed(input: Option<impl Write>, json: &str) {
    if let Some(mut input) = input
        && let Err(error) = writeln!(input, "{json}")
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tracing::warn!(%error, "cannot write to the handler of a watch");
    }
}

/// The beginning of what is read; the rest is read and forgotten, so that the program is not held up.
fn beginning(output: Option<impl Read>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut kept = Vec::new();
    // What cannot be read is not kept.
    let _ = output.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut kept);
    let _ = std::io::copy(&mut output, &mut std::io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<ExitStatus> {
    let mut left = limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if left.is_zero() {
            child.kill()?;
            return child.wait();
        }
        let pause = left.min(LOOK_PAUSE);
        std::thread::sleep(pause);
        left -= pause;
    }
}

fn judge(ended: std::io::Result<ExitStatus>, name: &str) -> Result<(), Failure> {
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(format!("{name}: {error}"))),
    }
}

fn failed(reason: String) -> Failure {
    Failure::new(format!("Error executing handler: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quietly(script: &str, limit: Duration) -> Result<String, String> {
        let program = ["/bin/sh", "-c", script].map(str::to_owned);
        run_quietly(&program, false, 7, "[1]", limit).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_program_of_an_agent_says_what_it_says_and_ends_in_time() {
        let said = quietly("cat; echo $CONSUL_INDEX; echo odd >&2", Duration::from_secs(30)).unwrap();
        assert_eq!(said, "[1]\n7\nodd\n");
        let failed = quietly("echo why; exit 3", Duration::from_secs(30)).unwrap_err();
        assert_eq!(failed, "Error executing handler: exit status: 3: why");
        let late = quietly("exec sleep 600", Duration::from_millis(100)).unwrap_err();
        assert!(late.contains("signal: 9"), "{late}");
        let much = quietly("yes | head -c 1000000", Duration::from_secs(30)).unwrap();
        assert_eq!(much.len() as u64, OUTPUT_BYTES_MAX);
    }
}
