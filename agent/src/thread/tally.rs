//! A counter that threads add to without an atomic addition, which costs a call inside the process
//! as much as half of its other bookkeeping.
//!
//! Each thread has a few places in which nobody else writes. A counter that a thread adds to again
//! and again gets one of them, and what was counted there before goes where all see it; whoever
//! reads adds up all places of the counter. What changes the owner of a place, and what reads, is
//! behind one lock, so nothing is counted twice, or missed, or seen to shrink.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Kept, given, kept, kept_or_made};

/// Counters that one thread counts apart at most. Numbers of counters follow one another, so
/// those of the plugins of a small host have a place each.
const PLACES: usize = 16;

/// Additions to a counter without a place after which it gets the one that it would have. Two that
/// take turns at one place change it this seldom.
const MISSES_MAX: u32 = 64;

/// Counts. What each addition looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Tally {
    /// Nobody else's, ever; never zero.
    number: u64,
    /// What was counted, without what is in the places of threads.
    rest: Arc<AtomicU64>,
}

/// What one thread counts, for one counter; in a line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    /// The counter's number; zero for none. The thread alone writes it, behind the lock.
    of: AtomicU64,
    /// The thread alone writes it: behind the lock, or where the place is the counter's.
    count: AtomicU64,
    /// Additions to others that would have this place; of interest to the thread alone.
    misses: AtomicU32,
    /// Where the count goes at last.
    rest: Mutex<Option<Arc<AtomicU64>>>,
}

/// What one thread counts.
#[derive(Debug, Default)]
pub(super) struct Counts([Place; PLACES]);

impl Place {
    /// Gives the place to another counter, behind the lock of all threads.
    fn hand_to(&self, number: u64, rest: Option<Arc<AtomicU64>>) {
        // It is never left half-changed.
        let mut own = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *own, rest);
        let count = self.count.swap(0, Ordering::Relaxed);
        if let Some(before) = before {
            before.fetch_add(count, Ordering::Relaxed);
        }
        self.of.store(number, Ordering::Relaxed);
    }

    /// One more, on the thread whose place it is.
    #[inline(always)]
    fn add(&self) {
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Counts {
    /// What was counted goes where all see it.
    pub(super) fn hand_in(&self) {
        self.0.iter().for_each(|place| place.hand_to(0, None));
    }

    #[inline(always)]
    fn place(&self, number: u64) -> &Place {
        &self.0[number as usize % PLACES]
    }
}

impl Default for Tally {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tally { number: NEXT.fetch_add(1, Ordering::Relaxed), rest: Arc::default() }
    }
}

impl Tally {
    /// One more.
    pub(crate) fn add(&self) {
        match kept() {
            Some(kept) => self.add_of(kept),
            None => self.add_without_place(),
        }
    }

    /// The same, of what this thread is known to keep.
    #[inline(always)]
    pub(crate) fn add_of(&self, kept: &'static Kept) {
        let place = kept.counts.place(self.number);
        if place.of.load(Ordering::Relaxed) == self.number {
            place.add();
        } else {
            self.add_without_place();
        }
    }

    #[cold]
    fn add_without_place(&self) {
        let counted = kept_or_made().map(|kept| {
            let place = kept.counts.place(self.number);
            let misses = place.misses.load(Ordering::Relaxed) + 1;
            let gets_it = misses >= MISSES_MAX;
            place.misses.store(if gets_it { 0 } else { misses }, Ordering::Relaxed);
            if gets_it {
                let _all = given::lock();
                place.hand_to(self.number, Some(self.rest.clone()));
                place.add();
            }
            gets_it
        });
        // A thread that is ending has no places any more.
        if !counted.unwrap_or(false) {
            self.rest.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted until now.
    pub(crate) fn read(&self) -> u64 {
        let threads = given::lock();
        let places = threads.iter().map(|kept| kept.counts.place(self.number));
        let its = places.filter(|place| place.of.load(Ordering::Relaxed) == self.number);
        let apart: u64 = its.map(|place| place.count.load(Ordering::Relaxed)).sum();
        apart + self.rest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn each_is_counted_once_whatever_thread_counts_and_whoever_shares_its_place() {
        // More counters than places, so that places change hands.
        let tallies: Vec<Tally> = (0..PLACES * 3).map(|_| Tally::default()).collect();
        let over = AtomicBool::new(false);
        let count = |seed: usize| {
            let mut own = vec![0_u64; tallies.len()];
            for round in 0..60_000 {
                // A few are counted again and again, as calls come, and all of them sometimes.
                let at = if round % 7 < 5 { seed } else { round * (seed + 3) };
                own[at % tallies.len()] += 1;
                tallies[at % tallies.len()].add();
            }
            own
        };
        let watch = || {
            let mut seen = vec![0; tallies.len()];
            while !over.load(Ordering::Relaxed) {
                for (tally, seen) in tallies.iter().zip(&mut seen) {
                    let now = tally.read();
                    assert!(now >= *seen, "{now} behind {seen}");
                    *seen = now;
                }
            }
        };
        let counted: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let watching = scope.spawn(watch);
            let counting: Vec<_> = (0..4).map(|seed| scope.spawn(move || count(seed))).collect();
            let counted = counting.into_iter().map(|thread| thread.join().unwrap()).collect();
            over.store(true, Ordering::Relaxed);
            watching.join().unwrap();
            counted
        });
        for (at, tally) in tallies.iter().enumerate() {
            let expected: u64 = counted.iter().map(|own| own[at]).sum();
            assert_eq!(tally.read(), expected, "counter {at}");
        }
    }

    #[test]
    fn what_a_thread_counted_is_there_while_it_lives_and_behind_it() {
        let tally = Tally::default();
        let often = u64::from(MISSES_MAX) * 3;
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| {
                for done in 0..often {
                    assert_eq!(tally.read(), done);
                    tally.add();
                }
            });
            counting.join().unwrap();
        });
        assert_eq!((tally.read(), tally.rest.load(Ordering::Relaxed)), (often, often));
    }
}
