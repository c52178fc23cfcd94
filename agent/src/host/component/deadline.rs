//! Ends of what takes too long, whether it computes or waits.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::engine::{Running, Runtime};

/// When something must have ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deadline {
    /// In Unix milliseconds.
    At(u64),
    /// So long after the first look at the clock, which is when it begins to wait or has computed
    /// for an epoch: what ends before costs none.
    Within(Duration),
}

impl Deadline {
    /// A caller's, in Unix milliseconds; where that is zero, the timeout's.
    pub(super) fn of(deadline_ms: u64, timeout: Duration) -> Self {
        if deadline_ms > 0 { Deadline::At(deadline_ms) } else { Deadline::Within(timeout) }
    }

    /// In Unix milliseconds, the same from the first look on.
    pub(super) fn at_ms(&mut self) -> u64 {
        let at_ms = match *self {
            Deadline::At(at_ms) => at_ms,
            Deadline::Within(timeout) => now_ms().saturating_add(timeout.as_millis() as u64),
        };
        *self = Deadline::At(at_ms);
        at_ms
    }

    /// Whether the clock has passed it.
    pub(super) fn has_passed(&mut self) -> bool {
        let at_ms = self.at_ms();
        now_ms() >= at_ms
    }
}

/// The clock has passed the deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
pub(super) struct Expired;

/// Who is to be woken when, by deadline and a number: woken by the thread that counts epochs.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    wakers: BTreeMap<(u64, u64), Waker>,
    last: u64,
}

impl Alarms {
    /// Wakes those whose deadline has passed.
    pub(super) fn ring(&self) {
        let due = {
            let mut waiting = self.lock();
            if waiting.wakers.is_empty() {
                return;
            }
            let later = waiting.wakers.split_off(&(now_ms() + 1, 0));
            std::mem::replace(&mut waiting.wakers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// What it holds is never left half-changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for something, or for a deadline. Epochs are counted meanwhile.
struct Alarm {
    runtime: &'static Runtime,
    key: (u64, u64),
    _counted: Running<'static>,
}

impl Alarm {
    fn set(runtime: &'static Runtime, deadline_ms: u64) -> Self {
        let mut waiting = runtime.alarms().lock();
        waiting.last += 1;
        Alarm { runtime, key: (deadline_ms, waiting.last), _counted: runtime.enter() }
    }

    fn is_for(&self, waker: &Waker) {
        let mut waiting = self.runtime.alarms().lock();
        match waiting.wakers.get_mut(&self.key) {
            Some(known) => known.clone_from(waker),
            None => drop(waiting.wakers.insert(self.key, waker.clone())),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.runtime.alarms().lock().wakers.remove(&self.key);
    }
}

/// What a future answers, unless the deadline passes before; then the future is dropped. One that
/// does not wait costs no look at the clock.
pub(super) async fn until<T>(
    runtime: &'static Runtime,
    deadline: &mut Deadline,
    future: impl Future<Output = T>,
) -> Result<T, Expired> {
    let mut future = pin!(future);
    let mut alarm: Option<Alarm> = None;
    poll_fn(|context| {
        if alarm.is_some() && deadline.has_passed() {
            return Poll::Ready(Err(Expired));
        }
        if let Poll::Ready(answer) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(answer));
        }
        alarm.get_or_insert_with(|| Alarm::set(runtime, deadline.at_ms())).is_for(context.waker());
        Poll::Pending
    })
    .await
}

fn now_ms() -> u64 {
    modunest_runtime::clock::now().as_millis()
}
