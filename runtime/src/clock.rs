//! The one place where processes read the system clock for decisions.

use std::time::{SystemTime, UNIX_EPOCH};

use modunest_core::time::Timestamp;

/// The system clock. A clock before 1970 reads as 1970, so that nothing looks fresh by it.
#[allow(clippy::disallowed_methods, reason = "this is the shells' clock; decisions take `now`")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
