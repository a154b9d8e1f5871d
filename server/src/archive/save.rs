//! Saving: the archive is made on a thread of its own, as fast as its pieces are asked for.

use std::io::{self, Write};
use std::time::Duration;

use lictor_agent::agent::LICTOR_VERSION;
use lictor_types::archive::{PIECE_BYTES_MAX, SnapshotOpened, SnapshotPiece, SnapshotRead, TransferId};
use lictor_types::{Refusal, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::container::{self, Meta, Origin};
use super::{SAVES_MAX, too_many};
use crate::datacenter::ServerDatacenter;

/// Pieces that are made ahead.
const PIECES_AHEAD: usize = 2;
/// The asker hears this often that it must ask again.
const PIECE_WAIT: Duration = Duration::from_secs(2);

/// A snapshot that is being read.
pub(crate) struct Save {
    opened: SnapshotOpened,
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    next: u64,
    last: Option<SnapshotPiece>,
    pub(super) used: Instant,
}

/// Cuts what is written into pieces and waits until they are taken.
struct Pieces {
    piece: Vec<u8>,
    to: mpsc::Sender<io::Result<Vec<u8>>>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES_MAX));
        self.to.blocking_send(Ok(piece)).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads it"))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES_MAX - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES_MAX {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

impl ServerDatacenter {
    pub(super) fn open_save(&self, id: TransferId) -> Result<SnapshotOpened, Refusal> {
        let mut saves = self.archives.saves.lock();
        if let Some(open) = saves.get(&id) {
            // The answer was lost on its way.
            return open
                .try_lock()
                .map(|save| save.opened.clone())
                .map_err(|_| too_many("this snapshot is being read"));
        }
        if saves.len() >= SAVES_MAX {
            return Err(too_many(format!("{SAVES_MAX} snapshots are being saved on this server; try again later")));
        }
        let store = self.published.load();
        let term = self.consensus.status().term;
        let now = Timestamp::from(self.clock.now());
        let opened = SnapshotOpened {
            index: store.index(),
            last_contact_millis: self.consensus.last_contact().as_millis() as u64,
            known_leader: self.consensus.leader().borrow().is_some(),
        };
        let meta = Meta {
            version: 1,
            id: format!("{term}-{}-{}", store.index(), now.0),
            index: store.index().0,
            term,
            size: 0,
            lictor: Some(Origin {
                release: LICTOR_VERSION.into(),
                datacenter: self.settings.datacenter.clone(),
                cluster_id: store.cluster().map(|it| it.cluster_id.clone()).unwrap_or_default(),
                seal_key_id: self.seal.id().to_string(),
            }),
        };
        let (to, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let failed = to.clone();
            let store = store.for_archive();
            if let Err(error) = container::write(&store, meta, Pieces { piece: Vec::new(), to }) {
                // Whoever read it may be gone, which is then the error.
                let _ = failed.blocking_send(Err(error));
            }
        });
        let save = Save { opened: opened.clone(), pieces, next: 0, last: None, used: Instant::now() };
        saves.insert(id, std::sync::Arc::new(tokio::sync::Mutex::new(save)));
        Ok(opened)
    }

    pub(super) async fn read_save(&self, read: &SnapshotRead) -> Result<SnapshotPiece, Refusal> {
        let save = self.archives.saves.lock().get(&read.id).cloned();
        let unknown = "this server does not know of the snapshot that is being read: it restarted, or nobody had read on \
                       for a while; save it again";
        let save = save.ok_or_else(|| Refusal::failed(unknown))?;
        let mut save = save.lock().await;
        save.used = Instant::now();
        if read.piece + 1 == save.next
            && let Some(last) = &save.last
        {
            return Ok(last.clone());
        }
        if read.piece != save.next {
            return Err(Refusal::failed(format!(
                "piece {} of a snapshot was asked for after {}",
                read.piece, save.next
            )));
        }
        let piece = match timeout(PIECE_WAIT, save.pieces.recv()).await {
            Err(_) => return Ok(SnapshotPiece { bytes: Vec::new(), end: false }),
            Ok(Some(Ok(bytes))) => SnapshotPiece { bytes, end: false },
            Ok(Some(Err(error))) => return Err(Refusal::failed(format!("cannot write the snapshot: {error}"))),
            Ok(None) => SnapshotPiece { bytes: Vec::new(), end: true },
        };
        save.next += 1;
        save.last = Some(piece.clone());
        Ok(piece)
    }
}
