//! What the proxy counts, and its text for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::copy::Traffic;

/// Counts of one direction of the proxy. All of its listeners share them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections carried.
    pub(crate) carried: AtomicU64,
    /// Connections turned away because there was no certificate or no intentions yet.
    pub(crate) closed: AtomicU64,
    /// Connections turned away because there were too many.
    pub(crate) full: AtomicU64,
    /// Handshakes that failed or took too long.
    pub(crate) handshake_failed: AtomicU64,
    /// Connections denied by intentions, new and open ones.
    pub(crate) denied: AtomicU64,
    /// Connections whose far end (application or instance) could not be reached.
    pub(crate) unreachable: AtomicU64,
    /// Bytes carried.
    pub(crate) traffic: Traffic,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Appends the counts to a Prometheus text, with `direction` as label.
    pub(crate) fn render(&self, direction: &str, text: &mut String) {
        let Self { carried, closed, full, handshake_failed, denied, unreachable, traffic } = self;
        for (outcome, counter) in [
            ("carried", carried),
            ("closed", closed),
            ("full", full),
            ("handshake_failed", handshake_failed),
            ("denied", denied),
            ("unreachable", unreachable),
        ] {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "lictor_sidecar_connections_total{{direction=\"{direction}\",outcome=\"{outcome}\"}} {value}"
            );
        }
        for (way, counter) in [("forth", &traffic.forth), ("back", &traffic.back)] {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "lictor_sidecar_bytes_total{{direction=\"{direction}\",way=\"{way}\"}} {value}");
        }
    }
}
