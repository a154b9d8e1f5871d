//! Work in batches: what waits while earlier work is on its way goes together.
//!
//! Nothing waits for company: the first is sent at once. Under load batches grow by themselves, and what each costs is
//! shared.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

/// How large batches may be, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// On their way at once.
    pub(crate) in_flight: usize,
    /// Pieces of one batch.
    pub(crate) pieces: usize,
    /// Bytes of one batch; a single piece may be larger.
    pub(crate) bytes: usize,
}

/// Takes pieces until nobody can add one any more, and sends each batch with `send`.
pub(crate) async fn send_in_batches<T, F>(
    mut waiting: mpsc::Receiver<T>,
    limits: BatchLimits,
    size: impl Fn(&T) -> usize,
    send: impl Fn(Vec<T>) -> F,
) where
    F: Future<Output = ()>,
{
    let mut in_flight = FuturesUnordered::new();
    // The one that did not fit the last batch.
    let mut first: Option<T> = None;
    loop {
        if first.is_none() {
            tokio::select! {
                biased;
                Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
                piece = waiting.recv(), if in_flight.len() < limits.in_flight => match piece {
                    Some(piece) => first = Some(piece),
                    None => break,
                },
            }
        } else if in_flight.len() >= limits.in_flight {
            in_flight.next().await;
            continue;
        }
        let Some(begin) = first.take() else { continue };
        let mut bytes = size(&begin);
        let mut batch = vec![begin];
        while batch.len() < limits.pieces
            && let Ok(next) = waiting.try_recv()
        {
            bytes += size(&next);
            if bytes > limits.bytes {
                first = Some(next);
                break;
            }
            batch.push(next);
        }
        in_flight.push(send(batch));
    }
    while in_flight.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    async fn batches_of(pieces: Vec<Vec<u8>>, limits: BatchLimits) -> Vec<usize> {
        let (sender, waiting) = mpsc::channel(64);
        for piece in pieces {
            sender.send(piece).await.unwrap();
        }
        drop(sender);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let note = |batch: Vec<Vec<u8>>| {
            let sent = sent.clone();
            async move {
                sent.lock().push(batch.len());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        send_in_batches(waiting, limits, Vec::len, note).await;
        sent.lock().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_goes_together_within_the_limits() {
        let limits = BatchLimits { in_flight: 2, pieces: 4, bytes: 10 };
        assert_eq!(batches_of(vec![vec![0; 1]; 10], limits).await, [4, 4, 2]);
        assert_eq!(batches_of(vec![vec![0; 4]; 5], limits).await, [2, 2, 1]);
        // One that is larger than a batch goes alone.
        assert_eq!(batches_of(vec![vec![0; 4], vec![0; 40], vec![0; 4]], limits).await, [1, 1, 1]);
        assert_eq!(batches_of(Vec::new(), limits).await, [0; 0]);
    }
}
