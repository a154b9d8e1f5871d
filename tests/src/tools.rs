//! Running other programs with an end to waiting.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program to its end, its output shown as it comes; ends it after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let words = shown(command);
    println!("    $ {words}");
    let child = command.stdin(Stdio::null()).spawn().map_err(|error| format!("`{words}`: {error}"))?;
    finish(child, limit).map_err(|error| format!("`{words}` {error}"))
}

/// The same, with the output as the result, and as part of the error.
pub fn captured(command: &mut Command, limit: Duration) -> Result<String, String> {
    let words = shown(command);
    // A file and not a pipe: nobody has to read while the program runs.
    let mut file: File = tempfile::tempfile().map_err(|error| error.to_string())?;
    let copy = || file.try_clone().map_err(|error| error.to_string());
    let command = command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
    let child = command.spawn().map_err(|error| format!("`{words}`: {error}"))?;
    let ended = finish(child, limit);
    let mut output = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut output)).map_err(|error| error.to_string())?;
    let output = String::from_utf8_lossy(&output).into_owned();
    ended.map(|()| output.clone()).map_err(|error| format!("`{words}` {error}:\n{output}"))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn finish(mut child: Child, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("ended with {status}")),
            None if Instant::now() >= end => {
                // It may have ended between the two looks.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("was still running after {limit:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
