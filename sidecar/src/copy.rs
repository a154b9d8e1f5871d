//! Copies bytes both ways between two streams, until both directions have ended.
//!
//! Invariants
//! - An end of one direction is passed on as an end of that direction only (half-close); the other goes on.
//! - A stream that breaks is never passed on as one that ended: the caller learns of it and resets the other side, so no
//!   application takes a truncated transfer for a whole one.
//! - An idle connection lasts for ever (TCP keepalive finds dead peers) and holds [`SMALL_BUFFER`] bytes per direction.
//! - At most one buffer per direction is in flight: a slow reader slows its writer down.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer of a direction at first: most connections carry little, and there are many.
const SMALL_BUFFER: usize = 8 * 1024;
/// After this much, a direction gets [`MEDIUM_BUFFER`]: it is more than a request and a reply.
const MEDIUM_AFTER: u64 = 128 * 1024;
/// One TLS record.
const MEDIUM_BUFFER: usize = 16 * 1024;
/// After this much, a direction gets [`LARGE_BUFFER`]: it is a bulk transfer, and system calls are what it costs.
const LARGE_AFTER: u64 = 1024 * 1024;
/// Four TLS records: enough for each read to take what the socket holds, and small beside what bulk transfers need anyway.
const LARGE_BUFFER: usize = 64 * 1024;

/// Bytes carried, for people and metrics. Shared by all connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From the side that dialled to the side that was dialled.
    pub(crate) forth: AtomicU64,
    /// From the side that was dialled to the side that dialled.
    pub(crate) back: AtomicU64,
}

/// How a copy ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions ended in order.
    Finished,
    /// A stream broke.
    Broken(io::Error),
    /// The caller wanted it to end.
    Cancelled,
}

/// Copies between `dialler` and `dialled` until both directions have ended, a stream breaks, or `cancelled` is ready.
pub(crate) async fn copy<A, B>(
    dialler: &mut A,
    dialled: &mut B,
    traffic: &Traffic,
    cancelled: impl Future<Output = ()>,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut forth = Direction::new();
    let mut back = Direction::new();
    let copying = poll_fn(|cx| {
        let forth = forth.poll(cx, Pin::new(&mut *dialler), Pin::new(&mut *dialled), &traffic.forth)?;
        let back = back.poll(cx, Pin::new(&mut *dialled), Pin::new(&mut *dialler), &traffic.back)?;
        if forth.is_ready() && back.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    });
    tokio::select! {
        biased;
        () = cancelled => End::Cancelled,
        copied = copying => copied.map_or_else(End::Broken, |()| End::Finished),
    }
}

/// One direction of a copy.
struct Direction {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    copied: u64,
    unflushed: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// The reader has ended; what is buffered goes out, then the writer is shut down.
    Ending,
    Ended,
}

impl Direction {
    fn new() -> Self {
        Self { buffer: vec![0; SMALL_BUFFER], start: 0, end: 0, copied: 0, unflushed: false, state: State::Copying }
    }

    /// Copies as much as can be copied now; ready when the direction has ended.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut reader: Pin<&mut R>,
        mut writer: Pin<&mut W>,
        counter: &AtomicU64,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.state == State::Ended {
                return Poll::Ready(Ok(()));
            }
            if self.state == State::Copying && self.start == self.end {
                match self.poll_fill(cx, reader.as_mut()) {
                    Poll::Ready(filled) => filled?,
                    Poll::Pending => {
                        // A TLS stream may hold back what it took; it must go out before we wait.
                        if self.unflushed {
                            ready!(writer.as_mut().poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
            }
            while self.start < self.end {
                let written = ready!(writer.as_mut().poll_write(cx, &self.buffer[self.start..self.end]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += written;
                self.copied += written as u64;
                self.unflushed = true;
                counter.fetch_add(written as u64, Ordering::Relaxed);
            }
            if self.state == State::Ending {
                ready!(writer.as_mut().poll_shutdown(cx))?;
                self.state = State::Ended;
                // It may stay half-closed for long: the buffer is not needed any more.
                self.buffer = Vec::new();
            }
        }
    }

    fn poll_fill<R: AsyncRead>(&mut self, cx: &mut Context<'_>, reader: Pin<&mut R>) -> Poll<io::Result<()>> {
        let wanted = match self.copied {
            LARGE_AFTER.. => LARGE_BUFFER,
            MEDIUM_AFTER.. => MEDIUM_BUFFER,
            _ => SMALL_BUFFER,
        };
        if self.buffer.len() < wanted {
            self.buffer = vec![0; wanted];
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(reader.poll_read(cx, &mut buffer))?;
        self.start = 0;
        self.end = buffer.filled().len();
        if self.end == 0 {
            self.state = State::Ending;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Larger than every buffer and every threshold.
    const BULK: usize = 5 * 1024 * 1024 + 17;

    fn pattern(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|at| (at.wrapping_mul(31).wrapping_add(seed) % 251) as u8).collect()
    }

    #[tokio::test]
    async fn big_transfers_both_ways_at_once_arrive_whole_and_are_counted() {
        let (application, mut near) = duplex(3_000);
        let (mut far, service) = duplex(70_000);
        let traffic = Traffic::default();
        let send = |stream: tokio::io::DuplexStream, seed| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let sending = async {
                writer.write_all(&pattern(BULK, seed)).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(sending, reader.read_to_end(&mut received));
            read.unwrap();
            received
        };
        let (end, at_application, at_service) =
            tokio::join!(copy(&mut near, &mut far, &traffic, pending()), send(application, 1), send(service, 2));
        assert!(matches!(end, End::Finished), "{end:?}");
        assert!(at_application == pattern(BULK, 2) && at_service == pattern(BULK, 1));
        assert_eq!(traffic.forth.load(Ordering::Relaxed), BULK as u64);
        assert_eq!(traffic.back.load(Ordering::Relaxed), BULK as u64);
    }

    #[tokio::test]
    async fn a_side_that_has_ended_still_receives() {
        let (mut application, mut near) = duplex(64);
        let (mut far, mut service) = duplex(64);
        let traffic = Traffic::default();
        let talk = async {
            application.write_all(b"question").await.unwrap();
            application.shutdown().await.unwrap();
            let mut question = String::new();
            service.read_to_string(&mut question).await.unwrap();
            // The service answers only after it has seen the end of the question.
            service.write_all(b"answer").await.unwrap();
            service.shutdown().await.unwrap();
            let mut answer = String::new();
            application.read_to_string(&mut answer).await.unwrap();
            (question, answer)
        };
        let (end, (question, answer)) = tokio::join!(copy(&mut near, &mut far, &traffic, pending()), talk);
        assert!(matches!(end, End::Finished), "{end:?}");
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    }

    #[tokio::test]
    async fn a_broken_stream_is_told_apart_from_an_ended_one() {
        let (_application, mut near) = duplex(64);
        let mut far = reset_stream();
        let end = copy(&mut near, &mut far, &Traffic::default(), pending()).await;
        assert!(matches!(end, End::Broken(error) if error.kind() == io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_cancelled_copy_ends_though_both_sides_are_open() {
        let (_application, mut near) = duplex(64);
        let (mut far, _service) = duplex(64);
        let (cancel, cancelled) = tokio::sync::oneshot::channel::<()>();
        drop(cancel);
        let cancelled = async { drop(cancelled.await) };
        assert!(matches!(copy(&mut near, &mut far, &Traffic::default(), cancelled).await, End::Cancelled));
    }

    /// A stream whose peer reset it.
    fn reset_stream() -> impl AsyncRead + AsyncWrite + Unpin {
        struct Reset;
        impl AsyncRead for Reset {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
        impl AsyncWrite for Reset {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        Reset
    }
}
