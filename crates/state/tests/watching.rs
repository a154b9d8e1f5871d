//! Readers and a writer on threads: no change is missed, nobody else wakes.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_state::published::Published;
use lictor_types::command::KvCommand;
use lictor_types::{Answer, Command, Envelope, Index, KvVerb, Query, Timestamp};

/// Longer than any of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const READERS: usize = 8;
const WRITES: u64 = 2_000;

fn set(number: u64, key: &str) -> Envelope {
    let mut request_id = [0; 16];
    request_id[..8].copy_from_slice(&number.to_be_bytes());
    let command = KvCommand { verb: KvVerb::Set, key: key.into(), value: number.to_be_bytes().to_vec(), flags: 0 };
    Envelope { request_id, leader_time: Timestamp(0), command: Command::Kv(command) }
}

fn read(published: &Published, key: &str) -> (Index, u64) {
    let query = Authorized::system(Duty::Reconcile, Query::KvGet(key.into()));
    let answered = published.load().answer(&query);
    let Answer::KvEntry(entry) = answered.answer else { panic!("another answer") };
    (answered.index, entry.map_or(0, |entry| u64::from_be_bytes(entry.value.try_into().unwrap())))
}

/// Follows a key as a blocking reader does, until it holds `last`.
async fn follow(published: Arc<Published>, key: String, last: u64) {
    let (mut index, mut value) = read(&published, &key);
    while value < last {
        let mut watch = published.watches().register(&Query::KvGet(key.clone()));
        loop {
            let (now, found) = read(&published, &key);
            if now > index {
                assert!(found >= value, "{key} went back from {value} to {found}");
                (index, value) = (now, found);
                break;
            }
            watch.changed().await;
        }
    }
}

#[test]
fn no_reader_misses_the_last_write() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let published = Arc::new(Published::default());
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let key = format!("key/{}", number % 4);
            // The last write of a key has its number.
            let last = (1..=WRITES).rev().find(|write| write % 4 == number as u64 % 4).unwrap();
            runtime.spawn(follow(published.clone(), key, last))
        })
        .collect();
    let mut store = Store::new();
    for number in 1..=WRITES {
        let applied = store.apply(&set(number, &format!("key/{}", number % 4)));
        published.publish(store.clone(), &applied.changes);
    }
    runtime.block_on(async {
        for reader in readers {
            tokio::time::timeout(PATIENCE, reader).await.expect("a reader waits for a write that was made").unwrap();
        }
    });
}

#[test]
fn readers_of_one_key_sleep_while_others_are_written() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let published = Arc::new(Published::default());
    let wakes = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let mut watch = published.watches().register(&Query::KvGet("mine".into()));
            let wakes = wakes.clone();
            runtime.spawn(async move {
                watch.changed().await;
                wakes.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let mut store = Store::new();
    for number in 1..=WRITES {
        let applied = store.apply(&set(number, &format!("mine{number}")));
        published.publish(store.clone(), &applied.changes);
    }
    assert_eq!(wakes.load(Ordering::SeqCst), 0);
    let applied = store.apply(&set(WRITES + 1, "mine"));
    published.publish(store.clone(), &applied.changes);
    runtime.block_on(async {
        for reader in readers {
            tokio::time::timeout(PATIENCE, reader).await.expect("a reader sleeps through its own key").unwrap();
        }
    });
    assert_eq!(wakes.load(Ordering::SeqCst), READERS as u64);
}

#[test]
fn a_restored_state_wakes_everybody() {
    use std::pin::pin;
    use std::task::{Context, Waker};
    let published = Published::default();
    let mut watches =
        [Query::KvGet("a".into()), Query::Intentions, Query::CaRoots].map(|query| published.watches().register(&query));
    let is_woken = |watch: &mut lictor_state::watches::Watch| {
        pin!(watch.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    assert!(!watches.iter_mut().any(is_woken));
    published.replace(Store::new());
    assert!(watches.iter_mut().all(is_woken));
}
