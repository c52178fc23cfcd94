//! Giving a [`Kept`] to each thread that asks for one.
//!
//! It is looked up at each call, so it costs no more than a load: what a thread was given is there
//! for ever, and another thread's once it has ended. There are as many as there were threads at one
//! time.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::place::Place;
use super::{Kept, here};

/// Those of threads that live and have served a call, and those that threads have left.
static ALL: Mutex<All> = Mutex::new(All { given: Vec::new(), left: Vec::new() });

/// All of them, behind the lock.
pub(super) struct All {
    given: Vec<Of>,
    left: Vec<&'static Kept>,
}

/// What others read of a thread that lives.
struct Of {
    kept: &'static Kept,
    /// The place that the thread has at hand: in memory of its own.
    near: NonNull<Place>,
}

// SAFETY: places are made of atomic numbers, and the thread that has this one at hand takes it away
// from here before its memory goes.
unsafe impl Send for Of {}

/// Keeps others from looking at them, and from changing what is changed behind this lock.
pub(super) fn lock() -> MutexGuard<'static, All> {
    // It is never left half-changed.
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl All {
    /// The places of a plugin in threads that live.
    pub(super) fn places(&self, number: u64) -> impl Iterator<Item = &Place> {
        let places = self.given.iter().flat_map(move |of| {
            // SAFETY: it is here, so its thread is, and the lock keeps it from leaving.
            let near = unsafe { of.near.as_ref() };
            [near.is_of(number).then_some(near), of.kept.places.of(number)]
        });
        places.flatten()
    }
}

/// What a thread was given, until it ends. To be kept in a variable of the thread.
pub(super) struct Given(pub(super) &'static Kept);

impl Given {
    /// Gives this thread one, as the thread before it has left it, and puts it where it is looked
    /// up.
    pub(super) fn new() -> Given {
        let mut all = lock();
        let kept = all.left.pop().unwrap_or_else(|| Box::leak(Box::default()));
        here(|here| {
            all.given.push(Of { kept, near: NonNull::from(&here.near) });
            here.kept.set(Some(kept));
        });
        Given(kept)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut all = lock();
        here(|here| {
            here.kept.set(None);
            here.near.hand_to(0, None, &self.0.rest_of_near);
        });
        self.0.places.hand_in();
        all.given.retain(|one| !std::ptr::eq(one.kept, self.0));
        all.left.push(self.0);
    }
}
