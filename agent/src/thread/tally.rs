//! Who calls are of, and how many of them were answered, counted by each thread for itself
//! ([`place`](super::place)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::place::Place;
use super::{given, here, kept_or_made};

/// The number of one plugin. Nobody else's, ever; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(super) u64);

/// Counts the calls that one plugin answered.
#[derive(Debug)]
pub(crate) struct Tally {
    number: Number,
    /// What was counted, without what is in the places of threads.
    rest: Arc<AtomicU64>,
}

impl Default for Tally {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tally { number: Number(NEXT.fetch_add(1, Ordering::Relaxed)), rest: Arc::default() }
    }
}

impl Tally {
    /// Whose calls it counts.
    pub(crate) fn number(&self) -> Number {
        self.number
    }

    /// One more, which no [`Presence`](super::presence::Presence) has counted.
    pub(crate) fn add(&self) {
        let Number(number) = self.number;
        let is_counted = here(|here| here.near.is_of(number) && here.near.add())
            || kept_or_made().is_some_and(|kept| kept.places.add(number, &self.rest));
        // A thread that is ending has no places any more.
        if !is_counted {
            self.rest.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The place that this thread has at hand is this plugin's from here on, unless it is in use.
    pub(crate) fn draw_near(&self) {
        let Number(number) = self.number;
        let Some(kept) = kept_or_made() else { return };
        here(|here| {
            if !here.near.is_of(number) {
                here.near.give_to(number, &self.rest, &kept.rest_of_near);
            }
        });
    }

    /// What was counted until now.
    pub(crate) fn read(&self) -> u64 {
        let Number(number) = self.number;
        let threads = given::lock();
        let apart: u64 = threads.places(number).map(Place::count).sum();
        apart + self.rest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::thread::place::{MISSES_MAX, PLACES};

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
                if round % 101 == 0 {
                    tallies[at % tallies.len()].draw_near();
                }
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
                    if done == often / 2 {
                        tally.draw_near();
                    }
                }
            });
            counting.join().unwrap();
        });
        assert_eq!((tally.read(), tally.rest.load(Ordering::Relaxed)), (often, often));
    }
}
