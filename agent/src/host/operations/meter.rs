//! How much of its quotas a plugin has used. A meter belongs to the plugin, not to one
//! instance of it: a reload starts nothing anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::files::Usage;

/// What quotas are counted over.
const WINDOW: Duration = Duration::from_secs(60);

/// What one plugin has used.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: Mutex<Bucket>,
    bytes: Mutex<Bucket>,
    concurrent: AtomicU64,
    /// Also the lock of everything that changes the private folder through the host.
    pub(super) files: Mutex<Usage>,
}

/// A bucket that leaks evenly: what was used drains away within [`WINDOW`].
#[derive(Debug, Default)]
struct Bucket {
    used: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn drain(&mut self, limit: u64, now: Instant) {
        let passed = self.at.map_or(WINDOW, |at| now.saturating_duration_since(at));
        let drained = limit as f64 * passed.as_secs_f64() / WINDOW.as_secs_f64();
        self.used = (self.used - drained).max(0.0);
        self.at = Some(now);
    }

    /// Uses one of `limit` a minute; else says in how many milliseconds there is one.
    fn take(&mut self, limit: u64, now: Instant) -> Result<(), u64> {
        self.drain(limit, now);
        if self.used + 1.0 <= limit as f64 {
            self.used += 1.0;
            return Ok(());
        }
        let missing = self.used + 1.0 - limit as f64;
        let wait_s = missing * WINDOW.as_secs_f64() / (limit as f64).max(f64::MIN_POSITIVE);
        Err((wait_s * 1000.0).ceil().min(1e9) as u64)
    }

    /// Counts what was used, also above the limit.
    fn add(&mut self, amount: u64, limit: u64, now: Instant) {
        self.drain(limit, now);
        self.used += amount as f64;
    }

    fn left(&mut self, limit: u64, now: Instant) -> u64 {
        self.drain(limit, now);
        (limit as f64 - self.used).max(0.0) as u64
    }
}

/// One request out that counts as running until it is dropped.
pub(super) struct Slot<'m>(&'m Meter);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.concurrent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    /// A place among the requests that run at the same time.
    pub(super) fn slot(&self, limit: u64) -> Option<Slot<'_>> {
        let one_more = |running: u64| (running < limit).then_some(running + 1);
        let taken = self.concurrent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Slot(self))
    }

    /// Counts a request out; else says in how many milliseconds one may follow.
    pub(super) fn request(&self, limit: u64, now: Instant) -> Result<(), u64> {
        lock(&self.requests).take(limit, now)
    }

    /// Counts bytes of bodies.
    pub(super) fn add_bytes(&self, amount: u64, limit: u64, now: Instant) {
        lock(&self.bytes).add(amount, limit, now);
    }

    /// Bytes of bodies that may still travel now.
    pub(super) fn bytes_left(&self, limit: u64, now: Instant) -> u64 {
        lock(&self.bytes).left(limit, now)
    }
}

/// Numbers are whole again before the lock is left, so a panic meanwhile spoils nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_evenly() {
        let (meter, start) = (Meter::default(), Instant::now());
        for _ in 0..6 {
            assert_eq!(meter.request(6, start), Ok(()));
        }
        assert_eq!(meter.request(6, start), Err(10_000));
        assert_eq!(meter.request(6, start + Duration::from_secs(4)), Err(6_000));
        assert_eq!(meter.request(6, start + Duration::from_secs(10)), Ok(()));
        assert_eq!(meter.request(6, start + Duration::from_secs(10)), Err(10_000));
        assert_eq!(meter.request(6, start + Duration::from_secs(600)), Ok(()));
        assert!(Meter::default().request(0, start).is_err());
    }

    #[test]
    fn bytes_are_counted_above_the_limit_too() {
        let (meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.bytes_left(600, start), 600);
        meter.add_bytes(900, 600, start);
        assert_eq!(meter.bytes_left(600, start + Duration::from_secs(20)), 0);
        assert_eq!(meter.bytes_left(600, start + Duration::from_secs(40)), 100);
    }

    #[test]
    fn slots_are_given_back() {
        let meter = Meter::default();
        let first = meter.slot(1);
        assert!(first.is_some() && meter.slot(1).is_none());
        drop(first);
        assert!(meter.slot(1).is_some());
    }
}
