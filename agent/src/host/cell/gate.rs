//! The way in: which calls are let in, and waiting for their end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use modunest_sdk::Error;

use super::{Cell, State};

/// Calls that are being served.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    running: usize,
    /// Whether anybody waits for their end: only then is telling worth a system call.
    awaited: bool,
}

impl InFlight {
    pub(super) fn running(&self) -> usize {
        self.running
    }
}

pub(super) struct Running<'c>(&'c Cell);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// See [`Cell::hold`].
pub(crate) struct Hold(Arc<Cell>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What these locks hold is never left half-changed, so a panic while one was held spoils
/// nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cell {
    pub(super) fn drain(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let mut calls = lock(&self.in_flight);
        calls.awaited = true;
        let waited = self.drained.wait_timeout_while(calls, left, |calls| calls.running > 0);
        let (calls, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if calls.running > 0 {
            tracing::warn!(plugin = %self.name, calls = calls.running, "calls did not end in time");
        }
    }

    /// Counts a call in, if the plugin takes calls. Those about a stream that is open go on
    /// while it stops.
    pub(super) fn enter(&self, is_stream: bool) -> Result<Running<'_>, Error> {
        // The count rises while the status is locked, so that a drain sees every call.
        let status = lock(&self.status);
        if status.state != State::Ready && !(is_stream && status.state == State::Stopping) {
            return Err(Error::Unavailable(format!(
                "{} is {}{}",
                self.name,
                status.state.as_str(),
                status.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"))
            )));
        }
        lock(&self.in_flight).running += 1;
        Ok(Running(self))
    }

    /// Keeps the plugin from being stopped while a stream of it is open, as long as a stop has
    /// patience; `None` where it takes no calls. Streams that are held may go on being called
    /// while it stops.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold> {
        let status = lock(&self.status);
        matches!(status.state, State::Ready | State::Stopping).then(|| {
            lock(&self.in_flight).running += 1;
            Hold(self.clone())
        })
    }

    /// Whether it is about to be stopped, and only goes on for what is open.
    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.status).state != State::Ready
    }

    /// Counts a call or a hold out.
    fn leave(&self) {
        let mut calls = lock(&self.in_flight);
        calls.running -= 1;
        if calls.running == 0 && calls.awaited {
            self.drained.notify_all();
        }
    }
}
