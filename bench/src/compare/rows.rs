//! What is compared, and what ours is to reach.

/// The unit of a row, as its figures are kept and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Millis,
    Seconds,
    /// Of one core.
    Percent,
    /// 1,000,000 bytes
    Megabytes,
    /// 1,000 bytes
    Kilobytes,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Millis => format!("{value:.2} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Percent => format!("{value:.2} %"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Kilobytes => format!("{value:.1} kB"),
        }
    }
}

/// What ours is to reach, measured in the same run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// None is set.
    None,
    /// At least so many times Consul's.
    Consul(f64),
    /// At least so many times Consul's and so many times etcd's.
    Both(f64, f64),
    /// At most this share of Consul's.
    ShareOfConsul(f64),
    /// At least this share of our own figure in another row.
    ShareOfOwn(f64, &'static str),
    /// At most this.
    AtMost(f64),
}

/// Which setting a row is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Three servers, all three systems alive, in interleaved rounds.
    Cluster,
    /// Three servers, of which the leader is killed.
    Failover,
    /// One server, freshly started.
    Single,
    /// A client agent with three servers behind it.
    Agent,
}

/// One row.
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) target: Target,
    pub(crate) setting: Setting,
}

const fn row(name: &'static str, title: &'static str, unit: Unit, target: Target, setting: Setting) -> Row {
    Row { name, title, unit, target, setting }
}

use Setting::{Agent, Cluster, Failover, Single};
use Unit::{Kilobytes, Megabytes, Millis, PerSecond, Percent, Seconds};

/// All of them, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    row("put-leader", "PUT at the leader, 64 connections", PerSecond, Target::Both(5.0, 2.0), Cluster),
    row("put-follower", "PUT via a follower, 64 connections", PerSecond, Target::Consul(8.0), Cluster),
    row("put-single", "PUT of one client alone at the leader, p50", Millis, Target::ShareOfConsul(0.5), Cluster),
    row("get-leader", "GET default at the leader, 64 connections", PerSecond, Target::Consul(3.0), Cluster),
    row("get-follower", "GET default at a follower, 64 connections", PerSecond, Target::Consul(3.0), Cluster),
    row(
        "consistent-leader",
        "GET ?consistent at the leader, 64 connections",
        PerSecond,
        Target::ShareOfOwn(0.8, "get-leader"),
        Cluster,
    ),
    row(
        "consistent-follower",
        "GET ?consistent at a follower, 64 connections",
        PerSecond,
        Target::ShareOfOwn(0.8, "get-follower"),
        Cluster,
    ),
    row("stale-follower", "GET ?stale at a follower, 64 connections", PerSecond, Target::None, Cluster),
    row("health-100", "health read of 100 instances, 16 connections", PerSecond, Target::Consul(10.0), Cluster),
    row("health-1000", "health read of 1,000 instances, 16 connections", PerSecond, Target::Consul(20.0), Cluster),
    row("register", "catalog registration, 64 connections", PerSecond, Target::Consul(6.0), Cluster),
    row("watchers", "5,000 watchers of one key: write to last answer", Millis, Target::ShareOfConsul(0.5), Cluster),
    row("failover", "kill -9 of the leader to next acknowledged write, p99", Seconds, Target::AtMost(1.0), Failover),
    row("start", "start of one empty server to first write", Seconds, Target::AtMost(0.3), Single),
    row("memory-empty", "resident memory, empty server", Megabytes, Target::AtMost(20.0), Single),
    row("memory-watchers", "memory of each of 10,000 parked watchers", Kilobytes, Target::AtMost(12.0), Single),
    row("memory-keys", "resident memory, 100,000 keys of 256 bytes", Megabytes, Target::AtMost(80.0), Single),
    row("restart", "restart with 100,000 keys to a default read", Seconds, Target::AtMost(1.0), Single),
    row("memory-instances", "resident memory, 10,000 instances", Megabytes, Target::AtMost(40.0), Single),
    row("agent-memory", "resident memory, client agent with 20 services and checks", Megabytes, Target::AtMost(15.0), Agent),
    row("agent-rest", "the same agent at rest, of one core", Percent, Target::AtMost(0.5), Agent),
    row("agent-register", "registration at a client agent, 32 connections", PerSecond, Target::Consul(10.0), Agent),
    row("agent-ttl", "pass of a TTL check at a client agent, 32 connections", PerSecond, Target::Consul(10.0), Agent),
];

/// The row of this name.
pub(crate) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// For the command line: a name of a row, or why it is none.
pub(crate) fn parse(name: &str) -> Result<&'static str, String> {
    let known = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    find(name).map(|row| row.name).ok_or_else(|| format!("there are: {}", known()))
}

impl Target {
    /// As the table says it.
    pub(crate) fn text(self, unit: Unit) -> String {
        match self {
            Self::None => "–".into(),
            Self::Consul(times) => format!("≥ {times}x Consul"),
            Self::Both(consul, etcd) => format!("≥ {consul}x Consul, ≥ {etcd}x etcd"),
            Self::ShareOfConsul(share) => format!("≤ {share} of Consul's"),
            Self::ShareOfOwn(share, row) => format!("≥ {share} of our own {row}"),
            Self::AtMost(most) => format!("≤ {}", unit.show(most)),
        }
    }

    /// Whether it is met; nothing if a figure is missing.
    pub(crate) fn met(
        self,
        ours: Option<f64>,
        consul: Option<f64>,
        etcd: Option<f64>,
        own: impl Fn(&str) -> Option<f64>,
    ) -> Option<bool> {
        let ours = ours?;
        Some(match self {
            Self::None => return None,
            Self::Consul(times) => ours >= times * consul?,
            Self::Both(consul_times, etcd_times) => ours >= consul_times * consul? && ours >= etcd_times * etcd?,
            Self::ShareOfConsul(share) => ours <= share * consul?,
            Self::ShareOfOwn(share, row) => ours >= share * own(row)?,
            Self::AtMost(most) => ours <= most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_only_by_what_was_measured() {
        let none = |_: &str| None;
        assert_eq!(Target::Both(5.0, 2.0).met(Some(50.0), Some(10.0), Some(20.0), none), Some(true));
        assert_eq!(Target::Both(5.0, 2.0).met(Some(50.0), Some(10.0), Some(26.0), none), Some(false));
        assert_eq!(Target::Both(5.0, 2.0).met(Some(50.0), Some(10.0), None, none), None);
        assert_eq!(Target::ShareOfConsul(0.5).met(Some(0.6), Some(1.0), None, none), Some(false));
        assert_eq!(Target::ShareOfOwn(0.8, "get-leader").met(Some(8.0), None, None, |_| Some(10.0)), Some(true));
        assert_eq!(Target::AtMost(1.0).met(None, Some(0.5), Some(0.5), none), None);
    }

    #[test]
    fn rows_that_targets_refer_to_exist() {
        for row in ROWS {
            if let Target::ShareOfOwn(_, other) = row.target {
                assert!(find(other).is_some(), "{other}");
            }
        }
        assert!(parse("put-leder").is_err());
    }
}
