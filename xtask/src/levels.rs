//! The levels of tests, from the quickest to the truest.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::Context;
use crate::tools::{self, cargo, run, target_directory};

/// One level.
pub(crate) struct Level {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Context) -> Result<Outcome>,
}

/// How a level ended.
pub(crate) enum Outcome {
    /// Well; with the figures for the summary.
    Passed(String),
    /// Badly, and why.
    Failed(String),
    /// Not run, and why.
    Skipped(String),
}

/// All levels, in the order they run.
pub(crate) const LEVELS: &[Level] = &[
    Level { name: "lint", about: "formatting, clippy with warnings denied, dependencies", run: lint },
    Level {
        name: "unit",
        about: "every crate by itself: parsers, state machine scripts, log crashes, proxies",
        run: unit,
    },
    Level {
        name: "fuzz",
        about: "damaged questions, gossip, outputs and configurations, --seconds for each reader",
        run: fuzz,
    },
    Level { name: "tidy", about: "the house's own rules: what must be absent", run: tidy },
    Level {
        name: "simulation",
        about: "three servers under seeded faults of network, process and disk",
        run: simulation,
    },
    Level { name: "cluster", about: "real processes on loopback, kill -9 under concurrent writers", run: cluster },
    Level {
        name: "histories",
        about: "real processes killed, stopped and cut off, every history judged for linearizability",
        run: histories,
    },
    Level {
        name: "instructions",
        about: "what a write, a read and a DNS answer cost, counted by callgrind",
        run: instructions,
    },
    Level { name: "mesh", about: "`lictor dev`: two services, two sidecars, allow and deny", run: mesh },
    Level {
        name: "gossip",
        about: "real Serf, old and new, and our members in one pool, plain and encrypted",
        run: gossip,
    },
    Level {
        name: "agents",
        about: "a thousand real agents that lose all servers, and a catalog that tells the truth",
        run: agents,
    },
    Level {
        name: "clients",
        about: "unmodified Go, Python and Node clients and resolvers, and the answers beside a real Consul's",
        run: clients,
    },
    Level { name: "kubernetes", about: "a real node: chart, resource, injected pods, mutual TLS", run: kubernetes },
];

/// The levels of these names; all for none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Level>> {
    if names.is_empty() {
        return Ok(LEVELS.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            LEVELS.iter().find(|level| level.name == name).with_context(|| {
                let known: Vec<_> = LEVELS.iter().map(|level| level.name).collect();
                format!("there is no level {name:?}; there are: {}", known.join(", "))
            })
        })
        .collect()
}

fn lint(context: &Context) -> Result<Outcome> {
    // What parts of dependencies are in C: the cipher library and the allocator.
    tools::debian(&["cc", "make"], &["gcc", "libc6-dev", "make"])?;
    run(cargo(context).args(["fmt", "--all", "--check"]))?;
    run(cargo(context).args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let deny = cargo_deny(context)?;
    run(Command::new(deny).current_dir(&context.root).args(["check", "bans", "licenses", "sources"]))?;
    Ok(Outcome::Passed("fmt, clippy, cargo-deny".into()))
}

/// cargo-deny, built into the cache the first time.
fn cargo_deny(context: &Context) -> Result<PathBuf> {
    let program = context.cache.join("tools/bin/cargo-deny");
    if !program.exists() {
        let mut install = cargo(context);
        install.env("CARGO_TARGET_DIR", context.cache.join("tools-target")).current_dir(&context.cache);
        run(install.args(["install", "--locked", "cargo-deny", "--root"]).arg(context.cache.join("tools")))?;
    }
    Ok(program)
}

fn unit(context: &Context) -> Result<Outcome> {
    // Always the whole workspace: another selection has other features, and builds half of the dependencies again.
    let names = [
        "foreign_authority",
        "driver",
        "fuzz",
        "golden",
        "golden_packets",
        "golden_snapshot",
        "service_wakes",
        "malformed",
        "mesh_handshakes",
        "once_only",
        "pool",
        "replay",
        "rpc_handshakes",
        "scripts",
        "transport",
        "watching",
    ]
    .into_iter()
    .flat_map(|name| ["--test", name]);
    tests(cargo(context).args(["test", "--workspace", "--locked", "--lib", "--bins"]).args(names))
}

fn fuzz(context: &Context) -> Result<Outcome> {
    // The programs of the unit level, so nothing is built for it. All targets of one program run side by side.
    let mut command = cargo(context);
    command.args(["test", "--workspace", "--locked", "--lib", "--test", "fuzz", "--"]);
    command.args(["--nocapture", "--test-threads=16", "fuzz_"]);
    tests(command.env("LICTOR_FUZZ_SECONDS", context.seconds.to_string()))
}

fn tidy(context: &Context) -> Result<Outcome> {
    tests(cargo(context).args(["test", "--workspace", "--locked", "--test", "tidy"]))
}

fn simulation(context: &Context) -> Result<Outcome> {
    let mut command = cargo(context);
    // One after the other: each takes all cores for itself, and says how long it took.
    command.args(["test", "--workspace", "--locked", "--test", "simulation", "--", "--nocapture", "--test-threads=1"]);
    tests(command.env("LICTOR_SEEDS", context.seeds.to_string()))
}

fn cluster(context: &Context) -> Result<Outcome> {
    whole_system(context, "cluster")
}

fn histories(context: &Context) -> Result<Outcome> {
    whole_system_with(context, "histories", &[("LICTOR_HISTORIES", context.histories.to_string())])
}

fn instructions(context: &Context) -> Result<Outcome> {
    tools::debian(&["valgrind"], &["valgrind"])?;
    whole_system(context, "instructions")
}

fn mesh(context: &Context) -> Result<Outcome> {
    whole_system(context, "mesh")
}

fn gossip(context: &Context) -> Result<Outcome> {
    run(&mut node_script(context, "golang"))?;
    whole_system(context, "gossip")
}

fn agents(context: &Context) -> Result<Outcome> {
    whole_system_with(context, "agents", &[("LICTOR_AGENTS", context.agents.to_string())])
}

fn clients(context: &Context) -> Result<Outcome> {
    tools::debian(&["python3", "curl"], &["python3", "python3-venv", "python3-pip", "curl"])?;
    tools::debian(&["node", "npm"], &["nodejs", "npm"])?;
    run(&mut node_script(context, "golang"))?;
    whole_system(context, "compat")
}

fn kubernetes(context: &Context) -> Result<Outcome> {
    if !tools::is_root() {
        return Ok(Outcome::Skipped("a Kubernetes node needs root".into()));
    }
    let script = |verb: &str| run(&mut node_script(context, verb));
    script("deps")?;
    if script("preflight").is_err() {
        return Ok(Outcome::Skipped("this machine cannot run a Kubernetes node; see the lines above".into()));
    }
    script("build")?;
    build_programs(context)?;
    let mut command = cargo(context);
    command.args(["test", "--workspace", "--locked", "--test", "kubernetes", "--", "--ignored", "--nocapture"]);
    tests(with_programs(context, &mut command).env("LICTOR_CACHE", &context.cache))
}

/// The script that makes the Kubernetes node, and knows where a Go toolchain comes from.
fn node_script(context: &Context, verb: &str) -> Command {
    let mut command = Command::new(context.root.join("tests/kubernetes/node/kube"));
    command.current_dir(&context.root).env("LICTOR_CACHE", &context.cache).arg(verb);
    command
}

fn whole_system(context: &Context, test: &str) -> Result<Outcome> {
    whole_system_with(context, test, &[])
}

fn whole_system_with(context: &Context, test: &str, variables: &[(&str, String)]) -> Result<Outcome> {
    build_programs(context)?;
    let mut command = cargo(context);
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command.args(["test", "--workspace", "--locked", "--test", test, "--", "--nocapture", "--test-threads=1"]);
    tests(with_programs(context, &mut command).env("LICTOR_CACHE", &context.cache))
}

fn build_programs(context: &Context) -> Result<()> {
    run(cargo(context).args(["build", "--workspace", "--locked", "--bins"]))
}

fn with_programs<'a>(context: &Context, command: &'a mut Command) -> &'a mut Command {
    let programs = programs_directory(context);
    // Go lies here where the machine had none.
    let mut path = vec![context.cache.join("kube/golang/go/bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("LICTOR_BINARY", programs.join("lictor")).env("SAMPLE_BINARY", programs.join("sample"))
}

/// Builds name their target (see `.cargo/config.toml`), so programs lie one folder deeper.
fn programs_directory(context: &Context) -> PathBuf {
    let host = tools::output(Command::new("rustc").current_dir(&context.root).args(["--print", "host-tuple"]))
        .unwrap_or_default();
    target_directory(context).join(host.trim()).join("debug")
}

/// Runs tests, shows their output, and gathers what belongs into the closing summary: the number of tests, and every line
/// that begins with `summary:`.
fn tests(command: &mut Command) -> Result<Outcome> {
    println!("    $ {command:?}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("the output was asked for")?;
    let (mut passed, mut notes) = (0u64, Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(rest) = line.strip_prefix("test result: ok. ") {
            passed += rest.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        }
        // Behind the name of a test that is still running, the harness has not ended its line.
        if let Some((_, note)) = line.split_once("summary:") {
            notes.push(note.trim().to_owned());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Ok(Outcome::Failed(format!("tests ended with {status}")));
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(Outcome::Passed(std::iter::once(format!("{passed} tests")).chain(notes).collect::<Vec<_>>().join("; ")))
}
