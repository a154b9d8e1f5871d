//! Streams: one message each way, within limits of time, number and size.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lictor_runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::wire::stream::Assembler;

/// The most streams of others at once, as memberlist has it.
const MAX_STREAMS: usize = 128;
/// The most bytes of streams that are not whole yet, altogether.
const MAX_PARTIAL: usize = 64 * 1024 * 1024;
/// How much is read at a time.
const CHUNK: usize = 16 * 1024;
/// The pause after a failed accept: the process may be out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A whole stream of another member.
pub(super) struct Inbound {
    pub(super) from: SocketAddr,
    pub(super) stream: Vec<u8>,
    pub(super) reply: oneshot::Sender<Option<Vec<u8>>>,
}

/// Bytes that count against [`MAX_PARTIAL`] while this lives.
struct Share {
    all: Arc<AtomicUsize>,
    mine: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        self.mine += bytes;
        if self.all.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_PARTIAL {
            return Err(io::Error::other("too many bytes of gossip streams are waiting already"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

async fn read_whole(stream: &mut TcpStream, share: &mut Share) -> io::Result<Vec<u8>> {
    let (mut assembler, mut chunk) = (Assembler::default(), [0; CHUNK]);
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within its message"));
        }
        share.grow(read)?;
        let whole = assembler
            .push(&chunk[..read])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if whole {
            return Ok(assembler.into_bytes());
        }
    }
}

/// Takes streams of others until `tasks` stop.
pub(super) fn accept(listener: TcpListener, inbound: mpsc::Sender<Inbound>, limit: Duration, tasks: &Tasks) {
    let (room, all) = (Arc::new(Semaphore::new(MAX_STREAMS)), Arc::new(AtomicUsize::new(0)));
    let own = tasks.clone();
    tasks.spawn(async move {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a gossip stream was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = room.clone().try_acquire_owned() else {
                tracing::warn!(%from, "too many gossip streams: one was closed");
                continue;
            };
            let (inbound, share) = (inbound.clone(), Share { all: all.clone(), mine: 0 });
            own.spawn(async move {
                let _place = place;
                match timeout(limit, serve(stream, from, inbound, share)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%from, %error, "a gossip stream failed"),
                    Err(_) => tracing::debug!(%from, "a gossip stream took too long"),
                }
            });
        }
    });
}

async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    inbound: mpsc::Sender<Inbound>,
    mut share: Share,
) -> io::Result<()> {
    let message = read_whole(&mut stream, &mut share).await?;
    let (reply, answer) = oneshot::channel();
    if inbound.send(Inbound { from, stream: message, reply }).await.is_err() {
        return Ok(());
    }
    if let Ok(Some(answer)) = answer.await {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// Opens a stream, writes `bytes` and reads one message.
pub(super) async fn exchange(to: SocketAddr, bytes: &[u8], within: Duration) -> Result<Vec<u8>, String> {
    let work = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(bytes).await?;
        let mut share = Share { all: Arc::new(AtomicUsize::new(0)), mine: 0 };
        read_whole(&mut stream, &mut share).await
    };
    match timeout(within, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}
