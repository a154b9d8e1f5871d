//! Figures of one agent: counted where things happen, added up when somebody asks.
//!
//! Names are Consul's, with dots; Prometheus sees them with underscores. No library does both of Consul's forms, and what
//! is left is small: counters in a few cache lines, samples in buckets.
//!
//! Invariants
//! - Counting is one relaxed addition on a cache line that few threads share; a sample takes a lock of its shard.
//! - Memory is fixed: labels come from the program, never from a request, so no secret and no flood can be in them.
//! - A value of a gauge is what it was when asked for, never an old one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

/// Cache lines that a counter is spread over.
const SHARDS: usize = 8;
/// How long samples are gathered before they are shown as one interval (Consul's).
const INTERVAL: Duration = Duration::from_secs(10);
/// Buckets of a sample: four for each doubling of microseconds, up to about an hour.
const BUCKETS: usize = 128;
/// Names and labels of counters and samples that one agent may have; more are not kept.
const SERIES_MAX: usize = 512;

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    // A thread that is ending has lost its number; any will do.
    OWN.try_with(|own| *own).unwrap_or(0)
}

#[derive(Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// Something that only grows.
#[derive(Clone, Default)]
pub struct Counter(Arc<[Line; SHARDS]>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0[shard()].0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }
}

/// Samples of one interval.
#[derive(Clone)]
struct Window {
    begin: Instant,
    count: u64,
    sum: f64,
    squares: f64,
    least: f64,
    most: f64,
    buckets: [u32; BUCKETS],
}

impl Window {
    fn new(begin: Instant) -> Self {
        Self { begin, count: 0, sum: 0.0, squares: 0.0, least: f64::MAX, most: 0.0, buckets: [0; BUCKETS] }
    }

    fn take(&mut self, micros: u64, times: u32) {
        let value = micros as f64 / 1000.0;
        self.count += u64::from(times);
        self.sum += value * f64::from(times);
        self.squares += value * value * f64::from(times);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.buckets[bucket_of(micros)] += times;
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
    }

    /// The value that this part of the samples does not exceed, within a fifth.
    fn quantile(&self, part: f64) -> f64 {
        if self.count == 0 {
            return f64::NAN;
        }
        let wanted = (part * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted.max(1) {
                return (upper_bound(bucket) as f64 / 1000.0).clamp(self.least, self.most);
            }
        }
        self.most
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < 4 {
        return micros as usize;
    }
    let doubling = micros.ilog2() as usize;
    let quarter = (micros >> (doubling - 2)) as usize & 3;
    ((doubling - 1) * 4 + quarter).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (doubling, quarter) = (bucket / 4 + 1, (bucket % 4) as u64);
    ((5 + quarter) << (doubling - 2)) - 1
}

struct Shard {
    now: Window,
    before: Option<Window>,
    count: u64,
    sum: f64,
}

/// Something that is measured each time: how long it took, in milliseconds.
#[derive(Clone)]
pub struct Sample(Arc<[Mutex<Shard>; SHARDS]>);

impl Default for Sample {
    fn default() -> Self {
        let begin = Instant::now();
        let shard = |_| Mutex::new(Shard { now: Window::new(begin), before: None, count: 0, sum: 0.0 });
        Self(Arc::new(std::array::from_fn(shard)))
    }
}

impl Sample {
    /// It took so long.
    pub fn took(&self, duration: Duration) {
        self.took_each(duration, 1);
    }

    /// Each of so many that were done together took so long.
    pub fn took_each(&self, duration: Duration, times: u32) {
        if times == 0 {
            return;
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut shard = self.0[shard()].lock();
        shard.turn(Instant::now());
        shard.now.take(micros, times);
        shard.count += u64::from(times);
        shard.sum += micros as f64 / 1000.0 * f64::from(times);
    }

    /// The samples of the last interval and of this one, their number and sum since the beginning.
    fn gathered(&self) -> (Window, u64, f64) {
        let now = Instant::now();
        let (mut window, mut count, mut sum) = (Window::new(now), 0, 0.0);
        for shard in &*self.0 {
            let mut shard = shard.lock();
            shard.turn(now);
            window.merge(&shard.now);
            shard.before.iter().for_each(|before| window.merge(before));
            count += shard.count;
            sum += shard.sum;
        }
        (window, count, sum)
    }
}

impl Shard {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.now.begin);
        if age >= INTERVAL {
            let full = std::mem::replace(&mut self.now, Window::new(now));
            self.before = Some(full).filter(|_| age < 2 * INTERVAL);
        }
    }
}

/// A name with its labels, which are the program's own words.
type Series = (&'static str, Vec<(&'static str, &'static str)>);

/// What a gauge is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    /// Consul's name, without the prefix.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}

type Collector = Box<dyn Fn(&mut Vec<Gauge>) + Send + Sync>;

/// How figures are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// What every name begins with (`telemetry.metrics_prefix`).
    pub prefix: String,
    /// Stands between prefix and name of gauges, as Consul does unless `telemetry.disable_hostname`.
    pub host: Option<String>,
}

impl Default for Naming {
    fn default() -> Self {
        Self { prefix: "consul".into(), host: None }
    }
}

/// What a sample was over the last interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The name with its prefix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How many.
    pub count: u64,
    /// Per second.
    pub rate: f64,
    /// Added up.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// On the average.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
}

/// All figures of one agent.
#[derive(Default)]
pub struct Metrics {
    counters: RwLock<BTreeMap<Series, Counter>>,
    samples: RwLock<BTreeMap<Series, Sample>>,
    collectors: RwLock<Vec<Collector>>,
}

impl Metrics {
    /// The counter of this name, to be kept where it is used.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        series(&self.counters, name, labels)
    }

    /// The sample of this name, to be kept where it is used.
    pub fn sample(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Sample {
        series(&self.samples, name, labels)
    }

    /// Asks `collector` for its gauges whenever somebody looks.
    pub fn collect(&self, collector: impl Fn(&mut Vec<Gauge>) + Send + Sync + 'static) {
        self.collectors.write().push(Box::new(collector));
    }

    /// Every gauge as it is now.
    pub fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        self.collectors.read().iter().for_each(|collector| collector(&mut gauges));
        gauges.sort_by_key(|gauge| gauge.name);
        gauges
    }

    /// Every counter since the start; none where nothing was counted.
    pub fn counters(&self, naming: &Naming) -> Vec<Summary> {
        let all = self.counters.read();
        all.iter()
            .map(|((name, labels), counter)| {
                let total = counter.total();
                let sum = total as f64;
                let one = if total > 0 { 1.0 } else { 0.0 };
                Summary {
                    name: naming.of(name),
                    labels: owned(labels),
                    count: total,
                    rate: 0.0,
                    sum,
                    min: one,
                    max: one,
                    mean: one,
                    deviation: 0.0,
                }
            })
            .filter(|summary| summary.count > 0)
            .collect()
    }

    /// Every sample over the last interval; none where there was none.
    pub fn samples(&self, naming: &Naming) -> Vec<Summary> {
        let all = self.samples.read();
        let summary = |((name, labels), sample): (&Series, &Sample)| {
            let (window, _, _) = sample.gathered();
            (window.count > 0).then(|| {
                let count = window.count as f64;
                let mean = window.sum / count;
                let variance =
                    if window.count < 2 { 0.0 } else { (window.squares - mean * window.sum) / (count - 1.0) };
                Summary {
                    name: naming.of(name),
                    labels: owned(labels),
                    count: window.count,
                    rate: window.sum / INTERVAL.as_secs_f64(),
                    sum: window.sum,
                    min: window.least,
                    max: window.most,
                    mean,
                    deviation: variance.max(0.0).sqrt(),
                }
            })
        };
        all.iter().filter_map(summary).collect()
    }

    /// Everything in the text form of Prometheus.
    pub fn prometheus(&self, naming: &Naming) -> String {
        let mut text = String::new();
        for Gauge { name, value } in self.gauges() {
            let name = underscored(&naming.of_gauge(name));
            line(&mut text, format_args!("# HELP {name} {name}\n# TYPE {name} gauge\n{name} {value}"));
        }
        let mut last = "";
        for ((name, labels), counter) in &*self.counters.read() {
            let shown = underscored(&naming.of(name));
            if last != *name {
                line(&mut text, format_args!("# HELP {shown} {shown}\n# TYPE {shown} counter"));
                last = name;
            }
            line(&mut text, format_args!("{shown}{} {}", braces(labels, None), counter.total()));
        }
        last = "";
        for ((name, labels), sample) in &*self.samples.read() {
            let shown = underscored(&naming.of(name));
            if last != *name {
                line(&mut text, format_args!("# HELP {shown} {shown}\n# TYPE {shown} summary"));
                last = name;
            }
            let (window, count, sum) = sample.gathered();
            for (part, word) in [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")] {
                let value = window.quantile(part);
                let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
                line(&mut text, format_args!("{shown}{} {value}", braces(labels, Some(word))));
            }
            line(&mut text, format_args!("{shown}_sum{} {sum}", braces(labels, None)));
            line(&mut text, format_args!("{shown}_count{} {count}", braces(labels, None)));
        }
        text
    }
}

impl Naming {
    fn of(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// The name of a gauge, which carries the host's name.
    pub fn of_gauge(&self, name: &str) -> String {
        match &self.host {
            Some(host) => format!("{}.{host}.{name}", self.prefix),
            None => self.of(name),
        }
    }
}

fn series<T: Clone + Default>(
    all: &RwLock<BTreeMap<Series, T>>,
    name: &'static str,
    labels: &[(&'static str, &'static str)],
) -> T {
    let mut all = all.write();
    let key = (name, labels.to_vec());
    if let Some(known) = all.get(&key) {
        return known.clone();
    }
    let new = T::default();
    if all.len() < SERIES_MAX {
        all.insert(key, new.clone());
    }
    new
}

fn owned(labels: &[(&'static str, &'static str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{words}");
}

fn underscored(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' }).collect()
}

fn braces(labels: &[(&'static str, &'static str)], quantile: Option<&str>) -> String {
    let quantile = quantile.map(|part| ("quantile", part));
    let pairs: Vec<String> =
        labels.iter().copied().chain(quantile).map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_not_above_its_bound() {
        for micros in (0..5000).chain([1 << 20, (1 << 20) + 1, 3_000_000_000]) {
            let bucket = bucket_of(micros);
            assert!(micros <= upper_bound(bucket), "{micros} is above bucket {bucket}");
            assert!(bucket == 0 || micros > upper_bound(bucket - 1), "{micros} belongs below bucket {bucket}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn samples_are_of_the_last_intervals_and_totals_of_all_time() {
        let metrics = Metrics::default();
        let commit = metrics.sample("raft.commitTime", &[]);
        (1..=100).for_each(|millis| commit.took(Duration::from_millis(millis)));
        let naming = Naming::default();
        let of = |metrics: &Metrics| metrics.samples(&naming).first().cloned();
        let summary = of(&metrics).unwrap();
        assert_eq!((summary.name.as_str(), summary.count), ("consul.raft.commitTime", 100));
        assert!((summary.mean - 50.5).abs() < 0.01 && (summary.deviation - 29.01).abs() < 0.01, "{summary:?}");
        let text = metrics.prometheus(&naming);
        let p50: f64 = text
            .lines()
            .find_map(|line| line.strip_prefix("consul_raft_commitTime{quantile=\"0.5\"} "))
            .unwrap()
            .parse()
            .unwrap();
        assert!((50.0..60.0).contains(&p50), "{p50}");
        tokio::time::advance(3 * INTERVAL).await;
        assert_eq!(of(&metrics), None);
        assert!(metrics.prometheus(&naming).contains("consul_raft_commitTime_count 100\n"));
    }

    #[test]
    fn threads_together_count_everything_once() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let counter = metrics.counter("rpc.request", &[("kind", "read")]);
                scope.spawn(move || (0..1000).for_each(|_| counter.increment()));
            }
        });
        metrics.collect(|gauges| gauges.push(Gauge { name: "raft.state.leader", value: 1.0 }));
        let naming = Naming { prefix: "lictor".into(), host: Some("a-host".into()) };
        let text = metrics.prometheus(&naming);
        assert!(text.contains("lictor_rpc_request{kind=\"read\"} 4000\n"), "{text}");
        assert!(text.contains("lictor_a_host_raft_state_leader 1\n"), "{text}");
    }
}
