//! Which calls every thread serves, noted without an atomic addition.
//!
//! A thread notes that it serves a call of a plugin in a place that nobody else writes, and looks at
//! the plugin's gate afterwards; whoever waits for the last call shuts the gate, and looks at
//! the places of all threads afterwards. For one of the two to see the other, both need a memory
//! barrier between their write and their look. A barrier costs a call as much as all the rest of
//! its bookkeeping, so only the one who waits pays: `membarrier(2)` makes every running thread of
//! the process execute one.

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Once, OnceLock};

use super::place::Place;
use super::tally::Number;
use super::{given, here, kept};

/// A noted call, until [`Presence::leave`]. It stays on its thread.
#[derive(Debug)]
pub(crate) struct Presence {
    /// One of the thread's.
    place: NonNull<Place>,
    /// What the place held before.
    before: u64,
}

impl Presence {
    /// Notes a call of a plugin, before anybody looks whether its gate is open. `None` where this
    /// thread cannot: the plugin has no place here, or a call of it is noted there already.
    #[inline(always)]
    pub(crate) fn note(Number(number): Number) -> Option<Presence> {
        let near = here(|here| here.near.is_of(number).then(|| NonNull::from(&here.near)));
        let place = near.or_else(|| kept()?.places.of(number).map(NonNull::from))?;
        // SAFETY: a place of this thread's, which is there until its end.
        let before = unsafe { place.as_ref() }.come()?;
        // The look follows in the program; in the processor, by the barrier of who waits.
        compiler_fence(Ordering::SeqCst);
        Some(Presence { place, before })
    }

    /// The call ends. Where it was answered, the plugin's [`Tally`](super::tally::Tally) has one
    /// more.
    #[inline(always)]
    pub(crate) fn leave(&self, answered: bool) {
        // SAFETY: it cannot be sent, so the thread is the one on which the call was noted, whose
        // places are there until its end.
        unsafe { self.place.as_ref() }.go(self.before, u64::from(answered));
    }
}

/// Calls of a plugin that are noted now. Exact behind [`barrier`], where its gate was shut before.
pub(crate) fn count(Number(number): Number) -> u64 {
    given::lock().places(number).filter(|place| place.is_served()).count() as u64
}

/// Makes every thread of this process execute a memory barrier.
pub(crate) fn barrier() {
    if has_barrier() {
        // It was registered, so only want of a few bytes of the kernel's can keep it from
        // happening, for a moment.
        while !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            std::thread::yield_now();
        }
    }
}

/// Has the kernel told, on a thread of its own: in a process with threads it takes its time, some
/// 15 ms, and a first call need not wait for that if plugins are still being loaded.
pub(crate) fn prepare() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let thread = std::thread::Builder::new().name("presence".to_owned());
        // Without a thread, the first call does it.
        drop(thread.spawn(has_barrier));
    });
}

/// Whether this kernel has it, and has been told that this process uses it.
pub(super) fn has_barrier() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
