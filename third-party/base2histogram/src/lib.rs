//! Stands in for the crate of this name, by `[patch.crates-io]`.
//!
//! openraft keeps histograms of its own batch sizes. They are read only through its feature `runtime-stats`, which is off here,
//! but they are made all the same, and the first one makes the crate's tables for every width: 26 MB of resident memory in each
//! server. These histograms have the same names and hold nothing; `docs/decisions/0014-no-histograms-in-openraft.md`.

use std::marker::PhantomData;

/// Takes samples and keeps none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets `_value`.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets `_count` times `_value`.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// How many samples there are: none.
    pub fn total(&self) -> u64 {
        0
    }

    /// The percentiles of no samples.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Percentiles; all of them 0 here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl std::fmt::Display for PercentileStats {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("not recorded")
    }
}

/// A chart of histograms; an empty one here.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart.
    pub fn new() -> Self {
        Self
    }

    /// The same chart.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl std::fmt::Display for AsciiChart {
    fn fmt(&self, _formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
