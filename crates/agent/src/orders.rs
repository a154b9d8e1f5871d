//! What people order an agent to do as a process: to leave, or to read its configuration again.
//!
//! Who runs the process takes the orders and carries them out one after the other; the HTTP door only passes them on and
//! waits for the outcome. An agent that is part of another process has nobody who takes them, and says so.
//!
//! Invariants
//! - At most [`ORDERS_MAX`] orders wait; more are refused, not queued.

use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Orders that wait at once: one that is carried out takes seconds, and people give them.
pub const ORDERS_MAX: usize = 4;

/// How it went.
pub type Done = oneshot::Sender<Result<(), Refusal>>;

/// One order.
#[derive(Debug)]
pub enum Order {
    /// Leave the cluster on purpose, then end.
    Leave(Done),
    /// Read the configuration again.
    Reload(Done),
}

/// Where orders are given.
#[derive(Debug)]
pub struct Orders {
    given: mpsc::Sender<Order>,
    /// Until somebody takes them.
    untaken: Mutex<Option<mpsc::Receiver<Order>>>,
}

impl Default for Orders {
    fn default() -> Self {
        let (given, untaken) = mpsc::channel(ORDERS_MAX);
        Self { given, untaken: Mutex::new(Some(untaken)) }
    }
}

impl Orders {
    /// Takes the orders over; none when somebody did already.
    pub fn take(&self) -> Option<mpsc::Receiver<Order>> {
        self.untaken.lock().take()
    }

    /// Has the agent leave. Comes back when it has left; the process ends soon after.
    ///
    /// # Errors
    /// Nobody carries out orders here, or too many wait.
    pub async fn leave(&self) -> Result<(), Refusal> {
        self.give(Order::Leave).await
    }

    /// Has the agent read its configuration again.
    ///
    /// # Errors
    /// The new configuration cannot be used, and nothing has changed; or as for [`Orders::leave`].
    pub async fn reload(&self) -> Result<(), Refusal> {
        self.give(Order::Reload).await
    }

    async fn give(&self, order: fn(Done) -> Order) -> Result<(), Refusal> {
        if self.untaken.lock().is_some() {
            return Err(Refusal::failed(
                "this agent is part of another process, which decides how it is configured and when it ends: use what \
                 started it",
            ));
        }
        let (done, outcome) = oneshot::channel();
        self.given.try_send(order(done)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::new(RefusalKind::TooMany, format!("{ORDERS_MAX} orders wait already: try again"))
            }
            mpsc::error::TrySendError::Closed(_) => ending(),
        })?;
        outcome.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> Refusal {
    Refusal::failed("this agent is about to end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_waits_for_its_outcome_and_too_many_are_refused() {
        let orders = Orders::default();
        assert!(orders.leave().await.unwrap_err().text.contains("part of another process"));
        let mut taken = orders.take().unwrap();
        assert!(orders.take().is_none());
        let (outcome, ()) = tokio::join!(orders.reload(), async {
            let Some(Order::Reload(done)) = taken.recv().await else { panic!("another order") };
            done.send(Err(Refusal::failed("no"))).unwrap();
        });
        assert_eq!(outcome.unwrap_err().text, "no");
        for _ in 0..ORDERS_MAX {
            orders.given.try_send(Order::Leave(oneshot::channel().0)).unwrap();
        }
        assert_eq!(orders.leave().await.unwrap_err().kind, RefusalKind::TooMany);
        drop(taken);
        assert_eq!(orders.leave().await.unwrap_err().text, "this agent is about to end");
    }
}
