//! Places of a thread: what one thread notes of the calls of one plugin, in one line of the
//! processor's cache. Whether it serves a call of the plugin, and how many of its calls it has
//! answered, is one number that nobody else writes, so a call needs neither an atomic addition nor a
//! second line.
//!
//! A plugin whose calls a thread serves again and again gets a place there, and what was noted in it
//! before goes where all see it. What changes whose a place is, and what reads from outside, is
//! behind one lock, so nothing is counted twice, or missed, or seen to shrink.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::presence;

/// Plugins of which one thread notes the calls at most. Their numbers follow one another, so those
/// of a small host have a place each.
pub(super) const PLACES: usize = 64;

/// Calls of a plugin without a place after which it gets the one that it would have, where that is
/// another's. Two that take turns at one place change it this seldom.
pub(super) const MISSES_MAX: u32 = 64;

/// What one thread notes of the calls of one plugin.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Place {
    /// The plugin's number; zero for none. The thread alone writes it, behind the lock.
    of: AtomicU64,
    /// Two for each call that it answered, and one more while it serves one. The thread alone writes
    /// it: behind the lock, or where the place is the plugin's.
    noted: AtomicU64,
    /// Calls of others that would have this place; of interest to the thread alone.
    misses: AtomicU32,
    /// Where the count goes at last.
    rest: Mutex<Option<Arc<AtomicU64>>>,
}

/// What one thread notes.
#[derive(Debug)]
pub(super) struct Places([Place; PLACES]);

impl Default for Places {
    fn default() -> Self {
        let place = |_| Place {
            of: AtomicU64::new(0),
            noted: AtomicU64::new(unused()),
            misses: AtomicU32::new(0),
            rest: Mutex::default(),
        };
        Places(std::array::from_fn(place))
    }
}

/// What an unused place holds: nothing, or a call without end where presence cannot be noted at all,
/// because this kernel has no such barrier.
fn unused() -> u64 {
    u64::from(!presence::has_barrier())
}

impl Places {
    /// The place that this plugin has, if it has one.
    #[inline(always)]
    pub(super) fn of(&self, number: u64) -> &Place {
        &self.0[number as usize % PLACES]
    }

    /// What was counted goes where all see it, at the thread's end.
    pub(super) fn hand_in(&self) {
        self.0.iter().for_each(|place| place.hand_to(0, None));
    }
}

impl Place {
    /// Whether it is this plugin's.
    #[inline(always)]
    pub(super) fn is_of(&self, number: u64) -> bool {
        self.of.load(Ordering::Relaxed) == number
    }

    /// The thread serves a call of the plugin whose place it is, unless it serves one already.
    /// Answers what the place held before, for the call's end.
    #[inline(always)]
    pub(super) fn come(&self) -> Option<u64> {
        let before = self.noted.load(Ordering::Relaxed);
        if !before.is_multiple_of(2) {
            return None;
        }
        self.noted.store(before + 1, Ordering::Release);
        Some(before)
    }

    /// That call ends, and so many more were answered. Nothing is read: what the plugin did may have
    /// driven the place from the nearest cache.
    #[inline(always)]
    pub(super) fn go(&self, before: u64, answered: u64) {
        self.noted.store(before + 2 * answered, Ordering::Release);
    }

    /// Whether the thread serves a call of the plugin whose place it is.
    pub(super) fn is_served(&self) -> bool {
        !self.noted.load(Ordering::Acquire).is_multiple_of(2) && presence::has_barrier()
    }

    /// Calls that were answered, of the plugin whose place it is.
    pub(super) fn count(&self) -> u64 {
        self.noted.load(Ordering::Relaxed) / 2
    }

    /// Counts a call that was answered, on the thread whose place it is. The plugin gets the place,
    /// where nobody else has it, or few use it; answers whether the call is counted here. It is not
    /// while one is served that is noted here, whose end says what the place holds.
    pub(super) fn add(&self, number: u64, rest: &Arc<AtomicU64>) -> bool {
        let is_at_rest = self.noted.load(Ordering::Relaxed) % 2 == unused();
        if !is_at_rest || !self.is_of(number) && !self.give_to(number, rest) {
            return false;
        }
        self.noted.store(self.noted.load(Ordering::Relaxed) + 2, Ordering::Relaxed);
        true
    }

    #[cold]
    fn give_to(&self, number: u64, rest: &Arc<AtomicU64>) -> bool {
        let misses = self.misses.load(Ordering::Relaxed) + 1;
        let is_given = misses >= MISSES_MAX || self.is_of(0);
        self.misses.store(if is_given { 0 } else { misses }, Ordering::Relaxed);
        if is_given {
            let _all = super::given::lock();
            self.hand_to(number, Some(rest.clone()));
        }
        is_given
    }

    /// Gives it to another one, behind the lock of all threads.
    fn hand_to(&self, number: u64, rest: Option<Arc<AtomicU64>>) {
        // It is never left half-changed.
        let mut own = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *own, rest) {
            before.fetch_add(self.count(), Ordering::Relaxed);
        }
        self.noted.store(unused(), Ordering::Relaxed);
        self.of.store(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_not_given_away_under_a_call_and_what_was_counted_there_is_kept() {
        let (first, second) = (Arc::default(), Arc::default());
        let Places(places) = Places::default();
        let place = &places[0];
        assert!(place.add(1, &first));
        let before = place.come().unwrap();
        assert_eq!(place.come(), None);
        // However often any is called meanwhile.
        assert!((0..MISSES_MAX * 2).all(|_| !place.add(2, &second) && !place.add(1, &first)));
        place.go(before, 1);
        assert_eq!((place.count(), first.load(Ordering::Relaxed)), (2, 0));
        assert!((1..MISSES_MAX).all(|_| !place.add(2, &second)));
        assert!(place.add(2, &second) && place.is_of(2));
        assert_eq!((place.count(), first.load(Ordering::Relaxed)), (1, 2));
    }
}
