//! `/v1/snapshot`: the whole state as one archive, out and in. Neither way is it ever in memory as a whole.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use lictor_types::Refusal;
use lictor_types::archive::{
    PIECE_BYTES_MAX, RestoreWrite, SnapshotOpen, SnapshotOpened, SnapshotPiece, SnapshotRead, TransferId,
};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use tokio::time::{Instant, timeout};

use super::caller::{Caller, Order, mark_index};
use super::failure::{Answered, Failure};

/// The longest silence in the middle of an archive that is sent to us.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the servers may take to restore what they were given.
const RESTORE_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long the servers may take to make the next piece.
const PIECE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Before a piece that was not made yet is asked for again; the servers wait as well.
const AGAIN: Duration = Duration::from_millis(50);

fn transfer_id(caller: &Caller) -> TransferId {
    let mut id = TransferId::default();
    caller.door.agent.rng.fill(&mut id);
    id
}

/// `GET /v1/snapshot`.
pub(super) async fn save(order: Order) -> Answered {
    let caller = order.into_caller();
    let id = transfer_id(&caller);
    let open = SnapshotOpen { id, stale: caller.params.has("stale") };
    let Report::SnapshotOpened(opened) = caller.operate(Operation::SnapshotOpen(open)).await? else {
        return Err(Failure::unexpected_answer());
    };
    // The first piece before the status: what fails at once is an error and no broken archive.
    let first = piece(&caller, id, 0).await?;
    let begin = (caller, Some((first, 1)));
    let pieces = stream::try_unfold(begin, move |(caller, state)| async move {
        let Some((piece_now, next)) = state.filter(|(piece, _)| !piece.end) else { return Ok(None) };
        let following = piece(&caller, id, next).await.map_err(|failure| failure.0)?;
        Ok::<_, Refusal>(Some((Bytes::from(piece_now.bytes), (caller, Some((following, next + 1))))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    describe(&mut response, &opened);
    Ok(response)
}

fn describe(response: &mut Response, opened: &SnapshotOpened) {
    const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
    const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
    mark_index(response, opened.index);
    let known = HeaderValue::from_static(if opened.known_leader { "true" } else { "false" });
    let headers = response.headers_mut();
    headers.insert(KNOWN_LEADER, known);
    headers.insert(LAST_CONTACT, opened.last_contact_millis.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
}

async fn piece(caller: &Caller, id: TransferId, piece: u64) -> Result<SnapshotPiece, Failure> {
    let end = Instant::now() + PIECE_LIMIT;
    loop {
        let Report::SnapshotPiece(made) = caller.operate(Operation::SnapshotRead(SnapshotRead { id, piece })).await?
        else {
            return Err(Failure::unexpected_answer());
        };
        if made.end || !made.bytes.is_empty() {
            return Ok(made);
        }
        if Instant::now() >= end {
            return Err(Refusal::failed(format!("no piece of the snapshot was made within {PIECE_LIMIT:?}")).into());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `PUT /v1/snapshot`.
pub(super) async fn restore(order: Order, body: Body) -> Answered {
    let caller = order.into_caller();
    let id = transfer_id(&caller);
    caller.operate(Operation::RestoreOpen(id)).await?;
    hand_over(&caller, id, body).await?;
    let end = Instant::now() + RESTORE_LIMIT;
    loop {
        match caller.operate(Operation::RestoreFinish(id)).await? {
            Report::Restored(Some(index)) => {
                let mut response = Response::default();
                mark_index(&mut response, index);
                return Ok(response);
            }
            Report::Restored(None) if Instant::now() < end => tokio::time::sleep(AGAIN).await,
            Report::Restored(None) => {
                let text = format!("the snapshot was not restored within {RESTORE_LIMIT:?}; it may still be");
                return Err(Refusal::failed(text).into());
            }
            _ => return Err(Failure::unexpected_answer()),
        }
    }
}

async fn hand_over(caller: &Caller, id: TransferId, mut body: Body) -> Result<(), Failure> {
    let mut waiting = Vec::new();
    let mut piece = 0;
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| {
            let text = format!("nothing of the snapshot came for {SILENCE_MAX:?}; nothing was changed");
            Refusal::new(RefusalKind::BadRequest, text)
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Refusal::bad_request(format!("the snapshot cannot be read: {error}; nothing was changed"))
        })?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        while !bytes.is_empty() {
            let room = PIECE_BYTES_MAX - waiting.len();
            waiting.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if waiting.len() == PIECE_BYTES_MAX {
                send(caller, id, &mut piece, std::mem::take(&mut waiting)).await?;
            }
        }
    }
    if waiting.is_empty() { Ok(()) } else { send(caller, id, &mut piece, waiting).await }
}

async fn send(caller: &Caller, id: TransferId, piece: &mut u64, bytes: Vec<u8>) -> Result<(), Failure> {
    caller.operate(Operation::RestoreWrite(RestoreWrite { id, piece: *piece, bytes })).await?;
    *piece += 1;
    Ok(())
}
