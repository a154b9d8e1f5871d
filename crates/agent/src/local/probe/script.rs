//! A check that has a program run: 0 passes, 1 warns, anything else is critical.

use lictor_types::CheckStatus;

use super::{Finding, process};

pub(super) async fn run(arguments: &[String], kept: usize) -> Result<Finding, String> {
    let ended = process::run(arguments, kept).await?;
    let output = ended.output.text();
    Ok(match ended.status.code() {
        Some(code) => (health_of(code.into()), output),
        // A signal ended it.
        None => (CheckStatus::Critical, format!("{}: {output}", ended.status)),
    })
}

/// The health that a program's exit code tells.
pub(super) fn health_of(code: i64) -> CheckStatus {
    match code {
        0 => CheckStatus::Passing,
        1 => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lictor_runtime::Resolver;

    use super::*;
    use crate::local::definition::CheckDefinition;
    use crate::local::probe::Probe;

    #[tokio::test]
    async fn the_exit_code_decides_and_the_time_is_limited() {
        let resolver = Resolver::from_system();
        for (script, limit, expected) in [
            ("echo fine", 20_000, (CheckStatus::Passing, "fine\n")),
            ("echo slow; exit 1", 20_000, (CheckStatus::Warning, "slow\n")),
            ("exit 2", 20_000, (CheckStatus::Critical, "")),
            ("kill -9 $$", 20_000, (CheckStatus::Critical, "signal: 9 (SIGKILL): ")),
            ("sleep 60", 100, (CheckStatus::Critical, "Timed out (100ms) running check")),
        ] {
            let script_args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
            let probe = Probe::of(&CheckDefinition { script_args, ..CheckDefinition::default() }).unwrap();
            let (status, output) = probe.run(&resolver, Duration::from_millis(limit), 100).await;
            assert_eq!((status, output.as_str()), expected, "{script}");
        }
    }
}
