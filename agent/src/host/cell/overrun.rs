//! Calls that hold a thread past their deadline. Nobody can end a library's code in the agent's own
//! process, so such a call counts as failed when its time is over, and not when it ends, which it
//! may never do: a breaker would not hear of a plugin that hangs.

use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::Cell;
use super::call::now_ms;
use super::gate::lock;
use crate::host::breaker::Ticket;
use crate::host::{OwnedCall, drive, frame};

/// How far a call is that somebody watches.
#[derive(Debug, Default)]
enum Stage {
    /// No library serves it.
    #[default]
    Elsewhere,
    /// A library does, and was asked for it by this ticket.
    Served(Weak<Cell>, Ticket),
    /// Its time was over, and it counts as failed.
    Counted,
}

/// What whoever serves a call and whoever watches it tell one another.
#[derive(Debug, Default)]
pub(super) struct Overrun(Mutex<Stage>);

impl Overrun {
    /// A library serves it from now on.
    pub(super) fn begin(&self, library: Weak<Cell>, ticket: Ticket) {
        *lock(&self.0) = Stage::Served(library, ticket);
    }

    /// It has ended; answers whether it has been counted before.
    pub(super) fn end(&self) -> bool {
        matches!(std::mem::take(&mut *lock(&self.0)), Stage::Counted)
    }

    /// Its time is over. Answers who is to count it, if a library serves it.
    fn expire(&self) -> Option<(Arc<Cell>, Ticket)> {
        let mut stage = lock(&self.0);
        let Stage::Served(library, ticket) = &*stage else { return None };
        // Whoever serves it keeps the library.
        let library = library.upgrade()?;
        let ticket = *ticket;
        library.meter.overdue();
        *stage = Stage::Counted;
        Some((library, ticket))
    }
}

/// Serves a call on a thread that may block, and counts it once its time is over.
///
/// # Errors
/// As [`Cell::call`].
pub(super) async fn away(cell: Arc<Cell>, call: OwnedCall) -> Result<OwnedBuffer, Error> {
    let deadline_ms = frame::earlier(frame::deadline_ms(), call.deadline_ms);
    let (call, overrun) = (Arc::new(call), Arc::new(Overrun::default()));
    let (served, watched) = (call.clone(), overrun.clone());
    let serve = drive::away(move || cell.call_noted(served.call(), Some(&watched)));
    let mut served = pin!(serve);
    // Without a runtime the work is done when it is polled, and nobody could watch it.
    if deadline_ms > 0 && tokio::runtime::Handle::try_current().is_ok() {
        let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms()));
        match tokio::time::timeout(left, served.as_mut()).await {
            Ok(answer) => return answer?,
            Err(_) => {
                if let Some((library, ticket)) = overrun.expire() {
                    library.count_late(&call.call(), ticket);
                }
            }
        }
    }
    served.await?
}
