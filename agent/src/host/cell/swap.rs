//! The steps by which one instance hands over to another: hold, hand over, stand by, and back.

use std::sync::Arc;
use std::time::Instant;

use modunest_sdk::Error;

use super::gate::lock;
use super::{Cell, State};
use crate::host::bounded::Late;

impl Cell {
    /// Lets no more calls in; they wait. Answers whether the running ones ended in time. Streams that
    /// are open go on between the calls about them, which wait as all others do.
    pub(in crate::host) fn hold_calls(&self, until: Instant) -> Result<(), u64> {
        {
            let mut status = lock(&self.status);
            if matches!(status.state, State::Ready | State::Unhealthy) {
                let before = status.clone();
                self.turn(&mut status, State::Switching, None);
                *lock(&self.before_switch) = Some(before);
            }
        }
        self.announce();
        self.streams.wake_all();
        match self.gate.drain(until) {
            0 => Ok(()),
            left => Err(left),
        }
    }

    /// Lets calls in again, after a switch that did not come about. It stands where it stood before,
    /// or where it has come to since.
    pub(in crate::host) fn release_calls(&self) {
        let mut status = lock(&self.status);
        let before = lock(&self.before_switch).take();
        if let Some(before) = before {
            self.turn_back(&mut status, before);
        }
        drop(status);
        self.announce();
    }

    /// The state of a held instance.
    pub(in crate::host) fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let timeout = self.lifecycle.hook_timeout;
        in_time("snapshot", self.with_instance("snapshot", timeout, |it| it.snapshot()))
    }

    /// Gives a predecessor's state to an instance that takes no calls yet.
    pub(in crate::host) fn restore(&self, snapshot: Vec<u8>) -> Result<(), Error> {
        let timeout = self.lifecycle.hook_timeout;
        let restored = self.with_instance("restore", timeout, move |it| it.restore(&snapshot));
        in_time("restore", restored)
    }

    /// Serves from now on, also what others have waited for.
    pub(in crate::host) fn take_over(&self) {
        let mut status = lock(&self.status);
        *lock(&self.successor) = None;
        if matches!(status.state, State::Prepared | State::Standby | State::Switching) {
            self.turn(&mut status, State::Ready, None);
        }
        drop(status);
        self.announce();
    }

    /// Sends every call on to `successor` from now on, and keeps the instance.
    pub(in crate::host) fn stand_by(&self, successor: &Arc<Cell>) {
        let mut status = lock(&self.status);
        *lock(&self.successor) = Some(successor.clone());
        self.turn(&mut status, State::Standby, None);
        drop(status);
        self.streams.wake_all();
        self.announce();
    }
}

fn in_time<T>(what: &str, answer: Result<Result<T, Error>, Late>) -> Result<T, Error> {
    answer.unwrap_or_else(|late| Err(Error::DeadlineExceeded(format!("its {what}: {late}"))))
}
