//! Calls whose caller has gone away. They are not cut off, which would take a component's state
//! with it: what they wait for ends with an error, and the plugin finishes in order.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{Either, select};
use modunest_sdk::Error;
use tokio::sync::Notify;

/// Whether somebody still waits for a call.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    is_so: AtomicBool,
    told: Notify,
}

impl Abandoned {
    /// Nobody waits any more.
    pub(super) fn set(&self) {
        self.is_so.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    /// Whether nobody waits any more.
    pub(super) fn is_so(&self) -> bool {
        self.is_so.load(Ordering::SeqCst)
    }

    /// What a future answers, unless the call is abandoned before.
    pub(super) async fn unless<T>(
        &self,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // It hears what is told from here on.
        let told = pin!(self.told.notified());
        let future = pin!(future);
        if self.is_so() {
            return Err(gone());
        }
        match select(future, told).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::DeadlineExceeded("nobody waits for this call any more".to_owned())
}
