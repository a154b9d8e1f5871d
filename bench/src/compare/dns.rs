//! DNS by `dnsperf`: ours and Consul's one server each, the same questions, in interleaved rounds.
//!
//! First each as fast as it can; then both at the rate that was Consul's best, for the time that an answer takes there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use lictor_tests::debian;

use crate::compare::results::quantile;
use crate::compare::systems::{Group, Programs, System};
use crate::compare::{cache, program};
use crate::kind::Kind;
use crate::report::{heading, median, spread};
use crate::{Common, load};

/// The two that answer DNS.
const SYSTEMS: [System; 2] = [System::Ours, System::Consul];
/// Sockets and threads that ask, and questions under way: enough that no server waits for one.
const ASKERS: [&str; 3] = ["-c16", "-T2", "-q200"];
/// How long an answer may take before it counts as lost.
const TIMEOUT: &str = "-t2";

/// What is asked for.
struct Question {
    title: &'static str,
    /// A line of dnsperf's.
    line: &'static str,
    /// The asker speaks EDNS, with room for all answers.
    edns: bool,
    /// At least so many times Consul's.
    target: f64,
}

const QUESTIONS: [Question; 4] = [
    Question { title: "A, 3 instances", line: "few.service.consul A", edns: false, target: 4.0 },
    Question { title: "A, 100 instances, plain (3 answers)", line: "many.service.consul A", edns: false, target: 15.0 },
    Question { title: "A, 100 instances, EDNS (100 answers)", line: "many.service.consul A", edns: true, target: 15.0 },
    Question { title: "SRV, 3 instances, EDNS", line: "few.service.consul SRV", edns: true, target: 4.0 },
];

/// What this bench is told.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    common: Common,
    /// Consul's program; by default Debian bullseye's 1.8.7, fetched into the cache.
    #[arg(long, value_name = "PATH")]
    consul: Option<PathBuf>,
    /// Interleaved rounds, of which the median is printed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// What dnsperf measured.
#[derive(Clone, Debug, Default, PartialEq)]
struct Measured {
    per_second: f64,
    completed: u64,
    lost: u64,
    answer_bytes: u64,
    /// Milliseconds of every single answer; empty unless they were asked for.
    latencies: Vec<f64>,
    /// The server's processor time for one answer, in microseconds.
    cost: f64,
}

/// Measures and prints.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let ours = flags.common.lictor()?;
    let consul = program(&flags.consul, &debian::CONSUL)?;
    let programs = Programs { ours, etcd: consul.clone(), consul };
    let directory = flags.common.directory()?;
    heading(&programs.ours);
    let dnsperf = dnsperf()?.arg("-h").output().context("dnsperf")?;
    let version = String::from_utf8_lossy(&[dnsperf.stdout, dnsperf.stderr].concat()).into_owned();
    let version = version.lines().find_map(|line| line.strip_prefix("Version ")).unwrap_or("of no version").to_owned();
    println!("beside: {}; asked by dnsperf {version} {}", programs.version(System::Consul), ASKERS.join(" "));
    let mut groups = Vec::new();
    for (number, system) in SYSTEMS.into_iter().enumerate() {
        let group = Group::start(&programs, system, directory.path(), 30 + number as u32, 1)?;
        for (prefix, count) in [("few", 3), ("many", 100)] {
            load::fill(system.door(), &group.address(0), Kind::Instance { services: 1, prefix }, count, 4)?;
        }
        groups.push(group);
    }
    println!("{} rounds of {} s, interleaved\n", flags.rounds, flags.seconds);
    println!(
        "| question | ours/s | Consul/s | ratio | target | met | server's CPU µs per answer: ours, Consul | answer bytes: ours, Consul \
         | at Consul's best: p50, p99 ms of ours | of Consul | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for question in &QUESTIONS {
        println!("{}", line(question, flags, &groups, directory.path())?);
    }
    Ok(())
}

/// One line of the table.
fn line(question: &Question, flags: &Flags, groups: &[Group], directory: &Path) -> anyhow::Result<String> {
    let mut best: [Vec<Measured>; 2] = Default::default();
    for round in 0..flags.rounds {
        for (at, group) in groups.iter().enumerate() {
            let measured = ask(question, group, flags.seconds, None, directory)?;
            eprintln!("{}, round {}: {} {:.0}/s", question.title, round + 1, group.system.name(), measured.per_second);
            best[at].push(measured);
        }
    }
    let middle = |at: usize, of: fn(&Measured) -> f64| median(best[at].iter().map(of).collect());
    let rate = middle(1, |it| it.per_second);
    let mut slow: [Vec<f64>; 2] = Default::default();
    let mut lost: u64 = best.iter().flatten().map(|it| it.lost).sum();
    for _ in 0..flags.rounds {
        for (at, group) in groups.iter().enumerate() {
            let measured = ask(question, group, flags.seconds, Some(rate), directory)?;
            lost += measured.lost;
            slow[at].extend(measured.latencies);
        }
    }
    let ratio = middle(0, |it| it.per_second) / rate;
    let rates = |at: usize| spread(&best[at].iter().map(|it| it.per_second).collect::<Vec<_>>(), 0);
    let shares = slow.map(|all| format!("{:.3}, {:.3}", quantile(all.clone(), 0.5), quantile(all, 0.99)));
    Ok(format!(
        "| {} | {} | {} | {ratio:.1} | ≥ {}x | {} | {:.1}, {:.1} | {:.0}, {:.0} | {} | {} | {lost} |",
        question.title,
        rates(0),
        rates(1),
        question.target,
        if ratio >= question.target { "met" } else { "**missed**" },
        middle(0, |it| it.cost),
        middle(1, |it| it.cost),
        middle(0, |it| it.answer_bytes as f64),
        middle(1, |it| it.answer_bytes as f64),
        shares[0],
        shares[1],
    ))
}

fn dnsperf() -> anyhow::Result<Command> {
    debian::DNSPERF.command(&cache()?).map_err(anyhow::Error::msg)
}

/// Asks one server for so long: as fast as it answers, or at this rate with the time of every answer.
fn ask(
    question: &Question,
    group: &Group,
    seconds: u64,
    rate: Option<f64>,
    directory: &Path,
) -> anyhow::Result<Measured> {
    let lines = directory.join("questions");
    std::fs::write(&lines, format!("{}\n", question.line))?;
    let server = &group.servers[0];
    let mut command = dnsperf()?;
    command.args(ASKERS).args([TIMEOUT, "-p8600", "-s", &server.address]).arg(format!("-l{seconds}"));
    command.arg("-d").arg(&lines);
    if question.edns {
        command.arg("-e");
    }
    if let Some(rate) = rate {
        command.args(["-v".to_owned(), format!("-Q{}", rate.max(1.0) as u64)]);
    }
    let before = server.processor_time()?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("the output was asked for")?;
    let mut measured = read(BufReader::new(output))?;
    let status = child.wait()?;
    let taken = server.processor_time()?.saturating_sub(before);
    if !status.success() || measured.completed == 0 {
        bail!("dnsperf ended with {status} after {} answers of {}", measured.completed, group.system.name());
    }
    measured.cost = taken.as_secs_f64() * 1e6 / measured.completed as f64;
    Ok(measured)
}

/// What dnsperf says.
fn read(output: impl BufRead) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    for line in output.lines() {
        let line = line?;
        let line = line.trim();
        let first_number = |text: &str| -> Option<f64> { text.split_whitespace().next()?.parse().ok() };
        if let Some(answer) = line.strip_prefix("> ") {
            // `> NOERROR name type seconds`
            if !answer.starts_with("NOERROR ") {
                bail!("an answer that is none: {answer}");
            }
            let seconds: Option<f64> = answer.split_whitespace().last().and_then(|text| text.parse().ok());
            measured.latencies.push(seconds.context("an answer without a time")? * 1000.0);
        } else if let Some(rest) = line.strip_prefix("Queries completed:") {
            measured.completed = first_number(rest).context("how many were answered")? as u64;
        } else if let Some(rest) = line.strip_prefix("Queries lost:") {
            measured.lost = first_number(rest).context("how many were lost")? as u64;
        } else if let Some(rest) = line.strip_prefix("Queries per second:") {
            measured.per_second = first_number(rest).context("how many in a second")?;
        } else if let Some((_, rest)) = line.split_once("request ").and_then(|(_, rest)| rest.split_once("response ")) {
            measured.answer_bytes = first_number(rest).unwrap_or_default() as u64;
        } else if let Some(codes) = line.strip_prefix("Response codes:")
            && !codes.trim().starts_with("NOERROR")
        {
            bail!("answers that are none: {codes}");
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_is_read() {
        let said = "DNS Performance Testing Tool\n\
                    > NOERROR few.service.consul A 0.000250\n\
                    > NOERROR few.service.consul A 0.000500\n\
                    Statistics:\n\n\
                    \x20 Queries sent:         1000\n\
                    \x20 Queries completed:    999 (99.90%)\n\
                    \x20 Queries lost:         1 (0.10%)\n\n\
                    \x20 Response codes:       NOERROR 999 (100.00%)\n\
                    \x20 Average packet size:  request 36, response 84\n\
                    \x20 Run time (s):         1.234\n\
                    \x20 Queries per second:   809.562500\n";
        let expected = Measured {
            per_second: 809.5625,
            completed: 999,
            lost: 1,
            answer_bytes: 84,
            latencies: vec![0.25, 0.5],
            cost: 0.0,
        };
        assert_eq!(read(said.as_bytes()).unwrap(), expected);
        assert!(read("  Response codes:       SERVFAIL 999 (100.00%)\n".as_bytes()).is_err());
        assert!(read("> NXDOMAIN few.service.consul A 0.000250\n".as_bytes()).is_err());
    }
}
