//! Places of a thread: what one thread notes of the calls of one plugin. Whether it serves a call of
//! the plugin, and how many of its calls it has answered, is one number that nobody else writes, so a
//! call needs neither an atomic addition nor a second line of the processor's cache.
//!
//! Each thread has a place at hand, beside whatever else it looks at for each call, and more further
//! away. The one at hand is given to the plugin whose call happens to be timed, so most likely to the
//! one that is called most; of the others a plugin gets one whose calls the thread serves again and
//! again. What was noted in a place before goes where all see it. What changes whose a place is, and
//! what reads from outside, is behind one lock, so nothing is counted twice, or missed, or seen to
//! shrink.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::presence;

/// Plugins of which one thread notes the calls at most, besides the one at hand. Their numbers follow
/// one another, so those of a small host have a place each.
pub(super) const PLACES: usize = 64;

/// Calls of a plugin without a place after which it gets the one that it would have, where that is
/// another's. Two that take turns at one place change it this seldom.
pub(super) const MISSES_MAX: u32 = 64;

/// What one thread notes of the calls of one plugin.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Place {
    /// The plugin's number; zero for none. The thread alone writes it, behind the lock.
    of: AtomicU64,
    /// Two for each call that it answered, and one more while it serves one. The thread alone writes
    /// it: behind the lock, or where the place is the plugin's.
    noted: AtomicU64,
}

/// Where the count of a place goes at last.
#[derive(Debug, Default)]
pub(super) struct Rest(Mutex<Option<Arc<AtomicU64>>>);

/// A place that is further away.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Row {
    place: Place,
    /// Calls of others that would have this place; of interest to the thread alone.
    misses: AtomicU32,
    rest: Rest,
}

/// Those of one thread.
#[derive(Debug)]
pub(super) struct Places([Row; PLACES]);

impl Default for Places {
    fn default() -> Self {
        Places(std::array::from_fn(|_| Row::default()))
    }
}

/// What a place holds of a plugin without calls: nothing, or a call without end where presence cannot
/// be noted at all, because this kernel has no such barrier.
fn unused() -> u64 {
    u64::from(!presence::has_barrier())
}

impl Places {
    #[inline(always)]
    fn row(&self, number: u64) -> &Row {
        &self.0[number as usize % PLACES]
    }

    /// The place of this plugin, if it has one.
    #[inline(always)]
    pub(super) fn of(&self, number: u64) -> Option<&Place> {
        let place = &self.row(number).place;
        place.is_of(number).then_some(place)
    }

    /// Counts a call that was answered, on the thread whose places they are. The plugin gets the
    /// place that it would have, where nobody else has it, or few use it. Answers whether the call is
    /// counted here.
    pub(super) fn add(&self, number: u64, rest: &Arc<AtomicU64>) -> bool {
        let Row { place, misses, rest: own } = self.row(number);
        if !place.is_of(number) {
            let missed = misses.load(Ordering::Relaxed) + 1;
            let is_given = missed >= MISSES_MAX || place.is_of(0);
            misses.store(if is_given { 0 } else { missed }, Ordering::Relaxed);
            if !is_given || !place.give_to(number, rest, own) {
                return false;
            }
        }
        place.add()
    }

    /// What was counted goes where all see it, at the thread's end; behind the lock of all threads.
    pub(super) fn hand_in(&self) {
        self.0.iter().for_each(|row| row.place.hand_to(0, None, &row.rest));
    }
}

impl Place {
    /// One that is nobody's.
    pub(super) const fn free() -> Self {
        Place { of: AtomicU64::new(0), noted: AtomicU64::new(0) }
    }

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

    /// Whether no call is noted here, whose end says what the place holds.
    fn is_at_rest(&self) -> bool {
        self.noted.load(Ordering::Relaxed) % 2 == unused()
    }

    /// Counts a call that was answered, on the thread whose place it is, of the plugin whose place it
    /// is; answers whether it could.
    pub(super) fn add(&self) -> bool {
        let is_at_rest = self.is_at_rest();
        if is_at_rest {
            self.noted.store(self.noted.load(Ordering::Relaxed) + 2, Ordering::Relaxed);
        }
        is_at_rest
    }

    /// Gives it to a plugin, on the thread whose place it is, unless a call is noted here; `own` is
    /// the place's. Answers whether it is the plugin's.
    pub(super) fn give_to(&self, number: u64, rest: &Arc<AtomicU64>, own: &Rest) -> bool {
        let is_at_rest = self.of.load(Ordering::Relaxed) == 0 || self.is_at_rest();
        if is_at_rest {
            let _all = super::given::lock();
            self.hand_to(number, Some(rest.clone()), own);
        }
        is_at_rest
    }

    /// Gives it to another one, or to none, behind the lock of all threads.
    pub(super) fn hand_to(&self, number: u64, rest: Option<Arc<AtomicU64>>, Rest(own): &Rest) {
        // It is never left half-changed.
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
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
        // Two that would have the same one.
        let (one, other) = (1, 1 + PLACES as u64);
        let places = Places::default();
        assert!(places.of(one).is_none() && places.add(one, &first));
        let place = places.of(one).unwrap();
        let before = place.come().unwrap();
        assert_eq!(place.come(), None);
        // However often any is called meanwhile.
        assert!((0..MISSES_MAX * 3).all(|_| !places.add(other, &second)));
        assert!(!places.add(one, &first) && place.is_of(one) && place.is_served());
        place.go(before, 1);
        assert_eq!((place.count(), first.load(Ordering::Relaxed)), (2, 0));
        let misses = (0..MISSES_MAX).take_while(|_| !places.add(other, &second)).count();
        assert_eq!(misses, MISSES_MAX as usize - 1);
        assert!(place.is_of(other) && !place.is_served());
        assert_eq!((place.count(), first.load(Ordering::Relaxed)), (1, 2));
    }
}
