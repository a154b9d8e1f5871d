//! Waiting for a condition of another process, with a deadline and no guessing.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at another process.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` succeeds; panics with its last error after `limit`.
pub async fn eventually<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(error) if Instant::now() >= end => panic!("{what}: not within {limit:?}: {error}"),
            Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}
