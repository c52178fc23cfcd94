//! The moments of a plugin's life: opening it, telling it, stopping it.

use std::sync::Arc;
use std::time::Instant;

use modunest_sdk::abi::RequestKind;
use modunest_sdk::{Error, Hook};

use super::gate::lock;
use super::{Cell, State, Status};
use crate::host::{Call, Instance};

impl Cell {
    /// Takes the instance in and opens the plugin, unless its load was given up meanwhile.
    pub(in crate::host) fn open(&self, instance: Box<dyn Instance>) -> Result<(), Error> {
        let hook = instance.call(hook_call(Hook::BeforeLoad, &[]));
        accept_missing_hook(hook)?;
        let mut status = lock(&self.status);
        if status.state != State::Loading {
            drop(status);
            // Nobody waits for it any more.
            if let Err(error) = instance.stop() {
                tracing::warn!(plugin = %self.name, %error, "the plugin did not stop cleanly");
            }
            return Err(Error::DeadlineExceeded("the load was given up".to_owned()));
        }
        // The cell is new, so there is no instance yet.
        drop(self.instance.set(instance));
        *status =
            Status { state: State::Ready, since: modunest_runtime::clock::now(), reason: None };
        drop(status);
        self.meter.loaded();
        self.announce();
        self.tell(Hook::AfterLoad, &[]);
        Ok(())
    }

    /// Gives up a load that takes too long; false when it has ended already.
    pub(in crate::host) fn give_up(&self, reason: String) -> bool {
        let mut status = lock(&self.status);
        let given_up = status.state == State::Loading;
        if given_up {
            let since = modunest_runtime::clock::now();
            *status = Status { state: State::Failed, since, reason: Some(reason) };
        }
        drop(status);
        if given_up {
            self.announce();
        }
        given_up
    }

    /// Serves again, after what it runs in was started again.
    pub(in crate::host) fn resumed(&self) {
        if self.turn(&[State::Restarting], State::Ready, None) {
            self.tell(Hook::AfterLoad, &[]);
        }
    }

    /// Hooks, drain, `stop`. A plugin that is not ready is only marked.
    pub(in crate::host) fn stop(self: Arc<Self>, until: Instant) {
        if self.status().state != State::Ready {
            let was = self.status();
            self.set(State::Stopped, was.reason);
            // What it runs in is not started once more.
            if let (State::Restarting, Some(instance)) = (was.state, self.instance.get())
                && let Err(error) = instance.stop()
            {
                tracing::debug!(plugin = %self.name, %error, "stopped while it was started again");
            }
            return;
        }
        let (done, waiting) = std::sync::mpsc::channel();
        let cell = self.clone();
        // A plugin may hang in a hook, so a thread of its own does this and may be left.
        let thread = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            cell.tell(Hook::BeforeUnload, &[]);
            cell.set(State::Stopping, None);
            // Streams that only wait for something end now, so that their clients come back.
            cell.streams.wake_all();
            cell.drain(until);
            if let Some(instance) = cell.instance.get() {
                cell.log_hook(Hook::AfterUnload, instance.call(hook_call(Hook::AfterUnload, &[])));
                if let Err(error) = instance.stop() {
                    tracing::warn!(plugin = %cell.name, %error, "the plugin did not stop cleanly");
                }
            }
            // Fails only when nobody waits any more.
            let _ = done.send(());
        });
        let left = until.saturating_duration_since(Instant::now());
        if thread.is_err() || waiting.recv_timeout(left).is_err() {
            tracing::warn!(plugin = %self.name, "the plugin did not stop in time and is left behind");
        }
        self.set(State::Stopped, None);
    }

    pub(super) fn tell(&self, hook: Hook, payload: &[u8]) {
        if let Some(instance) = self.instance.get() {
            self.log_hook(hook, instance.call(hook_call(hook, payload)));
        }
    }

    fn log_hook(&self, hook: Hook, answer: Result<Vec<u8>, Error>) {
        if let Err(error) = accept_missing_hook(answer) {
            tracing::warn!(plugin = %self.name, hook = hook.name(), %error, "a hook failed");
        }
    }
}

/// A plugin in another language may know no hooks at all, or not a newer one.
fn accept_missing_hook(answer: Result<Vec<u8>, Error>) -> Result<(), Error> {
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
