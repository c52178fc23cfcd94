//! Which calls every thread serves, noted without an atomic addition.
//!
//! A thread notes the gate of a call that it serves in a place that nobody else writes, and
//! looks at the gate afterwards; whoever waits for the last call shuts the gate, and looks at
//! the places of all threads afterwards. For one of the two to see the other, both need a memory
//! barrier between their write and their look. A barrier costs a call as much as all the rest of
//! its bookkeeping, so only the one who waits pays: `membarrier(2)` makes every running thread of
//! the process execute one.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Once, OnceLock};

use super::gate::Gate;
use crate::host::frame::DEPTH_MAX;
use crate::per_thread::{Given, PerThread};

/// Calls inside one another that a thread notes.
const PLACES: usize = DEPTH_MAX as usize;

/// The calls that one thread serves. The first few need one line of the processor's cache.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Thread {
    /// How many there are; of interest to the thread itself alone.
    depth: AtomicUsize,
    /// The gates that they went through, the outermost first; null behind the innermost.
    gates: [AtomicPtr<Gate>; PLACES],
}

/// Of all threads that live and have served a call.
static THREADS: PerThread<Thread> = PerThread::new();

thread_local! {
    /// This thread's places: none before its first call, and at its end.
    static HERE: Cell<Option<&'static Thread>> = const { Cell::new(None) };
    /// None where this kernel has no such barrier. Its calls have ended before it.
    static GIVEN: Option<Given<Thread>> = has_barrier().then(|| THREADS.give(&HERE, |_| {}));
}

/// A noted call, until [`Place::leave`]. It stays on its thread.
#[derive(Debug)]
pub(super) struct Place(&'static Thread, PhantomData<*const ()>);

impl Place {
    /// Notes a call through `gate`, before anybody looks whether that is open; `None` where this
    /// thread cannot.
    #[inline(always)]
    pub(super) fn take(gate: &Gate) -> Option<Place> {
        let thread = match HERE.get() {
            Some(thread) => thread,
            None => first()?,
        };
        let depth = thread.depth.load(Ordering::Relaxed);
        let place = thread.gates.get(depth)?;
        thread.depth.store(depth + 1, Ordering::Relaxed);
        place.store(std::ptr::from_ref(gate).cast_mut(), Ordering::Release);
        // The look follows in the program; in the processor, by the barrier of who waits.
        compiler_fence(Ordering::SeqCst);
        Some(Place(thread, PhantomData))
    }

    /// The innermost call of this thread ends, before anybody looks whether somebody waits.
    #[inline(always)]
    pub(super) fn leave(&self) {
        let thread = self.0;
        let depth = thread.depth.load(Ordering::Relaxed).saturating_sub(1);
        thread.depth.store(depth, Ordering::Relaxed);
        if let Some(place) = thread.gates.get(depth) {
            place.store(std::ptr::null_mut(), Ordering::Release);
        }
        compiler_fence(Ordering::SeqCst);
    }
}

#[cold]
fn first() -> Option<&'static Thread> {
    // A thread that is ending has none any more.
    GIVEN.try_with(|given| given.as_ref().map(Given::get)).ok().flatten()
}

/// Calls through `gate` that are noted now. Exact behind [`barrier`], where the gate was shut
/// before.
pub(super) fn count(gate: &Gate) -> u64 {
    let threads = THREADS.lock();
    let places = threads.iter().flat_map(|thread| &thread.gates);
    let noted = places.filter(|place| std::ptr::eq(place.load(Ordering::Acquire), gate));
    noted.count() as u64
}

/// Makes every thread of this process execute a memory barrier.
pub(super) fn barrier() {
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
pub(super) fn prepare() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let thread = std::thread::Builder::new().name("presence".to_owned());
        // Without a thread, the first call does it.
        drop(thread.spawn(has_barrier));
    });
}

/// Whether this kernel has it, and has been told that this process uses it.
fn has_barrier() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
