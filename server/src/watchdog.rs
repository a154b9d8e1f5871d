//! A cluster without a leader for so long that something is wrong says what this server knows of it.
//!
//! Fly.io, 6 March 2025: a server came back, the election did not end, and nobody saw why.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::datacenter::ServerDatacenter;

/// So many times the longest election.
const TIMES: u32 = 10;
/// The longest pause before it is said again.
const SAID_AGAIN_MOST: Duration = Duration::from_secs(300);

/// Waits until there was no leader for `limit`.
async fn leaderless<L>(
    leader: &mut watch::Receiver<Option<L>>,
    limit: Duration,
) -> Result<(), watch::error::RecvError> {
    loop {
        leader.wait_for(Option::is_none).await?;
        match timeout(limit, leader.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
    }
}

/// Watches until dropped. A server that is in no cluster yet has no leader to miss.
pub(crate) async fn watch(datacenter: Arc<ServerDatacenter>, longest_election: Duration) {
    let limit = longest_election * TIMES;
    let mut leader = datacenter.consensus.leader();
    while leaderless(&mut leader, limit).await.is_ok() {
        let mut pause = limit;
        while leader.borrow().is_none() {
            if datacenter.is_member() {
                datacenter.figures.leaderless.increment();
                tracing::error!(
                    status = ?datacenter.consensus.status(),
                    members = ?datacenter.consensus.membership(),
                    last_contact = ?datacenter.consensus.last_contact(),
                    "no leader for {limit:?} or longer, which is {TIMES} times the longest election: look whether most \
                     servers run and reach each other on the server port"
                );
            }
            pause = (pause * 2).min(SAID_AGAIN_MOST);
            // Either somebody leads, or it is said again.
            if let Ok(Err(_)) = timeout(pause, leader.wait_for(Option::is_some)).await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Fly.io, 6 March 2025: a server came back, and the election did not end.
    #[tokio::test(start_paused = true)]
    async fn a_short_election_is_no_trouble_and_a_long_one_is() {
        let (leader, mut seen) = watch::channel(Some(1));
        let begun = Instant::now();
        let changes = async {
            for next in [None, Some(2), None, Some(3), None] {
                tokio::time::sleep(Duration::from_secs(3)).await;
                leader.send_replace(next);
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        tokio::select! {
            found = leaderless(&mut seen, Duration::from_secs(8)) => assert!(found.is_ok()),
            () = changes => panic!("nobody noticed"),
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(3 * 5 + 8));
    }
}
