//! Whose turn it is before the dynamic linker, of the threads that load into this process.
//!
//! The linker lets only one in at a time. Threads that wait at its own lock, in the middle of
//! mapping a library, make processors interrupt one another; here they wait before it, while
//! others copy and hash what they will open.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a load has the linker for itself. Most are through long before. What takes longer
/// is busy with its own constructors, and others overtake it as far as the linker lets them.
const OVERTAKEN_AFTER: Duration = Duration::from_millis(3);

static DOOR: Mutex<Door> = Mutex::new(Door { last: 0, inside_since: None });
/// The linker is free.
static FREED: Condvar = Condvar::new();

struct Door {
    /// Number of the turn that was given last.
    last: u64,
    /// Since when that turn is on; `None` when it is over.
    inside_since: Option<Instant>,
}

/// A turn; it is over when this is dropped.
pub(super) struct Turn(u64);

/// Waits for a turn.
pub(super) fn turn() -> Turn {
    let mut door = door();
    while let Some(since) = door.inside_since {
        let left = OVERTAKEN_AFTER.saturating_sub(since.elapsed());
        if left.is_zero() {
            break;
        }
        door = FREED.wait_timeout(door, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    door.last += 1;
    door.inside_since = Some(Instant::now());
    Turn(door.last)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut door = door();
        // Who was overtaken ends nobody else's turn.
        if door.last == self.0 {
            door.inside_since = None;
            drop(door);
            FREED.notify_one();
        }
    }
}

/// Nothing that can panic happens while it is held.
fn door() -> MutexGuard<'static, Door> {
    DOOR.lock().unwrap_or_else(PoisonError::into_inner)
}
