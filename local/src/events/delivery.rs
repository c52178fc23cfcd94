//! Delivery of committed events, at least once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::Subscription;
use crate::index::{Index, OutboxRow};

/// Handlers that run at once. A publish costs one event a build, and more in
/// parallel than this only queue for the same two databases.
const CONCURRENT_HANDLERS: usize = 16;

/// Events held in memory at once, running or waiting for their next try.
/// At some 500 bytes each that is half a megabyte; the rest waits on disk.
const WINDOW: usize = 1024;

/// Events read from the outbox at once.
const PAGE_ROWS: usize = 64;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A handler that has not answered by then has failed. Lambda's own limit (Lambda quotas, "Function timeout").
const HANDLER_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Commits wake the delivery; this only bounds how long a wake-up that got lost would matter.
const SAFETY_INTERVAL: Duration = Duration::from_secs(30);

/// How long running handlers may take to end at shutdown. Their events come again at the next start.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The running delivery.
pub(crate) struct Delivery {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Delivery {
    /// Begins with whatever earlier runs left undelivered.
    pub(crate) fn start(
        index: Index,
        subscriptions: Vec<Subscription>,
        committed: Arc<Notify>,
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        let shared = Arc::new(Shared {
            index,
            subscriptions,
            window: Arc::new(Semaphore::new(WINDOW)),
            handlers: Semaphore::new(CONCURRENT_HANDLERS),
        });
        let task = tokio::spawn(shared.run(committed, stopped));
        Self { stop, task }
    }

    /// Takes no further event, and waits a little for the handlers that run.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "event delivery ended abnormally");
        }
    }
}

struct Shared {
    index: Index,
    subscriptions: Vec<Subscription>,
    window: Arc<Semaphore>,
    handlers: Semaphore,
}

impl Shared {
    async fn run(self: Arc<Self>, committed: Arc<Notify>, mut stopped: watch::Receiver<()>) {
        let mut last = 0;
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let rows = match self.index.outbox_after(last, PAGE_ROWS) {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::error!(%error, "cannot read undelivered events; trying again");
                    Vec::new()
                }
            };
            if rows.is_empty() {
                tokio::select! {
                    _ = stopped.changed() => break,
                    () = committed.notified() => {}
                    () = tokio::time::sleep(SAFETY_INTERVAL) => {}
                }
                continue;
            }
            for row in rows {
                let place = tokio::select! {
                    _ = stopped.changed() => return Self::finish(tasks).await,
                    place = self.window.clone().acquire_owned() => place,
                };
                // The semaphore is never closed; were it, delivery would be over.
                let Ok(place) = place else { return };
                last = row.id;
                tasks.spawn(self.clone().deliver(row, place, stopped.clone()));
            }
        }
        Self::finish(tasks).await;
    }

    async fn finish(mut tasks: JoinSet<()>) {
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            tracing::warn!(
                handlers = tasks.len(),
                "event handlers still run at shutdown; their events are delivered again at the next start"
            );
            tasks.shutdown().await;
        }
    }

    /// Tries one event until it is taken and forgotten, or the delivery stops.
    async fn deliver(
        self: Arc<Self>,
        row: OutboxRow,
        _place: OwnedSemaphorePermit,
        mut stopped: watch::Receiver<()>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = {
                let handler = tokio::select! {
                    _ = stopped.changed() => return,
                    permit = self.handlers.acquire() => permit,
                };
                if handler.is_err() {
                    return;
                }
                match self.attempt(&row).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                }
            };
            tracing::warn!(
                bucket = row.bucket,
                key = row.key,
                event = row.id,
                error = failure,
                retry_ms = pause.as_millis(),
                "a storage event was not taken"
            );
            tokio::select! {
                _ = stopped.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, row: &OutboxRow) -> Result<(), String> {
        let Some(subscription) =
            self.subscriptions.iter().find(|wish| wish.matches(&row.bucket, &row.key))
        else {
            // Left by a run with other subscriptions; a later one may want it.
            tracing::warn!(
                bucket = row.bucket,
                key = row.key,
                "nobody subscribes to an undelivered event; it is kept"
            );
            return Ok(());
        };
        let event: Value = serde_json::from_str(&row.event).map_err(|error| error.to_string())?;
        // The handler's own first steps may panic as well as its future.
        let call = AssertUnwindSafe(async { (subscription.handler)(event).await }).catch_unwind();
        match tokio::time::timeout(HANDLER_TIMEOUT, call).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(error.to_string()),
            Ok(Err(_panic)) => return Err("the handler panicked".to_owned()),
            Err(_elapsed) => {
                return Err(format!("the handler took more than {} s", HANDLER_TIMEOUT.as_secs()));
            }
        }
        self.index.outbox_remove(row.id).await.map_err(|error| error.to_string())
    }
}
