//! Looking after a plugin that runs: its health, its restart, and what is said of its release.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::time::Instant;

use modunest_core::time::Timestamp;
use modunest_sdk::Error;

use super::gate::lock;
use super::{Cell, State};
use crate::host::health::Verdict;

impl Cell {
    /// Whether it is time to ask after its health; then it counts as asked.
    pub(in crate::host) fn is_to_be_asked(&self, now: Instant) -> bool {
        if !matches!(self.status().state, State::Ready | State::Unhealthy) {
            return false;
        }
        let mut asked = lock(&self.asked);
        let every = self.lifecycle.health.every;
        // It has been asked at its load, so the first question may wait. Each waits for another
        // part of the pause: plugins that were loaded together are not asked together for ever.
        let is_due = match *asked {
            Some(last) => !every.is_zero() && now.duration_since(last) >= every,
            None => {
                *asked = now.checked_sub(every.mul_f64(self.part_of_pause()));
                false
            }
        };
        if is_due {
            *asked = Some(now);
        }
        is_due
    }

    /// Between zero and one, by its name.
    fn part_of_pause(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        hasher.finish() as f64 / u64::MAX as f64
    }

    /// Asks after its health and takes the answer in. Answers why it is to be restarted, if it
    /// is. Blocks for as long as the answer takes.
    pub(in crate::host) fn ask_after(&self, now: Timestamp) -> Option<String> {
        let answer = self.health();
        let verdict =
            lock(&self.record).note(now.as_millis(), &self.lifecycle.health, answer.is_ok());
        let reason = answer.err().map(|error| format!("its health check failed: {error}"));
        match verdict {
            Verdict::Same => None,
            Verdict::Recovered => {
                self.turn_from(&[State::Unhealthy], State::Ready, None);
                tracing::info!(plugin = %self.name, "the plugin is well again");
                None
            }
            Verdict::Unhealthy | Verdict::Restart => {
                let reason = reason.unwrap_or_default();
                tracing::warn!(plugin = %self.name, version = %self.version, reason, "the plugin is unhealthy");
                self.turn_from(&[State::Ready], State::Unhealthy, Some(reason.clone()));
                (verdict == Verdict::Restart).then_some(reason)
            }
        }
    }

    /// Restarts the instance in place, where its tier can.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it cannot: then another instance has to take its place.
    pub(crate) fn restart_in_place(&self, reason: &str) -> Result<(), Error> {
        let (timeout, reason) = (self.load_timeout, reason.to_owned());
        let restarted = self.with_instance("restart", timeout, move |it| it.restart(&reason));
        restarted.unwrap_or_else(|late| Err(Error::DeadlineExceeded(late.to_string())))?;
        self.breakers.reset(|quiet| self.turn_quiet(quiet));
        self.turn_from(&[State::Unhealthy], State::Ready, None);
        self.restarts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that it trapped, and is made anew where it runs.
    pub(in crate::host) fn remade(&self, reason: &str) {
        let restarts = self.restarts.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(plugin = %self.name, version = %self.version, restarts, reason, "the plugin trapped and is made anew");
    }

    /// Another instance of the same release takes its place at the next load, and nothing of
    /// its state is taken over: it may be what is wrong.
    pub(crate) fn wear_out(&self) {
        self.worn.store(true, Ordering::Relaxed);
    }

    pub(in crate::host) fn is_worn(&self) -> bool {
        self.worn.load(Ordering::Relaxed)
    }

    /// Remembers how often its predecessor was restarted, whose place it takes for that.
    pub(in crate::host) fn go_on_from(&self, worn: &Cell) {
        *lock(&self.record) = lock(&worn.record).clone();
        self.restarts.store(worn.restarts() + 1, Ordering::Relaxed);
    }

    /// Takes no calls any more, and stays in memory.
    pub(in crate::host) fn deny(&self, reason: String) {
        self.set(State::Denied, Some(reason));
    }

    /// Goes on, with a reason to look at it.
    pub(in crate::host) fn warn(&self, reason: String) {
        let mut status = lock(&self.status);
        status.reason = Some(reason);
    }
}
