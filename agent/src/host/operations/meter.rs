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
    lines: Mutex<Lines>,
    /// Also the lock of everything that changes the private folder through the host.
    pub(super) files: Mutex<Usage>,
}

/// How much may be used at once, and how much of it comes back in a second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    per_s: f64,
}

impl Rate {
    fn a_minute(limit: u64) -> Self {
        Rate { burst: limit as f64, per_s: limit as f64 / WINDOW.as_secs_f64() }
    }
}

/// A bucket that leaks evenly, at its rate.
#[derive(Debug, Default)]
struct Bucket {
    used: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn drain(&mut self, rate: Rate, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.used = (self.used - rate.per_s * passed.as_secs_f64()).max(0.0);
        self.at = Some(now);
    }

    /// Uses one; else says in how many milliseconds there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), u64> {
        self.drain(rate, now);
        if self.used + 1.0 <= rate.burst {
            self.used += 1.0;
            return Ok(());
        }
        let wait_s = (self.used + 1.0 - rate.burst) / rate.per_s.max(f64::MIN_POSITIVE);
        Err((wait_s * 1000.0).ceil().min(1e9) as u64)
    }

    /// Counts what was used, also above the limit.
    fn add(&mut self, amount: u64, rate: Rate, now: Instant) {
        self.drain(rate, now);
        self.used += amount as f64;
    }

    fn left(&mut self, rate: Rate, now: Instant) -> u64 {
        self.drain(rate, now);
        (rate.burst - self.used).max(0.0) as u64
    }
}

/// Lines of the log.
#[derive(Debug, Default)]
struct Lines {
    bucket: Bucket,
    /// Those that were dropped and of which nothing was said yet.
    untold: u64,
}

/// What becomes of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is written.
    Written,
    /// It is one too many.
    Dropped,
    /// It is, and the first of which is still to be said that it was dropped.
    FirstDropped,
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
        lock(&self.requests).take(Rate::a_minute(limit), now)
    }

    /// Counts bytes of bodies.
    pub(super) fn add_bytes(&self, amount: u64, limit: u64, now: Instant) {
        lock(&self.bytes).add(amount, Rate::a_minute(limit), now);
    }

    /// Bytes of bodies that may still travel now.
    pub(super) fn bytes_left(&self, limit: u64, now: Instant) -> u64 {
        lock(&self.bytes).left(Rate::a_minute(limit), now)
    }

    /// Counts a line of the log, of which there may be `burst` at once and `per_s` a second.
    pub(super) fn line(&self, burst: u64, per_s: u64, now: Instant) -> Line {
        let Lines { bucket, untold } = &mut *lock(&self.lines);
        let rate = Rate { burst: burst as f64, per_s: per_s as f64 };
        if bucket.take(rate, now).is_ok() {
            return Line::Written;
        }
        *untold += 1;
        if *untold == 1 { Line::FirstDropped } else { Line::Dropped }
    }

    /// How many lines were dropped since this was last asked.
    pub(super) fn untold_lines(&self) -> u64 {
        std::mem::take(&mut lock(&self.lines).untold)
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
    fn lines_are_written_at_their_rate_and_the_others_counted() {
        let (meter, start) = (Meter::default(), Instant::now());
        let written = |at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..100).filter(|_| meter.line(20, 10, now) == Line::Written).count()
        };
        assert_eq!(written(0), 20);
        assert_eq!(written(500), 5);
        assert_eq!(meter.untold_lines(), 175);
        assert_eq!(written(60_000), 20);
        // It is to be said again how many.
        assert_eq!(meter.untold_lines(), 80);
        assert_eq!(meter.line(20, 10, start + Duration::from_secs(60)), Line::FirstDropped);
        assert_eq!(meter.line(20, 10, start + Duration::from_secs(60)), Line::Dropped);
        assert_eq!(Meter::default().line(0, 10, start), Line::FirstDropped);
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
