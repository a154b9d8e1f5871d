//! `lictor validate`: whether configuration files would be taken.

use std::path::PathBuf;

use clap::Args;
use lictor_agent::config::{Config, Flags, Host};

use crate::output::{Failure, Output};

/// Which files.
#[derive(Args)]
pub(crate) struct ValidateFlags {
    /// Files and directories, as -config-file and -config-dir take them.
    #[arg(value_name = "FILE_OR_DIRECTORY", required = true)]
    paths: Vec<PathBuf>,
    /// `hcl` or `json` for every file, whatever its extension.
    #[arg(long, value_name = "FORMAT")]
    config_format: Option<String>,
    /// Say nothing when all is well.
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(flags: ValidateFlags) -> Result<Output, Failure> {
    let ValidateFlags { paths: config_paths, config_format, quiet } = flags;
    let sources = Flags { config_paths, config_format, ..Flags::default() };
    let config = Config::load(&sources, &Host::of_this_machine())
        .map_err(|problems| Failure::new(format!("Config validation failed: {problems}")))?;
    let mut output = if quiet { Output::default() } else { Output::line("Configuration is valid!") };
    output.remark = config.warnings.iter().map(|warning| format!("WARNING: {warning}\n")).collect();
    if !quiet {
        let ignored = config.ignored.iter();
        let lines = ignored.map(|it| format!("{}: {} is accepted and ignored: {}\n", it.file, it.key, it.reason));
        output.remark.extend(lines);
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(text: &str) -> Result<Output, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.hcl");
        std::fs::write(&file, text).unwrap();
        run(ValidateFlags { paths: vec![file], config_format: None, quiet: false })
    }

    #[test]
    fn a_good_configuration_is_told_so_and_a_wrong_one_where_it_is_wrong() {
        let good = "data_dir = \"/tmp/x\"\nnode_name = \"a\"\nbind_addr = \"127.0.0.1\"\n";
        assert_eq!(validated(good).unwrap().bytes, b"Configuration is valid!\n");
        let wrong = validated(&format!("{good}datacentr = \"dc1\"\n")).unwrap_err().to_string();
        assert!(wrong.contains("datacentr") && wrong.contains("datacenter"), "{wrong}");
    }
}
