//! The moments of a plugin's life: opening it, telling it, stopping it. No hook can hold up
//! the host: each has a deadline, after which its thread is left behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use modunest_sdk::abi::{OwnedBuffer, RequestKind};
use modunest_sdk::{Error, Hook};

use super::gate::lock;
use super::{Cell, State, Status};
use crate::host::bounded::{Late, bounded};
use crate::host::instance::Loaded;
use crate::host::{Call, Instance};

/// Errors that wait to be told to a plugin; it hears of no more until it has heard of these.
const UNTOLD_MAX: usize = 16;

/// Errors of which a plugin is still to be told.
#[derive(Debug, Default)]
pub(super) struct Untold {
    texts: VecDeque<String>,
    /// Whether a thread is telling.
    telling: bool,
}

impl Cell {
    /// Takes the instance in and opens the plugin, unless its load was given up meanwhile. One
    /// that takes over a predecessor's state is opened by the switch.
    pub(in crate::host) fn open(&self, instance: Loaded) -> Result<(), Error> {
        *lock(&self.hook_since) = Some(Instant::now());
        let hook = instance.call(hook_call(Hook::BeforeLoad, &[]));
        *lock(&self.hook_since) = None;
        accept_missing_hook(hook)?;
        let mut status = lock(&self.status);
        if !matches!(status.state, State::Loading | State::Activating) {
            drop(status);
            // Nobody waits for it any more.
            if let Err(error) = instance.stop() {
                tracing::warn!(plugin = %self.name, %error, "the plugin did not stop cleanly");
            }
            return Err(Error::DeadlineExceeded("the load was given up".to_owned()));
        }
        // The cell is new, so there is no instance yet.
        drop(self.instance.set(instance));
        if self.inherits {
            self.turn(&mut status, State::Prepared, None);
            drop(status);
            self.meter.loaded();
            self.announce();
            return Ok(());
        }
        self.turn(&mut status, State::Ready, None);
        drop(status);
        self.meter.loaded();
        self.announce();
        *lock(&self.hook_since) = Some(Instant::now());
        self.tell(Hook::AfterLoad, &[]);
        *lock(&self.hook_since) = None;
        Ok(())
    }

    /// Why a load that runs since `since` is late at `now`, if it is.
    pub(in crate::host) fn late(&self, since: Instant, now: Instant) -> Option<String> {
        let hook = *lock(&self.hook_since);
        let limit = self.lifecycle.hook_timeout;
        if hook.is_some_and(|since| since + limit <= now) {
            return Some(format!("a lifecycle hook did not end within {} ms", limit.as_millis()));
        }
        let limit = self.load_timeout;
        (since + limit <= now).then(|| format!("it did not load within {} ms", limit.as_millis()))
    }

    /// When a load that runs since `since` can be late the next time. A hook that begins right
    /// after `now` ends in time or is looked at again.
    pub(in crate::host) fn late_at(&self, since: Instant, now: Instant) -> Instant {
        let hook = lock(&self.hook_since).unwrap_or(now) + self.lifecycle.hook_timeout;
        hook.min(since + self.load_timeout)
    }

    /// Gives up a load that takes too long; false when it has ended already.
    pub(in crate::host) fn give_up(&self, reason: String) -> bool {
        let mut status = lock(&self.status);
        let given_up = matches!(status.state, State::Loading | State::Activating);
        if given_up {
            self.turn(&mut status, State::Failed, Some(reason));
        }
        drop(status);
        if given_up {
            self.announce();
        }
        given_up
    }

    /// Serves again, after what it runs in was started again.
    pub(in crate::host) fn resumed(&self) {
        lock(&self.record).started_again();
        if self.turn_from(&[State::Restarting], State::Ready, None) {
            self.tell(Hook::AfterLoad, &[]);
        }
    }

    /// Whether a load for a first use is late.
    pub(super) fn is_late(&self, status: &Status) -> bool {
        let since = modunest_runtime::clock::now().since(status.since);
        status.state == State::Activating && since >= self.load_timeout
    }

    /// Hooks, drain, `stop`, until `until` at most. A plugin without an instance is only
    /// marked.
    pub(crate) fn stop(self: Arc<Self>, until: Instant) {
        let before = self.status();
        if self.instance.get().is_none() || self.unloaded.swap(true, Ordering::SeqCst) {
            self.set(State::Stopped, before.reason);
            return;
        }
        self.tell_in_time(Hook::BeforeUnload, until);
        self.set(State::Stopping, before.reason.clone());
        // Streams that only wait for something end now, so that their clients come back.
        self.streams.wake_all();
        let left = self.gate.drain_all(until);
        if left > 0 {
            tracing::warn!(plugin = %self.name, calls = left, "calls did not end in time");
        }
        self.tell_in_time(Hook::AfterUnload, until);
        match self.with_instance("stop", self.within(until), |instance| instance.stop()) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(plugin = %self.name, %error, "the plugin did not stop cleanly");
            }
            Err(late) => {
                tracing::warn!(plugin = %self.name, %late, "the plugin did not stop and is left behind");
            }
        }
        self.set(State::Stopped, before.reason);
    }

    fn within(&self, until: Instant) -> Duration {
        let left = until.saturating_duration_since(Instant::now());
        self.lifecycle.hook_timeout.min(left)
    }

    fn tell_in_time(&self, hook: Hook, until: Instant) {
        let told = self.with_instance(hook.name(), self.within(until), move |instance| {
            instance.call(hook_call(hook, &[]))
        });
        match told {
            Ok(answer) => self.log_hook(hook, answer),
            Err(late) => {
                tracing::warn!(plugin = %self.name, hook = hook.name(), %late, "a hook was left behind");
            }
        }
    }

    /// Tells the plugin of its loading, which [`Cell::late`] watches.
    fn tell(&self, hook: Hook, payload: &[u8]) {
        if let Some(instance) = self.instance.get() {
            self.log_hook(hook, instance.call(hook_call(hook, payload)));
        }
    }

    /// Tells the plugin that it serves, where a switch has opened it.
    pub(in crate::host) fn tell_loaded(&self) {
        self.tell_in_time(Hook::AfterLoad, Instant::now() + self.lifecycle.hook_timeout);
    }

    /// Tells the plugin of an error of its own, while its caller has the answer already.
    pub(super) fn tell_error(&self, text: &str) {
        let mut untold = lock(&self.untold);
        if untold.texts.len() >= UNTOLD_MAX {
            tracing::debug!(plugin = %self.name, "an error was not told: it has not heard of the others");
            return;
        }
        untold.texts.push_back(text.to_owned());
        let Some(cell) = self.me.upgrade().filter(|_| !untold.telling) else { return };
        untold.telling = true;
        drop(untold);
        let thread = std::thread::Builder::new().name("on-error".to_owned());
        let started = thread.spawn(move || {
            loop {
                let mut untold = lock(&cell.untold);
                let Some(text) = untold.texts.pop_front() else {
                    untold.telling = false;
                    return;
                };
                drop(untold);
                cell.tell(Hook::OnError, text.as_bytes());
            }
        });
        if let Err(error) = started {
            lock(&self.untold).telling = false;
            tracing::warn!(plugin = %self.name, %error, "an error was not told");
        }
    }

    /// Runs something with the instance, `timeout` at most.
    pub(in crate::host) fn with_instance<T: Send + 'static>(
        &self,
        what: &str,
        timeout: Duration,
        work: impl FnOnce(&dyn Instance) -> Result<T, Error> + Send + 'static,
    ) -> Result<Result<T, Error>, Late> {
        let cell = self.me.upgrade().filter(|cell| cell.instance.get().is_some());
        let Some(cell) = cell else {
            return Ok(Err(Error::Unavailable(format!("{} is not loaded", self.name))));
        };
        bounded(what, timeout, move || match cell.instance.get() {
            Some(instance) => work(&**instance),
            None => Err(Error::Unavailable(format!("{} is not loaded", cell.name))),
        })
    }

    /// Asks the instance whether it can do its work.
    ///
    /// # Errors
    /// Why it cannot, or that it did not say so in time.
    pub fn health(&self) -> Result<(), Error> {
        let timeout = self.lifecycle.health.timeout;
        match self.with_instance("health", timeout, |instance| instance.health()) {
            Ok(answer) => answer,
            Err(late) => Err(Error::DeadlineExceeded(format!("its health check: {late}"))),
        }
    }

    fn log_hook(&self, hook: Hook, answer: Result<OwnedBuffer, Error>) {
        if let Err(error) = accept_missing_hook(answer) {
            tracing::warn!(plugin = %self.name, hook = hook.name(), %error, "a hook failed");
        }
    }
}

/// A plugin in another language may know no hooks at all, or not a newer one.
fn accept_missing_hook(answer: Result<OwnedBuffer, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) | Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn hook_call(hook: Hook, payload: &[u8]) -> Call<'_> {
    Call {
        kind: RequestKind::Lifecycle,
        target: hook.name(),
        payload,
        trace: "",
        caller: "",
        deadline_ms: 0,
    }
}
