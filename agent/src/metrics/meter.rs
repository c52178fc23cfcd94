//! What one plugin does, counted where it is called. No lock, and one addition a call, which is not
//! even an atomic one where the call went well.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modunest_sdk::Error;

use super::cpu::{self, Sampler, Used};
use super::histogram::{Histogram, Latency};
use crate::host::Served;
use crate::thread::here;
use crate::thread::tally::{Number, Tally};

/// Of calls that cost less than reading a clock, one in so many is timed and stands for those
/// before it. A timed call costs some 450 ns more, of which the clock is a tenth: the way there is
/// seldom taken, so the processor neither foresees it nor has it at hand. A call inside the process
/// is to cost 10 ns in all. A prime falls in step with fewer habits of callers, such as two plugins
/// that are called in turn.
const SAMPLED: u32 = 509;

/// How a call ended. The names are the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// The plugin could not do it.
    Failed,
    /// The plugin panicked or crashed.
    Panicked,
    /// It was not answered in time.
    Late,
    /// The plugin could not be called.
    Unavailable,
    /// The plugin has no such thing, or does not know the request.
    Unknown,
    /// What was sent is not valid.
    Invalid,
    /// The caller may not do that.
    Denied,
    /// Its client went away, and it failed of that. It says nothing about the plugin.
    Abandoned,
}

impl Outcome {
    /// All of them, as they are shown.
    pub const ALL: [Outcome; 9] = [
        Outcome::Answered,
        Outcome::Failed,
        Outcome::Panicked,
        Outcome::Late,
        Outcome::Unavailable,
        Outcome::Unknown,
        Outcome::Invalid,
        Outcome::Denied,
        Outcome::Abandoned,
    ];

    /// Whether it is held against the plugin: by its breaker, in a trial and in what is counted as
    /// an error.
    pub fn is_failure(self) -> bool {
        matches!(self, Outcome::Failed | Outcome::Panicked | Outcome::Late | Outcome::Unavailable)
    }

    /// How a call with this answer ended, for a client that still waits.
    pub fn of<T>(answer: &Result<T, Error>) -> Outcome {
        answer.as_ref().err().map_or(Outcome::Answered, Outcome::of_error)
    }

    /// The same of a call that ended with an error.
    pub(crate) fn of_error(error: &Error) -> Outcome {
        match error {
            Error::Failed(_) => Outcome::Failed,
            Error::Panicked(_) => Outcome::Panicked,
            Error::DeadlineExceeded(_) => Outcome::Late,
            Error::Unavailable(_) => Outcome::Unavailable,
            Error::Unsupported(_) | Error::NotFound(_) => Outcome::Unknown,
            Error::InvalidInput(_) => Outcome::Invalid,
            Error::Denied(_) => Outcome::Denied,
        }
    }

    /// The word in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Failed => "failed",
            Outcome::Panicked => "panicked",
            Outcome::Late => "late",
            Outcome::Unavailable => "unavailable",
            Outcome::Unknown => "unknown",
            Outcome::Invalid => "invalid",
            Outcome::Denied => "denied",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// Counts what one plugin does.
#[derive(Debug, Default)]
pub struct Meter {
    answered: Tally,
    /// Calls that ended otherwise.
    outcomes: [AtomicU64; Outcome::ALL.len()],
    latency: Histogram,
    refused: AtomicU64,
    denials: AtomicU64,
    lines_dropped: AtomicU64,
    queued: AtomicI64,
    /// Answers that say themselves that something failed.
    faults: AtomicU64,
    /// Calls whose time is over and that have not ended, which they may never do.
    overdue: AtomicU64,
    loading: Mutex<Loading>,
    cpu: Mutex<Cpu>,
}

/// Processor time of calls that were measured, and by them of the others.
#[derive(Debug, Default)]
struct Cpu {
    sampler: Sampler,
    ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Loading {
    since: Option<Instant>,
    took: Option<Duration>,
}

/// A call that is being served, for [`Meter::end`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a call is counted at its end"]
pub struct Begun {
    since: Option<Instant>,
    /// For how many calls its time stands.
    weight: u64,
}

/// What a [`Meter`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    outcomes: [u64; Outcome::ALL.len()],
    /// How long calls took.
    pub latency: Latency,
    /// Calls that were refused before they reached it: it was not ready, or the call was late.
    pub refused: u64,
    /// Answers that say themselves that something failed: HTTP from 500 on, or no HTTP at all.
    pub faults: u64,
    /// Calls whose time is over and that have not ended.
    pub overdue: u64,
    /// What the plugin asked for and may not have.
    pub denials: u64,
    /// Lines of the log that were dropped, because they were too many.
    pub lines_dropped: u64,
    /// Calls that wait for their turn.
    pub queued: u64,
    /// How long the last load took, from its start to its first call.
    pub activation: Option<Duration>,
}

impl Meter {
    /// A call begins. `timed` says that it is worth its own time: it comes from a client,
    /// or leaves the process. Others are timed by sample.
    pub fn begin(timed: bool) -> Begun {
        let weight = if timed { 1 } else { sample() };
        Begun { since: (weight > 0).then(Instant::now), weight }
    }

    /// A call that is not timed has begun.
    pub fn begin_untimed() -> Begun {
        Begun { since: None, weight: 0 }
    }

    /// A call ends; answers how long it took, where it was timed.
    pub fn end(&self, begun: Begun, outcome: Outcome) -> Option<Duration> {
        self.count(outcome);
        let time = begun.since?.elapsed();
        if begun.weight > 1 {
            self.answered.draw_near();
        }
        self.latency.add(time, begun.weight);
        Some(time)
    }

    /// Runs a call of a plugin on this thread that may be measured, where it is timed. What it
    /// uses of the processor stands for the calls that are not.
    pub(crate) fn run<T>(&self, begun: &Begun, run: impl FnOnce() -> T) -> T {
        let stands_for =
            if begun.weight > 0 { self.cpu().sampler.take(begun.weight) } else { None };
        let Some(calls) = stands_for else { return cpu::aside(run) };
        let (out, used) = cpu::measured(run);
        self.used(calls, used);
        out
    }

    fn used(&self, calls: u64, used: Used) {
        let mut cpu = self.cpu();
        cpu.sampler.note(used);
        cpu.ns += used.ns * calls;
    }

    /// Processor time of the calls that came by [`Meter::run`].
    pub(crate) fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu().ns)
    }

    fn cpu(&self) -> MutexGuard<'_, Cpu> {
        // Numbers; a panic leaves nothing half-done.
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose calls it counts.
    pub(crate) fn number(&self) -> Number {
        self.answered.number()
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.answered.add(),
            other => drop(self.outcomes[other as usize].fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn counted(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Answered => self.answered.read(),
            other => self.outcomes[other as usize].load(Ordering::Relaxed),
        }
    }

    /// Calls that the plugin has brought to their end, well or not. Those that ran out of time are
    /// not among them, nor are those that it could not be called for.
    pub(crate) fn ended(&self) -> u64 {
        let by_itself = Outcome::ALL.into_iter().filter(|outcome| match outcome {
            Outcome::Late | Outcome::Unavailable | Outcome::Abandoned => false,
            Outcome::Answered
            | Outcome::Failed
            | Outcome::Panicked
            | Outcome::Unknown
            | Outcome::Invalid
            | Outcome::Denied => true,
        });
        by_itself.map(|outcome| self.counted(outcome)).sum()
    }

    /// A call was answered, and the answer says that the plugin could not do it.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// The time of a call is over, and it goes on all the same: it counts as failed from now on.
    pub(crate) fn overdue(&self) {
        self.overdue.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a call has ended after all.
    pub(crate) fn overdue_ended(&self) {
        self.overdue.fetch_sub(1, Ordering::Relaxed);
    }

    /// Calls that hold a thread of this process although their time is over.
    pub(crate) fn overdue_now(&self) -> u64 {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Calls that have ended or whose time is over, and those of them that failed, by whatever
    /// fault of the plugin's. Those whose clients went away are neither.
    pub fn served(&self) -> Served {
        let counts = Outcome::ALL.map(|outcome| self.counted(outcome));
        Reading::served_of(counts, self.faults.load(Ordering::Relaxed), self.overdue_now())
    }

    /// A call was refused before it reached the plugin.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The plugin asked for something that it may not have.
    pub fn deny(&self) {
        self.denials.fetch_add(1, Ordering::Relaxed);
    }

    /// A line of the plugin's was not written to the log, because it was one too many.
    pub(crate) fn drop_line(&self) {
        self.lines_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A call waits for its turn, until the answer is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// A load begins.
    pub fn loading(&self) {
        let mut loading = self.load_times();
        *loading = Loading { since: Some(Instant::now()), took: None };
    }

    /// The load that began has ended well.
    pub fn loaded(&self) {
        let mut loading = self.load_times();
        loading.took = loading.since.take().map(|since| since.elapsed()).or(loading.took);
    }

    fn load_times(&self) -> MutexGuard<'_, Loading> {
        // Two plain values; a panic leaves nothing half-done.
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted until now.
    pub fn read(&self) -> Reading {
        Reading {
            outcomes: Outcome::ALL.map(|outcome| self.counted(outcome)),
            latency: self.latency.read(),
            refused: self.refused.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            overdue: self.overdue_now(),
            denials: self.denials.load(Ordering::Relaxed),
            lines_dropped: self.lines_dropped.load(Ordering::Relaxed),
            // Two threads may be seen in the wrong order for a moment.
            queued: u64::try_from(self.queued.load(Ordering::Relaxed)).unwrap_or(0),
            activation: self.load_times().took,
        }
    }
}

impl Reading {
    /// Calls that reached it and ended, however.
    pub fn calls(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Calls that ended and those that failed, as [`Meter::served`].
    pub fn served(&self) -> Served {
        Reading::served_of(self.outcomes, self.faults, self.overdue)
    }

    fn served_of(counts: [u64; Outcome::ALL.len()], faults: u64, overdue: u64) -> Served {
        let ended = Outcome::ALL.into_iter().zip(counts);
        let ended = ended.filter(|(outcome, _)| *outcome != Outcome::Abandoned);
        let failed = ended.clone().filter(|(outcome, _)| outcome.is_failure());
        Served {
            calls: ended.map(|(_, count)| count).sum::<u64>() + overdue,
            failures: failed.map(|(_, count)| count).sum::<u64>() + faults + overdue,
        }
    }

    /// How many calls ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

thread_local! {
    /// The calls that are left untimed (`thread::Here`) while all are to be seen, and then the
    /// other is zero.
    static UNTIMED_SEEN: Cell<u32> = const { Cell::new(0) };
    /// For how many calls the next one stands that is timed: the first for itself alone.
    static STANDS_FOR: Cell<u32> = const { Cell::new(1) };
}

/// While a call is measured on this thread, each call from within it is to be seen, also one that
/// is not timed: its time is another plugin's.
pub(super) fn see_all(all: bool) {
    here(|here| {
        if all {
            UNTIMED_SEEN.set(here.untimed.replace(0));
        } else {
            here.untimed.set(UNTIMED_SEEN.get());
        }
    });
}

/// Whether the next call is left untimed; it counts as that if it is. Each thread counts for
/// itself: a counter that threads share would cost more than it saves.
#[inline(always)]
pub(crate) fn pass_untimed() -> bool {
    let left = here(|here| here.untimed.get()).checked_sub(1);
    if let Some(left) = left {
        here(|here| here.untimed.set(left));
    }
    left.is_some()
}

/// For how many calls the next one stands: itself and those before it that were not timed. For none
/// where it is not timed.
fn sample() -> u64 {
    if cpu::is_open() { UNTIMED_SEEN.with(take_one) } else { here(|here| take_one(&here.untimed)) }
}

fn take_one(untimed: &Cell<u32>) -> u64 {
    match untimed.get() {
        0 => {
            untimed.set(SAMPLED - 1);
            u64::from(STANDS_FOR.replace(SAMPLED))
        }
        left => {
            untimed.set(left - 1);
            0
        }
    }
}

/// A call that waits for its turn.
#[derive(Debug)]
#[must_use = "it waits until this is dropped"]
pub struct Waiting<'m>(&'m Meter);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_counted_once_by_its_outcome() {
        let meter = Meter::default();
        let answers = [
            (Ok(()), Outcome::Answered),
            (Err(Error::Failed(String::new())), Outcome::Failed),
            (Err(Error::Panicked(String::new())), Outcome::Panicked),
            (Err(Error::DeadlineExceeded(String::new())), Outcome::Late),
            (Err(Error::Unavailable(String::new())), Outcome::Unavailable),
            (Err(Error::NotFound(String::new())), Outcome::Unknown),
            (Err(Error::Unsupported(String::new())), Outcome::Unknown),
            (Err(Error::InvalidInput(String::new())), Outcome::Invalid),
            (Err(Error::Denied(String::new())), Outcome::Denied),
        ];
        for (answer, outcome) in &answers {
            assert_eq!(Outcome::of(answer), *outcome);
            assert!(meter.end(Meter::begin(true), Outcome::of(answer)).is_some());
        }
        let reading = meter.read();
        assert_eq!(reading.calls(), answers.len() as u64);
        assert_eq!(reading.count(Outcome::Unknown), 2);
        assert_eq!(reading.latency.count(), answers.len() as u64);
        meter.fault();
        let served = Served { calls: answers.len() as u64, failures: 5 };
        assert_eq!((meter.served(), meter.read().served()), (served, served));
        assert_eq!(meter.read().faults, 1);
        // One that goes on behind its time counts as failed once, before and after its end.
        let (begun, late) = (Meter::begin(true), Served { calls: 10, failures: 6 });
        meter.overdue();
        assert_eq!(meter.served(), late);
        let _ = meter.end(begun, Outcome::Late);
        meter.overdue_ended();
        assert_eq!((meter.served(), meter.read().served()), (late, late));
        let served = late;
        // What its clients do is not held for or against it.
        let _ = meter.end(Meter::begin(true), Outcome::Abandoned);
        assert_eq!(meter.read().count(Outcome::Abandoned), 1);
        assert_eq!(meter.served(), served);
    }

    #[test]
    fn it_is_said_how_many_calls_are_timed() {
        let words = format!("one in {SAMPLED}");
        for page in [
            include_str!("../../../docs/embedding.md"),
            include_str!("../../../docs/operations.md"),
            include_str!("../embed/observer.rs"),
            include_str!("../status.rs"),
        ] {
            // Lines break anywhere, also in comments.
            let text: Vec<&str> = page.split_whitespace().filter(|word| *word != "///").collect();
            assert_eq!(text.join(" ").matches(&words).count(), 1, "{}", &page[..80]);
        }
    }

    #[test]
    fn a_sample_stands_for_the_calls_before_it() {
        let meter = Meter::default();
        let calls = u64::from(SAMPLED) * 10;
        let timed =
            (0..calls).filter(|_| meter.end(Meter::begin(false), Outcome::Answered).is_some());
        assert_eq!(timed.count(), 10);
        let reading = meter.read();
        // No call is stood for that has not been.
        let stood_for = calls - u64::from(SAMPLED) + 1;
        assert_eq!((reading.calls(), reading.latency.count()), (calls, stood_for));
    }

    #[test]
    fn what_a_measured_call_has_others_do_is_seen_and_sampled_as_ever() {
        let meter = Meter::default();
        let calls = SAMPLED * 4 - 10;
        let within = || {
            // None of them is passed by, so that their time is not the caller's.
            assert!(!pass_untimed());
            let begun = Meter::begin(false);
            meter.run(&begun, || ());
            meter.end(begun, Outcome::Answered).is_some()
        };
        let timed = meter.run(&Meter::begin(true), || (0..calls).filter(|_| within()).count());
        assert_eq!(timed, 4);
        // Behind it they are passed by again, until the next is timed.
        assert_eq!((0..calls).filter(|_| pass_untimed()).count(), 10);
    }

    #[test]
    fn processor_time_of_some_calls_stands_for_all() {
        let meter = Meter::default();
        let work = || (0..20_000u64).fold(0, |sum, number| std::hint::black_box(sum + number));
        let ((), whole) = cpu::measured(|| {
            for _ in 0..SAMPLED * 5 {
                cpu::aside(|| meter.run(&Meter::begin(false), work));
            }
        });
        let (_, alone) = cpu::measured(|| (0..SAMPLED * 5).map(|_| work()).max());
        let (counted, alone) = (meter.cpu_time().as_nanos() as u64, alone.ns);
        assert!(whole.ns < alone / 4, "{whole:?}");
        assert!((alone / 3..alone * 3).contains(&counted), "{counted} for {alone}");
    }

    #[test]
    fn a_load_is_timed_from_its_start_to_its_end() {
        let meter = Meter::default();
        assert_eq!(meter.read().activation, None);
        meter.loading();
        assert_eq!(meter.read().activation, None);
        meter.loaded();
        assert!(meter.read().activation.is_some());
        // Ended twice, as where a load is given up late.
        meter.loaded();
        assert!(meter.read().activation.is_some());
    }

    #[test]
    fn a_waiting_call_counts_until_it_is_served() {
        let meter = Meter::default();
        let (one, other) = (meter.wait(), meter.wait());
        assert_eq!(meter.read().queued, 2);
        drop(one);
        assert_eq!(meter.read().queued, 1);
        drop(other);
        assert_eq!(meter.read().queued, 0);
    }
}
