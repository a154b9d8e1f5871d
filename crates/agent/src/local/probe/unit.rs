//! A check of a unit of the machine's service manager, systemd, by its own program.

use lictor_types::CheckStatus;

use super::{Finding, process};

/// What asks systemd.
const PROGRAM: &str = "systemctl";
/// Bytes of its answer that are read.
const ANSWER_BYTES_MAX: usize = 1024;

pub(super) async fn run(unit: &str) -> Result<Finding, String> {
    let arguments = [PROGRAM, "show", "--property=LoadState,ActiveState,SubState", "--", unit].map(str::to_owned);
    let ended = process::run(&arguments, ANSWER_BYTES_MAX).await?;
    if !ended.status.success() {
        return Err(format!("{PROGRAM} cannot tell of {unit}: {}", ended.output.text().trim()));
    }
    Ok(health_of(unit, &ended.output.text()))
}

/// The health that the properties of a unit tell.
fn health_of(unit: &str, properties: &str) -> Finding {
    let property =
        |name: &str| properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let (loaded, active, sub) = (property("LoadState"), property("ActiveState"), property("SubState"));
    if loaded != "loaded" {
        return (CheckStatus::Critical, format!("Service \"{unit}\" is not loaded: {loaded}"));
    }
    let (status, word) = match active {
        "active" | "reloading" => (CheckStatus::Passing, "healthy"),
        "activating" | "deactivating" | "maintenance" => (CheckStatus::Warning, "in between"),
        _ => (CheckStatus::Critical, "not running"),
    };
    (status, format!("Service \"{unit}\" is {word}: {active} ({sub})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use CheckStatus::{Critical, Passing, Warning};

    #[test]
    fn the_state_of_a_unit_decides() {
        for (properties, status) in [
            ("LoadState=loaded\nActiveState=active\nSubState=running\n", Passing),
            ("LoadState=loaded\nActiveState=activating\nSubState=start\n", Warning),
            ("LoadState=loaded\nActiveState=failed\nSubState=failed\n", Critical),
            ("LoadState=not-found\nActiveState=inactive\nSubState=dead\n", Critical),
            ("", Critical),
        ] {
            assert_eq!(health_of("web.service", properties).0, status, "{properties}");
        }
    }
}
