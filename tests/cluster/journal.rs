//! Writers at work, and what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use lictor_client::Client;
use lictor_tests::eventually;
use serde_json::Value;
use tokio::task::JoinSet;

/// Writers at once.
pub(crate) const WRITERS: usize = 8;
/// For one phase of writing, on a busy machine.
const PHASE_LIMIT: Duration = Duration::from_secs(120);

/// What the writers were told.
#[derive(Default)]
pub(crate) struct Journal {
    acknowledged: Mutex<BTreeMap<String, String>>,
    pub(crate) count: AtomicU64,
    failures: Mutex<Vec<String>>,
    pub(crate) stop: AtomicBool,
}

impl Journal {
    /// What was acknowledged so far.
    pub(crate) fn acknowledged(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.acknowledged.lock().expect("no writer panicked")
    }

    /// What was refused so far, and why.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("no writer panicked").clone()
    }

    /// Waits until so many more writes are acknowledged.
    pub(crate) async fn until_more(&self, more: u64) {
        let goal = self.count.load(Ordering::Relaxed) + more;
        eventually("enough acknowledged writes", PHASE_LIMIT, || async {
            let count = self.count.load(Ordering::Relaxed);
            if count >= goal { Ok(()) } else { Err(format!("{count} of {goal}")) }
        })
        .await;
    }
}

/// Writers of one journal; each writes keys of its own.
pub(crate) struct Writers {
    pub(crate) journal: Arc<Journal>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts them; all write through `client`.
    pub(crate) fn start(client: &Client) -> Self {
        let journal = Arc::new(Journal::default());
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn(write_until_told(Arc::clone(&journal), client.clone(), writer));
        }
        Self { journal, tasks }
    }

    /// Cuts them off: nobody will answer them any more.
    pub(crate) fn end_without_waiting(mut self) {
        self.tasks.abort_all();
    }

    /// Ends them and returns what was acknowledged.
    pub(crate) async fn stop(mut self) -> BTreeMap<String, String> {
        self.journal.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a writer ends well");
        }
        self.journal.acknowledged().clone()
    }
}

async fn write_until_told(journal: Arc<Journal>, client: Client, writer: usize) {
    let mut number = 0u64;
    while !journal.stop.load(Ordering::Relaxed) {
        let key = format!("writers/{writer}/{number:06}");
        let value = format!("{writer}-{number}");
        number += 1;
        match client.put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from(value.clone())).await {
            Ok(reply) if reply.starts_with(b"true") => {
                journal.acknowledged().insert(key, value);
                journal.count.fetch_add(1, Ordering::Relaxed);
            }
            // Not acknowledged: it may or may not be there, and nobody asks.
            Ok(reply) => journal.failures.lock().expect("no writer panicked").push(format!("{reply:?}")),
            Err(error) => journal.failures.lock().expect("no writer panicked").push(error.to_string()),
        }
    }
}

/// All that the writers wrote, as this agent knows it.
pub(crate) async fn everything(client: &Client, query: &[(&str, &str)]) -> BTreeMap<String, String> {
    let rows = eventually("all entries can be read", Duration::from_secs(30), || async {
        client.get_json::<Vec<Value>>("/v1/kv/writers", query).await.map_err(|error| error.to_string())
    })
    .await
    .0;
    rows.iter().map(entry).collect()
}

/// Key and value of a row.
pub(crate) fn entry(row: &Value) -> (String, String) {
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    (text("Key"), decode_base64(&text("Value")))
}

fn decode_base64(text: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    String::from_utf8(bytes).expect("text")
}
