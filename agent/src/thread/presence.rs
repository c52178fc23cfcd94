//! Which calls every thread serves, noted without an atomic addition.
//!
//! A thread notes the gate that a call of its went through in a place that nobody else writes, and
//! looks at the gate afterwards; whoever waits for the last call shuts the gate, and looks at
//! the places of all threads afterwards. For one of the two to see the other, both need a memory
//! barrier between their write and their look. A barrier costs a call as much as all the rest of
//! its bookkeeping, so only the one who waits pays: `membarrier(2)` makes every running thread of
//! the process execute one.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::sync::{Once, OnceLock};

use super::{Kept, given, kept_or_made};

/// Calls inside one another that a thread notes.
pub(crate) const PLACES: usize = 16;

/// The gates that the calls of one thread went through, by how deep the calls are inside one
/// another; null where there is none. The first few need one line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Ways([AtomicPtr<()>; PLACES]);

impl Default for Ways {
    /// With all places free. Where this kernel has no such barrier, none is, ever.
    fn default() -> Self {
        let free = || if has_barrier() { ptr::null_mut() } else { ptr::dangling_mut() };
        Ways(std::array::from_fn(|_| AtomicPtr::new(free())))
    }
}

/// A noted call, until [`Place::leave`]. It stays on its thread.
#[derive(Debug)]
pub(crate) struct Place {
    kept: &'static Kept,
    depth: u32,
    _here: PhantomData<*const ()>,
}

impl Place {
    /// Notes a call that is `depth` calls deep and goes through `gate`, before anybody looks whether
    /// that is open. `None` where this thread cannot: so deep it notes none, or one has the place, as
    /// where a thread that serves a call goes on with another meanwhile.
    pub(crate) fn take<G>(depth: u32, gate: &G) -> Option<Place> {
        Self::take_of(kept_or_made()?, depth, gate)
    }

    /// The same, of what this thread is known to keep.
    #[inline(always)]
    pub(crate) fn take_of<G>(kept: &'static Kept, depth: u32, gate: &G) -> Option<Place> {
        let place = kept.ways.0.get(depth as usize)?;
        if !place.load(Ordering::Relaxed).is_null() {
            return None;
        }
        place.store(address(gate), Ordering::Release);
        // The look follows in the program; in the processor, by the barrier of who waits.
        compiler_fence(Ordering::SeqCst);
        Some(Place { kept, depth, _here: PhantomData })
    }

    /// The call ends, before anybody looks whether somebody waits.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        if let Some(place) = self.kept.ways.0.get(self.depth as usize) {
            place.store(ptr::null_mut(), Ordering::Release);
        }
        compiler_fence(Ordering::SeqCst);
    }
}

fn address<G>(gate: &G) -> *mut () {
    ptr::from_ref(gate).cast_mut().cast()
}

/// Calls through `gate` that are noted now. Exact behind [`barrier`], where the gate was shut
/// before.
pub(crate) fn count<G>(gate: &G) -> u64 {
    let threads = given::lock();
    let places = threads.iter().flat_map(|kept| &kept.ways.0);
    let noted = places.filter(|place| ptr::eq(place.load(Ordering::Acquire), address(gate)));
    noted.count() as u64
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
fn has_barrier() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
