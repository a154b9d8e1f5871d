//! One server of each system, freshly started: how long it takes, and what it weighs with nothing, watchers, keys and instances.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::agents::START_LIMIT;
use crate::compare::results::{Results, Sample};
use crate::compare::systems::{Group, Programs, System};
use crate::compare::{Plan, Progress, watchers};
use crate::kind::Kind;
use crate::load;

/// What starts or loads a server is over by then.
const REST: Duration = Duration::from_secs(5);
/// Between two looks at a server that starts.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const WATCHERS: usize = 10_000;
const KEYS: u64 = 100_000;
const INSTANCES: u64 = 10_000;

/// What all steps need.
struct Single<'a> {
    plan: &'a Plan,
    programs: &'a Programs,
    base: &'a Path,
    results: &'a mut Results,
    progress: &'a Progress,
    number: u32,
}

/// Measures the rows of this setting that were asked for.
pub(crate) fn run(
    plan: &Plan,
    programs: &Programs,
    base: &Path,
    results: &mut Results,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut single = Single { plan, programs, base, results, progress, number: 20 };
    for _ in 0..plan.rounds {
        for system in System::ALL.into_iter().filter(|_| plan.has("start")) {
            let (_group, taken) = single.start(system)?;
            single.add("start", system, taken.as_secs_f64());
        }
    }
    for system in System::ALL {
        // One that fails leaves its figures wanting, and not those of the others.
        for row in ["memory-watchers", "memory-keys", "memory-instances"] {
            let measured = match row {
                "memory-watchers" => single.empty_and_watchers(system),
                "memory-keys" => single.keys(system),
                _ => single.instances(system),
            };
            if let Err(error) = measured {
                progress.say(&format!("{row} of {} failed: {error:#}", system.name()));
                single.results.fail(row, system, &error);
            }
        }
    }
    Ok(())
}

impl Single<'_> {
    fn add(&mut self, row: &'static str, system: System, value: f64) {
        let shown = crate::compare::rows::find(row).map(|it| it.unit.show(value)).unwrap_or_default();
        self.progress.say(&format!("{row}: {} {shown}", system.name()));
        self.results.add(row, system, Sample::of(value));
    }

    /// Starts one server, and says how long its first write took from exec.
    fn start(&mut self, system: System) -> anyhow::Result<(Group, Duration)> {
        self.number += 1;
        let begun = Instant::now();
        let group = Group::launch(self.programs, system, self.base, self.number, 1)?;
        let taken = first(begun, || group.write(0, "first"))?;
        Ok((group, taken))
    }

    fn empty_and_watchers(&mut self, system: System) -> anyhow::Result<()> {
        if !self.plan.has("memory-empty") && !self.plan.has("memory-watchers") {
            return Ok(());
        }
        let (group, _) = self.start(system)?;
        std::thread::sleep(REST);
        let empty = resident(&group)?;
        if self.plan.has("memory-empty") {
            self.add("memory-empty", system, empty / 1e6);
        }
        if self.plan.has("memory-watchers") {
            let (woken, full) = watchers::run(&group, 0, WATCHERS, || resident(&group))?;
            let value = (full - empty) / 1e3 / WATCHERS as f64;
            self.progress.say(&format!("memory-watchers: {} {value:.1} kB", system.name()));
            let sample = Sample { errors: woken.errors, first_error: woken.first_error, ..Sample::of(value) };
            self.results.add("memory-watchers", system, sample);
        }
        Ok(())
    }

    fn keys(&mut self, system: System) -> anyhow::Result<()> {
        if !self.plan.has("memory-keys") && !self.plan.has("restart") {
            return Ok(());
        }
        let (mut group, _) = self.start(system)?;
        self.progress.say(&format!("loading {KEYS} keys into {}", system.name()));
        load::fill(system.door(), &group.address(0), Kind::PutNew, KEYS, 64)?;
        std::thread::sleep(REST);
        if self.plan.has("memory-keys") {
            self.add("memory-keys", system, resident(&group)? / 1e6);
        }
        for _ in 0..if self.plan.has("restart") { self.plan.rounds } else { 0 } {
            group.servers[0].kill()?;
            let begun = Instant::now();
            group.restart(0)?;
            let taken = first(begun, || group.read(0, KEYS - 1))?;
            self.add("restart", system, taken.as_secs_f64());
        }
        Ok(())
    }

    fn instances(&mut self, system: System) -> anyhow::Result<()> {
        // etcd knows no services.
        if !self.plan.has("memory-instances") || system == System::Etcd {
            return Ok(());
        }
        let (group, _) = self.start(system)?;
        let kind = Kind::Instance { services: 100, prefix: "many" };
        load::fill(system.door(), &group.address(0), kind, INSTANCES, 64)?;
        std::thread::sleep(REST);
        self.add("memory-instances", system, resident(&group)? / 1e6);
        Ok(())
    }
}

/// Bytes that the kernel keeps in memory for the server.
fn resident(group: &Group) -> anyhow::Result<f64> {
    Ok(group.servers[0].status_kib("VmRSS")? as f64 * 1024.0)
}

fn first(begun: Instant, ask: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    loop {
        match ask() {
            Ok(()) => return Ok(begun.elapsed()),
            Err(error) if begun.elapsed() > START_LIMIT => bail!("not ready within {START_LIMIT:?}: {error:#}"),
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}
