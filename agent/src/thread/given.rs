//! What each thread keeps for itself and others may read.
//!
//! It is looked up at each call, so it costs no more than a load: what a thread was given is there
//! for ever, and another thread's once it has ended. There are as many as there were threads at one
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One `T` for each thread that asked for it.
pub(super) struct PerThread<T: 'static>(Mutex<All<T>>);

/// All of them, behind the lock.
pub(super) struct All<T: 'static> {
    given: Vec<&'static T>,
    left: Vec<&'static T>,
}

impl<T: Default> PerThread<T> {
    pub(super) const fn new() -> Self {
        PerThread(Mutex::new(All { given: Vec::new(), left: Vec::new() }))
    }

    /// Gives this thread one, as the thread before it has left it, and has it `put` where it is
    /// looked up; nothing in its place at the thread's end, and `leave` is through with it before it
    /// is another's.
    pub(super) fn give(&'static self, put: fn(Option<&'static T>), leave: fn(&T)) -> Given<T> {
        let mut all = self.lock();
        let given = all.left.pop().unwrap_or_else(|| Box::leak(Box::default()));
        all.given.push(given);
        put(Some(given));
        Given { of: self, given, put, leave }
    }
}

impl<T> PerThread<T> {
    /// Keeps others from looking at them, and from changing what is changed behind this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, All<T>> {
        // It is never left half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread was given, until it ends. To be kept in a variable of the thread.
pub(super) struct Given<T: 'static> {
    of: &'static PerThread<T>,
    given: &'static T,
    put: fn(Option<&'static T>),
    leave: fn(&T),
}

impl<T> Given<T> {
    pub(super) fn get(&self) -> &'static T {
        self.given
    }
}

impl<T> Drop for Given<T> {
    fn drop(&mut self) {
        (self.put)(None);
        let mut all = self.of.lock();
        (self.leave)(self.given);
        all.given.retain(|one| !std::ptr::eq(*one, self.given));
        all.left.push(self.given);
    }
}

impl<T> All<T> {
    /// Those of threads that live.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static T> {
        self.given.iter().copied()
    }
}
