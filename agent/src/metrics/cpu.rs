//! Processor time of plugins whose calls run on the agent's own threads: what the thread's clock
//! says around some of their calls, counted for all of them.
//!
//! A look at that clock is a system call, some 200 ns, and a call inside the process costs a tenth
//! of that. So a plugin's calls are measured as seldom as makes all looks together a hundredth of
//! the time that its calls take: each one of those that compute for long, few of the others.
//!
//! What one plugin has another do on the same thread is the other's time, whether that is measured
//! just then or not.

use std::cell::Cell;
use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

use super::meter;

/// All looks together may take one part of so many of the time of all calls.
const PART_OF_TIME: u64 = 100;

/// Most calls that one of them stands for.
const STANDS_FOR_MAX: u64 = 4096;

/// Looks that are made to find out what one costs.
const LOOKS_TRIED: usize = 32;

/// Something that is measured on this thread.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Since when it runs, by the thread's clock.
    since_ns: u64,
    used: Used,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// In nanoseconds.
    pub(crate) ns: u64,
    /// Pieces that it was measured in: others ran in between.
    pieces: u64,
}

/// Decides which calls of a plugin are measured.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// So many calls the next one that is measured stands for, at least.
    every: u64,
    /// Calls since the last one that was measured.
    unmeasured: u64,
}

thread_local! {
    static OPEN: Cell<Option<Open>> = const { Cell::new(None) };
}

/// Whether something is measured on this thread just now.
#[inline]
pub(super) fn is_open() -> bool {
    OPEN.get().is_some()
}

/// Runs something on this thread, and answers what it used of the processor, without what was put
/// aside from within.
pub(crate) fn measured<T>(run: impl FnOnce() -> T) -> (T, Used) {
    let mut back = Back(Some(turn_to(Some(Open::default()))));
    let out = run();
    let own = back.0.take().and_then(turn_to);
    (out, own.map(|open| open.used).unwrap_or_default())
}

/// Runs something on this thread that is not part of what is measured there.
#[inline]
pub(crate) fn aside<T>(run: impl FnOnce() -> T) -> T {
    if !is_open() {
        return run();
    }
    let _back = Back(Some(turn_to(None)));
    run()
}

/// What goes on behind something else, also where that panics; `None` once it does.
struct Back(Option<Option<Open>>);

impl Drop for Back {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            turn_to(before);
        }
    }
}

/// From here on, this thread works for something else, or for nothing that is measured. Answers
/// what it worked for until now.
fn turn_to(next: Option<Open>) -> Option<Open> {
    let now_ns = now_ns();
    let is_open = next.is_some();
    let before = OPEN.replace(next.map(|open| Open { since_ns: now_ns, ..open }));
    if is_open != before.is_some() {
        meter::see_all(is_open);
    }
    before.map(|Open { since_ns, used }| {
        // Of the two looks around it, it had half of each.
        let ns = now_ns.saturating_sub(since_ns).saturating_sub(look_ns());
        Open { since_ns, used: Used { ns: used.ns + ns, pieces: used.pieces + 1 } }
    })
}

/// Processor time of this thread, in nanoseconds.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// What one look at the clock costs, in nanoseconds.
fn look_ns() -> u64 {
    static LOOK_NS: OnceLock<u64> = OnceLock::new();
    *LOOK_NS.get_or_init(|| {
        let looks: [u64; LOOKS_TRIED] = std::array::from_fn(|_| now_ns());
        let took = looks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        took.min().unwrap_or(0)
    })
}

impl Used {
    /// Together with what follows.
    pub(crate) fn and(self, more: Used) -> Used {
        Used { ns: self.ns + more.ns, pieces: self.pieces + more.pieces }
    }
}

impl Sampler {
    /// A call begins that stands for so many; answers for how many it stands if it is to be
    /// measured, with those before it that were not.
    #[inline]
    pub(crate) fn take(&mut self, calls: u64) -> Option<u64> {
        self.unmeasured += calls;
        (self.unmeasured >= self.every).then(|| std::mem::take(&mut self.unmeasured))
    }

    /// What a call came to that was measured: the next that is like it is to be worth its looks.
    pub(crate) fn note(&mut self, used: Used) {
        let looks_ns = (used.pieces + 1) * look_ns();
        let every = (looks_ns * PART_OF_TIME) / used.ns.max(1);
        // An odd number falls in step with fewer habits of callers.
        self.every = every.clamp(1, STANDS_FOR_MAX) | 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the processor busy for so long, by the thread's own clock.
    fn burn(ms: u64) {
        let until_ns = now_ns() + ms * 1_000_000;
        while now_ns() < until_ns {}
    }

    #[test]
    fn what_is_put_aside_and_what_is_slept_is_no_time_of_the_call() {
        let (inner, used) = measured(|| {
            burn(4);
            aside(|| burn(80));
            std::thread::sleep(std::time::Duration::from_millis(80));
            let ((), inner) = measured(|| burn(40));
            burn(4);
            inner
        });
        // What is measured is what ran on this thread, however many others the machine has.
        assert!((8_000_000..40_000_000).contains(&used.ns), "{used:?}");
        assert!((40_000_000..80_000_000).contains(&inner.ns), "{inner:?}");
        assert_eq!((used.pieces, inner.pieces), (3, 1));
        assert!(!is_open());
    }

    #[test]
    fn a_panic_leaves_nothing_open() {
        let outer = measured(|| {
            let inner = std::panic::catch_unwind(|| measured(|| panic!("as it was told to")));
            assert!(inner.is_err() && is_open());
        });
        assert!(outer.1.pieces > 1 && !is_open());
        let inner = std::panic::catch_unwind(|| measured(|| aside(|| panic!("once more"))));
        assert!(inner.is_err() && !is_open());
    }

    #[test]
    fn long_calls_are_measured_each_and_short_ones_seldom() {
        let count = |ns: u64| {
            let mut sampler = Sampler::default();
            let (mut measured, mut stood_for) = (0, 0);
            for _ in 0..100_000 {
                if let Some(calls) = sampler.take(1) {
                    measured += 1;
                    stood_for += calls;
                    sampler.note(Used { ns, pieces: 1 });
                }
            }
            // Each call is stood for once, but for the last ones.
            assert!((100_000 - STANDS_FOR_MAX - 1..=100_000).contains(&stood_for), "{stood_for}");
            measured
        };
        assert_eq!(count(1_000_000_000), 100_000);
        assert!(count(0) < 30);
        // Looks at the clock take a hundredth of the time of all calls, or less.
        let looks = 2 * count(1_000) * look_ns();
        assert!(looks <= 100_000 * 1_000 / PART_OF_TIME * 11 / 10, "{looks} ns");
    }
}
