//! What was measured, and the tables of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::compare::rows::{ROWS, Row};
use crate::compare::systems::System;
use crate::report::median;

/// One measurement of one system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// In the row's unit.
    pub(crate) value: f64,
    pub(crate) p50_millis: Option<f64>,
    pub(crate) p99_millis: Option<f64>,
    /// Microseconds of the servers' processor time for one operation.
    pub(crate) cost: Option<f64>,
    /// Per cent of the machine that the load generator took.
    pub(crate) own: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Sample {
    pub(crate) fn of(value: f64) -> Self {
        Self { value, ..Self::default() }
    }
}

/// All of it, by row and system, in the order it was taken.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(&'static str, System), Vec<Sample>>,
    failures: Vec<String>,
}

impl Results {
    pub(crate) fn add(&mut self, row: &'static str, system: System, sample: Sample) {
        self.samples.entry((row, system)).or_default().push(sample);
    }

    /// One measurement could not be taken: its figure is wanting, the others go on.
    pub(crate) fn fail(&mut self, row: &'static str, system: System, error: &anyhow::Error) {
        self.failures.push(format!("{row} of {} failed: {error:#}", system.name()));
    }

    fn samples(&self, row: &'static str, system: System) -> &[Sample] {
        self.samples.get(&(row, system)).map_or(&[], Vec::as_slice)
    }

    /// The figure of a row: the median of its rounds, or for the time without a leader the 99th percentile.
    fn figure(&self, row: &'static str, system: System) -> Option<f64> {
        let values: Vec<f64> = self.samples(row, system).iter().map(|it| it.value).collect();
        if values.is_empty() {
            return None;
        }
        Some(if row == "failover" { quantile(values, 0.99) } else { median(values) })
    }

    fn middle(&self, row: &'static str, system: System, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.samples(row, system).iter().filter_map(of).collect();
        (!values.is_empty()).then(|| median(values))
    }

    /// The table of ratios and targets.
    pub(crate) fn print(&self) {
        println!(
            "| what | ours | Consul | etcd | ours / Consul | ours / etcd | target | met | servers' CPU µs per operation: ours, Consul, etcd | errors |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for row in self.rows() {
            println!("{}", self.line(row));
        }
    }

    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(|row| System::ALL.iter().any(|system| !self.samples(row.name, *system).is_empty()))
    }

    fn line(&self, row: &'static Row) -> String {
        let figures = System::ALL.map(|system| self.figure(row.name, system));
        let [ours, consul, etcd] = figures;
        let shown = |figure: Option<f64>| figure.map_or("–".into(), |it| row.unit.show(it));
        let ratio = |other: Option<f64>| match (ours, other) {
            (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours / other),
            _ => "–".into(),
        };
        let met = match row.target.met(ours, consul, etcd, |other| {
            ROWS.iter().find(|it| it.name == other).and_then(|it| self.figure(it.name, System::Ours))
        }) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "–",
        };
        let costs = System::ALL
            .map(|system| self.middle(row.name, system, |it| it.cost).map_or("–".into(), |it| format!("{it:.0}")));
        let costs = if costs.iter().all(|it| it == "–") { "–".into() } else { costs.join(", ") };
        let errors: u64 =
            System::ALL.iter().flat_map(|system| self.samples(row.name, *system)).map(|it| it.errors).sum();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {met} | {costs} | {errors} |",
            row.title,
            shown(ours),
            shown(consul),
            shown(etcd),
            ratio(consul),
            ratio(etcd),
            row.target.text(row.unit),
        )
    }

    /// The second table: every system by itself.
    pub(crate) fn print_details(&self) {
        println!(
            "| what | system | median (least to most), rounds | p50 ms | p99 ms | servers' CPU µs per operation | load generator's share of the machine | errors |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for row in self.rows() {
            for system in System::ALL {
                let samples = self.samples(row.name, system);
                if samples.is_empty() {
                    continue;
                }
                let values: Vec<f64> = samples.iter().map(|it| it.value).collect();
                let shown =
                    |value: Option<f64>, digits: usize| value.map_or("–".into(), |it| format!("{it:.digits$}"));
                println!(
                    "| {} | {} | {} ({} to {}), {} | {} | {} | {} | {} | {} |",
                    row.title,
                    system.name(),
                    row.unit.show(median(values.clone())),
                    row.unit.show(quantile(values.clone(), 0.0)),
                    row.unit.show(quantile(values, 1.0)),
                    samples.len(),
                    shown(self.middle(row.name, system, |it| it.p50_millis), 2),
                    shown(self.middle(row.name, system, |it| it.p99_millis), 2),
                    shown(self.middle(row.name, system, |it| it.cost), 0),
                    shown(self.middle(row.name, system, |it| it.own), 0) + " %",
                    samples.iter().map(|it| it.errors).sum::<u64>(),
                );
            }
        }
        for ((row, system), samples) in &self.samples {
            if let Some(error) = samples.iter().find_map(|it| it.first_error.as_deref()) {
                println!("\nfirst error of {row} at {}: {error}", system.name());
            }
        }
        self.failures.iter().for_each(|it| println!("\n{it}"));
    }

    /// Every sample as a line of JSON, behind one that says where it was taken.
    pub(crate) fn write(&self, path: &Path, machine: &serde_json::Value) -> anyhow::Result<()> {
        let mut file = std::fs::File::create(path)?;
        writeln!(file, "{machine}")?;
        for row in self.rows() {
            for system in System::ALL {
                for (round, sample) in self.samples(row.name, system).iter().enumerate() {
                    let line = json!({
                        "row": row.name, "system": system.name(), "round": round + 1, "unit": format!("{:?}", row.unit),
                        "value": sample.value, "p50_ms": sample.p50_millis, "p99_ms": sample.p99_millis,
                        "servers_cpu_us": sample.cost, "generator_per_cent": sample.own,
                        "errors": sample.errors, "first_error": sample.first_error,
                    });
                    writeln!(file, "{line}")?;
                }
            }
        }
        Ok(())
    }
}

/// The value that this share of all does not exceed: of ten the 99th percentile is the greatest.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_of_few_is_the_greatest() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert!((quantile(ten.clone(), 0.99) - 10.0).abs() < f64::EPSILON);
        assert!((quantile(ten.clone(), 0.5) - 5.0).abs() < f64::EPSILON);
        assert!((quantile(ten, 0.0) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_row_says_ratio_and_target() {
        let mut results = Results::default();
        for (system, value) in [(System::Ours, 60.0), (System::Consul, 10.0), (System::Etcd, 31.0)] {
            results.add("put-leader", system, Sample::of(value));
        }
        let line = results.line(&ROWS[0]);
        assert!(line.contains("| 60/s | 10/s | 31/s | 6.00 | 1.94 | ≥ 5x Consul, ≥ 2x etcd | **missed** |"), "{line}");
    }
}
