//! Connections to servers by address: dialled when first used, shared, and thrown away when they break.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_runtime::Tasks;
use lictor_runtime::transport::SharedTransport;
use lictor_types::Credential;
use lictor_types::rpc::{Operation, Request, RequestBody, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rpc::{RpcConnection, RpcError};

/// Addresses that are kept; the one not used for the longest time goes first.
const ADDRESSES_MAX: usize = 16;
/// After so long without a call a connection is let go: agents change their server now and then.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Connections to servers by address.
pub struct RpcPool {
    transport: SharedTransport,
    tasks: Tasks,
    slots: Mutex<BTreeMap<String, Slot>>,
}

struct Slot {
    last_used: Instant,
    connection: Arc<tokio::sync::Mutex<Connection>>,
}

/// One address. Locked while it is dialled, so that it is dialled once.
#[derive(Default)]
struct Connection {
    open: Option<RpcConnection>,
    /// How often it was opened: tells a broken connection from the one that took its place.
    generation: u64,
    failed: Option<(Instant, RpcError)>,
}

impl RpcPool {
    /// No connections yet. What drives them belongs to `tasks`.
    pub fn new(transport: SharedTransport, tasks: &Tasks) -> Self {
        Self { transport, tasks: tasks.child(), slots: Mutex::new(BTreeMap::new()) }
    }

    /// Asks the server at `address` and waits for its answer at most `limit`, dialling included.
    ///
    /// # Errors
    /// There is no answer; the next call dials anew.
    pub async fn call(&self, address: &str, request: Request, limit: Duration) -> Result<Response, RpcError> {
        let start = Instant::now();
        let slot = self.slot(address, start);
        let opened = tokio::time::timeout(limit, self.open(address, &slot, start)).await;
        let (connection, generation) =
            opened.unwrap_or_else(|_| Err(RpcError::Deadline { address: address.into(), limit }))?;
        let answered = connection.call(request, limit.saturating_sub(start.elapsed())).await;
        if answered.as_ref().is_err_and(RpcError::breaks_connection) {
            let mut slot = slot.lock().await;
            if slot.generation == generation {
                slot.open = None;
            }
        }
        answered
    }

    /// Whether the server at `address` answers at all within `limit`, on the connection that there is. One that does not keeps it:
    /// a server that is slow for a moment is not dialled again by everybody at once.
    pub(super) async fn is_there(&self, address: &str, limit: Duration) -> bool {
        let slot = self.slot(address, Instant::now());
        let asked = async {
            let connection = slot.lock().await.open.clone()?;
            let body = RequestBody::Operate(Operation::Status);
            let request = Request { credential: Credential::anonymous(), body, forwarded: false };
            connection.call(request, limit).await.ok()
        };
        matches!(tokio::time::timeout(limit, asked).await, Ok(Some(_)))
    }

    fn slot(&self, address: &str, now: Instant) -> Arc<tokio::sync::Mutex<Connection>> {
        let mut slots = self.slots.lock();
        slots.retain(|other, slot| other == address || now.duration_since(slot.last_used) < IDLE_LIMIT);
        if !slots.contains_key(address) && slots.len() >= ADDRESSES_MAX {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.last_used).map(|(address, _)| address.clone());
            if let Some(oldest) = oldest {
                // Calls on it go on: they hold the connection themselves.
                slots.remove(&oldest);
            }
        }
        let slot =
            slots.entry(address.to_owned()).or_insert_with(|| Slot { last_used: now, connection: Arc::default() });
        slot.last_used = now;
        Arc::clone(&slot.connection)
    }

    async fn open(
        &self,
        address: &str,
        slot: &tokio::sync::Mutex<Connection>,
        asked: Instant,
    ) -> Result<(RpcConnection, u64), RpcError> {
        let mut slot = slot.lock().await;
        if let Some(connection) = &slot.open {
            return Ok((connection.clone(), slot.generation));
        }
        // Whoever waited here while another one dialled in vain shares the answer: a crowd dials once.
        if let Some((_, error)) = slot.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        match RpcConnection::connect(&self.transport, address, &self.tasks).await {
            Ok(connection) => {
                slot.generation += 1;
                slot.failed = None;
                slot.open = Some(connection.clone());
                Ok((connection, slot.generation))
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}
