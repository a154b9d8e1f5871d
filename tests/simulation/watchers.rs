//! Blocked readers, and what they are promised: nothing lost, in order, nothing goes backwards, and soon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_types::freshness::Block;
use lictor_types::{Answer, Consistency, Credential, Freshness, Index, Query};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::groups;
use crate::history::History;
use crate::servers::{SERVERS, Servers};

/// How long a blocked reader waits at most: far longer than anybody may stay uninformed.
const WAIT: Duration = Duration::from_secs(120);
/// What is there in the end is seen within this.
const CURRENT_WITHIN: Duration = Duration::from_secs(5);
/// What is watched.
pub(crate) const PREFIXES: [&str; 2] = ["register/", groups::PREFIX];

/// The keys with their indexes.
pub(crate) type Rows = BTreeMap<String, Index>;

/// One blocked reader at one server.
#[derive(Clone)]
pub(crate) struct Watcher {
    server: usize,
    pub(crate) prefix: &'static str,
    servers: Servers,
    history: History,
    last: Arc<Mutex<Option<Rows>>>,
}

impl Watcher {
    /// One at each server for everything that is watched.
    pub(crate) fn all(servers: &Servers, history: &History) -> Vec<Self> {
        let places = (0..SERVERS).flat_map(|server| PREFIXES.map(|prefix| (server, prefix)));
        let watcher = |(server, prefix)| Self {
            server,
            prefix,
            servers: servers.clone(),
            history: history.clone(),
            last: Arc::default(),
        };
        places.map(watcher).collect()
    }

    /// Follows until dropped.
    pub(crate) async fn run(self) {
        let mut seen: (Index, Rows) = Default::default();
        loop {
            let Some(waist) = self.servers.waist(self.server) else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let after = seen.0;
            let block = (after.0 > 0).then_some(Block { after, wait_millis: WAIT.as_millis() as u64 });
            let freshness = Freshness { consistency: Consistency::Default, block };
            let known = self.history.known_index(self.prefix);
            let mut over = waist.over.clone();
            let nobody = Credential::anonymous();
            let asked = waist.datacenter.read(&nobody, Query::KvList(self.prefix.into()), freshness);
            let read = tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => continue,
                read = timeout(WAIT * 2, asked) => read,
            };
            let Ok(Ok(read)) = read else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Answer::KvEntries(entries) = read.answer else { continue };
            let rows: Rows = entries.iter().map(|entry| (entry.key.clone(), entry.modify_index)).collect();
            self.judge(&seen, (read.index, &rows), known);
            *self.last.lock() = Some(rows.clone());
            seen = (read.index, rows);
        }
    }

    fn judge(&self, before: &(Index, Rows), (index, rows): (Index, &Rows), known: Index) {
        let server = self.server;
        if index < before.0 {
            self.history.broken(format!("a watcher at server {server} went from {} back to {index}", before.0));
        }
        if index < known {
            self.history
                .broken(format!("a watcher at server {server} was told {index} after {known} was acknowledged"));
        }
        if index == before.0 && *rows != before.1 {
            self.history.broken(format!("a watcher at server {server} was told two contents of index {index}"));
        }
        if self.prefix == groups::PREFIX
            && let Some(half) = groups::half(rows)
        {
            self.history.broken(format!("a watcher at server {server} saw half of a transaction at {index}: {half}"));
        }
        for (key, its) in rows {
            if *its > index || before.1.get(key).is_some_and(|earlier| its < earlier) {
                self.history.broken(format!("a watcher at server {server} saw {key} of {its} at index {index}"));
            }
        }
    }

    /// Whether it has seen what is there, soon after all is well.
    pub(crate) async fn is_current(&self, end: &Rows) -> Result<(), String> {
        let waited = timeout(CURRENT_WITHIN, async {
            while self.last.lock().as_ref() != Some(end) {
                sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.map_err(|_| {
            format!("the watcher at server {} has not seen the end {CURRENT_WITHIN:?} after it", self.server)
        })
    }
}
