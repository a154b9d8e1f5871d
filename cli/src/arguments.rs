//! Arguments as Consul's users write them, turned into what our parser takes.
//!
//! Go programs write long flags with one dash and give a flag's value after `=` or as the next argument, whatever it
//! looks like. Our parser wants two dashes; so every flag is rewritten before it, and every text it has to say is
//! written back.
//!
//! Invariants
//! - What follows `--` is left alone, as are values, single letters and negative numbers.
//! - An unknown flag or command is an error, with the nearest known one where one is near.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use crate::commands;

/// The line that begins every help.
const SYNOPSIS: &str =
    "Service networking that speaks Consul's interfaces: agent, sidecar, operator, and its command line.";

#[derive(clap::Parser)]
#[command(name = "lictor", about = SYNOPSIS, disable_version_flag = true, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true, args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

/// What the arguments ask for.
pub(crate) enum Parsed {
    /// To run a command.
    Command {
        /// Which.
        command: Box<commands::Command>,
        /// The program was called by the name `consul`.
        called_consul: bool,
    },
    /// To explain.
    Help(String),
    /// Nothing that is known.
    Wrong(String),
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: Vec<OsString>) -> Parsed {
    let mut root = Arguments::command();
    root.build();
    let called_consul =
        arguments.first().and_then(|name| std::path::Path::new(name).file_name()).is_some_and(|name| name == "consul");
    let normal = normalise(&root, arguments);
    match root.try_get_matches_from(normal).and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(Arguments { command }) => Parsed::Command { command: Box::new(command), called_consul },
        Err(error) => {
            let text = single_dashed(&error.render().to_string());
            match error.kind() {
                ErrorKind::DisplayHelp => Parsed::Help(text),
                _ => Parsed::Wrong(text),
            }
        }
    }
}

/// Every command and flag.
pub(crate) fn definitions() -> Command {
    Arguments::command()
}

/// Rewrites every flag to two dashes, with its value behind `=`.
fn normalise(root: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = root;
    let mut normal = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.into_iter();
    normal.extend(arguments.next());
    let mut past_commands = false;
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str().filter(|text| text.len() > 1 && text.starts_with('-')) else {
            match argument.to_str().and_then(|text| command.find_subcommand(text)).filter(|_| !past_commands) {
                Some(found) => command = found,
                // What runs under a command has flags of its own: from its first word on nothing is ours.
                None if command.get_positionals().any(clap::Arg::is_trailing_var_arg_set) => {
                    normal.push("--".into());
                    normal.push(argument);
                    break;
                }
                None => past_commands = true,
            }
            normal.push(argument);
            continue;
        };
        if text == "--" {
            normal.push(argument);
            break;
        }
        let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
        let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        if normal.len() == 1 && matches!(name, "v" | "version") {
            normal.push("version".into());
        } else if let Some(flag) = command.get_arguments().find(|flag| is_called(flag, name)) {
            push_flag(&mut normal, flag, name, value, &mut arguments);
        } else if past_commands && command.get_positionals().any(clap::Arg::is_allow_hyphen_values_set) {
            // As in Go, where the first word that is no flag ends the flags: this one is data.
            normal.push("--".into());
            normal.push(argument);
            break;
        } else if name.chars().count() == 1 || bare.parse::<f64>().is_ok() {
            normal.push(argument);
        } else {
            normal.push(format!("--{bare}").into());
        }
    }
    normal.extend(arguments);
    normal
}

fn is_called(flag: &clap::Arg, name: &str) -> bool {
    flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

fn push_flag(
    normal: &mut Vec<OsString>,
    flag: &clap::Arg,
    name: &str,
    value: Option<&str>,
    rest: &mut impl Iterator<Item = OsString>,
) {
    let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    let value_may_be_absent = flag.get_num_args().is_some_and(|range| range.min_values() == 0);
    match value {
        Some(value) if takes_value => normal.push(format!("--{name}={value}").into()),
        // A switch: there or not there.
        Some(value) => match go_bool(value) {
            Ok(true) => normal.push(format!("--{name}").into()),
            Ok(false) => {}
            Err(_) => normal.push(format!("--{name}={value}").into()),
        },
        None => {
            let mut whole = OsString::from(format!("--{name}"));
            if takes_value
                && !value_may_be_absent
                && let Some(value) = rest.next()
            {
                whole.push("=");
                whole.push(value);
            }
            normal.push(whole);
        }
    }
}

/// What Go's programs take for a boolean.
///
/// # Errors
/// Says what would be right.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// Shows flags with one dash, as Consul does. The lone `--` stays.
fn single_dashed(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let begins_flag = !before.is_alphanumeric()
            && before != '-'
            && rest.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
        if begins_flag {
            rest = &rest[1..];
        }
        shown.push(next);
        before = next;
        rest = &rest[next.len_utf8()..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(line: &[&str]) -> Vec<String> {
        let mut root = Arguments::command();
        root.build();
        normalise(&root, line.iter().map(OsString::from).collect())
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    fn complaint(line: &[&str]) -> String {
        match parse(line.iter().map(OsString::from).collect()) {
            Parsed::Wrong(text) => text,
            Parsed::Help(text) => panic!("{line:?} is taken as a question: {text}"),
            Parsed::Command { .. } => panic!("{line:?} is taken"),
        }
    }

    #[test]
    fn the_parser_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_get_two_dashes_and_their_value_behind_an_equals_sign() {
        for (line, expected) in [
            (&["lictor", "agent", "-dev"][..], &["lictor", "agent", "--dev"][..]),
            (&["lictor", "agent", "--dev"], &["lictor", "agent", "--dev"]),
            (&["lictor", "agent", "-node=a"], &["lictor", "agent", "--node=a"]),
            (&["lictor", "agent", "-node", "-a"], &["lictor", "agent", "--node=-a"]),
            (&["lictor", "agent", "--node", "--", "-dev"], &["lictor", "agent", "--node=--", "--dev"]),
            (&["lictor", "agent", "-node="], &["lictor", "agent", "--node="]),
            (&["lictor", "agent", "-server", "-ui=false"], &["lictor", "agent", "--server", "--ui=false"]),
            (&["lictor", "agent", "-dev=false"], &["lictor", "agent"]),
            (&["lictor", "agent", "-hcl", "a=\"b=c\""], &["lictor", "agent", "--hcl=a=\"b=c\""]),
            (&["lictor", "kv", "get", "-recurse", "agent"], &["lictor", "kv", "get", "--recurse", "agent"]),
            (&["lictor", "kv", "get", "agent", "-recurse"], &["lictor", "kv", "get", "agent", "--recurse"]),
            (&["lictor", "kv", "get", "--", "-recurse"], &["lictor", "kv", "get", "--", "-recurse"]),
            (&["lictor", "kv", "put", "k", "-"], &["lictor", "kv", "put", "k", "-"]),
            (&["lictor", "kv", "put", "k", "-5"], &["lictor", "kv", "put", "k", "--", "-5"]),
            (&["lictor", "kv", "put", "k", "-any"], &["lictor", "kv", "put", "k", "--", "-any"]),
            (&["lictor", "kv", "get", "-5"], &["lictor", "kv", "get", "-5"]),
            (
                &["lictor", "lock", "-n=2", "-verbose", "p", "echo", "-n", "-verbose"],
                &["lictor", "lock", "--n=2", "--verbose", "--", "p", "echo", "-n", "-verbose"],
            ),
            (&["lictor", "-version"], &["lictor", "version"]),
            (&["lictor", "kv", "-h"], &["lictor", "kv", "-h"]),
            (&["lictor", "kv", "-help"], &["lictor", "kv", "--help"]),
            (&["lictor", "agent", "-bogus=1"], &["lictor", "agent", "--bogus=1"]),
        ] {
            assert_eq!(normal(line), expected, "{line:?}");
        }
    }

    #[test]
    fn an_unknown_flag_or_command_names_the_nearest_known_one_in_consuls_spelling() {
        for (line, wrong, near) in [
            (&["lictor", "agent", "-bootstrap-expct=3"][..], "'-bootstrap-expct'", "'-bootstrap-expect'"),
            (&["lictor", "kv", "get", "-recurs", "a"], "'-recurs'", "'-recurse'"),
            (&["lictor", "kv", "get", "a", "-recurs"], "'-recurs'", "'-recurse'"),
            (&["lictor", "membrs"], "'membrs'", "'members'"),
            (&["lictor", "kv", "gett"], "'gett'", "'get'"),
        ] {
            let text = complaint(line);
            assert!(text.contains(wrong) && text.contains(near), "{line:?}: {text}");
            assert!(!text.contains(" --") && !text.contains("'--"), "{line:?}: {text}");
        }
    }

    #[test]
    fn a_flag_without_its_value_or_with_a_wrong_one_is_refused() {
        assert!(complaint(&["lictor", "agent", "-node"]).contains("-node"));
        assert!(complaint(&["lictor", "agent", "-server=maybe"]).contains("write true or false"));
        assert!(complaint(&["lictor", "agent", "-http-port=many"]).contains("-http-port"));
    }

    #[test]
    fn the_last_of_several_equal_flags_counts_as_in_go() {
        let Parsed::Command { command, .. } = parse(
            ["lictor", "validate", "-config-format=json", "-config-format=hcl", "/x"].map(OsString::from).to_vec(),
        ) else {
            panic!("not taken");
        };
        assert!(matches!(*command, commands::Command::Validate(_)));
    }

    #[test]
    fn the_lines_of_pods_are_taken() {
        for line in [
            "/lictor agent -config-dir=/lictor/config -config-dir=/lictor/secret-config -data-dir=/lictor/data -node=a-0 \
             -advertise=10.0.0.1 -advertise-server-address=a-0.a-server.ns.svc.cluster.local:8300",
            "/lictor sidecar -datacenter=dc1 -server-address=a-server.ns.svc.cluster.local:8300 \
             -login-token-file=/lictor/identity/token -service=web:8080 -service=admin:9000 -upstream=api:9090",
            "/lictor operator",
            "consul agent -dev -client 0.0.0.0 -disable-host-node-id -hcl limits={}",
            "consul kv put -http-addr=127.0.0.1:8500 -cas -modify-index=3 key value",
        ] {
            if let Parsed::Wrong(text) = parse(line.split_whitespace().map(OsString::from).collect()) {
                panic!("{line}: {text}");
            }
        }
    }

    #[test]
    fn help_shows_flags_with_one_dash() {
        let Parsed::Help(text) = parse(["lictor", "kv", "put", "-help"].map(OsString::from).to_vec()) else {
            panic!("no help");
        };
        assert!(text.contains("-modify-index") && !text.contains("--"), "{text}");
    }

    #[test]
    fn only_flags_lose_a_dash() {
        for (text, shown) in
            [("'--a-b' --c=--d [--e]", "'-a-b' -c=-d [-e]"), ("a--b -- --", "a--b -- --"), ("---", "---")]
        {
            assert_eq!(single_dashed(text), shown);
        }
    }
}
