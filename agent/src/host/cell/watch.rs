//! Looking after a plugin that runs: its health, its restart, and what is said of its release.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use modunest_core::time::Timestamp;
use modunest_sdk::Error;

use super::gate::lock;
use super::{Cell, State};
use crate::host::bounded::Late;
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
    ///
    /// Where the answer is late, but the plugin has ended calls since it was asked the last time,
    /// the question waits behind calls: it is busy, and whether it is well is not known.
    pub(in crate::host) fn ask_after(&self, now: Timestamp) -> Option<String> {
        let before = self.ended_before.swap(self.meter.ended(), Ordering::Relaxed);
        let answer = match self.ask_health() {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(Late::Running(_)) if self.meter.ended() > before => {
                tracing::debug!(plugin = %self.name, "too busy to answer its health check in time");
                return None;
            }
            Err(late) => Err(late.to_string()),
        };
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
                if self.turn_from(&[State::Ready], State::Unhealthy, Some(reason.clone())) {
                    tracing::warn!(plugin = %self.name, version = %self.version, reason, "the plugin is unhealthy");
                }
                (verdict == Verdict::Restart).then_some(reason)
            }
        }
    }

    /// Asks the instance, unless it has not answered the last question yet: each that hangs holds a
    /// thread.
    fn ask_health(&self) -> Result<Result<(), Error>, Late> {
        let timeout = self.lifecycle.health.timeout;
        let question = Arc::new(());
        {
            let mut last = lock(&self.question);
            if last.strong_count() > 0 {
                return Err(Late::Running(timeout));
            }
            *last = Arc::downgrade(&question);
        }
        self.with_instance("health", timeout, move |instance| {
            let answer = instance.health();
            drop(question);
            answer
        })
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

    /// Ends what it runs in, for good. Answers whether anything ran.
    pub(in crate::host) fn end_for_good(&self, reason: &str) -> bool {
        self.instance.get().is_some_and(|instance| instance.end(reason))
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
