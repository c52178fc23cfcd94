//! The wall clock, in milliseconds since 1970. Stored times are these.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now. A clock before 1970 counts as 1970: times here order and describe, and decide nothing.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The system's form of a stored time.
pub(crate) fn system_time(at_ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0))
}

/// HTTP dates have whole seconds; comparisons with them need the same.
pub(crate) fn whole_seconds(at_ms: i64) -> SystemTime {
    system_time(at_ms - at_ms.rem_euclid(1000))
}
