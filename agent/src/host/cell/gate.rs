//! The way in: which calls are let in, which wait before it, and waiting for their end.
//!
//! A call that is let in costs two writes that no other processor waits for ([`presence`]).
//! Only where the gate is shut does anybody look at the plugin's state, and only who waits for the
//! last call's end looks for that.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modunest_sdk::Error;

use super::lazy::Purpose;
use super::{Cell, State};
use crate::host::drive;
use crate::thread::presence::{self, Presence};
use crate::thread::tally::Number;

/// Calls are not let in without a look at the state.
const SHUT: u64 = 1 << 63;
/// Somebody waits for the last call's end, of those that are counted: only then is telling worth a
/// system call.
const AWAITED: u64 = 1 << 62;
/// Of each call is more to be noted than its end.
const LOUD: u64 = 1 << 61;
/// The calls that are being served and that no thread has noted.
const COUNTED: u64 = LOUD - 1;

/// How long a call without a deadline waits for the end of a swap or of a load. Longer than
/// either may take by default.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long whoever waits for the last call's end sleeps, before looking again at what threads have
/// noted: those do not look back at the gate when a call ends, for what the plugin did may have driven
/// it from the nearest cache.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// The same while calls take long: it doubles up to this.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(5);

/// Counts calls in and out.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Gate {
    word: AtomicU64,
    /// Whose gate it is.
    number: Number,
    last: Mutex<()>,
    drained: Condvar,
    /// Streams that are open and for which a stop waits. Behind what each call looks at.
    held: AtomicU64,
}

impl Gate {
    /// A shut and loud one.
    pub(super) fn new(number: Number) -> Self {
        Gate {
            word: AtomicU64::new(SHUT | LOUD),
            number,
            last: Mutex::default(),
            drained: Condvar::new(),
            held: AtomicU64::new(0),
        }
    }

    /// Lets a call of this thread in, unless the gate is shut.
    fn enter(&self) -> Option<Way<'_>> {
        match Presence::note(self.number) {
            Some(presence) => self.look(presence, SHUT).map(Way::Noted),
            None => self.enter_counted().map(Way::Counted),
        }
    }

    /// A call that is noted looks whether any of these holds for the gate; then it leaves as it came.
    #[inline(always)]
    fn look(&self, presence: Presence, what: u64) -> Option<Noted> {
        let noted = Noted(presence);
        if self.word.load(Ordering::SeqCst) & what != 0 {
            noted.end();
            return None;
        }
        Some(noted)
    }

    /// The same for a call that may end on another thread.
    fn enter_counted(&self) -> Option<Counted<'_>> {
        let word = self.word.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self);
        (word & SHUT == 0).then_some(counted)
    }

    /// Counts a call in, whether the gate is shut or not. It may end on another thread.
    fn count_in(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }

    /// A call that was counted in ends.
    fn count_out(&self) {
        if self.word.fetch_sub(1, Ordering::SeqCst) & AWAITED != 0 {
            self.tell();
        }
    }

    /// Makes whoever waits look again.
    #[cold]
    fn tell(&self) {
        // It is held between looking and waiting.
        drop(lock(&self.last));
        self.drained.notify_all();
    }

    /// Whether calls pass of which only their end is noted.
    fn set_quiet(&self, quiet: bool) {
        if quiet {
            self.word.fetch_and(!LOUD, Ordering::SeqCst);
        } else {
            self.word.fetch_or(LOUD, Ordering::SeqCst);
        }
    }

    /// Opens or shuts it. Who has been counted in before goes on.
    pub(super) fn set_open(&self, open: bool) {
        if open {
            self.word.fetch_and(!SHUT, Ordering::SeqCst);
        } else {
            self.word.fetch_or(SHUT, Ordering::SeqCst);
        }
    }

    /// Calls that are being served.
    pub(super) fn running(&self) -> u64 {
        (self.word.load(Ordering::SeqCst) & COUNTED) + presence::count(self.number)
    }

    /// Waits until no call is served any more; answers how many still are at the deadline.
    pub(super) fn drain(&self, until: Instant) -> u64 {
        self.drain_with(until, || self.running())
    }

    /// The same, and until no stream is held.
    pub(super) fn drain_all(&self, until: Instant) -> u64 {
        self.drain_with(until, || self.running() + self.held())
    }

    /// Streams that are held.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// One more is.
    fn hold(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    /// One less is.
    fn let_go(&self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
        if self.word.load(Ordering::SeqCst) & AWAITED != 0 {
            self.tell();
        }
    }

    fn drain_with(&self, until: Instant, running: impl Fn() -> u64) -> u64 {
        self.word.fetch_or(AWAITED, Ordering::SeqCst);
        presence::barrier();
        let (mut guard, mut pause) = (lock(&self.last), LOOK_AGAIN);
        loop {
            let (running, now) = (running(), Instant::now());
            if running == 0 || now >= until {
                self.word.fetch_and(!AWAITED, Ordering::SeqCst);
                return running;
            }
            let waited = self.drained.wait_timeout(guard, pause.min(until - now));
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A call that was let in; it ends when this is dropped, on the thread on which it began.
#[expect(dead_code, reason = "to be dropped is what both are for")]
pub(super) enum Way<'c> {
    /// Its thread has noted it.
    Noted(Noted),
    /// The gate has counted it.
    Counted(Counted<'c>),
}

/// A call that was let in and that its thread has noted; it ends when this is dropped.
pub(super) struct Noted(Presence);

impl Noted {
    /// Ends the call: what dropping it does, compiled into the caller.
    #[inline(always)]
    pub(super) fn end(self) {
        ManuallyDrop::new(self).0.leave(false);
    }

    /// Ends the call, which was answered: that is counted here, and nowhere else.
    #[inline(always)]
    pub(super) fn end_answered(self) {
        ManuallyDrop::new(self).0.leave(true);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.leave(false);
    }
}

/// A call that was let in; it ends when this is dropped, on whatever thread.
pub(super) struct Counted<'c>(&'c Gate);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.count_out();
    }
}

/// See [`Cell::hold`].
pub(crate) struct Hold(Arc<Cell>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.gate.let_go();
    }
}

/// Where a call goes on.
pub(super) enum Entered<W> {
    /// Here.
    Here(W),
    /// At what took this plugin's place.
    Successor(Arc<Cell>),
}

impl Cell {
    /// Has calls pass quietly from here on, or not: where its breakers are `quiet`, and the program
    /// around this host has nothing to do with its calls.
    pub(super) fn turn_quiet(&self, quiet: bool) {
        self.gate.set_quiet(quiet && !self.hooks.are_asked() && !self.hooks.is_observed());
    }

    /// Lets a call in, if the plugin takes calls now of which nothing is to be noted but their end,
    /// and has a place in this thread to note it.
    #[inline(always)]
    pub(super) fn pass(&self) -> Option<Noted> {
        let presence = Presence::note(self.gate.number)?;
        self.gate.look(presence, SHUT | LOUD)
    }

    /// Counts a call in, if the plugin takes calls. Waits while the plugin is being replaced
    /// or loaded, until the deadline at most.
    /// Those about a stream that is open go on where it was opened, also while that stops or
    /// stands by; they wait only while a state is handed over.
    pub(super) fn enter(
        &self,
        deadline_ms: u64,
        purpose: Purpose,
    ) -> Result<Entered<Way<'_>>, Error> {
        loop {
            if let Some(counted) = self.enter_stream(purpose) {
                return Ok(Entered::Here(Way::Counted(counted)));
            }
            if let Some(way) = self.gate.enter() {
                return Ok(Entered::Here(way));
            }
            if let Some(successor) = self.wait_outside(deadline_ms, purpose)? {
                return Ok(Entered::Successor(successor));
            }
        }
    }

    /// The same for a call that is a future: waiting holds no thread that serves the network.
    pub(super) async fn enter_async(
        self: &Arc<Self>,
        deadline_ms: u64,
        purpose: Purpose,
    ) -> Result<Entered<Counted<'_>>, Error> {
        loop {
            let stream = self.enter_stream(purpose);
            if let Some(counted) = stream.or_else(|| self.gate.enter_counted()) {
                return Ok(Entered::Here(counted));
            }
            let cell = self.clone();
            let waiting = drive::away(move || cell.wait_outside(deadline_ms, purpose));
            if let Some(successor) = waiting.await?? {
                return Ok(Entered::Successor(successor));
            }
        }
    }

    /// Counts a call in that is about an open stream, if the plugin serves those now. The state is
    /// held meanwhile: whoever turns it and waits for the last call behind that sees this one.
    fn enter_stream(&self, purpose: Purpose) -> Option<Counted<'_>> {
        if purpose != Purpose::Stream {
            return None;
        }
        let status = lock(&self.status);
        serves_streams(status.state).then(|| {
            self.gate.count_in();
            Counted(&self.gate)
        })
    }

    /// Keeps the plugin from being stopped while a stream of it is open, as long as a stop has
    /// patience; `None` where it keeps none. A swap does not wait for what is held: streams go on
    /// being called at the instance that opened them.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold> {
        let status = lock(&self.status);
        let keeps = serves_streams(status.state) || status.state == State::Switching;
        keeps.then(|| {
            self.gate.hold();
            Hold(self.clone())
        })
    }

    /// Whether it is about to be stopped or replaced, and only goes on for what is open.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(lock(&self.status).state, State::Ready | State::Unhealthy)
    }

    /// Waits before a shut gate until it may be open, or until there is a successor.
    fn wait_outside(&self, deadline_ms: u64, purpose: Purpose) -> Result<Option<Arc<Cell>>, Error> {
        let waits_until = Instant::now() + left(deadline_ms);
        let mut status = lock(&self.status);
        loop {
            if purpose == Purpose::Stream && serves_streams(status.state) {
                return Ok(None);
            }
            if let Some(successor) = lock(&self.successor).clone() {
                return Ok(Some(successor));
            }
            match status.state {
                State::Ready | State::Unhealthy => return Ok(None),
                State::Switching | State::Activating => {
                    let waiting = Waiting::new(&self.waiting);
                    if waiting.0.load(Ordering::Relaxed) > self.lifecycle.queue {
                        return Err(Error::Unavailable(format!(
                            "{} is {}, and {} calls wait for that already",
                            self.name,
                            status.state.as_str(),
                            self.lifecycle.queue
                        )));
                    }
                    let left = waits_until.saturating_duration_since(Instant::now());
                    if self.is_late(&status) {
                        drop(status);
                        let limit = self.load_timeout.as_millis();
                        self.give_up(format!("it did not load within {limit} ms"));
                        status = lock(&self.status);
                        continue;
                    }
                    if left.is_zero() {
                        return Err(Error::DeadlineExceeded(format!(
                            "{} was still {}",
                            self.name,
                            status.state.as_str()
                        )));
                    }
                    let left = left.min(self.load_timeout);
                    let waited = self.turned.wait_timeout(status, left);
                    status = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                State::Idle => {
                    self.may_activate(purpose)?;
                    drop(status);
                    self.activate();
                    status = lock(&self.status);
                }
                _ => return Err(self.refusal(&status)),
            }
        }
    }

    /// What a caller hears of a plugin that takes no calls.
    fn refusal(&self, status: &super::Status) -> Error {
        let reason = status.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let text = format!("{} is {}{reason}", self.name, status.state.as_str());
        match status.state {
            State::Denied => Error::Denied(text),
            _ => Error::Unavailable(text),
        }
    }
}

/// Whether calls about streams that are open are served in this state.
fn serves_streams(state: State) -> bool {
    matches!(state, State::Ready | State::Unhealthy | State::Standby | State::Stopping)
}

/// One more that waits, while it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time until a deadline in Unix milliseconds, where zero is none.
fn left(deadline_ms: u64) -> Duration {
    if deadline_ms == 0 {
        return WAIT_MAX;
    }
    let now_ms = modunest_runtime::clock::now().as_millis();
    Duration::from_millis(deadline_ms.saturating_sub(now_ms)).min(WAIT_MAX)
}

/// What these locks hold is never left half-changed, so a panic while one was held spoils
/// nothing.
pub(in crate::host) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::thread::tally::Tally;

    /// Longer than any of these tests takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_is_inside_behind_a_drain_and_everybody_before_it_gets_out() {
        let tally = Tally::default();
        let gate = Gate::new(tally.number());
        let (inside, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let served = AtomicUsize::new(0);
        let serve = || {
            // Behind its first call, the plugin has a place in this thread.
            tally.add();
            while !over.load(Ordering::Relaxed) {
                let Some(outer) = gate.enter() else {
                    std::thread::yield_now();
                    continue;
                };
                inside.fetch_add(1, Ordering::Relaxed);
                // A call from within; it may find the gate shut meanwhile.
                drop(gate.enter());
                served.fetch_add(1, Ordering::Relaxed);
                inside.fetch_sub(1, Ordering::Relaxed);
                drop(outer);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(serve);
            }
            for round in 0..2_000 {
                gate.set_open(true);
                if round % 50 == 0 {
                    let before = served.load(Ordering::Relaxed);
                    while served.load(Ordering::Relaxed) == before {
                        std::thread::yield_now();
                    }
                }
                gate.set_open(false);
                assert_eq!(gate.drain(Instant::now() + LONG), 0);
                assert_eq!(inside.load(Ordering::Relaxed), 0, "round {round}");
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(gate.running(), 0);
    }

    #[test]
    fn a_drain_counts_whom_it_leaves_behind() {
        let tally = Tally::default();
        let gate = Gate::new(tally.number());
        gate.set_open(true);
        tally.add();
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        gate.count_in();
        gate.set_open(false);
        assert!(gate.enter().is_none());
        assert_eq!((gate.running(), gate.drain(Instant::now())), (3, 3));
        drop(two);
        gate.count_out();
        assert_eq!(gate.drain(Instant::now()), 1);
        drop(one);
        assert_eq!(gate.drain(Instant::now()), 0);
    }

    #[test]
    fn calls_that_a_thread_does_not_note_are_counted() {
        let tally = Tally::default();
        let gate = Gate::new(tally.number());
        gate.set_open(true);
        let is_noted = |way: &Way<'_>| matches!(way, Way::Noted(_));
        // No place yet.
        assert!(!is_noted(&gate.enter().unwrap()));
        tally.add();
        // One inside another: the first is noted.
        let ways: Vec<Way<'_>> = (0..9).map(|_| gate.enter().unwrap()).collect();
        assert!(is_noted(&ways[0]) && !ways[1..].iter().any(is_noted));
        assert_eq!(gate.running(), 9);
        // In whatever order they end.
        let (kept, ended): (Vec<_>, Vec<_>) =
            ways.into_iter().enumerate().partition(|(call, _)| call % 3 == 0);
        drop(ended);
        assert_eq!(gate.running(), kept.len() as u64);
        drop(kept);
        assert_eq!(gate.running(), 0);
        assert!(is_noted(&gate.enter().unwrap()));
        assert_eq!(tally.read(), 1);
    }

    #[test]
    fn a_call_that_ends_answered_is_counted_and_another_is_not() {
        let tally = Tally::default();
        let gate = Gate::new(tally.number());
        gate.set_open(true);
        tally.add();
        let pass = || match gate.enter() {
            Some(Way::Noted(noted)) => noted,
            _ => panic!("it has a place, and the gate is open"),
        };
        for calls in 1..5 {
            let call = pass();
            // One from within counts while its caller is inside.
            tally.add();
            call.end_answered();
            pass().end();
            drop(pass());
            assert_eq!((tally.read(), gate.running()), (calls * 2 + 1, 0));
        }
    }
}
