//! Log lines for whoever listens just now: `/v1/agent/monitor`.
//!
//! The log of a process is one, whatever runs in it; so is this.
//!
//! Invariants
//! - While nobody listens nothing is formatted, and levels that nobody wants cost what they cost without this.
//! - Who reads too slowly misses lines, is told how many, and holds up nobody.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tracing::level_filters::LevelFilter;

/// Lines that are kept for a slow listener.
const LINES_MAX: usize = 1024;
/// Listeners at once.
pub const LISTENERS_MAX: usize = 32;

/// A log line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its level.
    pub level: tracing::Level,
    /// The part of the program that wrote it.
    pub target: &'static str,
    /// What it says, fields behind it.
    pub message: std::sync::Arc<str>,
}

struct Hub {
    lines: broadcast::Sender<Line>,
    wanted: Mutex<Vec<LevelFilter>>,
    most: AtomicU8,
}

static HUB: LazyLock<Hub> = LazyLock::new(|| Hub {
    lines: broadcast::Sender::new(LINES_MAX),
    wanted: Mutex::default(),
    most: AtomicU8::new(0),
});

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// The most detailed level that anybody listens to.
pub fn wanted() -> LevelFilter {
    LEVELS[usize::from(HUB.most.load(Ordering::Relaxed)).min(LEVELS.len() - 1)]
}

/// Gives a line to everybody who listens.
pub fn tell(line: Line) {
    // That nobody listens any more is no error.
    let _ = HUB.lines.send(line);
}

/// Somebody who listens, until dropped.
pub struct Listener {
    level: LevelFilter,
    lines: broadcast::Receiver<Line>,
}

/// Why a listener got no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(
    /// How many lines were dropped.
    pub u64,
);

impl Listener {
    /// Listens to lines of `level` and above; none when too many do.
    pub fn new(level: LevelFilter) -> Option<Self> {
        let lines = {
            let mut wanted = HUB.wanted.lock();
            if wanted.len() >= LISTENERS_MAX {
                return None;
            }
            wanted.push(level);
            update(&wanted);
            HUB.lines.subscribe()
        };
        tracing::callsite::rebuild_interest_cache();
        Some(Self { level, lines })
    }

    /// The next line.
    ///
    /// # Errors
    /// Lines were dropped before it.
    pub async fn next(&mut self) -> Result<Line, Missed> {
        loop {
            match self.lines.recv().await {
                Ok(line) if LevelFilter::from_level(line.level) <= self.level => return Ok(line),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => return Err(Missed(count)),
                // The hub is never dropped.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        {
            let mut wanted = HUB.wanted.lock();
            if let Some(place) = wanted.iter().position(|level| *level == self.level) {
                wanted.swap_remove(place);
            }
            update(&wanted);
        }
        tracing::callsite::rebuild_interest_cache();
    }
}

fn update(wanted: &[LevelFilter]) {
    let most = wanted.iter().max().copied().unwrap_or(LevelFilter::OFF);
    let number = LEVELS.iter().position(|level| *level == most).unwrap_or(0);
    HUB.most.store(number as u8, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: tracing::Level, message: &str) -> Line {
        Line { level, target: "test", message: message.into() }
    }

    #[tokio::test]
    async fn a_listener_hears_its_level_and_how_much_it_missed() {
        assert_eq!(wanted(), LevelFilter::OFF);
        let mut listener = Listener::new(LevelFilter::INFO).unwrap();
        let detailed = Listener::new(LevelFilter::TRACE).unwrap();
        assert_eq!(wanted(), LevelFilter::TRACE);
        drop(detailed);
        assert_eq!(wanted(), LevelFilter::INFO);
        tell(line(tracing::Level::DEBUG, "too much"));
        tell(line(tracing::Level::WARN, "heard"));
        assert_eq!(&*listener.next().await.unwrap().message, "heard");
        (0..LINES_MAX + 5).for_each(|number| tell(line(tracing::Level::INFO, &number.to_string())));
        assert_eq!(listener.next().await.unwrap_err(), Missed(5));
        assert_eq!(&*listener.next().await.unwrap().message, "5");
        drop(listener);
        assert_eq!(wanted(), LevelFilter::OFF);
    }
}
