//! What each thread keeps for itself and others may read.
//!
//! It is looked up at each call, so it costs no more than a load: what a thread was given is there
//! for ever, and another thread's once it has ended. There are as many as there were threads at one
//! time.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::LocalKey;

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

    /// Gives this thread one, as the thread before it has left it, and puts it where it is looked
    /// up: `here`. At the thread's end, `leave` is through with it before it is another's.
    pub(crate) fn give(
        &'static self,
        here: &'static LocalKey<Cell<Option<&'static T>>>,
        leave: fn(&T),
    ) -> Given<T> {
        let mut all = self.lock();
        let given = all.left.pop().unwrap_or_else(|| Box::leak(Box::default()));
        all.given.push(given);
        here.set(Some(given));
        Given { of: self, given, here, leave }
    }
}

impl<T> PerThread<T> {
    /// Keeps others from looking at them, and from changing what is changed behind this lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, All<T>> {
        // It is never left half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread was given, until it ends. To be kept in a variable of the thread.
pub(crate) struct Given<T: 'static> {
    of: &'static PerThread<T>,
    given: &'static T,
    here: &'static LocalKey<Cell<Option<&'static T>>>,
    leave: fn(&T),
}

impl<T> Given<T> {
    pub(crate) fn get(&self) -> &'static T {
        self.given
    }
}

impl<T> Drop for Given<T> {
    fn drop(&mut self) {
        self.here.set(None);
        let mut all = self.of.lock();
        (self.leave)(self.given);
        all.given.retain(|one| !std::ptr::eq(*one, self.given));
        all.left.push(self.given);
    }
}

impl<T> All<T> {
    /// Those of threads that live.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        self.given.iter().copied()
    }
}
