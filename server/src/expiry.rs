//! Certificates that come to their end: told 30, 14, 7 and 1 days before, and shown as metrics all the time.
//!
//! Fly.io, 22 October 2024: a root that nobody had looked at for years expired, and took everything along.
//!
//! Invariants
//! - What is renewed as a matter of course before a mark is not warned of at that mark: a mark counts only in the last third
//!   of a certificate's life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_identity::{KeyedChain, certificate_facts};
use lictor_runtime::Clock;
use lictor_runtime::metrics::Gauge;
use parking_lot::Mutex;

use crate::datacenter::ServerDatacenter;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// So many days before its end a certificate is warned of.
const MARKS_DAYS: [u32; 4] = [30, 14, 7, 1];

/// The validity of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    begin: SystemTime,
    end: SystemTime,
}

impl Life {
    /// How many marks are passed; one more when it has expired.
    fn marks_passed(&self, now: SystemTime) -> usize {
        let Ok(left) = self.end.duration_since(now) else { return MARKS_DAYS.len() + 1 };
        let whole = self.end.duration_since(self.begin).unwrap_or_default();
        MARKS_DAYS.iter().filter(|days| left <= DAY * **days && DAY * **days <= whole / 3).count()
    }
}

/// The certificates of this server, by what they are for.
#[derive(Clone, Default)]
pub(crate) struct Expiries(Arc<Mutex<BTreeMap<&'static str, (Life, usize)>>>);

/// The certificate on the server port.
pub(crate) const RPC: &str = "internal RPC";
/// The certificate of HTTPS.
pub(crate) const HTTPS: &str = "HTTPS";
/// The mesh's root.
const MESH_ROOT: &str = "the mesh's root";
/// What signs leaves of the mesh.
const MESH_INTERMEDIATE: &str = "the mesh's intermediate";

/// The names of Consul for the seconds that are left.
const GAUGES: [(&str, &str); 3] = [
    (RPC, "agent.tls.cert.expiry"),
    (MESH_ROOT, "mesh.active-root-ca.expiry"),
    (MESH_INTERMEDIATE, "mesh.active-signing-ca.expiry"),
];

impl Expiries {
    /// This chain is in force.
    pub(crate) fn in_force(&self, what: &'static str, chain: &KeyedChain) {
        self.set(what, Life { begin: chain.not_before(), end: chain.not_after() });
    }

    fn set(&self, what: &'static str, life: Life) {
        let mut known = self.0.lock();
        if known.get(what).is_none_or(|(its, _)| *its != life) {
            known.insert(what, (life, 0));
        }
    }

    fn set_from_pem(&self, what: &'static str, pem: &str) {
        // A state whose root cannot be read is told of where roots are put in force.
        if let Ok(facts) = certificate_facts(pem) {
            self.set(what, Life { begin: facts.not_before, end: facts.not_after });
        }
    }

    /// Who has passed another mark since the last look, with what is left.
    fn to_tell(&self, now: SystemTime) -> Vec<(&'static str, Option<Duration>)> {
        let mut known = self.0.lock();
        let mut told = Vec::new();
        for (what, (life, passed)) in known.iter_mut() {
            let passes = life.marks_passed(now);
            if passes > *passed {
                told.push((*what, life.end.duration_since(now).ok()));
            }
            *passed = passes;
        }
        told
    }

    /// Seconds that are left, by the names of Consul.
    pub(crate) fn gauges(&self, now: SystemTime) -> Vec<Gauge> {
        let known = self.0.lock();
        let left = |life: &Life| match life.end.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(over) => -over.duration().as_secs_f64(),
        };
        let gauge =
            |(what, name): &(&str, &'static str)| known.get(what).map(|(life, _)| Gauge { name, value: left(life) });
        GAUGES.iter().filter_map(gauge).collect()
    }
}

/// Looks at the certificates of this server and of the mesh, until dropped.
pub(crate) async fn watch(datacenter: Arc<ServerDatacenter>, expiries: Expiries, clock: Arc<dyn Clock>) {
    loop {
        if let Some(authority) = datacenter.published.load().authority() {
            expiries.set_from_pem(MESH_ROOT, &authority.root.root_cert);
            expiries.set_from_pem(MESH_INTERMEDIATE, &authority.intermediate_pem);
        }
        for (what, left) in expiries.to_tell(clock.now()) {
            match left {
                Some(left) => tracing::warn!(
                    what,
                    "the certificate of {what} expires in {} days and {} hours: renew it before",
                    left.as_secs() / DAY.as_secs(),
                    left.as_secs() % DAY.as_secs() / 3600
                ),
                None => {
                    tracing::error!(what, "the certificate of {what} has expired: nobody who checks it will connect")
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * days as u32
    }

    #[test]
    fn a_certificate_is_told_of_once_at_each_mark_and_anew_when_it_was_renewed() {
        let expiries = Expiries::default();
        expiries.set(RPC, Life { begin: at(0), end: at(365) });
        let told = |now| expiries.to_tell(now).len();
        assert_eq!([told(at(1)), told(at(334))], [0, 0]);
        assert_eq!([told(at(335)), told(at(336)), told(at(350))], [1, 0, 0], "30 days");
        assert_eq!([told(at(351)), told(at(358)), told(at(364)), told(at(364))], [1, 1, 1, 0]);
        assert_eq!(expiries.to_tell(at(366)), [(RPC, None)], "it is over");
        expiries.set(RPC, Life { begin: at(366), end: at(366 + 20) });
        assert_eq!(told(at(367)), 0, "it is renewed");
        assert_eq!(told(at(373)), 0, "14 days are no mark in a life of 20");
        assert_eq!(told(at(380)), 0, "nor are 7, which are more than a third");
        assert_eq!(told(at(385)), 1);
        let gauges: Vec<(&str, f64)> = expiries.gauges(at(387)).iter().map(|it| (it.name, it.value)).collect();
        assert_eq!(gauges, [("agent.tls.cert.expiry", -86_400.0)]);
    }
}
