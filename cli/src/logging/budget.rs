//! How many bytes a second the log may have, whoever speaks.
//!
//! [`super::throttle`] bounds each place of the program; this bounds all of them together, so that a storm of many places
//! fills neither a disk nor the network that lines are shipped over.
//!
//! Invariants
//! - What is left out is told: the next line that is written comes after one that says how much.
//! - Lines that were asked for in detail (DEBUG, TRACE) have a budget of their own and silence no other line.

use std::io;
use std::sync::Arc;

use lictor_runtime::{Clock, SystemClock};
use parking_lot::Mutex;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that are written in a second, for long.
const BYTES_A_SECOND: u64 = 256 * 1024;
/// Bytes that may come at once: a start of a large agent, a failure of everything.
const BYTES_AT_ONCE: u64 = 4 * 1024 * 1024;
/// As [`BYTES_A_SECOND`], of lines that were asked for in detail.
const DETAIL_BYTES_A_SECOND: u64 = 8 * 1024 * 1024;
/// As [`BYTES_AT_ONCE`], of lines that were asked for in detail.
const DETAIL_BYTES_AT_ONCE: u64 = 32 * 1024 * 1024;

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    lines: u64,
    bytes: u64,
}

/// Bytes that fill up with time.
#[derive(Debug)]
struct Budget {
    a_second: u64,
    at_once: u64,
    left: u64,
    filled_millis: u64,
    left_out: LeftOut,
}

impl Budget {
    fn new(a_second: u64, at_once: u64) -> Self {
        Self { a_second, at_once, left: at_once, filled_millis: 0, left_out: LeftOut::default() }
    }

    /// Takes the bytes of a line; none when they are too many, else what was left out before it.
    fn take(&mut self, now_millis: u64, bytes: u64) -> Option<LeftOut> {
        // A clock that was set back fills nothing.
        let passed = now_millis.saturating_sub(self.filled_millis);
        self.filled_millis = now_millis;
        let filled = u128::from(passed) * u128::from(self.a_second) / 1000;
        self.left = self.left.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX)).min(self.at_once);
        if bytes > self.left {
            self.left_out.lines += 1;
            self.left_out.bytes += bytes;
            return None;
        }
        self.left -= bytes;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Where lines go, as many as the budget allows.
pub(super) struct Budgeted<W> {
    to: W,
    json: bool,
    usual: Arc<Mutex<Budget>>,
    detail: Arc<Mutex<Budget>>,
}

impl<W> Budgeted<W> {
    pub(super) fn new(to: W, json: bool) -> Self {
        Self {
            to,
            json,
            usual: Arc::new(Mutex::new(Budget::new(BYTES_A_SECOND, BYTES_AT_ONCE))),
            detail: Arc::new(Mutex::new(Budget::new(DETAIL_BYTES_A_SECOND, DETAIL_BYTES_AT_ONCE))),
        }
    }
}

/// One line on its way.
pub(super) struct Line<W> {
    to: W,
    json: bool,
    budget: Arc<Mutex<Budget>>,
}

impl<W: io::Write> io::Write for Line<W> {
    /// A line comes whole, as the layer that makes it writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let taken = self.budget.lock().take(SystemClock.unix_millis(), line.len() as u64);
        match taken {
            None => return Ok(line.len()),
            Some(LeftOut { lines: 0, .. }) => {}
            Some(LeftOut { lines, bytes }) => {
                let words =
                    format!("{lines} lines of {bytes} bytes were left out: the log had too many bytes a second");
                if self.json {
                    writeln!(self.to, r#"{{"level":"WARN","message":"{words}","target":"lictor"}}"#)?;
                } else {
                    writeln!(self.to, " WARN lictor: {words}")?;
                }
            }
        }
        self.to.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Budgeted<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { to: self.to.make_writer(), json: self.json, budget: Arc::clone(&self.usual) }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let budget = if *metadata.level() > Level::INFO { &self.detail } else { &self.usual };
        Line { to: self.to.make_writer_for(metadata), json: self.json, budget: Arc::clone(budget) }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::throttle::tests::Written;
    use super::*;

    #[test]
    fn a_budget_fills_with_time_and_tells_what_was_left_out() {
        let mut budget = Budget::new(1000, 5000);
        assert_eq!(budget.take(1_000_000, 4000), Some(LeftOut::default()));
        assert_eq!(budget.take(1_000_000, 2000), None);
        assert_eq!(budget.take(1_000_500, 2000), None);
        assert_eq!(budget.take(1_000_900, 2000), None, "900 bytes came in 900 ms");
        assert_eq!(budget.take(1_001_000, 2000), Some(LeftOut { lines: 3, bytes: 6000 }));
        assert_eq!(budget.take(999_000, 1), None, "the clock was set back");
        assert_eq!(budget.take(9_999_000, 5001), None, "no more than at once, however long nobody spoke");
        assert_eq!(budget.take(9_999_000, 5000), Some(LeftOut { lines: 2, bytes: 5002 }));
    }

    #[test]
    fn a_storm_of_lines_is_cut_at_its_bytes_and_details_silence_nobody() {
        for json in [false, true] {
            let written = Written::default();
            let mut to = Budgeted::new(written.clone(), json);
            to.usual = Arc::new(Mutex::new(Budget::new(0, 3000)));
            to.detail = Arc::new(Mutex::new(Budget::new(0, 500)));
            let usual = Arc::clone(&to.usual);
            let lines = tracing_subscriber::fmt::layer().with_writer(to).with_ansi(false);
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                for _ in 0..100 {
                    tracing::debug!("a detail that nobody counts the bytes of");
                }
                for _ in 0..100 {
                    tracing::warn!("a storm that must not fill a disk");
                }
                assert!(written.0.lock().len() <= 3500, "{} bytes", written.0.lock().len());
                usual.lock().left = 1000;
                tracing::warn!("calm");
            });
            let text = String::from_utf8(written.0.lock().clone()).unwrap();
            let storm = text.lines().filter(|line| line.contains("a storm")).count();
            assert!((10..100).contains(&storm), "{storm} lines");
            let last: Vec<&str> = text.lines().rev().take(2).collect();
            assert!(last[0].contains("calm"), "{text}");
            assert!(last[1].contains(&format!("{} lines of ", 100 - storm)), "{text}");
            assert_eq!(last[1].starts_with(r#"{"level":"WARN""#), json, "{text}");
        }
    }
}
