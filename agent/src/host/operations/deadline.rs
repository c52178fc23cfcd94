//! Until when a plugin waits.

use std::time::Duration;

use modunest_sdk::Error;

/// A moment on the wall clock, or never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    /// Unix milliseconds; zero for never.
    at_ms: u64,
}

impl Deadline {
    /// At this moment in Unix milliseconds; zero for never.
    pub(crate) const fn at(at_ms: u64) -> Self {
        Deadline { at_ms }
    }

    /// What is left, `most` at most.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] when nothing is left.
    pub(crate) fn left(self, most: Duration) -> Result<Duration, Error> {
        if self.at_ms == 0 {
            return Ok(most);
        }
        let now_ms = modunest_runtime::clock::now().as_millis();
        match self.at_ms.checked_sub(now_ms) {
            Some(left_ms) if left_ms > 0 => Ok(most.min(Duration::from_millis(left_ms))),
            _ => Err(exceeded()),
        }
    }
}

/// The deadline of the call passed while the host was at work.
pub(super) fn exceeded() -> Error {
    Error::DeadlineExceeded("before the host was done".to_owned())
}
