//! Giving a [`Kept`] to each thread that asks for one.
//!
//! It is looked up at each call, so it costs no more than a load: what a thread was given is there
//! for ever, and another thread's once it has ended. There are as many as there were threads at one
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Kept, here};

/// Those of threads that live and have served a call, and those that threads have left.
static ALL: Mutex<All> = Mutex::new(All { given: Vec::new(), left: Vec::new() });

/// All of them, behind the lock.
pub(super) struct All {
    given: Vec<&'static Kept>,
    left: Vec<&'static Kept>,
}

/// Keeps others from looking at them, and from changing what is changed behind this lock.
pub(super) fn lock() -> MutexGuard<'static, All> {
    // It is never left half-changed.
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl All {
    /// Those of threads that live.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static Kept> {
        self.given.iter().copied()
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
        all.given.push(kept);
        here(|here| here.kept.set(Some(kept)));
        Given(kept)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        here(|here| here.kept.set(None));
        let mut all = lock();
        self.0.places.hand_in();
        all.given.retain(|one| !std::ptr::eq(*one, self.0));
        all.left.push(self.0);
    }
}
