//! Owned tasks: a set that is told to stop as one and then awaited.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with one owner.
///
/// Cloning shares the set. Dropping the last clone does not stop the tasks: [`Tasks::stop`] does.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set that stops when this one stops, and can be stopped before it.
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), cancelled: self.cancelled.child_token() }
    }

    /// Runs `task` until it ends or the set is stopped; when stopped, it is dropped where it waits.
    #[allow(clippy::disallowed_methods, reason = "this is the one door to tokio's spawn")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.cancelled.clone();
        tokio::spawn(self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = task => {}
            }
        }));
    }

    /// Runs `task` to its end: it must watch [`Tasks::stopping`] itself and leave in time.
    #[allow(clippy::disallowed_methods, reason = "this is the one door to tokio's spawn")]
    pub fn spawn_to_end<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Becomes ready when the set is told to stop.
    pub async fn stopping(&self) {
        self.cancelled.cancelled().await;
    }

    /// Whether the set was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Tells every task to stop, without waiting.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Tells every task to stop and waits for their end, at most `limit`. Returns whether all ended.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.cancelled.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Gives what an HTTP connection runs beside itself to its owner.
#[derive(Clone, Debug)]
pub struct TasksExecutor {
    tasks: Tasks,
    to_end: bool,
}

impl Tasks {
    /// Runs what a connection asks for; dropped where it waits when the set is stopped.
    pub fn executor(&self) -> TasksExecutor {
        TasksExecutor { tasks: self.clone(), to_end: false }
    }

    /// Runs the requests of a connection that drains: they end with it, not before.
    pub fn executor_to_end(&self) -> TasksExecutor {
        TasksExecutor { tasks: self.clone(), to_end: true }
    }
}

impl<F> hyper::rt::Executor<F> for TasksExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let task = async move {
            future.await;
        };
        if self.to_end { self.tasks.spawn_to_end(task) } else { self.tasks.spawn(task) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_every_task_and_those_of_its_children() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let (ended, mut seen) = tokio::sync::mpsc::channel::<()>(1);
        let held = ended.clone();
        tasks.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        child.spawn(async move {
            let _held = ended;
            std::future::pending::<()>().await;
        });
        assert!(tasks.stop(Duration::from_secs(1)).await);
        assert!(child.stop(Duration::from_secs(1)).await);
        assert_eq!(seen.recv().await, None);
    }
}
