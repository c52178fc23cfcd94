//! Turns: what changes the plugins that run happens one after another, each to its end, and nothing
//! is taken into service behind a stop.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{MutexGuard, watch};
use tracing::Instrument as _;

use super::Inner;
use crate::host::Host;
use crate::{Error, blocking};

/// Makes a change in a task of its own: whoever waits for it may go away, and it keeps its turn until
/// it has come to its end.
///
/// # Errors
/// Why the change failed, or that it panicked.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    blocking::joined(tokio::spawn(change.in_current_span())).await?
}

/// Until the agent is told to stop, or was dropped.
pub(super) async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error means that nobody is there any more who could tell.
    drop(stopped.wait_for(|stop| *stop).await);
}

impl Inner {
    /// Waits for a turn to change what runs.
    ///
    /// # Errors
    /// [`Error::Stopping`] once the agent was told to stop.
    pub(super) async fn turn(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let turn = self.syncing.lock().await;
        self.unless_stopped(std::future::ready(turn)).await
    }

    /// Waits for somebody else, such as the registry, until the agent is told to stop at most.
    ///
    /// # Errors
    /// [`Error::Stopping`]; what was waited for is dropped then.
    pub(super) async fn unless_stopped<T>(
        &self,
        waits: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            () = told(&mut stopped) => Err(Error::Stopping),
            done = waits => Ok(done),
        }
    }

    /// Waits for the end of a change that is under way, so long at most.
    pub(super) async fn last_turn(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.syncing.lock()).await.is_err() {
            tracing::warn!("a change of what runs did not end in time");
        }
    }

    /// Lets a host serve from now on; false where nothing serves any more, and whoever loaded it is
    /// to stop it.
    pub(super) fn take_into_service(&self, next: &Arc<Host>) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_over {
            self.host.store(next.clone());
        }
        !*is_over
    }

    /// Takes away what serves, for good: whoever called is to stop it.
    pub(super) fn take_out_of_service(&self) -> Arc<Host> {
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        *is_over = true;
        self.host.swap(Arc::new(Host::empty()))
    }

    /// Whether nothing serves any more, nor will.
    pub(super) fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
