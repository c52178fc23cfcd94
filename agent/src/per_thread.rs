//! What each thread keeps for itself and others may read.
//!
//! It is looked up at each call, so it costs no more than a load: what a thread was given is there
//! for ever, and another thread's once it has ended. There are as many as there were threads at one
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One `T` for each thread that asked for it.
pub(crate) struct PerThread<T: 'static>(Mutex<All<T>>);

/// All of them, behind the lock.
pub(crate) struct All<T: 'static> {
    given: Vec<&'static T>,
    left: Vec<&'static T>,
}

impl<T: Default> PerThread<T> {
    pub(crate) const fn new() -> Self {
        PerThread(Mutex::new(All { given: Vec::new(), left: Vec::new() }))
    }

    /// One for a thread that begins, as the thread before it has left it.
    pub(crate) fn give(&self) -> &'static T {
        let mut all = self.lock();
        let given = all.left.pop().unwrap_or_else(|| Box::leak(Box::default()));
        all.given.push(given);
        given
    }

    /// It is nobody's any more, once `leave` is through with it.
    pub(crate) fn take_back(&self, given: &'static T, leave: impl FnOnce(&T)) {
        let mut all = self.lock();
        leave(given);
        all.given.retain(|one| !std::ptr::eq(*one, given));
        all.left.push(given);
    }

    /// Keeps others from looking at them, and from changing what is changed behind this lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, All<T>> {
        // It is never left half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> All<T> {
    /// Those of threads that live.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        self.given.iter().copied()
    }
}
