//! `lictor version`: who we are, and whom we speak like.

use clap::Args;
use lictor_agent::agent::{CONSUL_VERSION, LICTOR_VERSION};
use serde_json::json;

use super::Format;
use crate::output::{Failure, Output};

/// Consul's clients want a date here. The same sources give the same binary, so there is none to tell: this is what a
/// Consul that was built without one says.
const BUILD_DATE: &str = "1970-01-01T00:00:01Z";

/// How to show it.
#[derive(Args)]
pub(crate) struct VersionFlags {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(flags: &VersionFlags, called_consul: bool) -> Result<Output, Failure> {
    if flags.format == Format::Json {
        let version = json!({
            "Version": CONSUL_VERSION,
            "Revision": "",
            "Prerelease": "",
            "BuildDate": BUILD_DATE,
            "RPC": { "Default": 2, "Min": 2, "Max": 3 },
        });
        return Output::json(&version, 3);
    }
    let (own, spoken) = (format!("Lictor v{LICTOR_VERSION}"), format!("Consul v{CONSUL_VERSION}"));
    // Scripts that call `consul` read its version from the first line.
    Ok(Output::lines(if called_consul { [spoken, own] } else { [own, format!("Compatible with {spoken}")] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: Format, called_consul: bool) -> String {
        String::from_utf8(run(&VersionFlags { format }, called_consul).unwrap().bytes).unwrap()
    }

    #[test]
    fn the_first_line_is_the_name_we_were_called_by() {
        assert!(shown(Format::Pretty, true).starts_with("Consul v1.21.4\nLictor v"));
        assert!(shown(Format::Pretty, false).starts_with("Lictor v"));
        assert!(shown(Format::Pretty, false).ends_with("\nCompatible with Consul v1.21.4\n"));
    }

    #[test]
    fn programs_read_consuls_version() {
        let version: serde_json::Value = serde_json::from_str(&shown(Format::Json, false)).unwrap();
        assert_eq!(version["Version"], "1.21.4");
        for key in ["Revision", "Prerelease", "BuildDate"] {
            assert!(version[key].is_string(), "{key}");
        }
    }
}
