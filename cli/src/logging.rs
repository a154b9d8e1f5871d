//! Where log lines go and which of them.

mod budget;
mod listening;
mod throttle;

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::Failure;
use budget::Budgeted;
use throttle::Throttled;

/// How much of what happens is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Level {
    /// Everything.
    Trace,
    /// Much.
    Debug,
    /// What an operator wants to read.
    Info,
    /// What should not be.
    #[value(alias = "warning")]
    Warn,
    /// What does not work.
    #[value(alias = "err")]
    Error,
}

impl Level {
    /// The level by its name in a configuration, in any case; `Info` for a name that a configuration cannot hold.
    pub(crate) fn of_config(name: &str) -> Self {
        Self::from_str(name, true).unwrap_or(Self::Info)
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

/// Our own lines from `level` on; those of the libraries only when something is wrong, or when everything is asked for.
fn targets(level: Level) -> Targets {
    let own = level.filter();
    let others = if level == Level::Trace { LevelFilter::DEBUG } else { own.min(LevelFilter::WARN) };
    Targets::new().with_target("lictor", own).with_default(others)
}

/// Where the level of a log that has begun is set.
#[derive(Clone)]
pub(crate) struct Dial(reload::Handle<Targets, Registry>);

impl Dial {
    /// Lines from `level` on are told from now on.
    ///
    /// # Errors
    /// The log has ended.
    pub(crate) fn set(&self, level: Level) -> Result<(), Failure> {
        self.0.reload(targets(level)).map_err(Failure::because("cannot set the level of the log"))
    }
}

/// Lets log lines appear on the standard output, as Consul's do.
///
/// # Errors
/// It was done before.
pub(crate) fn begin(level: Level, json: bool) -> Result<Dial, Failure> {
    begin_with(targets(level), json)
}

/// The same beside text for people on the screen: what libraries find odd is not shown unless much is asked for.
///
/// # Errors
/// It was done before.
pub(crate) fn begin_beside_text(level: Level) -> Result<Dial, Failure> {
    let targets = match level {
        Level::Trace | Level::Debug => targets(level),
        Level::Info | Level::Warn | Level::Error => targets(level).with_default(LevelFilter::ERROR),
    };
    begin_with(targets, false)
}

fn begin_with(targets: Targets, json: bool) -> Result<Dial, Failure> {
    let (targets, handle) = reload::Layer::new(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(Budgeted::new(std::io::stdout, json));
    let lines = if json {
        let lines = lines.json().flatten_event(true);
        lines.map_event_format(|format| Throttled::new(format, true)).with_filter(targets).boxed()
    } else {
        let lines = lines.with_ansi(std::io::stdout().is_terminal());
        lines.map_event_format(|format| Throttled::new(format, false)).with_filter(targets).boxed()
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(listening::layer())
        .try_init()
        .map_err(Failure::because("cannot begin to log"))?;
    Ok(Dial(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_speak_up_only_when_something_is_wrong() {
        let debug = targets(Level::Debug);
        assert!(debug.would_enable("lictor_server::raft", &tracing::Level::DEBUG));
        assert!(!debug.would_enable("hyper::client", &tracing::Level::INFO));
        assert!(debug.would_enable("hyper::client", &tracing::Level::WARN));
        assert!(!targets(Level::Error).would_enable("hyper::client", &tracing::Level::WARN));
    }

    #[test]
    fn consuls_names_of_levels_are_taken() {
        for (name, level) in
            [("INFO", Level::Info), ("warn", Level::Warn), ("ERR", Level::Error), ("Trace", Level::Trace)]
        {
            assert_eq!(Level::of_config(name), level, "{name}");
        }
    }
}
