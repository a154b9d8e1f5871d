//! The program that a change runs.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::output::Failure;

/// The shell unless SHELL names another.
const SHELL: &str = "/bin/sh";

/// Runs the program to its end with the view on its standard input.
///
/// # Errors
/// It cannot be started, or ends badly.
pub(super) fn run(program: &[String], shell: bool, index: u64, json: &str) -> Result<(), Failure> {
    let mut command = if shell {
        let mut command = Command::new(std::env::var_os("SHELL").unwrap_or_else(|| SHELL.into()));
        command.arg("-c").arg(program.join(" "));
        command
    } else {
        let mut command = Command::new(program.first().map_or("", String::as_str));
        command.args(program.iter().skip(1));
        command
    };
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |reason: String| Failure::new(format!("Error executing handler: {reason}"));
    let mut child = command
        .env("CONSUL_INDEX", index.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{name}: {error}")))?;
    let input = child.stdin.take();
    // Beside it, for a program may write much before it reads.
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut input) = input
                && let Err(error) = writeln!(input, "{json}")
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                eprintln!("Error writing to the handler: {error}");
            }
        });
        child.wait()
    });
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
