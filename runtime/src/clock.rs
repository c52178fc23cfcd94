//! The one place where processes read the system clock for decisions.

use std::time::{SystemTime, UNIX_EPOCH};

use modunest_core::time::Timestamp;

/// The system clock. A clock before 1970 reads as 1970, so that nothing looks fresh by it.
pub fn now() -> Timestamp {
    let since = system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The same clock as the operating system has it, for what is only written down.
#[allow(clippy::disallowed_methods, reason = "this is the shells' clock; decisions take `now`")]
pub fn system_time() -> SystemTime {
    SystemTime::now()
}
