//! The way in: which calls are let in, which wait before it, and waiting for their end.
//!
//! A call that is let in costs one atomic addition, and one more when it ends. Only where the
//! gate is shut does anybody look at the plugin's state.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modunest_sdk::Error;

use super::{Cell, State};

/// Calls are not let in without a look at the state.
const SHUT: u64 = 1 << 63;
/// Somebody waits for the last call's end: only then is telling worth a system call.
const AWAITED: u64 = 1 << 62;
/// The calls that are being served.
const RUNNING: u64 = AWAITED - 1;

/// How long a call without a deadline waits for the end of a swap or of a load. Longer than
/// either may take by default.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Counts calls in and out.
#[derive(Debug)]
pub(super) struct Gate {
    word: AtomicU64,
    last: Mutex<()>,
    drained: Condvar,
}

impl Gate {
    /// A shut one.
    pub(super) const fn new() -> Self {
        Gate { word: AtomicU64::new(SHUT), last: Mutex::new(()), drained: Condvar::new() }
    }

    /// Counts a call in, unless the gate is shut.
    fn enter(&self) -> bool {
        if self.word.fetch_add(1, Ordering::SeqCst) & SHUT == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Counts a call in, whether the gate is shut or not.
    fn count_in(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::SeqCst);
        if before & AWAITED != 0 && before & RUNNING == 1 {
            // Whoever waits holds this between looking and waiting.
            drop(lock(&self.last));
            self.drained.notify_all();
        }
    }

    /// Opens or shuts it. Who has been counted in before goes on.
    pub(super) fn set_open(&self, open: bool) {
        if open {
            self.word.fetch_and(!SHUT, Ordering::SeqCst);
        } else {
            self.word.fetch_or(SHUT, Ordering::SeqCst);
        }
    }

    /// Calls that are being served.
    pub(super) fn running(&self) -> u64 {
        self.word.load(Ordering::SeqCst) & RUNNING
    }

    /// Waits until no call is served any more; answers how many still are at the deadline.
    pub(super) fn drain(&self, until: Instant) -> u64 {
        self.word.fetch_or(AWAITED, Ordering::SeqCst);
        let mut guard = lock(&self.last);
        loop {
            let (running, now) = (self.running(), Instant::now());
            if running == 0 || now >= until {
                self.word.fetch_and(!AWAITED, Ordering::SeqCst);
                return running;
            }
            let waited = self.drained.wait_timeout(guard, until - now);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A call that was let in; it ends when this is dropped.
pub(super) struct Running<'c>(&'c Cell);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

/// See [`Cell::hold`].
pub(crate) struct Hold(Arc<Cell>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

/// Where a call goes on.
pub(super) enum Entered<'c> {
    /// Here.
    Here(Running<'c>),
    /// At what took this plugin's place.
    Successor(Arc<Cell>),
}

impl Cell {
    /// Counts a call in, if the plugin takes calls. Waits while the plugin is being replaced
    /// or loaded, until the deadline at most.
    /// Those about a stream that is open go on where it was opened, also while that stops or
    /// stands by.
    pub(super) fn enter(&self, deadline_ms: u64, is_stream: bool) -> Result<Entered<'_>, Error> {
        if is_stream && self.keeps_streams() {
            self.gate.count_in();
            return Ok(Entered::Here(Running(self)));
        }
        loop {
            if self.gate.enter() {
                return Ok(Entered::Here(Running(self)));
            }
            if let Some(successor) = self.wait_outside(deadline_ms)? {
                return Ok(Entered::Successor(successor));
            }
        }
    }

    /// Whether streams that it opened go on.
    fn keeps_streams(&self) -> bool {
        matches!(
            lock(&self.status).state,
            State::Ready | State::Unhealthy | State::Switching | State::Standby | State::Stopping
        )
    }

    /// Keeps the plugin from being stopped while a stream of it is open, as long as a stop has
    /// patience; `None` where it has none. Streams that are held may go on being called while
    /// it stops.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold> {
        self.keeps_streams().then(|| {
            self.gate.count_in();
            Hold(self.clone())
        })
    }

    /// Whether it is about to be stopped or replaced, and only goes on for what is open.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(lock(&self.status).state, State::Ready | State::Unhealthy)
    }

    /// Waits before a shut gate until it may be open, or until there is a successor.
    fn wait_outside(&self, deadline_ms: u64) -> Result<Option<Arc<Cell>>, Error> {
        let waits_until = Instant::now() + left(deadline_ms);
        let mut status = lock(&self.status);
        loop {
            if let Some(successor) = lock(&self.successor).clone() {
                return Ok(Some(successor));
            }
            match status.state {
                State::Ready | State::Unhealthy => return Ok(None),
                State::Switching | State::Activating => {
                    let waiting = Waiting::new(&self.waiting);
                    if waiting.0.load(Ordering::Relaxed) > self.lifecycle.queue {
                        return Err(Error::Unavailable(format!(
                            "{} is {}, and {} calls wait for that already",
                            self.name,
                            status.state.as_str(),
                            self.lifecycle.queue
                        )));
                    }
                    let left = waits_until.saturating_duration_since(Instant::now());
                    if self.is_late(&status) {
                        self.give_up_locked(&mut status);
                        continue;
                    }
                    if left.is_zero() {
                        return Err(Error::DeadlineExceeded(format!(
                            "{} was still {}",
                            self.name,
                            status.state.as_str()
                        )));
                    }
                    let left = left.min(self.load_timeout);
                    let waited = self.turned.wait_timeout(status, left);
                    status = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                State::Idle => {
                    drop(status);
                    self.activate();
                    status = lock(&self.status);
                }
                _ => return Err(self.refusal(&status)),
            }
        }
    }

    /// What a caller hears of a plugin that takes no calls.
    fn refusal(&self, status: &super::Status) -> Error {
        let reason = status.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let text = format!("{} is {}{reason}", self.name, status.state.as_str());
        match status.state {
            State::Denied => Error::Denied(text),
            _ => Error::Unavailable(text),
        }
    }
}

/// One more that waits, while it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time until a deadline in Unix milliseconds, where zero is none.
fn left(deadline_ms: u64) -> Duration {
    if deadline_ms == 0 {
        return WAIT_MAX;
    }
    let now_ms = modunest_runtime::clock::now().as_millis();
    Duration::from_millis(deadline_ms.saturating_sub(now_ms)).min(WAIT_MAX)
}

/// What these locks hold is never left half-changed, so a panic while one was held spoils
/// nothing.
pub(in crate::host) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
