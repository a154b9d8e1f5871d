//! The log's rate: how often one place of the program may speak.
//!
//! Invariants
//! - A place that speaks of something every time it happens cannot fill a disk: beyond its limit lines are left out, and the
//!   next one that is written says how many.
//! - Nothing that was asked for in detail (DEBUG, TRACE) is left out, and no place makes another one silent.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use lictor_runtime::{Clock, SystemClock};
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The time that lines are counted over.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines of one place of our own in an interval.
const OWN_LINES_MAX: u32 = 100;
/// Lines of one place of a library.
const OTHER_LINES_MAX: u32 = 10;

/// A format that leaves lines out when there are too many of one place.
pub(super) struct Throttled<F> {
    format: F,
    json: bool,
    /// By place; the program has only so many.
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Default)]
struct Place {
    begin_millis: u64,
    lines: u32,
    left_out: u64,
}

impl Place {
    /// Counts a line; none when it is one too many, else how many were left out before it.
    fn take(&mut self, now_millis: u64, limit: u32) -> Option<u64> {
        // A clock that was set back begins a new interval.
        if now_millis.abs_diff(self.begin_millis) >= INTERVAL.as_millis() as u64 {
            self.begin_millis = now_millis;
            self.lines = 0;
        }
        if self.lines >= limit {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<F> Throttled<F> {
    pub(super) fn new(format: F, json: bool) -> Self {
        Self { format, json, places: Mutex::default() }
    }

    fn take(&self, metadata: &'static Metadata<'static>, now_millis: u64) -> Option<u64> {
        if *metadata.level() > Level::INFO {
            return Some(0);
        }
        let limit = if metadata.target().starts_with("lictor") { OWN_LINES_MAX } else { OTHER_LINES_MAX };
        self.places.lock().entry(metadata.callsite()).or_default().take(now_millis, limit)
    }
}

impl<S, N, F> FormatEvent<S, N> for Throttled<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        match self.take(metadata, SystemClock.unix_millis()) {
            None => return Ok(()),
            Some(0) => {}
            Some(left_out) => {
                let (level, target) = (metadata.level(), metadata.target());
                let words = format!("{left_out} lines like the next one were left out");
                if self.json {
                    writeln!(writer, r#"{{"level":"{level}","message":"{words}","target":"{target}"}}"#)?;
                } else {
                    writeln!(writer, "{level:>5} {target}: {words}")?;
                }
            }
        }
        self.format.format_event(context, writer, event)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(in super::super) struct Written(pub(in super::super) Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn lines_of(json: bool, speak: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(written.clone()).with_ansi(false);
        let lines = if json {
            lines.json().flatten_event(true).map_event_format(|format| Throttled::new(format, true)).boxed()
        } else {
            lines.map_event_format(|format| Throttled::new(format, false)).boxed()
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), speak);
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_library_that_repeats_itself_is_cut_and_others_are_heard() {
        for json in [false, true] {
            let lines = lines_of(json, || {
                for _ in 0..500 {
                    tracing::warn!(target: "a_library::replication", "stalled");
                }
                tracing::warn!(target: "a_library::replication", "another place");
                for number in 0..300 {
                    tracing::debug!(target: "lictor_server", number, "asked for");
                }
            });
            let of = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
            assert_eq!((of("stalled"), of("another place"), of("asked for")), (10, 1, 300), "json: {json}");
        }
    }

    #[test]
    fn how_many_were_left_out_is_told_by_the_next_line() {
        let mut place = Place::default();
        let now = 1_000_000;
        assert_eq!((0..25).filter(|_| place.take(now, 10).is_some()).count(), 10);
        assert_eq!(place.take(now + 9_999, 10), None);
        assert_eq!(place.take(now + 10_000, 10), Some(16));
        assert_eq!(place.take(now + 10_001, 10), Some(0));
        assert_eq!(place.take(5, 10), Some(0), "the clock was set back");
    }
}
