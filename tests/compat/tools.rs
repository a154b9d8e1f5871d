//! Running other programs with an end to waiting.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a program to its end, its output shown as it comes; ends it after `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    println!("    $ {shown}");
    let mut child =
        command.stdin(std::process::Stdio::null()).spawn().map_err(|error| format!("`{shown}`: {error}"))?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| format!("`{shown}`: {error}"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("`{shown}` ended with {status}")),
            None if Instant::now() >= end => {
                // It may have ended between the two looks.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{shown}` was still running after {limit:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
